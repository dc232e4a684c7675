//! Who may come in: what a token proves.
//!
//! Owns the credentials that the server was given, and when they are read again. Does not own what somebody may do once they are in
//! ([`Permissions`]), nor how a token comes over the wire.
//!
//! ```text
//!   settings, files ──read──> Store { jwt keys, API keys } ──token──> Principal, or Unauthorized
//! ```
//!
//! Invariants: without credentials everybody is anonymous, with them nobody is; no token and no secret is ever logged, nor part of an error;
//! what can't be read changes nothing.

pub mod api_keys;
pub mod jwt;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use serde::Serialize;

use self::{api_keys::ApiKeys, jwt::TokenKeys};
use crate::{
    config::{Credentials, Given},
    counted,
    domain::{Permissions, Principal},
    metrics::{AuthFailures, labels::AuthFailure},
    protocol::{MAX_TOKEN, Secret, Timestamp},
};

/// The longest file of credentials.
const MAX_FILE: u64 = 16 << 20;

/// How a connection may begin.
#[derive(Clone, Debug)]
pub(crate) enum Admission {
    /// It speaks for this principal.
    Granted(Principal),
    /// Its first command has to say for whom.
    Awaited,
    /// Its token is not good, which a browser learns from a Close frame only.
    Refused,
}

/// Judges tokens. Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Authenticator {
    credentials: Credentials,
    store: ArcSwap<Store>,
    failures: Arc<AuthFailures>,
}

/// The credentials as they were read.
#[derive(Debug, Default)]
struct Store {
    jwt: TokenKeys,
    api_keys: ApiKeys,
}

/// A token that proves nothing here. Why is not told to whoever sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the token is not good here")]
pub(crate) struct Unauthorized;

/// Why a token is refused, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants say it in their messages")]
pub enum Refused {
    #[error("it is no token")]
    Malformed,
    #[error("no key is for its algorithm")]
    Algorithm,
    #[error("its signature is wrong")]
    Signature,
    #[error("its claims are not those of a token for this server")]
    Claims,
    #[error("it is over")]
    Expired,
    #[error("it is not valid yet")]
    Early,
    #[error("it is for another audience")]
    Audience,
    #[error("it is of another issuer")]
    Issuer,
    #[error("no such API key is known")]
    Unknown,
}

impl Refused {
    /// What it is counted as.
    fn counted(self) -> AuthFailure {
        match self {
            Self::Expired | Self::Early => AuthFailure::Expired,
            Self::Malformed
            | Self::Algorithm
            | Self::Signature
            | Self::Claims
            | Self::Audience
            | Self::Issuer
            | Self::Unknown => AuthFailure::Invalid,
        }
    }
}

/// Why credentials can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants say it in their messages")]
pub enum CredentialsError {
    #[error("{} can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{what} {problem}")]
    Bad { what: String, problem: String },
}

impl CredentialsError {
    fn bad(what: impl ToString, problem: impl Into<String>) -> Self {
        Self::Bad {
            what: what.to_string(),
            problem: problem.into(),
        }
    }
}

impl Authenticator {
    /// Judges by these credentials.
    ///
    /// # Errors
    /// If some can't be used.
    pub(crate) fn new(credentials: Credentials) -> Result<Self, CredentialsError> {
        let store = Store::read(&credentials)?;
        Ok(Self {
            credentials,
            store: ArcSwap::from_pointee(store),
            failures: Arc::default(),
        })
    }

    /// Whether everybody may come in, and do everything.
    pub(crate) fn is_open(&self) -> bool {
        self.credentials.is_empty()
    }

    /// How often somebody was not let in, and why.
    pub(crate) fn failures(&self) -> &Arc<AuthFailures> {
        &self.failures
    }

    /// Whom `token` speaks for. Where the server is open, that is anybody.
    ///
    /// # Errors
    /// If it proves nothing.
    pub(crate) fn authenticate(&self, token: &str) -> Result<Principal, Unauthorized> {
        if self.is_open() {
            return Ok(Principal::anonymous());
        }
        self.store.load().judge(token, now()).map_err(|why| {
            self.failures.of(why.counted()).add_one();
            log::debug!("a token is refused: {why}");
            Unauthorized
        })
    }

