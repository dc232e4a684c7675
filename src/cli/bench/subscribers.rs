//! Connections that subscribe.
//!
//! Owns how a connection becomes a subscriber, and the check that each publication follows the one before. Does not own what a load
//! makes of them.

use std::ops::AddAssign;

use futures_util::{StreamExt, TryStreamExt, stream};
use infotainer::protocol::StoredPublication;

use super::{
    Bench, LoadError,
    connection::Connection,
    wire::{Answer, Command, GapFields, SubscribedFields},
};

/// `Subscribe`s under way at once.
const SUBSCRIBING: usize = 64;

/// A connection that subscribes.
pub(super) struct Subscriber {
    pub(super) connection: Connection,
    pub(super) place: Place,
    /// The subscription's last sequence when it began.
    pub(super) last_sequence: u64,
}

/// How far a subscriber is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Everything up to this sequence came, or will never come.
    pub(super) position: u64,
    /// What came since somebody took note of that.
    pub(super) taken: Taken,
}

/// What subscribers got.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(super) struct Taken {
    pub(super) deliveries: u64,
    /// Of payload.
    pub(super) bytes: u64,
    /// Places where a sequence did not follow the one before, and the server did not say why.
    pub(super) holes: u64,
    /// What the server said is missing: how often, and how many publications.
    pub(super) gaps: u64,
    pub(super) missing: u64,
}

impl Taken {
    /// Places where sequences did not follow each other, for a load in which nothing may be missing.
    pub(super) fn breaks(&self) -> u64 {
        self.holes + self.gaps
    }
}

impl Place {
    fn note(&mut self, received: &Received<'_>) -> Result<(), LoadError> {
        let taken = &mut self.taken;
        match received {
            Received::Publication(publication) => {
                let sequence = publication.sequence().0;
                taken.deliveries += 1;
                taken.bytes += publication.data().len() as u64;
                taken.holes += u64::from(sequence != self.position + 1);
                self.position = sequence.max(self.position);
            }
            Received::Answer(answer) if answer.name == b"Gap" => {
                let GapFields { from, to } = answer.fields().ok_or(LoadError::NoResponse)?;
                taken.gaps += 1;
                taken.missing += (to + 1).saturating_sub(from);
                taken.holes += u64::from(from != self.position + 1);
                self.position = to.max(self.position);
            }
            Received::Answer(answer) if answer.name == b"Deleted" => {
                return Err(LoadError::Deleted);
            }
            Received::Answer(_) => {}
        }
        Ok(())
    }
}

impl AddAssign for Taken {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
        self.holes += other.holes;
        self.gaps += other.gaps;
        self.missing += other.missing;
    }
}

impl Bench {
    /// So many subscribers, of the load's first `subscriptions` subscriptions in turn.
    pub(super) async fn subscribers(
        &self,
        count: usize,
        subscriptions: usize,
        from: &'static str,
    ) -> Result<Vec<Subscriber>, LoadError> {
        self.subscribers_of_several(count, subscriptions, 1, from)
            .await
    }

    /// So many subscribers, each of `each` of the load's first `subscriptions` subscriptions, in turn. Their place is that in the last.
    pub(super) async fn subscribers_of_several(
        &self,
        count: usize,
        subscriptions: usize,
        each: usize,
        from: &'static str,
    ) -> Result<Vec<Subscriber>, LoadError> {
        let connections = self.connect(count).await?;
        let bar = self.progress("subscribing", count as u64, "subscribers");
        let name = |number: usize| &self.names[number % subscriptions];
        let subscribers = stream::iter(connections.into_iter().enumerate())
            .map(async |(index, connection)| {
                let first = index * each;
                let mut subscriber = self.subscribe(connection, name(first), from).await?;
                for number in first + 1..first + each {
                    subscriber = self
                        .subscribe(subscriber.connection, name(number), from)
                        .await?;
                }
                Ok(subscriber)
            })
            .buffer_unordered(SUBSCRIBING)
            .inspect(|_| bar.inc(1))
            .try_collect()
            .await;
        bar.finish_and_clear();
        subscribers
    }

    /// Makes `connection` a subscriber.
    pub(super) async fn subscribe(
        &self,
        mut connection: Connection,
        name: &str,
        from: &'static str,
    ) -> Result<Subscriber, LoadError> {
        let subscribe = Command::Subscribe {
            subscription_id: name,
            kind: "Broadcast",
            from,
        };
        connection.outgoing().send(&[&subscribe.asked(0)]);
        let mut subscribed = None;
        loop {
            if let Some((place, last_sequence)) = subscribed {
                return Ok(Subscriber {
                    connection,
                    place,
                    last_sequence,
                });
            }
            connection.ready().await?;
            self.receive(&mut connection, |received| {
                match (received, &mut subscribed) {
                    // Publications may come right behind the answer.
                    (received, Some((place, _))) => place.note(&received),
                    (Received::Answer(answer), None) if answer.name == b"Subscribed" => {
                        let SubscribedFields {
                            cursor: position,
                            last_sequence,
                        } = answer.fields().ok_or(LoadError::NoResponse)?;
                        let taken = Taken::default();
                        subscribed = Some((Place { position, taken }, last_sequence));
                        Ok(())
                    }
                    _ => Ok(()),
                }
            })?;
        }
    }

    /// Reads once from a subscriber's connection, and takes note of what came; `each` is given the publications.
    ///
    /// # Errors
    /// If the connection is at its end, the subscription was deleted, or what came is no response.
    pub(super) fn take(
        &self,
        subscriber: &mut Subscriber,
        mut each: impl FnMut(&StoredPublication<'_>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let place = &mut subscriber.place;
        self.receive(&mut subscriber.connection, |received| {
            place.note(&received)?;
            match received {
                Received::Publication(publication) => each(&publication),
                Received::Answer(_) => Ok(()),
            }
        })
    }

    /// Reads once from `connection`, a subscriber's; `each` is given what is no error.
    fn receive(
        &self,
        connection: &mut Connection,
        mut each: impl FnMut(Received<'_>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        connection.read(&mut self.buffer.borrow_mut(), |_, message| {
            if let Ok((publication, _)) = StoredPublication::split_first(message.frame) {
                return each(Received::Publication(publication));
            }
            let answer = Answer::of(message.payload).ok_or(LoadError::NoResponse)?;
            match answer.error() {
                Some(error) => Err(LoadError::Server(error)),
                None => each(Received::Answer(answer)),
            }
        })
    }
}

/// What a subscriber gets.
enum Received<'a> {
    Publication(StoredPublication<'a>),
    Answer(Answer<'a>),
}
