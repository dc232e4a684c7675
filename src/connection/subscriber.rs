//! One subscriber: a connection's place in one subscription, and what may be sent to it next.
//!
//! Owns the decision whether released publications go to a subscriber at once, are nothing new, or have to be read from the log later.
//! Does not own the queue that they wait in (the outbox), nor the live end of the log (the Hub's table).
//!
//! ```text
//!   0 ......... handed ......... position ......... end
//!     in the socket     in the outbox     behind: in the log only
//! ```
//!
//! Invariants: `handed <= position`; what is queued is contiguous but for gaps that are told, so every sequence behind the start is
//! queued once or told to be missing once, however live chunks and pages are mixed.

use std::cell::Cell;

use bytes::Bytes;

use crate::{
    domain::{Handed, LogNumber, LogSource, MissingRange, Page},
    protocol::{Sequence, SubscriptionId},
};

/// A connection's place in one subscription, from one `Subscribe` to the next.
#[derive(Debug)]
pub(crate) struct Subscriber {
    /// The subscription.
    pub(crate) subscription: SubscriptionId,
    /// Its log; a subscription that was deleted and made again has another.
    pub(crate) log: LogNumber,
    /// Where pages are read.
    pub(crate) source: LogSource,
    position: Cell<Sequence>,
    handed: Cell<Sequence>,
    told: Cell<Option<Sequence>>,
    place: Cell<Option<u32>>,
    is_attached: Cell<bool>,
    awaits_turn: Cell<bool>,
    /// Of a Queue: what is sent was leased one by one, so positions count the bytes of that.
    is_of_queue: bool,
    /// The number of its membership there.
    joined: u64,
}

/// What becomes of a released chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    /// It is the next one: it is to be queued now.
    Taken,
    /// The subscriber has it already.
    Known,
    /// It has to be read from the log when its turn comes.
    Behind,
}

/// What a page brings to a subscriber, in this order.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Publications that will never come.
    pub(crate) gap: Option<MissingRange>,
    /// Publications, and the last one's sequence.
    pub(crate) frames: Option<(Bytes, Sequence)>,
}

impl Subscriber {
    /// A subscriber whose delivery begins behind `cursor`.
    pub(crate) fn new(
        subscription: SubscriptionId,
        log: LogNumber,
        source: LogSource,
        cursor: Sequence,
    ) -> Self {
        Self {
            subscription,
            log,
            source,
            position: Cell::new(cursor),
            handed: Cell::new(cursor),
            told: Cell::new(None),
            place: Cell::new(None),
            is_attached: Cell::new(true),
            awaits_turn: Cell::new(false),
            is_of_queue: false,
            joined: 0,
        }
    }

    /// The same in a Queue, with the number of its membership. Its positions are not those of the log: they count the bytes that were leased to it.
    pub(crate) fn of_queue(self, joined: u64) -> Self {
        Self {
            position: Cell::new(Sequence::ZERO),
            handed: Cell::new(Sequence::ZERO),
            is_of_queue: true,
            joined,
            ..self
        }
    }

    /// Whether it takes part in a Queue.
    pub(crate) fn is_of_queue(&self) -> bool {
        self.is_of_queue
    }

    /// The number of its membership there.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// So many bytes of a Queue's publications are queued. Returns its position behind them.
    pub(crate) fn lease(&self, bytes: usize) -> Sequence {
        let position = Sequence(self.position.get().0 + bytes as u64);
        self.position.set(position);
        position
    }

    /// How many bytes of a Queue's publications the socket took, if that is `step` more than the last time.
    pub(crate) fn newly_written(&self, step: u64) -> Option<u64> {
        let handed = self.handed.get();
        let told = self.told.get().unwrap_or_default();
        if !self.is_of_queue || handed.0 < told.0 + step {
            return None;
        }
        self.told.set(Some(handed));
        Some(handed.0)
    }

    /// The last sequence that is queued, or told to be missing.
    pub(crate) fn position(&self) -> Sequence {
        self.position.get()
    }

    /// The last sequence that the socket took whole.
    pub(crate) fn handed(&self) -> Sequence {
        self.handed.get()
    }

    /// Judges a live chunk. `Taken` moves the position: the caller queues it.
    #[inline]
    pub(crate) fn offer(&self, first: Sequence, last: Sequence, has_room: bool) -> Offer {
        let position = self.position.get();
        if first.0 == position.0 + 1 && has_room {
            self.position.set(last);
            Offer::Taken
        } else if last <= position {
            Offer::Known
        } else {
            Offer::Behind
        }
    }

    /// Judges a page that was asked for behind `after`: nothing, if the subscriber has moved since. What is served moves the position:
    /// the caller queues it.
    pub(crate) fn serve(&self, after: Sequence, page: Page) -> Option<Served> {
        if !self.is_attached.get() || self.position.get() != after {
            return None;
        }
        let gap = page.gap.filter(|gap| gap.to > after);
        if let Some(gap) = gap {
            self.position.set(gap.to);
        }
        let is_next = page.first == self.position.get().next() && page.last >= page.first;
        let frames = (is_next && !page.frames.is_empty()).then(|| {
            self.position.set(page.last);
            (page.frames, page.last)
        });
        Some(Served { gap, frames })
    }

    /// The socket took everything up to `last`.
    #[inline]
    pub(crate) fn hand(&self, last: Sequence) {
        self.handed.set(last);
    }

