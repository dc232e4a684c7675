//! `infotainer key`: the file of API keys.
//!
//! Owns that two of these commands at once lose nothing: a lock beside the file is held from reading it to writing it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use infotainer::{access::api_keys::KeyFile, protocol::Timestamp};
use serde_json::json;

use super::{
    Failure,
    credentials::{HolderArgs, PERMISSIONS, shown},
    output::Output,
    print::Utc,
    progress,
    table::{Column, Table},
    values,
};

/// Makes, lists and revokes API keys, by which back ends prove who they are
///
/// The file holds hashes only. A running server reads it again on SIGHUP; then what was revoked ends, connections too.
#[derive(Args, Debug)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Adds a key to the file, and prints it: this once
#[derive(Args, Debug)]
#[command(after_help = format!("{PERMISSIONS}\n{}", values::UNITS))]
struct CreateArgs {
    /// How long it is good [default: until it is revoked]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    ttl: Option<Duration>,

    #[command(flatten)]
    file: FileArgs,

    #[command(flatten)]
    holder: HolderArgs,
}

/// Prints the keys: who has them, and what they grant
#[derive(Args, Debug)]
struct ListArgs {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    file: FileArgs,
}

/// Removes a key from the file
#[derive(Args, Debug)]
struct RevokeArgs {
    /// The key's id, as the list has it
    id: String,

    #[command(flatten)]
    file: FileArgs,
}

#[derive(Args, Debug)]
struct FileArgs {
    /// The file
    #[arg(
        long = "api-keys-file",
        env = "INFOTAINER_API_KEYS_FILE",
        value_name = "FILE"
    )]
    path: PathBuf,
}

pub(super) fn run(args: KeyArgs) -> Result<(), Failure> {
    match args.what {
        What::Create(args) => create(args),
        What::List(args) => list(&args),
        What::Revoke(args) => revoke(&args),
    }
}

fn create(args: CreateArgs) -> Result<(), Failure> {
    let CreateArgs { ttl, file, holder } = args;
    let now = now();
    let expires = ttl.map(|ttl| Timestamp(now.0.saturating_add(ttl.as_millis() as u64)));
    let token = change(&file.path, |keys| {
        keys.add(
            holder.identity,
            holder.permissions.permissions(),
            now,
            expires,
        )
        .map_err(|error| Failure::Failed(error.to_string()))
    })?;
    let mut out = Output::new();
    out.write(format!("{}\n", token.reveal()).as_bytes())?;
    out.flush()?;
    progress::say(
        "it is not kept and can't be shown again; a running server knows it after SIGHUP"
            .to_owned(),
    );
    Ok(())
}

fn revoke(args: &RevokeArgs) -> Result<(), Failure> {
    change(&args.file.path, |file| {
        let before = file.keys.len();
        file.keys.retain(|key| key.id != args.id);
        if file.keys.len() == before {
            let path = args.file.path.display();
            return Err(Failure::Failed(format!("{path} has no key {}", args.id)));
        }
        Ok(())
    })?;
    progress::say("revoked; a running server knows it after SIGHUP".to_owned());
    Ok(())
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let keys = read(&args.file.path)?.keys;
    let mut out = Output::new();
    if args.json {
        for key in &keys {
            // The hash is for the server.
            out.json(&json!({
                "id": key.id,
                "identity": key.name,
                "created": key.created,
                "expires": key.expires,
                "permissions": key.permissions,
            }))?;
        }
        return out.flush();
    }
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let ends = key
                .expires
                .map_or("never".to_owned(), |expires| Utc(expires).to_string());
            let made = Utc(key.created).to_string();
            [
                key.id.clone(),
                key.name.clone(),
                made,
                ends,
                shown(&key.permissions),
            ]
        })
        .collect();
    let columns = ["ID", "IDENTITY", "CREATED", "ENDS", "GRANTS"].map(|head| Column {
        head,
        is_number: false,
    });
    let table = Table::new(columns, &rows);
    table.head(&mut out)?;
    for row in &rows {
        table.row(row, &mut out)?;
    }
    out.flush()
}

fn now() -> Timestamp {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(now.as_millis() as u64)
}

/// The file; one that is not there has no keys.
fn read(path: &Path) -> Result<KeyFile, Failure> {
    if !path.exists() {
        return Ok(KeyFile::default());
    }
    KeyFile::read(path).map_err(|error| Failure::Failed(error.to_string()))
}

/// Changes the file, while no other of these commands does.
fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut KeyFile) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Failed(format!("{} can't be written: {error}", path.display()))
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let lock = File::create(&beside).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut file = read(path)?;
    let changed = change(&mut file)?;
    file.write(path).map_err(failed)?;
    Ok(changed)
}
