//! The errors of the wire: one code, one sentence for a person.

use std::fmt;

use serde::{Serialize, Serializer};

use super::SubscriptionId;

/// Why a command failed, for programs (protocol, section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorCode {
    /// Not one well-formed item, or not a command.
    Malformed,
    /// A command that this server does not know.
    UnknownCommand,
    /// A text message.
    UnsupportedFormat,
    /// A field of a known command is missing, of the wrong type, or out of its range.
    InvalidArgument,
    /// The subscription does not exist.
    NotFound,
    /// The subscription exists with another kind.
    KindMismatch,
    /// The state is another than the command expects.
    Conflict,
    /// The client may not do this.
    NotAuthorized,
    /// The submission can never be kept.
    TooLarge,
    /// Too many commands in too short a time.
    RateLimited,
    /// A limit on the number of subscriptions is reached.
    LimitReached,
    /// No room for the publication now.
    LogFull,
    /// The log can't be written.
    LogUnavailable,
    /// The server is stopping.
    ShuttingDown,
    /// A defect of the server.
    Internal,
}

impl ErrorCode {
    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownCommand => "unknown-command",
            Self::UnsupportedFormat => "unsupported-format",
            Self::InvalidArgument => "invalid-argument",
            Self::NotFound => "not-found",
            Self::KindMismatch => "kind-mismatch",
            Self::Conflict => "conflict",
            Self::NotAuthorized => "not-authorized",
            Self::TooLarge => "too-large",
            Self::RateLimited => "rate-limited",
            Self::LimitReached => "limit-reached",
            Self::LogFull => "log-full",
            Self::LogUnavailable => "log-unavailable",
            Self::ShuttingDown => "shutting-down",
            Self::Internal => "internal",
        }
    }

    /// The code that stands on the wire as `text`.
    pub fn of_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// Every code, in the order of the enum.
    pub(crate) const ALL: [Self; 15] = [
        Self::Malformed,
        Self::UnknownCommand,
        Self::UnsupportedFormat,
        Self::InvalidArgument,
        Self::NotFound,
        Self::KindMismatch,
        Self::Conflict,
        Self::NotAuthorized,
        Self::TooLarge,
        Self::RateLimited,
        Self::LimitReached,
        Self::LogFull,
        Self::LogUnavailable,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// Whether the same command may succeed later without anybody changing it.
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::LimitReached
                | Self::LogFull
                | Self::LogUnavailable
                | Self::ShuttingDown
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The `Error` response.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerError {
    /// For programs.
    pub code: ErrorCode,
    /// A sentence for a person.
    pub message: String,
    /// The command's name, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<&'static str>,
    /// Whether the same may succeed later.
    pub temporary: bool,
    /// Milliseconds after which to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The subscription it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<SubscriptionId>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ServerError {}

impl ServerError {
    /// An error that says `message`; `temporary` follows from the code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            command: None,
            temporary: code.is_temporary(),
            retry_after: None,
            subscription_id: None,
        }
    }

    /// The same, about the command `name`.
    #[must_use]
    pub fn for_command(mut self, name: &'static str) -> Self {
        self.command = Some(name);
        self
    }

    /// The same, about the subscription `id`.
    #[must_use]
    pub fn for_subscription(mut self, id: SubscriptionId) -> Self {
        self.subscription_id = Some(id);
        self
    }
}
