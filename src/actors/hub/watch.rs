//! What the Hub's timer looks after: heartbeats, stuck clients, connections that close or say who they are too slowly, reads to be tried again, cursors.
//!
//! Owns no timer of a single connection: ten thousand of those would cost more than looking at ten thousand connections now and then.

use std::rc::Rc;

use crate::{
    actors::{closing::CloseReason, messages::Cursors, worker::Worker},
    connection::{Connection, Paging, Phase, Verdict},
    metrics::{HubFigures, labels::AuthFailure},
};

impl Worker {
    /// Looks at every connection.
    pub(super) fn watch(self: &Rc<Self>) {
        let now = self.now();
        for connection in self.connections() {
            match connection.phase() {
                Phase::Open => self.look(&connection, now),
                Phase::Authenticating if now >= connection.close_by() => {
                    let failures = self.authenticator.failures();
                    failures.of(AuthFailure::Missing).add_one();
                    self.close(&connection, CloseReason::NOT_AUTHORIZED);
                }
                Phase::Closing if now >= connection.close_by() => self.end(&connection),
                Phase::Authenticating | Phase::Opening | Phase::Closing | Phase::Ended => {}
            }
        }
    }

    fn look(self: &Rc<Self>, connection: &Rc<Connection>, now: u64) {
        match connection.look(now, &self.heartbeat) {
            Verdict::Well => {}
            Verdict::Ping => {
                connection.with_outbox(|outbox| outbox.ping());
                self.mark_dirty(connection);
            }
            Verdict::Silent => self.close(connection, CloseReason::SILENT),
            Verdict::Stuck => self.close(connection, CloseReason::STUCK),
        }
        if connection.paging() == Paging::Paused {
            connection.set_paging(Paging::Idle);
            self.mark_dirty(connection);
        }
    }

    /// What all connections are like now.
    pub(super) fn figures(&self) -> HubFigures {
        let (connections, table) = (self.connections.borrow(), self.table.borrow());
        let mut figures = HubFigures {
            connections: connections.len() as u64,
            ..HubFigures::default()
        };
        for connection in connections.values() {
            let waiting = connection.with_outbox(|outbox| outbox.waiting_bytes());
            figures.outbox_bytes += waiting as u64;
            figures.subscribers += connection.subscriber_count() as u64;
            connection.each_behind(|subscriber| {
                let end = table.end(subscriber).unwrap_or_default();
                let missing = end.0.saturating_sub(subscriber.position().0);
                figures.behind += u64::from(missing > 0);
                figures.missing += missing;
                figures.most_missing = figures.most_missing.max(missing);
            });
        }
        figures
    }

    /// Tells PubSubService how far durable sessions were served, where that changed.
    pub(super) fn tell_cursors(&self) {
        let changed: Vec<_> = self
            .connections()
            .iter()
            .filter(|connection| connection.is_durable() && connection.phase() == Phase::Open)
            .map(|connection| (connection.id(), connection.changed_cursors()))
            .filter(|(_, cursors)| !cursors.is_empty())
            .collect();
        if !changed.is_empty() {
            // Without waiting: one a second.
            self.neighbours.cursors.do_send(Cursors(changed));
        }
    }
}
