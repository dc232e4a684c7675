//! The labels, and all values that they can have. None is ever a name, an id or an address: what clients choose has no place here.

use super::count::Label;
use crate::protocol::ErrorCode;

/// Makes an enum of the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(dead_code, reason = "a value is told from the beginning, whether somebody counts it yet or not")]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl Label for $name {
            const VALUES: &'static [&'static str] = &[$($value),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Why a connection was closed.
    Closed {
        /// The client closed it.
        Client = "client",
        /// It ended without a Close frame: by an error of the network, or because the client is gone.
        Lost = "lost",
        /// The HTTP connection that spoke through it ended.
        Http = "http",
        /// Nothing was heard (4008).
        Silent = "silent",
        /// Nothing was taken (4009).
        Stuck = "stuck",
        /// There are too many durable sessions (4010).
        Full = "full",
        /// Its credentials were changed (4011).
        CredentialsChanged = "credentials-changed",
        /// Its session went on elsewhere (4502).
        TakenOver = "taken-over",
        /// It is not authorized any more (4501).
        NotAuthorized = "not-authorized",
        /// Nothing but malformed messages (4503).
        Malformed = "malformed",
        /// Its framing was wrong (1002).
        Protocol = "protocol-error",
        /// Text that is no UTF-8 (1007).
        Utf8 = "not-utf8",
        /// A message over the limit (1009).
        TooLarge = "too-large",
        /// The server stops (1001).
        Stopping = "stopping",
        /// Another code.
        Other = "other",
    }
}

impl Closed {
    /// Of the code that the server closes with.
    pub(crate) fn of_code(code: u16) -> Self {
        match code {
            1001 => Self::Stopping,
            1002 => Self::Protocol,
            1007 => Self::Utf8,
            1009 => Self::TooLarge,
            4008 => Self::Silent,
            4009 => Self::Stuck,
            4010 => Self::Full,
            4011 => Self::CredentialsChanged,
            4501 => Self::NotAuthorized,
            4502 => Self::TakenOver,
            4503 => Self::Malformed,
            _ => Self::Other,
        }
    }
}

label! {
    /// Why a handshake was refused.
    Refused {
        /// There is no such path, or the session id is none.
        NotFound = "not-found",
        /// It is no handshake that can be answered.
        Malformed = "malformed",
        /// None of the subprotocols is spoken here.
        Subprotocol = "subprotocol",
        /// A page of another origin.
        Origin = "origin",
        /// Too many connections or sessions, or the server stops.
        Full = "full",
        /// Credentials are missing or wrong.
        NotAuthorized = "not-authorized",
    }
}

label! {
    /// What became of a command.
    Outcome {
        /// It was carried out.
        Ok = "ok",
        /// It was answered by an error.
        Error = "error",
        /// Its connection had ended, or speaks for its session no longer: nobody was answered.
        Dropped = "dropped",
    }
}

label! {
    /// Why somebody was not let in, or was let in no longer.
    AuthFailure {
        /// Credentials are needed, and there were none.
        Missing = "missing",
        /// What was given is no credential that this server knows.
        Invalid = "invalid",
        /// It was valid once, or is not yet.
        Expired = "expired",
    }
}

/// A command; the last one is what was none, or is not known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CommandName(usize);

impl Label for CommandName {
    const VALUES: &'static [&'static str] = &[
        "SubmitPublication",
        "Acknowledge",
        "Reject",
        "Extend",
        "Subscribe",
        "Unsubscribe",
        "GetLogIndex",
        "GetLogEntries",
        "CreateSubscription",
        "UpdateSubscription",
        "GetSubscription",
        "ListSubscriptions",
        "DeleteSubscription",
        "Ping",
        "Authenticate",
        "none",
    ];

    fn index(self) -> usize {
        self.0
    }
}

impl CommandName {
    /// The most frequent one.
    pub(crate) const SUBMIT_PUBLICATION: Self = Self(0);

    /// The command of this name; `None` if there was no command in the message.
    pub(crate) fn of(name: Option<&str>) -> Self {
        let none = Self::VALUES.len() - 1;
        let known = Self::VALUES[..none].iter();
        let mut places = known.zip(0..);
        let place = name.and_then(|name| places.find(|(known, _)| **known == name));
        Self(place.map_or(none, |(_, place)| place))
    }
}

impl Label for ErrorCode {
    const VALUES: &'static [&'static str] = &ERROR_CODES;

    fn index(self) -> usize {
        self as usize
    }
}

const ERROR_CODES: [&str; ErrorCode::ALL.len()] = {
    let mut texts = [""; ErrorCode::ALL.len()];
    let mut place = 0;
    while place < texts.len() {
        texts[place] = ErrorCode::ALL[place].as_str();
        place += 1;
    }
    texts
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_not_known_is_none() {
        assert_eq!(
            CommandName::of(Some("SubmitPublication")),
            CommandName::SUBMIT_PUBLICATION
        );
        let name = |name| CommandName::VALUES[CommandName::of(name).index()];
        assert_eq!(name(Some("Ping")), "Ping");
        assert_eq!(name(Some("Sing")), "none");
        assert_eq!(name(None), "none");
    }

    #[test]
    fn error_codes_are_counted_under_their_own_names() {
        for text in ErrorCode::VALUES {
            let code = ErrorCode::of_text(text).unwrap();
            assert_eq!(ErrorCode::VALUES[code.index()], code.as_str());
        }
        assert!(ErrorCode::VALUES.contains(&"log-full"));
    }
}
