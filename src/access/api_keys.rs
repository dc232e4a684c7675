//! API keys: random tokens that a file knows by their hashes.
//!
//! Owns the form of a key and of the file. A key is `ifk_`, its id, `_`, and 256 random bits; the file keeps the id, which is no secret, and
//! the SHA-256 of the whole. A hash of so much chance needs no salt and no slowness.
//!
//! Invariants: hashes are compared in constant time, and in no other way: `Hash` has no `==`; an id that is not known takes as long as
//! one that is.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{Credential, CredentialsError, Refused, read_file};
use crate::{
    domain::{Permissions, Principal, Standing},
    protocol::{Secret, Timestamp, is_name},
};

/// What every key begins with, so that those who look for leaked ones find them.
pub(super) const PREFIX: &str = "ifk_";

/// The SHA-256 of a key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }

    fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut hash = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 2 * hash.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("a SHA-256 has 64 hexadecimal digits");
        }
        for (byte, digits) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
            *byte = digit(digits[0]) << 4 | digit(digits[1]);
        }
        Ok(Self(hash))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash")
    }
}

/// What the file says of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// 16 hexadecimal digits; no secret.
    pub id: String,
    /// Whom it speaks for.
    pub name: String,
    /// Of the key.
    pub sha256: Hash,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it grants.
    pub permissions: Permissions,
}

/// The file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// In the order in which they were made.
    pub keys: Vec<ApiKey>,
}

impl KeyFile {
    /// What the file at `path` says.
    ///
    /// # Errors
    /// If it can't be read, or is no such file.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let bad = |problem: String| CredentialsError::bad(path.display(), problem);
        let file: Self = serde_json::from_str(&read_file(path)?)
            .map_err(|error| bad(format!("is no file of API keys: {error}")))?;
        for key in &file.keys {
            if !is_name(&key.name) {
                return Err(bad(format!("names the key {} after nobody", key.id)));
            }
            if file.keys.iter().filter(|one| one.id == key.id).count() > 1 {
                return Err(bad(format!("has the key {} twice", key.id)));
            }
        }
        Ok(file)
    }

    /// Adds a key, and returns the token that it is given by. It is not kept.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn add(
        &mut self,
        name: String,
        permissions: Permissions,
        created: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<Secret, CredentialsError> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        rand::fill(&mut id)
            .and_then(|()| rand::fill(&mut secret))
            .map_err(|_| CredentialsError::bad("the system", "has no random bytes"))?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        self.keys.push(ApiKey {
            id,
            name,
            sha256: Hash::of(&token),
            created,
            expires,
            permissions,
        });
        Ok(token.into())
    }

    /// Puts the file in the place of the one at `path`, whole or not at all. Only its owner can read a new one.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut aside = PathBuf::from(path).into_os_string();
        aside.push(".new");
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        if let Ok(before) = fs::metadata(path) {
            file.set_permissions(before.permissions())?;
            // Only root can: whoever else writes here owns both.
            let _ = fchown(&file, Some(before.uid()), Some(before.gid()));
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    }
}

/// What a key says by itself: its id.
pub(super) fn told(token: &str) -> Option<Credential> {
    let (id, _) = token.strip_prefix(PREFIX)?.split_once('_')?;
    Some(Credential {
        kind: format!("API key {id}"),
        name: None,
        expires: None,
        permissions: None,
        is_good: None,
        refused: None,
    })
}

/// The keys that tokens are judged with, by id.
#[derive(Debug, Default)]
pub(super) struct ApiKeys(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    hash: Hash,
    expires: Option<Timestamp>,
    permissions: Arc<Permissions>,
    standing: Standing,
}

impl ApiKeys {
    pub(super) fn read(path: &Path) -> Result<Self, CredentialsError> {
        Ok(Self::of(KeyFile::read(path)?))
    }

    fn of(file: KeyFile) -> Self {
        let known = file.keys.into_iter().map(|key| {
            let known = Known {
                name: key.name.into(),
                hash: key.sha256,
                expires: key.expires,
                permissions: Arc::new(key.permissions),
                standing: Standing::default(),
            };
            (key.id, known)
        });
        Self(known.collect())
    }

    /// These take the place of `before`: what is the same stands as it did, what is gone is revoked.
    pub(super) fn instead_of(mut self, before: &Self) -> Self {
        for (id, old) in &before.0 {
            match self.0.get_mut(id).filter(|new| new.hash.is(&old.hash)) {
                None => old.standing.revoke(),
                Some(new)
                    if new.permissions == old.permissions
                        && new.name == old.name
                        && new.expires == old.expires =>
                {
                    new.standing = old.standing.clone();
                }
                Some(_) => old.standing.change(),
            }
        }
        self
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn judge(&self, token: &str, now: Timestamp) -> Result<Principal, Refused> {
        const NOBODYS: Hash = Hash([0; 32]);
        let rest = token.strip_prefix(PREFIX).ok_or(Refused::Malformed)?;
        let (id, _) = rest.split_once('_').ok_or(Refused::Malformed)?;
        let known = self.0.get(id);
        let is_right = known
            .map_or(&NOBODYS, |known| &known.hash)
            .is(&Hash::of(token));
        let known = known.filter(|_| is_right).ok_or(Refused::Unknown)?;
        if known.expires.is_some_and(|expires| expires <= now) {
            return Err(Refused::Expired);
        }
        Ok(Principal {
            name: Some(Arc::clone(&known.name)),
            permissions: Arc::clone(&known.permissions),
            expires: known.expires,
            standing: known.standing.clone(),
        })
    }
}
