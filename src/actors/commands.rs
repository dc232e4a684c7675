//! What the server's clients say: from messages to commands.
//!
//! Owns how many malformed messages of a client came in a row. Does not apply commands: they are collected, and forwarded at the end of the
//! connection's turn.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;

use super::{messages::Incoming, session::Conversation, worker::Worker};
use crate::{
    access::Admission,
    connection::{Connection, Phase, retry_after},
    domain::Identity,
    protocol::{
        ClientCommand, ErrorCode, Form, Request, ServerError,
        codec::{Rejection, decode_request},
        json,
    },
};

/// So many malformed messages in a row end a connection (protocol, section 1).
const MAX_MALFORMED: u32 = 16;

/// The conversation of a client with the server.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    malformed: u32,
}

impl Conversation for Commands {
    /// The connection is announced, at once or when its token came, and opened by the answer to that.
    fn begin(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        identity: Identity,
        admission: Admission,
    ) {
        worker.admit(connection, identity, admission);
    }

    fn binary(&mut self, worker: &Rc<Worker>, connection: &Rc<Connection>, message: &Bytes) {
        match connection.form() {
            Form::Cbor => self.take(worker, connection, message.len(), decode_request(message)),
            Form::Json => self.refuse(
                worker,
                connection,
                "a command is a text message of one JSON value",
            ),
        }
    }

    fn text(&mut self, worker: &Rc<Worker>, connection: &Rc<Connection>, text: &Bytes) {
        match (connection.form(), std::str::from_utf8(text)) {
            (Form::Json, Ok(message)) => {
                let decoded = json::decode_request(message);
                self.take(worker, connection, text.len(), decoded);
            }
            _ => self.refuse(
                worker,
                connection,
                "a command is a binary message of one CBOR item",
            ),
        }
    }
}

impl Commands {
    /// A message of `len` bytes is this command, or none.
    fn take(
        &mut self,
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        len: usize,
        decoded: Result<Request, Rejection>,
    ) {
        let credit = len as u32;
        if connection.phase() == Phase::Authenticating {
            return worker.take_first(connection, decoded, credit);
        }
        let counted = decoded.and_then(|request| match connection.count(len) {
            Ok(()) => Ok(request),
            Err(wait) => Err(rate_limited(&request, wait)),
        });
        match counted {
            Ok(Request {
                id,
                command: ClientCommand::Authenticate(token),
            }) => {
                self.malformed = 0;
                worker.take_token(connection, id, &token, credit);
            }
            Ok(request) => {
                self.malformed = 0;
                let credit = match request.command {
                    ClientCommand::GetLogIndex(_)
                    | ClientCommand::GetLogEntries(_)
                    | ClientCommand::ListSubscriptions(_) => {
                        credit.max(connection.credit().of_long_answer())
                    }
                    _ => credit,
                };
                let request = Incoming::Request { request, credit };
                worker.collect(connection, request, credit);
            }
            Err(rejection) => self.reject(worker, connection, rejection, credit),
        }
    }

    /// The message is of the other kind.
    fn refuse(&mut self, worker: &Rc<Worker>, connection: &Rc<Connection>, wanted: &str) {
        let rejection = Rejection {
            request_id: None,
            error: ServerError::new(ErrorCode::UnsupportedFormat, wanted),
        };
        if connection.phase() == Phase::Authenticating {
            return worker.take_first(connection, Err(rejection), 0);
        }
        self.reject(worker, connection, rejection, 0);
    }

    fn reject(
        &mut self,
        worker: &Worker,
        connection: &Connection,
        rejection: Rejection,
        credit: u32,
    ) {
        match rejection.error.code {
            ErrorCode::Malformed | ErrorCode::UnsupportedFormat => self.malformed += 1,
            _ => self.malformed = 0,
        }
        let close = self.malformed >= MAX_MALFORMED;
        if close {
            connection.take_no_more();
        }
        let rejected = Incoming::Rejected {
            rejection,
            credit,
            close,
        };
        worker.collect(connection, rejected, credit);
    }
}

/// The answer to a command that is over a rate: it is not applied, and keeps its place among the answers.
fn rate_limited(request: &Request, wait: Duration) -> Rejection {
    let message = "this is more than may be sent in a second";
    let error = ServerError::new(ErrorCode::RateLimited, message);
    Rejection {
        request_id: request.id,
        error: ServerError {
            retry_after: Some(retry_after(wait)),
            ..error.for_command(request.command.name())
        },
    }
}
