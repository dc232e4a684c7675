//! Why a command did not do what it was asked for, and with which code the process then ends.

use infotainer::{
    client::{Closed, ConnectionError, PublishError, RequestError, SubscribeError},
    counted,
};

/// Refusals of a connection for which nobody needs to look at the network: the server does not want this client.
const NOT_AUTHORIZED: u16 = 4501;

/// Why a command did not do what it was asked for: one sentence.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be done.
    Failed(String),
    /// It was called or configured wrongly.
    Usage(String),
    /// It took too long, or there was less than was asked for.
    TimedOut(String),
    /// The server refused it.
    Refused(String),
    /// It was told to end at once, while it was ending.
    AtOnce {
        /// What it was told.
        sentence: String,
        /// As a shell says it: 128 and the number of the signal.
        code: u8,
    },
    /// Whoever read stdout has gone, so that nothing is left to do and nobody to be told.
    Unread,
}

impl Failure {
    /// So many of the publications that were asked for, and why there are no more.
    pub(super) fn too_few(done: u64, wanted: u64, why: &str) -> Self {
        let wanted = counted(wanted, "publication", "publications");
        Self::TimedOut(format!("{done} of {wanted}: {why}"))
    }

    /// The exit code, and what is said on stderr.
    pub(super) fn end(self) -> (u8, Option<String>) {
        match self {
            Self::Failed(sentence) => (1, Some(sentence)),
            Self::Usage(sentence) => (2, Some(sentence)),
            Self::TimedOut(sentence) => (3, Some(sentence)),
            Self::Refused(sentence) => (4, Some(sentence)),
            Self::AtOnce { sentence, code } => (code, Some(sentence)),
            Self::Unread => (0, None),
        }
    }

    /// The same, with something said in front of the sentence or behind it.
    pub(super) fn reworded(self, reword: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Failed(sentence) => Self::Failed(reword(sentence)),
            Self::Usage(sentence) => Self::Usage(reword(sentence)),
            Self::TimedOut(sentence) => Self::TimedOut(reword(sentence)),
            Self::Refused(sentence) => Self::Refused(reword(sentence)),
            Self::AtOnce { sentence, code } => Self::AtOnce {
                sentence: reword(sentence),
                code,
            },
            Self::Unread => Self::Unread,
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        let sentence = error.to_string();
        match error {
            ConnectionError::TimedOut => Self::TimedOut(sentence),
            ConnectionError::Refused { .. }
            | ConnectionError::Closed {
                code: NOT_AUTHORIZED,
                ..
            } => Self::Refused(sentence),
            _ => Self::Failed(sentence),
        }
    }
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::ByServer(error) | Closed::GaveUp(error) => error.into(),
            Closed::ByClient => Self::Failed(closed.to_string()),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let sentence = error.to_string();
        match error {
            RequestError::Refused(_) | RequestError::TooLarge { .. } => Self::Refused(sentence),
            RequestError::TimedOut => Self::TimedOut(sentence),
            RequestError::Closed(closed) => closed.into(),
            RequestError::EpochEnded | RequestError::Answer(_) => Self::Failed(sentence),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let sentence = error.to_string();
        match error {
            PublishError::Refused(_) | PublishError::TooLarge { .. } => Self::Refused(sentence),
            PublishError::TimedOut { .. } => Self::TimedOut(sentence),
            PublishError::Closed(closed) => closed.into(),
        }
    }
}

impl From<SubscribeError> for Failure {
    fn from(error: SubscribeError) -> Self {
        let sentence = error.to_string();
        match error {
            SubscribeError::Refused(_) => Self::Refused(sentence),
            SubscribeError::TimedOut => Self::TimedOut(sentence),
            SubscribeError::Closed(closed) => closed.into(),
            SubscribeError::AlreadySubscribed | SubscribeError::Deleted => Self::Failed(sentence),
        }
    }
}
