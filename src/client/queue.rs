//! Taking part in a Queue: a stream of deliveries, and what becomes of each.

use std::{
    collections::HashSet,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;

use super::{
    Client, RequestError, SubscribeError,
    core::{Command, QueueWanted, Settling, SubscriberKey},
    deliveries::{Deliveries, Taken},
    handle::Handle,
};
use crate::protocol::{
    ClientCommand, PublicationId, ReceivedPublication, ServerResponse, SubscriptionId,
    SubscriptionReference,
};

impl Client {
    /// Takes part in a Queue; await what this returns. The Queue is made if it does not exist;
    /// [`create`](Client::create) makes it with settings.
    ///
    /// The server gives each publication to one of those who take part. It is leased to this connection until it is
    /// [acknowledged](Delivery::acknowledge) or [rejected](Delivery::reject), until the Queue's `ack_timeout`, which
    /// [`extend`](Delivery::extend) begins anew, or until the connection ends. What was not acknowledged is delivered again, here or
    /// elsewhere: at least once. [`Delivery::number`] tells how often it has been delivered.
    ///
    /// # Back-pressure
    /// No more than the [prefetch](QueueBuilder::prefetch) is leased to this session at once, whether it waits in memory or the application
    /// works on it. The time-out runs from the delivery, so what waits here for longer goes to others meanwhile: who
    /// works long wants a small prefetch.
    ///
    /// # Reconnects
    /// The client takes part again by itself, in a durable session too. The leases of the old connection have ended: what waited is dropped,
    /// and of what the application still holds, acknowledging, rejecting and extending tell that it is [lost](Settlement::lost); nothing is
    /// sent, so that a lease that somebody has by now is not touched. The same publication may come again.
    ///
    /// # Errors
    /// See [`SubscribeError`]. Of a Broadcast it is [`KindMismatch`](crate::protocol::ErrorCode::KindMismatch), as
    /// [`subscribe`](Client::subscribe) is of a Queue.
    ///
    /// # Examples
    /// ```
    /// # #[cfg(feature = "server")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let server = infotainer::Server::start(infotainer::Config {
    /// #     listen: ([127, 0, 0, 1], 0).into(),
    /// #     data_dir: directory.path().join("data"),
    /// #     ..infotainer::Config::default()
    /// # })?;
    /// # let url = format!("ws://{}/ws", server.address());
    /// use std::time::Duration;
    /// use infotainer::client::{Client, Rejection};
    /// use infotainer::protocol::Kind;
    ///
    /// let client = Client::connect(&url).await?;
    /// for job in ["10", "ten", "30"] {
    ///     client.publish("jobs", job).kind(Kind::Queue).await?;
    /// }
    ///
    /// let mut jobs = client.queue("jobs").prefetch(1).await?;
    /// let (mut sum, mut given_up) = (0, 0);
    /// while let Some(delivery) = jobs.next().await.transpose()? {
    ///     match std::str::from_utf8(&delivery.publication.data)?.parse::<u32>() {
    ///         Ok(number) => {
    ///             sum += number;
    ///             delivery.acknowledge().await?;
    ///         }
    ///         Err(_) if delivery.number() < 3 => {
    ///             delivery.reject(Rejection::After(Duration::from_millis(10))).await?;
    ///         }
    ///         Err(_) => {
    ///             delivery.reject(Rejection::DeadLetter).await?;
    ///             given_up += 1;
    ///         }
    ///     }
    ///     if sum == 40 && given_up == 1 {
    ///         break;
    ///     }
    /// }
    /// # server.stop()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "server"))]
    /// # fn main() {}
    /// ```
    pub fn queue(&self, subscription: impl Into<SubscriptionReference>) -> QueueBuilder {
        QueueBuilder {
            handle: self.handle.clone(),
            wanted: QueueWanted {
                subscription: subscription.into(),
                prefetch: None,
            },
        }
    }
}

/// About to take part in a Queue; await it.
#[derive(Debug)]
#[must_use = "it does not subscribe until it is awaited"]
pub struct QueueBuilder {
    handle: Handle,
    wanted: QueueWanted,
}

impl QueueBuilder {
    /// How many publications may be leased to this session at once: 1 to 65,535, by default 32. Each costs the memory of its payload.
    pub fn prefetch(mut self, publications: u16) -> Self {
        self.wanted.prefetch = Some(publications);
        self
    }
}

impl IntoFuture for QueueBuilder {
    type Output = Result<Queue, SubscribeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { handle, wanted } = self;
            let reference = wanted.subscription.clone();
            let begun = handle.subscribe_queue(wanted).await?;
            Ok(Queue {
                leases: Arc::new(Leases { handle, reference }),
                key: begun.key,
                prefetch: begun.prefetch,
                deliveries: begun.deliveries,
                has_ended: false,
            })
        })
    }
}

/// One delivery's right to say what becomes of its publication. It is of the connection that the delivery came on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    pub(super) publication_id: PublicationId,
    pub(super) connection: u64,
}

impl Lease {
    /// The publication's id.
    pub fn publication_id(&self) -> PublicationId {
        self.publication_id
    }
}

/// What becomes of a publication that is rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// It is delivered again as soon as somebody has room, in front of later ones.
    AtOnce,
    /// The same, but not before so long.
    After(Duration),
    /// It is not delivered again, but moved to the Queue's dead-letter subscription.
    DeadLetter,
}