    /// Reads all credentials again; what is not the same any more is marked so in the principals that came by it. Returns how many there are.
    ///
    /// # Errors
    /// If some can't be used: then all stay as they were.
    pub(crate) fn reload(&self) -> Result<String, CredentialsError> {
        let store = Store::read(&self.credentials)?;
        let before = self.store.load();
        let store = Store {
            jwt: store.jwt.instead_of(&before.jwt),
            api_keys: store.api_keys.instead_of(&before.api_keys),
        };
        let (jwt, api_keys) = (store.jwt.count(), store.api_keys.count());
        self.store.store(Arc::new(store));
        Ok(format!(
            "{} for JWT, {}",
            counted(jwt, "key", "keys"),
            counted(api_keys, "API key", "API keys")
        ))
    }
}

impl Store {
    fn read(credentials: &Credentials) -> Result<Self, CredentialsError> {
        let api_keys = match &credentials.api_keys_file {
            Some(path) => ApiKeys::read(path)?,
            None => ApiKeys::default(),
        };
        Ok(Self {
            jwt: TokenKeys::read(credentials)?,
            api_keys,
        })
    }

    fn judge(&self, token: &str, now: Timestamp) -> Result<Principal, Refused> {
        if token.len() > MAX_TOKEN {
            return Err(Refused::Malformed);
        }
        if token.starts_with(api_keys::PREFIX) {
            self.api_keys.judge(token, now)
        } else {
            self.jwt.judge(token, now)
        }
    }
}

/// Whether a server could start with these credentials.
///
/// # Errors
/// If some can't be used.
pub fn check(credentials: &Credentials) -> Result<(), CredentialsError> {
    Store::read(credentials).map(drop)
}

/// What a token says, for whoever looks at one.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Credential {
    /// `JWT` with its algorithm, or `API key` with its id.
    pub kind: String,
    /// Whom it speaks for. Of an API key only where its file is known.
    pub name: Option<String>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// What it grants.
    pub permissions: Option<Permissions>,
    /// Whether the server would take it; `None` where there are no credentials to judge it by.
    pub is_good: Option<bool>,
    /// Why it would not.
    #[serde(skip)]
    pub refused: Option<Refused>,
}

impl Credential {
    /// What `token` says, and what a server with these credentials would say to it; `None` if it is no token at all.
    ///
    /// # Errors
    /// If the credentials can't be used.
    pub fn inspect(
        token: &str,
        credentials: &Credentials,
    ) -> Result<Option<Self>, CredentialsError> {
        let Some(mut told) = api_keys::told(token).or_else(|| jwt::told(token)) else {
            return Ok(None);
        };
        if !credentials.is_empty() {
            let judged = Store::read(credentials)?.judge(token, now());
            told.is_good = Some(judged.is_ok());
            match judged {
                Ok(principal) => {
                    told.name = principal.name.as_deref().map(str::to_owned);
                    told.expires = principal.expires;
                    told.permissions = Some((*principal.permissions).clone());
                }
                Err(refused) => told.refused = Some(refused),
            }
        }
        Ok(Some(told))
    }
}

impl Given {
    /// What it says now. The end of the line that a file ends with is not part of it.
    ///
    /// # Errors
    /// If its file can't be read.
    pub fn read(&self) -> Result<Secret, CredentialsError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => {
                let text = read_file(path)?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Ok(Secret::from(text.strip_suffix('\r').unwrap_or(text)))
            }
        }
    }
}

fn read_file(path: &Path) -> Result<String, CredentialsError> {
    let read = || {
        if fs::metadata(path)?.len() > MAX_FILE {
            return Err(io::Error::other("it is larger than 16 MiB"));
        }
        fs::read_to_string(path)
    };
    read().map_err(|source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The wall clock, by which tokens end.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since_epoch.as_millis() as u64)
}

#[cfg(test)]
mod tests;
