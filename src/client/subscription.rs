//! Subscribing: a stream of events that goes on by itself over reconnects.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{
    Client, RequestError, SubscribeError,
    buffer::{Bound, Buffer, Taken},
    builder::BUFFER,
    core::{Command, SubscriberKey, Wanted},
    handle::Handle,
};
use crate::protocol::{
    self, Acknowledge, Acknowledged, ClientCommand, Epoch, ReceivedPublication, Sequence,
    ServerResponse, Settled, SubscribeFrom, SubscriptionId, SubscriptionReference,
};

impl Client {
    /// Subscribes; await what this returns. The subscription is made if it does not exist.
    ///
    /// The stream goes on by itself after a reconnect, behind the last event that came: each publication comes once and in
    /// sequence order, and what is missing is told by an [`Event`], never passed over in silence.
    ///
    /// In a durable session, delivery begins where the session left off, unless [`from`](SubscribeBuilder::from) says otherwise; and a
    /// publication is acknowledged when the next event is asked for, unless that is done
    /// [by hand](SubscribeBuilder::acknowledge_by_hand). So what was taken and not done with comes again to the next client of
    /// the session.
    ///
    /// # Back-pressure
    /// A reader that does not keep up costs a bounded [buffer](SubscribeBuilder::buffer). When it is full, the client reads no more
    /// from its connection, and TCP holds the server back. If nothing at all is taken for 50 ms, the connection goes on for
    /// all others and this subscription falls behind: it takes up where it was when half of its buffer is free. Nothing is lost that the
    /// log still holds.
    ///
    /// # Errors
    /// See [`SubscribeError`].
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
    /// use infotainer::client::{Client, Event};
    /// use infotainer::protocol::SubscribeFrom;
    ///
    /// let client = Client::connect(&url).await?;
    /// for text in ["one", "two", "three"] {
    ///     client.publish("news", text).await?;
    /// }
    ///
    /// let mut news = client.subscribe("news").from(SubscribeFrom::Last(2)).await?;
    /// let mut seen = 0;
    /// while let Some(event) = news.next().await.transpose()? {
    ///     match event {
    ///         Event::Publication(publication) => {
    ///             println!("{}: {} bytes", publication.sequence, publication.data.len());
    ///             seen += 1;
    ///         }
    ///         Event::Gap(gap) => println!("{} to {} are gone", gap.from, gap.to),
    ///         Event::NotRecovered(lost) => println!("the log began anew behind {}", lost.cursor),
    ///         Event::Deleted => break,
    ///     }
    ///     if seen == 2 {
    ///         client.delete("news").await?;
    ///     }
    /// }
    /// # server.stop()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "server"))]
    /// # fn main() {}
    /// ```
    pub fn subscribe(&self, subscription: impl Into<SubscriptionReference>) -> SubscribeBuilder {
        SubscribeBuilder {
            handle: self.handle.clone(),
            wanted: Wanted {
                subscription: subscription.into(),
                from: None,
                epoch: None,
                bound: BUFFER,
                acknowledges: self.is_durable,
            },
        }
    }

    /// Acknowledges every publication up to `sequence`, so that this durable session resumes behind it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn acknowledge(
        &self,
        subscription: impl Into<SubscriptionReference>,
        sequence: Sequence,
    ) -> Result<Settled, RequestError> {
        acknowledge(&self.handle, subscription.into(), sequence, None).await
    }
}

async fn acknowledge(
    handle: &Handle,
    subscription: SubscriptionReference,
    sequence: Sequence,
    epoch: Option<Epoch>,
) -> Result<Settled, RequestError> {
    let command = ClientCommand::Acknowledge(Acknowledge {
        subscription,
        what: Acknowledged::UpTo(sequence),
    });
    match handle.send(command, epoch).await?.wait().await? {
        ServerResponse::Acknowledged(settled) => Ok(settled),
        other => Err(RequestError::unexpected(&other)),
    }
}

/// A subscription that is about to begin; await it.
#[derive(Debug)]
#[must_use = "it does not subscribe until it is awaited"]
pub struct SubscribeBuilder {
    handle: Handle,
    wanted: Wanted,
}

impl SubscribeBuilder {
    /// Where delivery begins. Without it: where a durable session left off, or else with what is published from now on.
    pub fn from(mut self, from: SubscribeFrom) -> Self {
        self.wanted.from = Some(from);
        self
    }

    /// The life of the log that the position of [`SubscribeFrom::After`] belongs to, so that the position is not taken for one of
    /// another. Of another epoch: [`Event::NotRecovered`].
    pub fn epoch(mut self, epoch: Epoch) -> Self {
        self.wanted.epoch = Some(epoch);
        self
    }

