//! What all connections of the server share: how many there may be, and how much may be under way between threads.
//!
//! Owns the counts, which every thread changes. The budget bounds, for all connections together, what lies between the sockets and
//! the data log, and what was released and no Hub has taken: where a Hub is slower than the publishers, they wait. It comes back when
//! commands take effect and Hubs have taken what is theirs, so that it never depends on a client.

use std::{
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::Waker,
};

use parking_lot::Mutex;

use super::{
    Identities, Meter,
    addresses::{AddressShare, Addresses},
};

/// Bytes that may be under way; see [`budget_cost`](super::budget_cost). Two journals' worth: more would only wait.
const BUDGET: u64 = 64 << 20;

/// What all connections of the server share.
#[derive(Debug)]
pub(crate) struct Gate {
    max_connections: usize,
    /// `None` while any address may have any number.
    addresses: Option<Arc<Addresses>>,
    identities: Option<Identities>,
    connections: AtomicUsize,
    json_connections: AtomicUsize,
    under_way: AtomicU64,
    /// Workers whose sessions wait for budget. Touched only when it is used up.
    waiting: Mutex<Vec<Waker>>,
    is_closed: AtomicBool,
}

/// One connection's place among all. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    refusal: Option<Overfull>,
    /// Of those of its address.
    _share: Option<AddressShare>,
}

/// Why a connection may not be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overfull {
    /// There are too many, or the server stops.
    Server,
    /// Its address has too many.
    Address,
}

impl Gate {
    /// A gate for `max_connections` connections, and for so many of each address.
    pub(crate) fn new(max_connections: usize, per_address: Option<u64>) -> Self {
        Self {
            max_connections,
            identities: None,
            addresses: per_address.map(|most| Arc::new(Addresses::new(most))),
            connections: AtomicUsize::new(0),
            json_connections: AtomicUsize::new(0),
            under_way: AtomicU64::new(0),
            waiting: Mutex::new(Vec::new()),
            is_closed: AtomicBool::new(false),
        }
    }

    /// The same, with the rates of identities.
    pub(crate) fn with_identities(self, identities: Identities) -> Self {
        Self {
            identities: Some(identities),
            ..self
        }
    }

    /// The meter of the identity `name`, if it has one.
    pub(crate) fn meter(&self, name: &Arc<str>) -> Option<Arc<Meter>> {
        self.identities.as_ref()?.meter(name)
    }

    /// Counts a connection of `peer` that was accepted.
    pub(crate) fn enter(self: &Arc<Self>, peer: Option<IpAddr>) -> Rc<Permit> {
        let before = self.connections.fetch_add(1, Relaxed);
        let (mut refusal, mut share) = (None, None);
        if let (Some(addresses), Some(peer)) = (&self.addresses, peer) {
            share = addresses.enter(peer);
            refusal = share.is_none().then_some(Overfull::Address);
        }
        if before >= self.max_connections {
            refusal = Some(Overfull::Server);
        }
        Rc::new(Permit {
            gate: Arc::clone(self),
            refusal,
            _share: share,
        })
    }

    /// A connection in JSON began.
    pub(crate) fn enter_json(&self) {
        self.json_connections.fetch_add(1, Relaxed);
    }

    /// It ended.
    pub(crate) fn leave_json(&self) {
        self.json_connections.fetch_sub(1, Relaxed);
    }

    /// Whether there is any.
    pub(crate) fn has_json(&self) -> bool {
        self.json_connections.load(Relaxed) > 0
    }

    /// From now on no connection may begin.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Relaxed);
    }

    /// What is under way counts for so much.
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way.load(Relaxed)
    }

    /// Whether commands may be read.
    pub(crate) fn has_budget(&self) -> bool {
        self.under_way.load(SeqCst) < BUDGET
    }

    /// Something that costs so much is under way.
    pub(crate) fn spend(&self, cost: u64) {
        self.under_way.fetch_add(cost, SeqCst);
    }

    /// Something that cost so much has arrived, or never will.
    pub(crate) fn refund(&self, cost: u64) {
        if cost > 0 {
            let before = self.under_way.fetch_sub(cost, SeqCst);
            if before >= BUDGET && before - cost < BUDGET {
                for waker in self.waiting.lock().drain(..) {
                    waker.wake();
                }
            }
        }
    }

    /// Wakes `waker` once there is budget. Whoever waits looks again behind this, since it may have come meanwhile.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

impl Permit {
    /// Whether the connection may be opened.
    pub(crate) fn is_granted(&self) -> bool {
        self.refusal().is_none()
    }

    /// Why it may not.
    pub(crate) fn refusal(&self) -> Option<Overfull> {
        if self.gate.is_closed.load(Relaxed) {
            return Some(Overfull::Server);
        }
        self.refusal
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_over_the_limit_are_counted_but_not_granted() {
        let gate = Arc::new(Gate::new(1, None));
        let first = gate.enter(None);
        let second = gate.enter(None);
        assert!(first.is_granted() && !second.is_granted());
        assert_eq!(gate.connections.load(Relaxed), 2);
        drop((first, second));
        assert!(gate.enter(None).is_granted());
    }

    #[test]
    fn an_address_with_as_many_connections_as_it_may_have_is_refused_by_itself() {
        let gate = Arc::new(Gate::new(2, Some(1)));
        let enter = |last| gate.enter(Some([10, 0, 0, last].into()));
        let first = enter(1);
        let second = enter(1);
        assert!(first.is_granted());
        assert_eq!(second.refusal(), Some(Overfull::Address));
        drop(second);
        let _other = enter(2);
        assert_eq!(enter(3).refusal(), Some(Overfull::Server));
        drop(first);
        assert!(enter(1).is_granted());
    }

    #[test]
    fn a_closed_gate_grants_nothing() {
        let gate = Arc::new(Gate::new(1, None));
        gate.close();
        assert!(!gate.enter(None).is_granted());
    }

    #[test]
    fn a_spent_budget_comes_back() {
        let gate = Gate::new(1, None);
        gate.spend(BUDGET);
        assert!(!gate.has_budget());
        gate.refund(1);
        assert!(gate.has_budget());
    }

    #[test]
    fn those_who_wait_are_woken_once_when_budget_comes_back() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let gate = Gate::new(1, None);
        gate.spend(BUDGET + 1);
        gate.wait(&waker);
        gate.wait(&waker);
        gate.refund(1);
        assert_eq!(count.0.load(Relaxed), 0);
        gate.refund(1);
        gate.refund(1);
        assert_eq!(count.0.load(Relaxed), 1);
    }
}
