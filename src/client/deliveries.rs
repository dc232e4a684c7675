//! What a Queue delivered and the application has not yet taken: what the connection's task and a [`Queue`](super::Queue) share.
//!
//! Owns the bound and the waking of the reader. Does not own leases: what is in it may have ended already, which only the server
//! knows.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{Lease, SubscribeError};
use crate::protocol::ReceivedPublication;

#[derive(Debug)]
pub(super) struct Deliveries {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<(Lease, ReceivedPublication)>,
    /// The prefetch.
    bound: usize,
    reader: Option<Waker>,
    end: Option<Option<SubscribeError>>,
}

/// What the reader got.
pub(super) enum Taken {
    Delivery(Lease, ReceivedPublication),
    /// Nothing any more.
    End(Option<SubscribeError>),
}

impl Deliveries {
    pub(super) fn new(bound: u16) -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: VecDeque::new(),
                bound: bound.into(),
                reader: None,
                end: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is locked; and if it did, every state of it would still be one that can be read.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_bound(&self, prefetch: u16) {
        self.lock().bound = prefetch.into();
    }

    /// Adds a delivery. If there are as many as the prefetch already, the server holds the lease of one of them for ended: of the oldest,
    /// which is dropped.
    pub(super) fn push(&self, lease: Lease, publication: ReceivedPublication) {
        let reader = {
            let mut inner = self.lock();
            if publication.delivery.is_some_and(|delivery| delivery > 1) {
                inner
                    .waiting
                    .retain(|(held, _)| held.publication_id != lease.publication_id);
            }
            if inner.waiting.len() >= inner.bound {
                inner.waiting.pop_front();
            }
            inner.waiting.push_back((lease, publication));
            inner.reader.take()
        };
        wake(reader);
    }

    /// The connection has ended, and every lease with it.
    pub(super) fn clear(&self) {
        self.lock().waiting.clear();
    }

    /// Nothing comes after what is in it.
    pub(super) fn end(&self, error: Option<SubscribeError>) {
        let reader = {
            let mut inner = self.lock();
            inner.end.get_or_insert(error);
            inner.reader.take()
        };
        wake(reader);
    }

    /// The next one, for the one reader there is.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut inner = self.lock();
        if let Some((lease, publication)) = inner.waiting.pop_front() {
            return Poll::Ready(Taken::Delivery(lease, publication));
        }
        if let Some(end) = &mut inner.end {
            return Poll::Ready(Taken::End(end.take()));
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::protocol::{PublicationId, Sequence, SubscriptionId, Timestamp};

    fn push(deliveries: &Deliveries, sequence: u64, delivery: u64) {
        let publication_id = PublicationId(Uuid::from_u128(sequence.into()));
        let lease = Lease {
            publication_id,
            connection: 1,
        };
        let publication = ReceivedPublication {
            subscription_id: SubscriptionId(Uuid::nil()),
            publication_id,
            sequence: Sequence(sequence),
            time: Timestamp(0),
            publisher: None,
            dead_letter: None,
            data: Bytes::new(),
            delivery: Some(delivery),
        };
        deliveries.push(lease, publication);
    }

    fn taken(deliveries: &Deliveries) -> Vec<(u64, u64)> {
        let mut cx = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match deliveries.poll_take(&mut cx) {
            Poll::Ready(Taken::Delivery(_, publication)) => {
                Some((publication.sequence.0, publication.delivery?))
            }
            _ => None,
        })
        .collect()
    }

    #[test]
    fn what_nobody_takes_is_bounded_by_the_prefetch_and_the_oldest_goes() {
        let deliveries = Deliveries::new(2);
        for sequence in 1..=5 {
            push(&deliveries, sequence, 1);
        }
        assert_eq!(taken(&deliveries), [(4, 1), (5, 1)]);
    }

    #[test]
    fn a_redelivery_replaces_what_was_not_taken() {
        let deliveries = Deliveries::new(3);
        push(&deliveries, 1, 1);
        push(&deliveries, 2, 1);
        push(&deliveries, 1, 2);
        assert_eq!(taken(&deliveries), [(2, 1), (1, 2)]);
        push(&deliveries, 3, 1);
        deliveries.clear();
        assert_eq!(taken(&deliveries), []);
    }
}
