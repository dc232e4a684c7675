//! What the server's clients say: from messages to commands.
//!
//! Owns how many malformed messages of a client came in a row. Does not apply commands: they are collected, and forwarded at the end of the
//! connection's turn.

use std::rc::Rc;

use bytes::Bytes;

use super::{messages::Incoming, session::Conversation, worker::Worker};
use crate::{
    connection::Connection,
    domain::{Identity, Principal},
    protocol::{
        ClientCommand, ErrorCode, ServerError,
        codec::{Rejection, decode_request},
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
    /// The connection is announced, and opened by the answer to that.
    fn begin(worker: &Worker, connection: &Connection, identity: Identity, principal: Principal) {
        worker.announce(connection, identity, principal);
    }

    fn binary(&mut self, worker: &Worker, connection: &Rc<Connection>, message: &Bytes) {
        let credit = message.len() as u32;
        match decode_request(message) {
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

    fn text(&mut self, worker: &Worker, connection: &Rc<Connection>, _: &Bytes) {
        let error = ServerError::new(
            ErrorCode::UnsupportedFormat,
            "a command is a binary message of one CBOR item",
        );
        let rejection = Rejection {
            request_id: None,
            error,
        };
        self.reject(worker, connection, rejection, 0);
    }
}

impl Commands {
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
