//! What can go wrong, by operation: one matches on the variants, and on the server's [`ErrorCode`] within them.

use std::{io, sync::Arc, time::Duration};

use super::tls;
use crate::protocol::{ErrorCode, PublicationId, ServerError, ServerResponse};

/// Why there is no connection, or no longer one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The URL is none that this client can use.
    #[error(
        "the URL of a server looks like ws://host:port/ws or wss://host:port/ws, not like {0:?}"
    )]
    Url(String),
    /// Nothing listens there, or the network failed.
    #[error("the connection failed: {0}")]
    Io(#[source] Arc<io::Error>),
    /// Server and client do not trust each other's certificates, or one of them does not speak TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// There was no token to give.
    #[error("the token could not be fetched: {0}")]
    Token(String),
    /// The handshake was answered with another status than 101.
    #[error("the server refused the connection with status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The peer does not speak the protocol.
    #[error("the peer does not speak the protocol: {0}")]
    Protocol(String),
    /// There was no `Welcome` within [`Builder::connect_timeout`](super::Builder::connect_timeout).
    #[error("the server did not answer in time")]
    TimedOut,
    /// Nothing was heard from the server for longer than its heartbeats allow.
    #[error("nothing was heard from the server any more")]
    Silent,
    /// The server closed the connection.
    #[error("the server closed the connection with code {code}{}", reason_behind(.reason))]
    Closed {
        /// The WebSocket close code (protocol, section 1).
        code: u16,
        /// A sentence for a person; may be empty.
        reason: String,
    },
    /// The connection ended without a word.
    #[error("the connection broke")]
    Broken,
}

fn reason_behind(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

/// Close codes of RFC 6455 by which a server says that the client broke the rules: it would break them again.
const FAULTS: [u16; 5] = [1002, 1003, 1007, 1008, 1009];

impl ConnectionError {
    /// Whether coming back would not help: a client does not do it by itself then.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Url(_) => true,
            Self::Refused { status, .. } => {
                (400..500).contains(status) && !matches!(status, 408 | 425 | 429)
            }
            Self::Closed { code, .. } => (4500..5000).contains(code) || FAULTS.contains(code),
            // A certificate is renewed while the client lives.
            Self::Tls(_) | Self::Token(_) => false,
            Self::Io(_) | Self::Protocol(_) | Self::TimedOut | Self::Silent | Self::Broken => false,
        }
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        tls::objection(&error).unwrap_or_else(|| Self::Io(Arc::new(error)))
    }
}

/// Why a client has ended for good.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Closed {
    /// [`Client::close`](super::Client::close) was called.
    #[error("the client was closed")]
    ByClient,
    /// The server does not want this client back.
    #[error("the client has ended: {0}")]
    ByServer(#[source] ConnectionError),
    /// As many attempts failed as [`Reconnect`](super::Reconnect) allows.
    #[error("the client gave up connecting: {0}")]
    GaveUp(#[source] ConnectionError),
}

/// Why a publication is not known to be in the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The server refused it; [`code`](ServerError::code) says why. It is not in the log.
    #[error(transparent)]
    Refused(ServerError),
    /// It is longer than the server takes, and was not sent.
    #[error("a message of {size} bytes is over the {limit} that the server takes")]
    TooLarge {
        /// Bytes of the message.
        size: usize,
        /// Bytes that the server takes.
        limit: u64,
    },
    /// There was no answer within [`Builder::request_timeout`](super::Builder::request_timeout). It may be in the log, or come there yet:
    /// publishing the same with this id adds it once.
    #[error("there was no answer in time")]
    TimedOut {
        /// The publication's id.
        publication_id: PublicationId,
    },
    /// The client has ended. If it was sent, it may be in the log.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a subscription was not begun, or ended by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The server refused it; [`code`](ServerError::code) says why.
    #[error(transparent)]
    Refused(ServerError),
    /// This client holds the subscription already; a session has one cursor in each.
    #[error("this client is subscribed to it already")]
    AlreadySubscribed,
    /// The Queue was deleted.
    #[error("the subscription was deleted")]
    Deleted,
    /// There was no answer within [`Builder::request_timeout`](super::Builder::request_timeout).
    #[error("there was no answer in time")]
    TimedOut,
    /// The client has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why any other request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// The server refused it; [`code`](ServerError::code) says why. It changed nothing.
    #[error(transparent)]
    Refused(ServerError),
    /// It is longer than the server takes, and was not sent.
    #[error("a message of {size} bytes is over the {limit} that the server takes")]
    TooLarge {
        /// Bytes of the message.
        size: usize,
        /// Bytes that the server takes.
        limit: u64,
    },
    /// What was to be acknowledged is of an epoch that has ended.
    #[error("the sequence belongs to an epoch that has ended")]
    EpochEnded,
    /// There was no answer within [`Builder::request_timeout`](super::Builder::request_timeout).
    #[error("there was no answer in time")]
    TimedOut,
    /// The server answered with something that is no answer to this.
    #[error("the server's answer can't be understood: {0}")]
    Answer(String),
    /// The client has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl RequestError {
    /// The server's code, if it refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    pub(super) fn unexpected(response: &ServerResponse) -> Self {
        Self::Answer(format!("{response:?}"))
    }

    pub(super) fn of_publication(self, publication_id: PublicationId) -> PublishError {
        match self {
            Self::Refused(error) => PublishError::Refused(error),
            Self::TooLarge { size, limit } => PublishError::TooLarge { size, limit },
            Self::Closed(closed) => PublishError::Closed(closed),
            // An answer that can't be understood says as little as none.
            Self::TimedOut | Self::Answer(_) | Self::EpochEnded => {
                PublishError::TimedOut { publication_id }
            }
        }
    }
}

impl PublishError {
    /// The server's code, if it refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}

impl SubscribeError {
    /// The server's code, if it refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_comes_back_after_45xx_or_a_fault_of_his_own() {
        let closed = |code| ConnectionError::Closed {
            code,
            reason: String::new(),
        };
        for code in [4500, 4501, 4502, 4503, 4999, 1002, 1007, 1009] {
            assert!(closed(code).is_final(), "{code}");
        }
        for code in [1000, 1001, 1006, 1011, 4000, 4008, 4009, 4499, 5000] {
            assert!(!closed(code).is_final(), "{code}");
        }
        let refused = |status| ConnectionError::Refused {
            status,
            retry_after: None,
        };
        for (status, is_final) in [
            (400, true),
            (403, true),
            (404, true),
            (429, false),
            (503, false),
        ] {
            assert_eq!(refused(status).is_final(), is_final, "{status}");
        }
    }
}
