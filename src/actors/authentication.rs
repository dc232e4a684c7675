//! Tokens that come as commands, and connections that wait for one.
//!
//! Owns the way from an upgraded connection to its announcement. Tokens are judged here, on the worker's thread: PubSubService never sees one.
//!
//! ```text
//!   granted ──────────────────────────────────────> announced: Opening, then Welcome
//!   awaited: Authenticating ──Authenticate, good──>
//!            └──anything else, or nothing in time──> closed with 4501
//! ```

use std::rc::Rc;

use super::{
    closing::CloseReason, messages::Incoming, pubsub_service::authentication, worker::Worker,
};
use crate::{
    access::Admission,
    connection::Connection,
    domain::{Identity, Principal},
    metrics::labels::AuthFailure,
    protocol::{
        Authenticate, ClientCommand, ErrorCode, MAX_TOKEN, Request, RequestId, ServerError,
        codec::Rejection,
    },
};

/// The longest first message of a connection that has to say for whom it speaks: a token, and what is round it.
pub(super) const MAX_FIRST_MESSAGE: usize = MAX_TOKEN + 1024;

impl Worker {
    /// Lets a connection begin as its handshake said.
    pub(super) fn admit(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        identity: Identity,
        admission: Admission,
    ) {
        match admission {
            Admission::Granted(principal) => self.announce(connection, identity, principal, None),
            Admission::Awaited => {
                let by = self.now().saturating_add(self.authentication_timeout);
                connection.await_token(identity, by);
            }
            Admission::Refused => self.close(connection, CloseReason::NOT_AUTHORIZED),
        }
    }

    /// The first message of a connection that has to say for whom it speaks.
    pub(super) fn take_first(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        decoded: Result<Request, Rejection>,
        credit: u32,
    ) {
        let admitted = decoded.ok().and_then(|request| match request.command {
            ClientCommand::Authenticate(Authenticate { token }) => {
                let principal = self.authenticator.authenticate(token.reveal()).ok()?;
                Some((principal, request.id))
            }
            _ => {
                let failures = self.authenticator.failures();
                failures.of(AuthFailure::Missing).add_one();
                None
            }
        });
        match (admitted, connection.token_came()) {
            (Some((principal, request_id)), Some(identity)) => {
                let reply = authentication(connection.id(), request_id, credit);
                self.announce(connection, identity, principal, Some(reply));
            }
            _ => self.close(connection, CloseReason::NOT_AUTHORIZED),
        }
    }

    /// A token on a connection that was welcomed.
    pub(super) fn take_token(
        &self,
        connection: &Connection,
        request_id: Option<RequestId>,
        Authenticate { token }: &Authenticate,
        credit: u32,
    ) {
        let judged = self.judge(token.reveal());
        let incoming = Incoming::Token {
            judged,
            request_id,
            credit,
        };
        self.collect(connection, incoming, credit);
    }

    fn judge(&self, token: &str) -> Result<Principal, ServerError> {
        self.authenticator
            .authenticate(token)
            .map_err(|error| ServerError::new(ErrorCode::NotAuthorized, error.to_string()))
    }
}
