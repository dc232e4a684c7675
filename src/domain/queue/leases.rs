//! How a lease ends: settled, given back, or by time.

use super::{End, Exception, Lease, PAUSE, Queue, Rejected, Touched};
use crate::{
    domain::ConnectionId,
    protocol::{DeadLetterReason, PublicationId, Sequence},
};

/// Leases that are looked at in a millisecond, on average, when they end one by one: a tenth of the time, or less, goes into that.
const LOOKS: u64 = 1_000;

/// Settling.
impl Queue {
    /// A connection acknowledges.
    pub fn acknowledge(&mut self, connection: ConnectionId, ids: &[PublicationId]) -> Touched {
        self.take_leases(connection, ids, |queue, lease| {
            queue.progress.settle(lease.sequence);
        })
    }

    /// A connection gives leases back.
    pub fn reject(
        &mut self,
        connection: ConnectionId,
        ids: &[PublicationId],
        what: Rejected,
        now: u64,
    ) -> Touched {
        self.take_leases(connection, ids, |queue, lease| match what {
            Rejected::Later(delay) => {
                let until = (delay > 0).then(|| now.saturating_add(delay));
                queue.end(lease.sequence, End::Failed, until);
            }
            Rejected::DeadLetter => queue.condemn(lease.sequence, DeadLetterReason::Rejected),
        })
    }

    /// The time of a connection's leases begins anew.
    pub fn extend(&mut self, connection: ConnectionId, ids: &[PublicationId], now: u64) -> Touched {
        let mut touched = Touched::default();
        let ends_at = now.saturating_add(self.rules.ack_timeout);
        let mut member = self.members.get_mut(&connection);
        for id in ids {
            match member.as_mut().and_then(|member| member.leases.get_mut(id)) {
                Some(lease) => {
                    lease.ends_at = ends_at;
                    touched.count += 1;
                }
                None => touched.lost.push(*id),
            }
        }
        self.check_at = self.check_at.min(ends_at);
        touched
    }

    fn take_leases(
        &mut self,
        connection: ConnectionId,
        ids: &[PublicationId],
        mut end: impl FnMut(&mut Self, Lease),
    ) -> Touched {
        let mut touched = Touched::default();
        for id in ids {
            let member = self.members.get_mut(&connection);
            match member.and_then(|member| member.leases.remove(id)) {
                Some(lease) => {
                    touched.count += 1;
                    self.in_flight -= 1;
                    end(self, lease);
                }
                None => touched.lost.push(*id),
            }
        }
        self.give_turn(connection);
        touched
    }

    /// A lease has ended without acknowledgement.
    pub(super) fn end(&mut self, sequence: u64, end: End, until: Option<u64>) {
        if end == End::Spared {
            let exception = self.progress.exception(sequence);
            let spared = exception.spared + 1;
            self.progress.except(
                sequence,
                Exception {
                    spared,
                    ..exception
                },
            );
        }
        self.put_back(sequence, until);
    }

    /// A publication that was delivered and is not on lease has its place: among the dead, or those that are delivered again.
    pub(super) fn put_back(&mut self, sequence: u64, until: Option<u64>) {
        let exception = self.progress.exception(sequence);
        if exception.dead.is_some() {
            self.dead.insert(sequence);
        } else if self.has_failed(&exception) {
            self.condemn(sequence, DeadLetterReason::MaxDeliveries);
        } else if let Some(until) = until {
            self.delayed.insert((until, sequence));
        } else {
            self.returned.insert(sequence);
        }
    }

    pub(super) fn has_failed(&self, exception: &Exception) -> bool {
        let most = self.rules.max_deliveries;
        most > 0 && u64::from(exception.failures()) >= most
    }

    pub(super) fn condemn(&mut self, sequence: u64, reason: DeadLetterReason) {
        let exception = Exception {
            dead: Some(reason),
            ..self.progress.exception(sequence)
        };
        self.progress.except(sequence, exception);
        self.dead.insert(sequence);
    }

    /// A publication that was to be moved to the dead letters was.
    pub fn moved(&mut self, sequence: Sequence) {
        if self.dead.remove(&sequence.0) {
            self.progress.settle(sequence.0);
        }
    }

    /// A move failed: none is tried for a while.
    pub fn not_moved(&mut self, now: u64) {
        self.moves_pause = Some(now.saturating_add(PAUSE));
    }
}

/// Time.
impl Queue {
    /// When there is something to do though nothing comes; [`expire`](Self::expire) does it.
    pub fn next_due(&self) -> Option<u64> {
        let check_at = self.check_at.max(self.check_from);
        let check_at = (self.in_flight > 0).then_some(check_at);
        let delayed = self.delayed.first().map(|(until, _)| *until);
        let times = [check_at, delayed, self.moves_pause, self.loads_pause];
        times.into_iter().flatten().min()
    }

    /// Ends what ends by itself at `now`. Looks at leases only when one may have ended: while all are settled in time, that is once in
    /// their time, however many there were.
    pub fn expire(&mut self, now: u64) {
        for pause in [&mut self.moves_pause, &mut self.loads_pause] {
            pause.take_if(|until| *until <= now);
        }
        while let Some(&(until, sequence)) = self.delayed.first()
            && until <= now
        {
            self.delayed.pop_first();
            self.returned.insert(sequence);
        }
        if now < self.check_at.max(self.check_from) {
            return;
        }
        // All are looked at, so the more there are, the longer it takes until they are looked at again.
        let looked_at = self.in_flight + self.members.len() as u64;
        self.check_from = now.saturating_add(looked_at / LOOKS);
        let mut ended = Vec::new();
        let mut next = u64::MAX;
        for (connection, member) in &mut self.members {
            let before = ended.len();
            member.leases.retain(|_, lease| {
                let is_over = lease.ends_at <= now;
                if is_over {
                    ended.push((*connection, lease.sequence));
                } else {
                    next = next.min(lease.ends_at);
                }
                !is_over
            });
            self.in_flight -= (ended.len() - before) as u64;
        }
        self.check_at = next;
        for (connection, sequence) in ended {
            self.end(sequence, End::Failed, None);
            self.give_turn(connection);
        }
    }
}
