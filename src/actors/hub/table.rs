//! Who of a worker subscribes what.
//!
//! Owns, for each subscription that somebody here subscribes or is about to, the live end of its log and the subscribers. Delivery
//! walks one vector of them, without a look-up for each.
//!
//! Invariants: an entry lives as long as it has a subscriber or one is announced, so that no released publication passes unseen
//! between a `Subscribe`'s place in the stream and the moment it is carried out; an entry is of one life of the subscription, and
//! subscribers of an earlier life get nothing from it.

use std::{collections::HashMap, rc::Rc};

use crate::{
    connection::Subscriber,
    domain::LogNumber,
    protocol::{Sequence, SubscriptionId},
};

/// Who of a worker subscribes what; `C` is the connection.
#[derive(Debug)]
pub(crate) struct Table<C> {
    entries: HashMap<SubscriptionId, Entry<C>, foldhash::fast::RandomState>,
}

/// The subscribers of one life of a subscription.
#[derive(Debug)]
pub(crate) struct Entry<C> {
    log: LogNumber,
    /// The newest publication that was released.
    end: Sequence,
    subscribers: Vec<(C, Rc<Subscriber>)>,
    /// `Subscribe`s whose place in the stream has come, and that wait for a read of their connection.
    announced: u32,
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self {
            entries: HashMap::default(),
        }
    }
}

impl<C> Table<C> {
    /// A `Subscribe` has its place here: from now on the end of the log is followed. [`insert`](Self::insert) and
    /// [`retract`](Self::retract), or the latter alone, come later.
    pub(crate) fn announce(
        &mut self,
        subscription: SubscriptionId,
        log: LogNumber,
        last: Sequence,
    ) {
        if let Some(entry) = self.entry(subscription, log, last) {
            entry.announced += 1;
        }
    }

    /// An announced `Subscribe` was carried out, or will not be.
    pub(crate) fn retract(&mut self, subscription: SubscriptionId, log: LogNumber) {
        if let Some(entry) = self.entries.get_mut(&subscription)
            && entry.log == log
        {
            entry.announced = entry.announced.saturating_sub(1);
            self.forget_if_unused(subscription);
        }
    }

    /// Adds a subscriber; `last` is the newest publication at its place of the stream.
    pub(crate) fn insert(&mut self, connection: C, subscriber: &Rc<Subscriber>, last: Sequence) {
        if let Some(entry) = self.entry(subscriber.subscription, subscriber.log, last) {
            subscriber.set_place(Some(entry.subscribers.len() as u32));
            entry.subscribers.push((connection, Rc::clone(subscriber)));
        }
    }

    /// The entry of this life of a subscription; `None` if a later life has come.
    fn entry(
        &mut self,
        subscription: SubscriptionId,
        log: LogNumber,
        last: Sequence,
    ) -> Option<&mut Entry<C>> {
        let entry = self.entries.entry(subscription).or_insert_with(|| Entry {
            log,
            end: last,
            subscribers: Vec::new(),
            announced: 0,
        });
        if entry.log < log {
            for (_, subscriber) in entry.subscribers.drain(..) {
                subscriber.set_place(None);
            }
            (entry.log, entry.end, entry.announced) = (log, last, 0);
        }
        entry.end = entry.end.max(last);
        (entry.log == log).then_some(entry)
    }

    /// Removes a subscriber, if it is there.
    pub(crate) fn remove(&mut self, subscriber: &Subscriber) {
        let Some(place) = subscriber.place() else {
            return;
        };
        subscriber.set_place(None);
        let Some(entry) = self.entries.get_mut(&subscriber.subscription) else {
            return;
        };
        entry.subscribers.swap_remove(place as usize);
        if let Some((_, moved)) = entry.subscribers.get(place as usize) {
            moved.set_place(Some(place));
        }
        self.forget_if_unused(subscriber.subscription);
    }

    fn forget_if_unused(&mut self, subscription: SubscriptionId) {
        if let Some(entry) = self.entries.get(&subscription)
            && entry.subscribers.is_empty()
            && entry.announced == 0
        {
            self.entries.remove(&subscription);
        }
    }

