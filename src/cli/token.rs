//! `infotainer token`: makes tokens, and says what is in one.
//!
//! Owns nothing of how tokens are judged: that is the library's. No server is asked.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use infotainer::{
    access::{
        Credential, CredentialsError,
        jwt::{Claims, SigningKey},
    },
    protocol::Secret,
};

use super::{
    Failure,
    credentials::{CredentialsArgs, HolderArgs, PERMISSIONS, given, shown},
    output::Output,
    print::Utc,
    values,
};

/// Makes and shows the tokens (JWT) by which clients prove who they are
#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Create(Box<CreateArgs>),
    Inspect(Box<InspectArgs>),
}

/// Prints a token, signed with the server's secret or with a private key
#[derive(Args, Debug)]
#[command(after_help = format!("{PERMISSIONS}\n{}", values::UNITS))]
struct CreateArgs {
    /// How long it is good
    #[arg(long, value_name = "DURATION", value_parser = values::duration, default_value = "1h")]
    ttl: Duration,

    /// The secret, for HS256
    #[arg(long, env = "INFOTAINER_JWT_SECRET", value_name = "SECRET", value_parser = values::secret)]
    #[arg(hide_env_values = true, conflicts_with = "jwt_secret_file")]
    jwt_secret: Option<Secret>,

    /// The file with that secret
    #[arg(long, env = "INFOTAINER_JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<PathBuf>,

    /// The file with a private key in PEM instead: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,

    /// The id of the key in the server's JWK set
    #[arg(long, value_name = "KID")]
    kid: Option<String>,

    /// For whom it is
    #[arg(long, env = "INFOTAINER_JWT_AUDIENCE", value_name = "TEXT")]
    jwt_audience: Option<String>,

    /// Whose it is
    #[arg(long, env = "INFOTAINER_JWT_ISSUER", value_name = "TEXT")]
    jwt_issuer: Option<String>,

    #[command(flatten)]
    holder: HolderArgs,
}

/// Says what is in a token, and whether a server with these credentials would take it
///
/// Exit code 4 means that it would not. Without credentials nothing is judged.
#[derive(Args, Debug)]
struct InspectArgs {
    /// The token; - reads it from stdin, where other users of this machine can't see it
    #[arg(value_name = "TOKEN", value_parser = values::secret, default_value = "-", hide_default_value = true)]
    token: Secret,

    #[command(flatten)]
    credentials: CredentialsArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: TokenArgs) -> Result<(), Failure> {
    match args.what {
        What::Create(args) => create(*args),
        What::Inspect(args) => inspect(&args),
    }
}

fn create(args: CreateArgs) -> Result<(), Failure> {
    let key = match &args.private_key_file {
        Some(path) => {
            let pem = fs::read_to_string(path).map_err(|error| {
                Failure::Failed(format!("{} can't be read: {error}", path.display()))
            })?;
            SigningKey::of_pem(&pem).map_err(bad)?
        }
        None => {
            let secret = given(args.jwt_secret.as_ref(), args.jwt_secret_file.as_ref());
            let secret = secret.ok_or_else(|| {
                let what = "a token is signed with INFOTAINER_JWT_SECRET, INFOTAINER_JWT_SECRET_FILE or --private-key-file";
                Failure::Usage(what.to_owned())
            })?;
            let secret = secret.read().map_err(bad)?;
            SigningKey::of_secret(secret.reveal()).map_err(bad)?
        }
    };
    let now = seconds();
    let claims = Claims {
        sub: args.holder.identity,
        exp: now + args.ttl.as_secs_f64(),
        nbf: None,
        iat: Some(now),
        aud: args.jwt_audience.map(Into::into),
        iss: args.jwt_issuer.map(Into::into),
        infotainer: args.holder.permissions.permissions(),
    };
    let token = key.sign(&claims, args.kid).map_err(bad)?;
    let mut out = Output::new();
    out.write(format!("{token}\n").as_bytes())?;
    out.flush()
}

/// Seconds since 1970, whole ones, as everybody writes them.
fn seconds() -> f64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    now.as_secs() as f64
}

fn bad(error: CredentialsError) -> Failure {
    Failure::Usage(error.to_string())
}

fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let mut text = args.token.reveal().to_owned();
    if text == "-" {
        text.clear();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::Failed(format!("stdin can't be read: {error}")))?;
    }
    let credentials = args.credentials.credentials();
    let inspected = Credential::inspect(text.trim(), &credentials)
        .map_err(bad)?
        .ok_or_else(|| Failure::Usage("this is neither a JWT nor an API key".to_owned()))?;
    let mut out = Output::new();
    if args.json {
        out.json(&inspected)?;
    } else {
        out.write(lines(&inspected).as_bytes())?;
    }
    out.flush()?;
    match inspected.refused {
        Some(refused) => Err(Failure::Refused(format!(
            "the token is not good here: {refused}"
        ))),
        None => Ok(()),
    }
}

fn lines(inspected: &Credential) -> String {
    let Credential {
        kind,
        name,
        expires,
        permissions,
        is_good,
        ..
    } = inspected;
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "not told".to_owned());
    let verdict = match is_good {
        Some(true) => "good here",
        Some(false) => "not good here",
        None => "not judged: no credentials are given",
    };
    format!(
        "kind:     {kind}\nidentity: {}\nends:     {}\ngrants:   {}\nverdict:  {verdict}\n",
        or_unknown(name.clone()),
        or_unknown(expires.map(|expires| Utc(expires).to_string())),
        or_unknown(permissions.as_ref().map(shown)),
    )
}
