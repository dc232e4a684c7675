//! The requests that wait for their answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{Reply, SubscriberKey, answer};
use crate::{
    client::{Closed, RequestError, Settlement},
    protocol::{
        ClientCommand, PublicationId, Request, RequestId, ServerResponse, codec::encode_request,
    },
};

#[derive(Debug)]
pub(super) enum Purpose {
    /// A caller waits for the answer. The permit bounds how many do.
    Caller {
        reply: Reply<ServerResponse, RequestError>,
        #[allow(dead_code, reason = "held until the answer")]
        permit: OwnedSemaphorePermit,
    },
    /// A caller waits for what comes of leases, which end with this connection.
    Settle {
        reply: Reply<Settlement, RequestError>,
        #[allow(dead_code, reason = "held until the answer")]
        permit: OwnedSemaphorePermit,
        /// Those that are asked for.
        ids: Vec<PublicationId>,
        /// Those that were lost before.
        lost: Vec<PublicationId>,
    },
    /// Begins or resumes a subscription on this connection.
    Subscribe(SubscriberKey),
    /// Takes part in a Queue on this connection.
    SubscribeQueue(SubscriberKey),
    /// Acknowledges what the application has done with.
    Acknowledge(SubscriberKey),
    /// Nothing follows from the answer.
    Aside,
}

impl Purpose {
    /// Tells whoever waits that it failed.
    fn fail(self, error: RequestError) {
        match self {
            Self::Caller { reply, .. } => answer(reply, Err(error)),
            Self::Settle { reply, .. } => answer(reply, Err(error)),
            _ => {}
        }
    }
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
        self.in_flight.get(&id.0).is_some_and(|request| {
            matches!(
                request.purpose,
                Purpose::Caller { .. } | Purpose::Settle { .. }
            )
        })
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
            if let Some(request) = self.in_flight.remove(&id.0) {
                request.purpose.fail(RequestError::TooLarge { size, limit });
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

    /// Drops what ends with the connection: what the client asked for itself, which begins anew on the next one, and what was asked
    /// of leases, which are lost.
    pub(super) fn forget_own(&mut self) {
        let is_kept = |request: &InFlight| matches!(request.purpose, Purpose::Caller { .. });
        let (kept, ended) = std::mem::take(&mut self.in_flight)
            .into_iter()
            .partition(|(_, request)| is_kept(request));
        self.in_flight = kept;
        let ended: BTreeMap<u64, InFlight> = ended;
        for request in ended.into_values() {
            if let Purpose::Settle {
                reply,
                ids,
                mut lost,
                ..
            } = request.purpose
            {
                lost.extend(ids);
                answer(reply, Ok(Settlement { count: 0, lost }));
            }
        }
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
            if let Some(request) = self.in_flight.remove(&id) {
                request.purpose.fail(error.clone());
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
