//! The settings by which clients prove who they are, and what is granted: for the server, and for those who make tokens.
//!
//! A secret that is given badly is never said again: its reader takes any text, and what is wrong is told by its length.

use std::path::PathBuf;

use clap::Args;
use infotainer::{
    config::{Credentials, Given},
    domain::{Pattern, Permission, Permissions},
    protocol::{Secret, is_name},
};

use super::values;

/// By what clients prove who they are.
#[derive(Args, Clone, Debug)]
pub(super) struct CredentialsArgs {
    /// The secret of tokens signed with HS256, at least 32 random bytes; others can see a flag, so give the variable or a file
    /// [default: none]
    #[arg(long, env = "INFOTAINER_JWT_SECRET", value_name = "SECRET", value_parser = values::secret)]
    #[arg(hide_env_values = true, conflicts_with = "jwt_secret_file")]
    jwt_secret: Option<Secret>,

    /// The file with that secret; it is read again on SIGHUP, as all of these files are [default: none]
    #[arg(long, env = "INFOTAINER_JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,

    /// The public key, in PEM, of tokens signed with RS256, ES256 or EdDSA [default: none]
    #[arg(long, env = "INFOTAINER_JWT_PUBLIC_KEY", value_name = "PEM", value_parser = values::secret)]
    #[arg(hide_env_values = true, conflicts_with = "jwt_public_key_file")]
    jwt_public_key: Option<Secret>,

    /// The file with that key [default: none]
    #[arg(long, env = "INFOTAINER_JWT_PUBLIC_KEY_FILE", value_name = "FILE")]
    jwt_public_key_file: Option<PathBuf>,

    /// The file with a JWK set of such public keys [default: none]
    #[arg(long, env = "INFOTAINER_JWKS_FILE", value_name = "FILE")]
    jwks_file: Option<PathBuf>,

    /// What the aud of a token has to be or to hold [default: a token may have none]
    #[arg(long, env = "INFOTAINER_JWT_AUDIENCE", value_name = "TEXT")]
    jwt_audience: Option<String>,

    /// What the iss of a token has to be [default: anything]
    #[arg(long, env = "INFOTAINER_JWT_ISSUER", value_name = "TEXT")]
    jwt_issuer: Option<String>,

    /// The file of API keys that infotainer key writes [default: none]
    #[arg(long, env = "INFOTAINER_API_KEYS_FILE", value_name = "FILE")]
    api_keys_file: Option<PathBuf>,
}

/// A credential, as it was given.
pub(super) fn given(value: Option<&Secret>, file: Option<&PathBuf>) -> Option<Given> {
    match (value, file) {
        (Some(value), _) => Some(Given::Value(value.clone())),
        (None, Some(file)) => Some(Given::File(file.clone())),
        (None, None) => None,
    }
}

impl CredentialsArgs {
    pub(super) fn credentials(&self) -> Credentials {
        Credentials {
            jwt_secret: given(self.jwt_secret.as_ref(), self.jwt_secret_file.as_ref()),
            jwt_public_key: given(
                self.jwt_public_key.as_ref(),
                self.jwt_public_key_file.as_ref(),
            ),
            jwks_file: self.jwks_file.clone(),
            jwt_audience: self.jwt_audience.clone(),
            jwt_issuer: self.jwt_issuer.clone(),
            api_keys_file: self.api_keys_file.clone(),
        }
    }
}

/// Whom a token or a key speaks for. The last of a command's arguments: those behind it would stand under the heading of the permissions.
#[derive(Args, Clone, Debug)]
pub(super) struct HolderArgs {
    /// Whom it speaks for: a name of 1 to 255 bytes
    #[arg(value_name = "IDENTITY", value_parser = identity)]
    pub(super) identity: String,

    #[command(flatten)]
    pub(super) permissions: PermissionsArgs,
}

fn identity(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name of 1 to 255 bytes without control characters".to_owned())
    }
}

/// What a token or a key grants.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Permissions")]
pub(super) struct PermissionsArgs {
    /// Be served what is and was published
    #[arg(long, value_name = "NAME", value_parser = values::pattern)]
    subscribe: Vec<Pattern>,

    /// Publish
    #[arg(long, value_name = "NAME", value_parser = values::pattern)]
    publish: Vec<Pattern>,

    /// Read the log and see the settings
    #[arg(long, value_name = "NAME", value_parser = values::pattern)]
    read: Vec<Pattern>,

    /// Acknowledge, reject and extend
    #[arg(long, value_name = "NAME", value_parser = values::pattern)]
    acknowledge: Vec<Pattern>,

    /// Make, change, see and delete the subscription
    #[arg(long, value_name = "NAME", value_parser = values::pattern)]
    manage: Vec<Pattern>,

    /// All of these
    #[arg(long, value_name = "NAME", value_parser = values::pattern)]
    all: Vec<Pattern>,
}

/// How the flags above are given.
pub(super) const PERMISSIONS: &str = "\
A permission is for a NAME: that of a subscription, names that begin alike (orders.*), a UUID, or '*' for all. Each flag may be given more \
than once. Nothing is allowed that is not granted.";

impl PermissionsArgs {
    pub(super) fn permissions(self) -> Permissions {
        let Self {
            subscribe,
            publish,
            read,
            acknowledge,
            manage,
            all,
        } = self;
        let mut permissions = Permissions {
            subscribe,
            publish,
            read,
            acknowledge,
            manage,
        };
        for permission in Permission::ALL {
            let granted = permissions.of_mut(permission);
            granted.extend(all.iter().cloned());
        }
        permissions
    }
}

/// Every permission that is granted and what for, as a line for people.
pub(super) fn shown(permissions: &Permissions) -> String {
    let granted = Permission::ALL.into_iter().filter_map(|permission| {
        let patterns = permissions.of(permission);
        let names: Vec<_> = patterns.iter().map(Pattern::to_string).collect();
        (!names.is_empty()).then(|| format!("{} {}", permission.name(), names.join(", ")))
    });
    let granted: Vec<_> = granted.collect();
    if granted.is_empty() {
        return "nothing".to_owned();
    }
    granted.join("; ")
}