    /// How much may wait to be taken: so many events (at least 1) and bytes of payload. Default 4,096 and 4 MiB.
    pub fn buffer(mut self, events: usize, bytes: usize) -> Self {
        self.wanted.bound = Bound {
            count: events.max(1),
            bytes,
        };
        self
    }

    /// Acknowledges nothing by itself: the application calls [`Subscription::acknowledge`]. Only matters in a durable session.
    pub fn acknowledge_by_hand(mut self) -> Self {
        self.wanted.acknowledges = false;
        self
    }
}

impl IntoFuture for SubscribeBuilder {
    type Output = Result<Subscription, SubscribeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { handle, wanted } = self;
            let reference = wanted.subscription.clone();
            let begun = handle.subscribe(wanted).await?;
            Ok(Subscription {
                handle,
                reference,
                key: begun.key,
                epoch: begun.place.epoch,
                position: begun.place.sequence,
                buffer: begun.buffer,
                has_ended: false,
            })
        })
    }
}

/// What a [`Subscription`] yields.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The next publication.
    Publication(ReceivedPublication),
    /// Some publications will not come.
    Gap(Gap),
    /// Delivery could not go on where it was.
    NotRecovered(NotRecovered),
    /// The subscription was deleted; nothing follows.
    Deleted,
}

/// `from` to `to` will not be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the sentence above says it")]
pub struct Gap {
    pub from: Sequence,
    pub to: Sequence,
    pub cause: GapCause,
}

/// Why publications are missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GapCause {
    /// Removed before this subscriber got them.
    Retention,
    /// Unreadable on the server's disk.
    Damage,
    /// The server left them out without a word, which is a defect.
    Unexplained,
}

impl From<protocol::GapCause> for GapCause {
    fn from(cause: protocol::GapCause) -> Self {
        match cause {
            protocol::GapCause::Retention => Self::Retention,
            protocol::GapCause::Damage => Self::Damage,
        }
    }
}

/// The log is not the one that the position was of, or ends before it: it was deleted and made again, restored, or is a
/// [`Memory`](crate::protocol::Durability::Memory) one of a server that restarted. Delivery goes on with the oldest publication that it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotRecovered {
    /// The epoch and the position that delivery was to go on from, where this client knows them.
    pub previous: Option<(Epoch, Sequence)>,
    /// The log's epoch.
    pub epoch: Epoch,
    /// The position behind which delivery goes on.
    pub cursor: Sequence,
}

/// A stream of [`Event`]s, which ends when the subscription was deleted, the client closed, or with an error.
///
/// Dropping it unsubscribes a transient session; a durable one keeps the subscription and its cursor, for the next
/// [`Client::subscribe`] of this client or another.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Subscription {
    handle: Handle,
    reference: SubscriptionReference,
    key: SubscriberKey,
    epoch: Epoch,
    position: Sequence,
    buffer: Arc<Buffer>,
    has_ended: bool,
}

impl Subscription {
    /// The subscription's id.
    pub fn id(&self) -> SubscriptionId {
        self.key.subscription
    }

    /// The epoch of the last event, or of the beginning.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The sequence of the last event, or the position behind which delivery began. With [`epoch`](Self::epoch) it is what another
    /// [`SubscribeFrom::After`] goes on from.
    pub fn position(&self) -> Sequence {
        self.position
    }

    /// The next event; `None` when there are no more.
    ///
    /// # Errors
    /// Why the subscription ended, if nobody asked for it. Nothing follows.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Event, SubscribeError>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Acknowledges every publication of the current epoch up to `sequence`, so that a durable session resumes behind it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn acknowledge(&self, sequence: Sequence) -> Result<Settled, RequestError> {
        let reference = self.reference.clone();
        acknowledge(&self.handle, reference, sequence, Some(self.epoch)).await
    }

    /// Ends the subscription of this session, of a durable one too.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn unsubscribe(mut self) -> Result<(), RequestError> {
        let command = ClientCommand::Unsubscribe(self.reference.clone());
        let answer = self.handle.send(command, None).await?;
        self.has_ended = true;
        match answer.wait().await? {
            ServerResponse::Unsubscribed(_) => Ok(()),
            other => Err(RequestError::unexpected(&other)),
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, SubscribeError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let (taken, tell) = self.buffer.poll_take(cx);
        if tell {
            // A client that has ended needs not be told.
            drop(self.handle.commands.send(Command::Taken(self.key)));
        }
        taken.map(|taken| match taken {
            Taken::Event(place, event) => {
                self.epoch = place.epoch;
                self.position = place.sequence;
                Some(Ok(event))
            }
            Taken::End(error) => {
                self.has_ended = true;
                error.map(Err)
            }
        })
    }
}

impl Stream for Subscription {
    type Item = Result<Event, SubscribeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.has_ended {
            // A client that has ended needs not be told.
            drop(self.handle.commands.send(Command::Released(self.key)));
        }
    }
}