/// What came of leases.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settlement {
    /// How many were held, and are settled or extended.
    pub count: u64,
    /// Those that were not held any more, with which nothing happened: somebody else may be at work on them. Also those whose
    /// connection ended before the answer; they may be settled all the same.
    pub lost: Vec<PublicationId>,
}

/// The way back to the server.
#[derive(Debug)]
struct Leases {
    handle: Handle,
    reference: SubscriptionReference,
}

impl Leases {
    async fn settle(
        &self,
        leases: impl IntoIterator<Item = Lease>,
        how: Settling,
    ) -> Result<Settlement, RequestError> {
        let mut seen = HashSet::new();
        let mut leases: Vec<_> = leases.into_iter().collect();
        leases.retain(|lease| seen.insert(*lease));
        self.handle.settle(&self.reference, &leases, how).await
    }

    async fn settle_one(&self, lease: Lease, how: Settling) -> Result<bool, RequestError> {
        let settlement = self.handle.settle(&self.reference, &[lease], how).await?;
        Ok(settlement.count == 1)
    }
}

/// A stream of [`Delivery`]s, which ends when the client closed, or with an error; [`SubscribeError::Deleted`] is one.
///
/// Dropping it ends taking part, in a durable session too: what is leased, also what the application still holds, goes to others at once.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Queue {
    leases: Arc<Leases>,
    key: SubscriberKey,
    prefetch: u16,
    deliveries: Arc<Deliveries>,
    has_ended: bool,
}

impl Queue {
    /// The subscription's id.
    pub fn id(&self) -> SubscriptionId {
        self.key.subscription
    }

    /// How many may be leased at once, as the server said.
    pub fn prefetch(&self) -> u16 {
        self.prefetch
    }

    /// The next delivery; `None` when there are no more.
    ///
    /// # Errors
    /// Why it ended, if nobody here asked for it. Nothing follows.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Delivery, SubscribeError>> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// Acknowledges many deliveries of this Queue at once: they are done, and never delivered again.
    ///
    /// # Durability
    /// When this returns, the settling is as durable as the Queue's publications are.
    ///
    /// # Errors
    /// See [`RequestError`]. More leases than fit into a message take several; those before the one that failed are settled.
    pub async fn acknowledge(
        &self,
        leases: impl IntoIterator<Item = Lease>,
    ) -> Result<Settlement, RequestError> {
        self.leases.settle(leases, Settling::Acknowledge).await
    }

    /// Rejects many deliveries of this Queue at once.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn reject(
        &self,
        leases: impl IntoIterator<Item = Lease>,
        rejection: Rejection,
    ) -> Result<Settlement, RequestError> {
        self.leases
            .settle(leases, Settling::Reject(rejection))
            .await
    }

    /// Begins the ack time-out of many deliveries of this Queue anew.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn extend(
        &self,
        leases: impl IntoIterator<Item = Lease>,
    ) -> Result<Settlement, RequestError> {
        self.leases.settle(leases, Settling::Extend).await
    }

    /// Takes no part any more, and waits until the server has given back what was leased. Dropping does the same without waiting.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn unsubscribe(mut self) -> Result<(), RequestError> {
        let command = ClientCommand::Unsubscribe(self.leases.reference.clone());
        let answer = self.leases.handle.send(command, None).await?;
        self.has_ended = true;
        match answer.wait().await? {
            ServerResponse::Unsubscribed(_) => Ok(()),
            other => Err(RequestError::unexpected(&other)),
        }
    }

    fn poll_delivery(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, SubscribeError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        self.deliveries.poll_take(cx).map(|taken| match taken {
            Taken::Delivery(lease, publication) => Some(Ok(Delivery {
                publication,
                lease,
                leases: Arc::clone(&self.leases),
            })),
            Taken::End(error) => {
                self.has_ended = true;
                error.map(Err)
            }
        })
    }
}

impl Stream for Queue {
    type Item = Result<Delivery, SubscribeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_delivery(cx)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !self.has_ended {
            let released = Command::QueueReleased(self.key);
            // A client that has ended needs not be told.
            drop(self.leases.handle.commands.send(released));
        }
    }
}

/// A publication that is leased to this client. Dropping it does nothing: the lease ends with its time-out.
///
/// Methods answer `false` if the lease had ended, see [`Settlement::lost`].
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What was published.
    pub publication: ReceivedPublication,
    lease: Lease,
    leases: Arc<Leases>,
}

impl Delivery {
    /// Which delivery of the publication this is, counted from 1. May skip numbers: those that reached nobody.
    pub fn number(&self) -> u64 {
        self.publication.delivery.unwrap_or(1)
    }

    /// What [`Queue::acknowledge`] and the others take for many at once.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// It is done, and never delivered again.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn acknowledge(&self) -> Result<bool, RequestError> {
        self.settle(Settling::Acknowledge).await
    }

    /// It can't be done, or not now.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn reject(&self, rejection: Rejection) -> Result<bool, RequestError> {
        self.settle(Settling::Reject(rejection)).await
    }

    /// It takes longer: its ack time-out begins anew.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn extend(&self) -> Result<bool, RequestError> {
        self.settle(Settling::Extend).await
    }

    async fn settle(&self, how: Settling) -> Result<bool, RequestError> {
        self.leases.settle_one(self.lease, how).await
    }
}