    /// Goes back to `cursor`, behind which nothing is queued any more.
    pub(crate) fn rewind(&self, cursor: Sequence) {
        self.position.set(cursor);
    }

    /// The subscriber is one no longer.
    pub(crate) fn detach(&self) {
        self.is_attached.set(false);
    }

    /// Where it stands in the Hub's table.
    pub(crate) fn place(&self) -> Option<u32> {
        self.place.get()
    }

    /// The Hub's table put it there.
    pub(crate) fn set_place(&self, place: Option<u32>) {
        self.place.set(place);
    }

    /// Marks that it stands among those of its connection that are behind; false if it did already.
    pub(crate) fn await_turn(&self) -> bool {
        !self.awaits_turn.replace(true)
    }

    /// It stands among them no longer.
    pub(crate) fn end_turn(&self) {
        self.awaits_turn.set(false);
    }

    /// How far it was served.
    pub(crate) fn cursor(&self) -> Handed {
        Handed {
            subscription: self.subscription,
            log: self.log,
            cursor: self.handed.get(),
        }
    }

    /// How far it was served, if that changed since the last time. The first time it is told in any case: what is known elsewhere may
    /// be of the subscriber before.
    pub(crate) fn changed_cursor(&self) -> Option<Handed> {
        let handed = Some(self.handed.get());
        (self.told.replace(handed) != handed).then(|| self.cursor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::GapCause;

    fn subscriber(cursor: u64) -> Subscriber {
        Subscriber::new(
            SubscriptionId::of_name("s"),
            LogNumber(1),
            LogSource::Disk,
            Sequence(cursor),
        )
    }

    fn page(gap: Option<(u64, u64)>, first: u64, last: u64) -> Page {
        Page {
            gap: gap.map(|(from, to)| MissingRange {
                from: Sequence(from),
                to: Sequence(to),
                cause: GapCause::Retention,
            }),
            frames: Bytes::from(vec![0; (last + 1 - first) as usize]),
            first: Sequence(first),
            last: Sequence(last),
        }
    }

    fn offer(subscriber: &Subscriber, first: u64, last: u64) -> Offer {
        subscriber.offer(Sequence(first), Sequence(last), true)
    }

    #[test]
    fn the_next_chunk_is_taken_and_a_known_one_ignored() {
        let subscriber = subscriber(4);
        assert_eq!(offer(&subscriber, 5, 7), Offer::Taken);
        assert_eq!(offer(&subscriber, 5, 7), Offer::Known);
        assert_eq!(offer(&subscriber, 8, 8), Offer::Taken);
        assert_eq!(subscriber.position(), Sequence(8));
    }

    #[test]
    fn a_chunk_that_does_not_follow_leaves_the_subscriber_behind() {
        let subscriber = subscriber(4);
        assert_eq!(offer(&subscriber, 6, 7), Offer::Behind);
        assert_eq!(subscriber.position(), Sequence(4));
        let straddling = offer(&subscriber, 3, 7);
        assert_eq!(straddling, Offer::Behind);
    }

    #[test]
    fn a_chunk_without_room_leaves_the_subscriber_behind() {
        let subscriber = subscriber(4);
        let offered = subscriber.offer(Sequence(5), Sequence(7), false);
        assert_eq!(offered, Offer::Behind);
        assert_eq!(offer(&subscriber, 8, 9), Offer::Behind);
        let served = subscriber.serve(Sequence(4), page(None, 5, 9)).unwrap();
        assert_eq!(served.frames.unwrap().1, Sequence(9));
        assert_eq!(offer(&subscriber, 10, 10), Offer::Taken);
    }

    #[test]
    fn a_page_from_before_a_move_is_dropped() {
        let subscriber = subscriber(4);
        assert_eq!(offer(&subscriber, 5, 5), Offer::Taken);
        assert!(subscriber.serve(Sequence(4), page(None, 5, 9)).is_none());
        subscriber.rewind(Sequence(4));
        assert!(subscriber.serve(Sequence(4), page(None, 5, 9)).is_some());
        subscriber.detach();
        assert!(subscriber.serve(Sequence(9), page(None, 10, 12)).is_none());
    }

    #[test]
    fn a_gap_is_told_once_and_in_front_of_what_follows_it() {
        let subscriber = subscriber(4);
        let served = subscriber
            .serve(Sequence(4), page(Some((5, 9)), 10, 12))
            .unwrap();
        assert_eq!(served.gap.unwrap().to, Sequence(9));
        assert_eq!(served.frames.unwrap().1, Sequence(12));
        let served = subscriber
            .serve(Sequence(12), page(Some((13, 20)), 21, 20))
            .unwrap();
        assert!(served.frames.is_none());
        assert_eq!(subscriber.position(), Sequence(20));
    }

    #[test]
    fn frames_that_do_not_follow_are_not_served() {
        let subscriber = subscriber(4);
        let served = subscriber.serve(Sequence(4), page(None, 7, 9)).unwrap();
        assert!(served.frames.is_none() && served.gap.is_none());
        assert_eq!(subscriber.position(), Sequence(4));
    }

    #[test]
    fn a_cursor_is_told_at_first_and_when_it_moved() {
        let subscriber = subscriber(4);
        assert_eq!(subscriber.changed_cursor().unwrap().cursor, Sequence(4));
        assert_eq!(subscriber.changed_cursor(), None);
        subscriber.hand(Sequence(6));
        assert_eq!(subscriber.changed_cursor().unwrap().cursor, Sequence(6));
        assert_eq!(subscriber.changed_cursor(), None);
    }
}
