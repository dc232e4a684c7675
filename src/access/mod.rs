//! Who may come in: what a token proves.
//!
//! Owns the credentials that the server was given, and when they are read again. Does not own what somebody may do once they are in
//! ([`domain::access`](crate::domain)), nor how a token comes over the wire.
//!
//! Invariants: without credentials everybody is anonymous, with them nobody is; no token and no secret is ever logged.

use crate::domain::Principal;

/// Judges tokens. Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Authenticator {}

/// A token that proves nothing here. Why is not told to whoever sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the token is not good here")]
pub(crate) struct Unauthorized;

#[allow(dead_code, reason = "the handshake and the signals ask next")]
impl Authenticator {
    /// Whether everybody may come in, and do everything.
    pub(crate) fn is_open(&self) -> bool {
        true
    }

    /// Whom `token` speaks for. Where the server is open, that is anybody.
    ///
    /// # Errors
    /// If it proves nothing.
    pub(crate) fn authenticate(&self, _token: &str) -> Result<Principal, Unauthorized> {
        Ok(Principal::anonymous())
    }

    /// Reads all credentials again. If some can't be read, all stay as they were, and that is logged.
    pub(crate) fn reload(&self) {}
}
