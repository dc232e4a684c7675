//! The requests that wait for their answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{Reply, SubscriberKey, answer};
use crate::{
    client::{Closed, RequestError},
    protocol::{ClientCommand, Request, RequestId, ServerResponse, codec::encode_request},
};

#[derive(Debug)]
pub(super) enum Purpose {
    /// A caller waits for the answer. The permit bounds how many do.
    Caller {
        reply: Reply<ServerResponse, RequestError>,
        #[allow(dead_code, reason = "held until the answer")]
        permit: OwnedSemaphorePermit,
    },
    /// Begins or resumes a subscription on this connection.
    Subscribe(SubscriberKey),
    /// Acknowledges what the application has done with.
    Acknowledge(SubscriberKey),
    /// Nothing follows from the answer.
    Aside,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) command: ClientCommand,
    pub(super) purpose: Purpose,
    /// How many times it was handed to a connection.
    pub(super) sent: u32,
}

#[derive(Debug, Default)]
pub(super) struct Requests {
    next_id: u64,
    in_flight: BTreeMap<u64, InFlight>,
}

impl Requests {
    pub(super) fn insert(&mut self, command: ClientCommand, purpose: Purpose) -> RequestId {
        let id = self.next_id;
        self.next_id += 1;
        self.in_flight.insert(
            id,
            InFlight {
                command,
                purpose,
                sent: 0,
            },
        );
        RequestId(id)
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<InFlight> {
        self.in_flight.remove(&id.0)
    }

    pub(super) fn is_of_caller(&self, id: RequestId) -> bool {
        self.in_flight
            .get(&id.0)
            .is_some_and(|request| matches!(request.purpose, Purpose::Caller { .. }))
    }

    /// The message to send. `None` if it is longer than `limit`; who waits for it has been told.
    pub(super) fn message(&mut self, id: RequestId, limit: u64) -> Option<Bytes> {
        let request = self.in_flight.get_mut(&id.0)?;
        let message = encode_request(&Request {
            id: Some(id),
            command: request.command.clone(),
        });
        let size = message.len();
        if size as u64 > limit {
            if let Some(InFlight {
                purpose: Purpose::Caller { reply, .. },
                ..
            }) = self.in_flight.remove(&id.0)
            {
                answer(reply, Err(RequestError::TooLarge { size, limit }));
            }
            return None;
        }
        request.sent += 1;
        Some(message.into())
    }

    pub(super) fn of_callers(&self) -> Vec<RequestId> {
        self.in_flight
            .iter()
            .filter(|(_, request)| matches!(request.purpose, Purpose::Caller { .. }))
            .map(|(id, _)| RequestId(*id))
            .collect()
    }

    /// Drops what the client asked for itself: on the next connection it begins anew.
    pub(super) fn forget_own(&mut self) {
        self.in_flight
            .retain(|_, request| matches!(request.purpose, Purpose::Caller { .. }));
    }

    /// Drops what nobody waits for any more.
    pub(super) fn drop_unwanted(&mut self) {
        self.in_flight.retain(|_, request| match &request.purpose {
            Purpose::Caller { reply, .. } => !reply.is_closed(),
            _ => true,
        });
    }

    /// Fails those for which `is_refused`.
    pub(super) fn refuse(
        &mut self,
        is_refused: impl Fn(&ClientCommand) -> bool,
        error: &RequestError,
    ) {
        let refused: Vec<_> = self
            .in_flight
            .iter()
            .filter(|(_, request)| is_refused(&request.command))
            .map(|(id, _)| *id)
            .collect();
        for id in refused {
            if let Some(InFlight {
                purpose: Purpose::Caller { reply, .. },
                ..
            }) = self.in_flight.remove(&id)
            {
                answer(reply, Err(error.clone()));
            }
        }
    }

    pub(super) fn finish(&mut self, closed: &Closed) {
        self.refuse(|_| true, &RequestError::Closed(closed.clone()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }
}