    /// The subscription was deleted: takes its subscribers out.
    pub(crate) fn take(&mut self, subscription: SubscriptionId) -> Vec<(C, Rc<Subscriber>)> {
        let Some(entry) = self.entries.remove(&subscription) else {
            return Vec::new();
        };
        for (_, subscriber) in &entry.subscribers {
            subscriber.set_place(None);
        }
        entry.subscribers
    }

    /// The subscribers that publications of `log` up to `last`, which are released now, are for.
    #[inline]
    pub(crate) fn released(
        &mut self,
        subscription: SubscriptionId,
        log: LogNumber,
        last: Sequence,
    ) -> &[(C, Rc<Subscriber>)] {
        match self.entries.get_mut(&subscription) {
            Some(entry) if entry.log == log => {
                entry.end = entry.end.max(last);
                &entry.subscribers
            }
            _ => &[],
        }
    }

    /// The newest released publication of a subscriber's log; `None` if the log is not followed any more.
    pub(crate) fn end(&self, subscriber: &Subscriber) -> Option<Sequence> {
        let entry = self.entries.get(&subscriber.subscription)?;
        (entry.log == subscriber.log).then_some(entry.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LogSource;

    const LOG: LogNumber = LogNumber(1);

    fn s() -> SubscriptionId {
        SubscriptionId::of_name("s")
    }

    fn subscriber(log: LogNumber) -> Rc<Subscriber> {
        Rc::new(Subscriber::new(s(), log, LogSource::Disk, Sequence::ZERO))
    }

    fn released(table: &mut Table<u32>, log: LogNumber, last: u64) -> Vec<u32> {
        let subscribers = table.released(s(), log, Sequence(last));
        subscribers
            .iter()
            .map(|(connection, _)| *connection)
            .collect()
    }

    #[test]
    fn removing_keeps_the_places_of_the_others() {
        let mut table = Table::default();
        let subscribers: Vec<_> = (0..4).map(|_| subscriber(LOG)).collect();
        for (connection, subscriber) in (0..).zip(&subscribers) {
            table.insert(connection, subscriber, Sequence(5));
        }
        for (gone, left) in [(1, vec![0, 3, 2]), (3, vec![0, 2]), (0, vec![2])] {
            table.remove(&subscribers[gone]);
            table.remove(&subscribers[gone]);
            assert_eq!(released(&mut table, LOG, 5), left);
        }
        table.remove(&subscribers[2]);
        assert!(table.entries.is_empty());
    }

    #[test]
    fn the_end_is_followed_from_the_announcement_on() {
        let mut table = Table::default();
        table.announce(s(), LOG, Sequence(5));
        assert!(released(&mut table, LOG, 9).is_empty());
        let subscriber = subscriber(LOG);
        table.insert(1, &subscriber, Sequence(5));
        table.retract(s(), LOG);
        assert_eq!(table.end(&subscriber), Some(Sequence(9)));
    }

    #[test]
    fn an_announcement_that_comes_to_nothing_leaves_nothing() {
        let mut table = Table::<u32>::default();
        table.announce(s(), LOG, Sequence(5));
        table.retract(s(), LogNumber(2));
        assert_eq!(table.entries.len(), 1);
        table.retract(s(), LOG);
        assert!(table.entries.is_empty());
    }

    #[test]
    fn subscribers_of_an_earlier_life_get_nothing_of_a_later_one() {
        let mut table = Table::default();
        let early = subscriber(LOG);
        table.insert(1, &early, Sequence(5));
        let late = subscriber(LogNumber(2));
        table.insert(2, &late, Sequence(0));
        assert_eq!(table.end(&early), None);
        assert_eq!(table.end(&late), Some(Sequence(0)));
        assert!(released(&mut table, LOG, 6).is_empty());
        assert_eq!(released(&mut table, LogNumber(2), 1), [2]);
        table.insert(3, &subscriber(LOG), Sequence(5));
        assert_eq!(released(&mut table, LogNumber(2), 2), [2]);
        table.remove(&early);
        assert_eq!(released(&mut table, LogNumber(2), 3), [2]);
    }

    #[test]
    fn deletion_takes_all_subscribers_out() {
        let mut table = Table::default();
        let subscriber = subscriber(LOG);
        table.insert(1, &subscriber, Sequence(5));
        assert_eq!(table.take(s()).len(), 1);
        assert_eq!(table.end(&subscriber), None);
        table.remove(&subscriber);
        assert!(table.take(s()).is_empty());
    }
}
