//! What was delivered and not yet taken: the one place that the connection's task and a [`Subscription`](super::Subscription) share.
//!
//! Owns the bound, the waking of either side, and what counts as done (an event is done when the next one is asked for). Does
//! not own what happens when it is full: that is the core's.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::sync::Notify;

use super::{Event, SubscribeError};
use crate::protocol::{Epoch, Sequence};

/// How much a [`Buffer`] holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Events.
    pub(super) count: usize,
    /// Bytes of payload. One publication always fits into an empty buffer.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Buffer {
    bound: Bound,
    inner: Mutex<Inner>,
    /// Told whenever something was taken while the connection's task waited for room.
    room: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<(Place, Event)>,
    bytes: usize,
    reader: Option<Waker>,
    /// The publication that was taken last.
    taken: Option<Place>,
    /// The last publication with which the reader is done.
    done: Option<Place>,
    /// Whether the task was told of `done` and has not looked yet.
    told: bool,
    is_awaited: bool,
    is_behind: bool,
    end: Option<Option<SubscribeError>>,
}

/// A sequence in one life of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
}

/// What the reader got.
pub(super) enum Taken {
    /// An event, and where it stands.
    Event(Place, Event),
    /// Nothing any more.
    End(Option<SubscribeError>),
}

impl Buffer {
    pub(super) fn new(bound: Bound) -> Self {
        Self {
            bound,
            inner: Mutex::default(),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is locked; and if it did, every state of it would still be one that can be read.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_full(&self) -> bool {
        let inner = self.lock();
        inner.events.len() >= self.bound.count
            || (inner.bytes >= self.bound.bytes && !inner.events.is_empty())
    }

    /// Whether at least half is free.
    pub(super) fn is_low(&self) -> bool {
        self.lock().is_low(self.bound)
    }

    /// Adds `event`, also to a full buffer: whoever adds publications asks before.
    pub(super) fn push(&self, place: Place, event: Event) {
        let waker = {
            let mut inner = self.lock();
            inner.bytes += size(&event);
            inner.events.push_back((place, event));
            inner.reader.take()
        };
        wake(waker);
    }

    /// No more events after those that are in it.
    pub(super) fn end(&self, error: Option<SubscribeError>) {
        let waker = {
            let mut inner = self.lock();
            inner.end.get_or_insert(error);
            inner.reader.take()
        };
        wake(waker);
    }

    /// Whether the reader is to tell when at least half is free.
    pub(super) fn set_behind(&self, is_behind: bool) {
        self.lock().is_behind = is_behind;
    }

    /// Asks to be told by [`room`](Self::room) when something is taken. Comes before the last look at [`is_full`](Self::is_full).
    pub(super) fn await_room(&self) {
        self.lock().is_awaited = true;
    }

    pub(super) async fn room(&self) {
        self.room.notified().await;
    }

    /// The last publication with which the reader is done.
    pub(super) fn done(&self) -> Option<Place> {
        let mut inner = self.lock();
        inner.told = false;
        inner.done
    }

    /// The next event, for the one reader there is; and whether the task has to be told that something is done, or that there is
    /// room again.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> (Poll<Taken>, bool) {
        let mut inner = self.lock();
        let newly_done = inner.taken.take();
        inner.done = newly_done.or(inner.done);
        let mut tell = newly_done.is_some() && !std::mem::replace(&mut inner.told, true);
        let Some((place, event)) = inner.events.pop_front() else {
            if let Some(end) = &mut inner.end {
                return (Poll::Ready(Taken::End(end.take())), tell);
            }
            inner.reader = Some(cx.waker().clone());
            return (Poll::Pending, tell);
        };
        inner.bytes -= size(&event);
        if matches!(event, Event::Publication(_)) {
            inner.taken = Some(place);
        }
        if inner.is_behind && inner.is_low(self.bound) {
            inner.is_behind = false;
            tell = true;
        }
        let is_awaited = std::mem::take(&mut inner.is_awaited);
        drop(inner);
        if is_awaited {
            self.room.notify_one();
        }
        (Poll::Ready(Taken::Event(place, event)), tell)
    }
}

impl Inner {
    fn is_low(&self, bound: Bound) -> bool {
        self.events.len() <= bound.count / 2 && self.bytes <= bound.bytes / 2
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Publication(publication) => publication.data.len(),
        _ => 0,
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
