//! What a connection subscribes, which of it is behind, and what waits for a read.
//!
//! Owns the lists. Who is served when is decided by the worker.

use std::{collections::VecDeque, rc::Rc};

use super::{Connection, Held, Paging, Subscriber};
use crate::{
    domain::{Effect, Handed},
    protocol::{Sequence, SubscriptionId},
};

/// Subscribers.
impl Connection {
    /// Its subscriber of a subscription.
    pub(crate) fn subscriber(&self, subscription: SubscriptionId) -> Option<Rc<Subscriber>> {
        let subscribers = self.subscribers.borrow();
        let mut found = subscribers.iter();
        found
            .find(|subscriber| subscriber.subscription == subscription)
            .cloned()
    }

    /// Adds a subscriber.
    pub(crate) fn add_subscriber(&self, subscriber: Rc<Subscriber>) {
        if subscriber.is_of_queue() {
            self.has_queues.set(true);
        }
        self.subscribers.borrow_mut().push(subscriber);
    }

    /// Takes its subscriber of a subscription away.
    pub(crate) fn remove_subscriber(&self, subscription: SubscriptionId) -> Option<Rc<Subscriber>> {
        let mut subscribers = self.subscribers.borrow_mut();
        let place = subscribers
            .iter()
            .position(|subscriber| subscriber.subscription == subscription)?;
        let subscriber = subscribers.swap_remove(place);
        subscriber.detach();
        Some(subscriber)
    }

    /// All its subscribers.
    pub(crate) fn subscribers(&self) -> Vec<Rc<Subscriber>> {
        self.subscribers.borrow().clone()
    }

    /// How far each was served.
    pub(crate) fn cursors(&self) -> Vec<Handed> {
        let subscribers = self.subscribers.borrow();
        let broadcast = subscribers.iter().filter(|one| !one.is_of_queue());
        broadcast.map(|one| one.cursor()).collect()
    }

    /// How far those were served that moved since the last time.
    pub(crate) fn changed_cursors(&self) -> Vec<Handed> {
        let subscribers = self.subscribers.borrow();
        let changed = subscribers.iter().filter(|one| !one.is_of_queue());
        changed.filter_map(|one| one.changed_cursor()).collect()
    }

    /// What the socket took of each Queue, where that is `step` bytes more than the last time.
    pub(crate) fn newly_written(&self, step: u64) -> Vec<(Rc<Subscriber>, u64)> {
        if !self.has_queues.get() {
            return Vec::new();
        }
        let subscribers = self.subscribers.borrow();
        subscribers
            .iter()
            .filter_map(|one| Some((Rc::clone(one), one.newly_written(step)?)))
            .collect()
    }

    /// Puts a subscriber among those that need pages; false if it was there.
    pub(crate) fn fall_behind(&self, subscriber: &Rc<Subscriber>) -> bool {
        let is_new = subscriber.await_turn();
        if is_new {
            self.behind.borrow_mut().push_back(Rc::clone(subscriber));
        }
        is_new
    }

    /// How many subscribers it has.
    pub(crate) fn subscriber_count(&self) -> usize {
        self.subscribers.borrow().len()
    }

    /// Those that need pages.
    pub(crate) fn each_behind(&self, mut each: impl FnMut(&Subscriber)) {
        self.behind.borrow().iter().for_each(|one| each(one));
    }

    /// The subscriber whose turn it is to be served a page.
    pub(crate) fn next_behind(&self) -> Option<Rc<Subscriber>> {
        self.behind.borrow().front().cloned()
    }

    /// Its turn is over: the others come first.
    pub(crate) fn pass_turn(&self) {
        let mut behind = self.behind.borrow_mut();
        if !behind.is_empty() {
            behind.rotate_left(1);
        }
    }

    /// A subscriber needs no page any more.
    pub(crate) fn leave_behind(&self, subscriber: &Rc<Subscriber>) {
        let mut behind = self.behind.borrow_mut();
        behind.retain(|one| !Rc::ptr_eq(one, subscriber));
        subscriber.end_turn();
        if behind.is_empty() {
            *behind = VecDeque::new();
        }
    }

    /// The state of reading pages.
    pub(crate) fn paging(&self) -> Paging {
        self.paging.get()
    }

    /// Changes the state of reading pages.
    pub(crate) fn set_paging(&self, paging: Paging) {
        self.paging.set(paging);
    }

    /// Bytes of the last page that was asked for; 0 if the socket did not take everything since, and before the first.
    pub(crate) fn page_size(&self) -> usize {
        self.page_size.get()
    }

    /// Changes how large the page is that is asked for.
    pub(crate) fn set_page_size(&self, bytes: usize) {
        self.page_size.set(bytes);
    }

    /// Notes whether the last page could be read. Returns whether the one before could not.
    pub(crate) fn page_failed(&self, failed: bool) -> bool {
        self.page_failed.replace(failed)
    }
}

/// Holding.
impl Connection {
    /// Whether a read is under way, so that what comes behind it has to wait.
    pub(crate) fn is_holding(&self) -> bool {
        self.is_holding.get()
    }

    /// A read is under way, or is no longer.
    pub(crate) fn set_holding(&self, is_holding: bool) {
        self.is_holding.set(is_holding);
    }

    /// Lets something wait for its turn.
    pub(crate) fn hold(&self, held: Held) {
        self.held.borrow_mut().push_back(held);
    }

    /// Lets something wait in front of everything that does.
    pub(crate) fn hold_first(&self, held: Held) {
        self.held.borrow_mut().push_front(held);
    }

    /// The next that waits.
    pub(crate) fn next_held(&self) -> Option<Held> {
        let mut held = self.held.borrow_mut();
        let next = held.pop_front();
        if held.is_empty() {
            *held = VecDeque::new();
        }
        next
    }

    /// Whether the connection subscribes once all that waits is carried out, because of something that waits.
    pub(crate) fn holds_subscribe(&self, subscription: SubscriptionId) -> bool {
        let held = self.held.borrow();
        let mut latest_first = held.iter().rev();
        latest_first.find_map(|held| match held {
            Held::Effect(Effect::Subscribe(effect)) if effect.subscription == subscription => {
                Some(true)
            }
            Held::Effect(Effect::Unsubscribe(_, id, _)) | Held::Deleted(id)
                if *id == subscription =>
            {
                Some(false)
            }
            _ => None,
        }) == Some(true)
    }
}

/// The position that a subscriber which goes on where it stands begins at: behind what is begun, since that is finished first.
pub(crate) fn kept_position(
    subscriber: &Rc<Subscriber>,
    begun: Option<(Rc<Subscriber>, Sequence)>,
) -> Sequence {
    begun
        .filter(|(begun, _)| Rc::ptr_eq(begun, subscriber))
        .map_or(subscriber.handed(), |(_, last)| last)
}
