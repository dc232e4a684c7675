//! What all connections of the server share: how many there may be, and how much of their commands may be under way.
//!
//! Owns the counts, which every worker changes. The budget bounds what lies between the sockets and the data log for all connections
//! together; it comes back when commands take effect, so that it never depends on a client.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

/// Bytes of commands that may be under way; see [`budget_cost`](super::budget_cost). Two journals' worth: more would only wait.
const BUDGET: u64 = 64 << 20;

/// What all connections of the server share.
#[derive(Debug)]
pub(crate) struct Gate {
    max_connections: usize,
    connections: AtomicUsize,
    under_way: AtomicU64,
    is_closed: AtomicBool,
}

/// One connection's place among all. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    is_over: bool,
}

impl Gate {
    /// A gate for `max_connections` connections.
    pub(crate) fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            connections: AtomicUsize::new(0),
            under_way: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Counts a connection that was accepted.
    pub(crate) fn enter(self: &Arc<Self>) -> Rc<Permit> {
        let before = self.connections.fetch_add(1, Relaxed);
        Rc::new(Permit {
            gate: Arc::clone(self),
            is_over: before >= self.max_connections,
        })
    }

    /// From now on no connection may begin.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Relaxed);
    }

    /// Whether commands may be read.
    pub(crate) fn has_budget(&self) -> bool {
        self.under_way.load(Relaxed) < BUDGET
    }

    /// Commands that cost so much are forwarded.
    pub(crate) fn spend(&self, cost: u64) {
        self.under_way.fetch_add(cost, Relaxed);
    }

    /// Commands that cost so much took effect, or never will.
    pub(crate) fn refund(&self, cost: u64) {
        if cost > 0 {
            self.under_way.fetch_sub(cost, Relaxed);
        }
    }
}

impl Permit {
    /// Whether the connection may be opened.
    pub(crate) fn is_granted(&self) -> bool {
        !self.is_over && !self.gate.is_closed.load(Relaxed)
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
        let gate = Arc::new(Gate::new(1));
        let first = gate.enter();
        let second = gate.enter();
        assert!(first.is_granted() && !second.is_granted());
        assert_eq!(gate.connections.load(Relaxed), 2);
        drop((first, second));
        assert!(gate.enter().is_granted());
    }

    #[test]
    fn a_closed_gate_grants_nothing() {
        let gate = Arc::new(Gate::new(1));
        gate.close();
        assert!(!gate.enter().is_granted());
    }

    #[test]
    fn a_spent_budget_comes_back() {
        let gate = Gate::new(1);
        gate.spend(BUDGET);
        assert!(!gate.has_budget());
        gate.refund(1);
        assert!(gate.has_budget());
    }
}
