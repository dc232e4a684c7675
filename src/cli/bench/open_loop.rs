//! Publishing at a fixed rate, whatever comes back: an open loop.
//!
//! Each publication has its time and its publisher ([`schedule`](super::schedule)), and its latency counts from that time, not from when it was
//! really sent. So a moment in which nothing moves is counted for everything that was due meanwhile; a closed loop would wait
//! with it, and count one.
//!
//! The thread spins: it looks at the clock and at its sockets all the time, because a timer may be late by a millisecond, and a thread that
//! sleeps by its awakening, which would then be measured with the server. So it takes a core for itself. How late
//! each publication was sent all the same is told apart. What is due while the server reads no more from its connection waits here as a number, not as bytes:
//! it is not late by the generator, and its latency counts all the same.

use std::{cell::RefCell, rc::Rc};

use infotainer::protocol::SubscriptionId;
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use super::{
    Attached, Bench, LoadError,
    answers::{Answers, request_id},
    connection::{Connection, Outgoing},
    schedule::{Kept, Punctuality, Schedule},
    wire::Submission,
};

/// Bytes of a connection that wait for its socket, above which nothing is added.
const WAITING: usize = 256 * 1024;

/// What the publishers of an open loop have in common.
pub(super) struct OpenLoop {
    schedule: Schedule,
    began: Instant,
    subscriptions: Vec<SubscriptionId>,
    submission: Submission,
    /// How many were due when the clock was looked at.
    due: u64,
    published: u64,
    punctuality: Punctuality,
    pub(super) answers: Answers,
}

/// Of the publications, one publisher's.
struct Share {
    /// The next that it is to send.
    next: u64,
    /// From one to the next.
    step: u64,
    /// What was due before this was held back, if it was not sent yet.
    held_up_to: u64,
    unanswered: u64,
}

impl OpenLoop {
    /// The schedule begins now. Publications go to the subscriptions in turn.
    pub(super) fn begin(schedule: Schedule, subscriptions: Vec<SubscriptionId>, size: u32) -> Self {
        Self {
            schedule,
            began: Instant::now(),
            subscriptions,
            submission: Submission::new(size),
            due: 0,
            published: 0,
            punctuality: Punctuality::new(),
            answers: Answers::new(),
        }
    }

    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// When publication `number` was to be sent. `None` if there is none of that number yet.
    pub(super) fn was_due(&self, number: u32) -> Option<Instant> {
        (u64::from(number) < self.due).then(|| self.began + self.schedule.due(number))
    }

    /// How the schedule was kept.
    pub(super) fn kept(&self) -> Kept {
        self.punctuality.kept(&self.schedule, self.published)
    }

    /// Sends what is due of `share`.
    fn send(&mut self, share: &mut Share, outgoing: &mut Outgoing) {
        if share.next >= self.due {
            return;
        }
        let now = self.began.elapsed();
        while share.next < self.due {
            if outgoing.waiting_len() > WAITING {
                share.held_up_to = self.due;
                return;
            }
            let number = share.next as u32;
            let subscription = share.next as usize % self.subscriptions.len();
            self.submission.number(number);
            outgoing.send(&[self
                .submission
                .asked(number, self.subscriptions[subscription])]);
            let was_held_back = share.next < share.held_up_to;
            self.punctuality
                .sent(self.schedule.due(number), now, was_held_back);
            self.published += 1;
            share.unanswered += 1;
            share.next += share.step;
        }
    }

    fn has_sent_all(&self, share: &Share) -> bool {
        share.next >= self.schedule.total()
    }
}

/// Publishes all of `load` over `connections`, in turn, and waits for the answers. The thread spins until the value is dropped.
pub(super) async fn publish(
    bench: &Rc<Bench>,
    connections: Vec<Connection>,
    load: &Rc<RefCell<OpenLoop>>,
) -> Result<Attached, LoadError> {
    let step = connections.len() as u64;
    let mut publishers = JoinSet::new();
    let mut turns = Vec::new();
    for (next, connection) in (0..).zip(connections) {
        let share = Share {
            next,
            step,
            held_up_to: 0,
            unanswered: 0,
        };
        let turn = Rc::new(Notify::new());
        turns.push(Rc::clone(&turn));
        let (bench, load) = (Rc::clone(bench), Rc::clone(load));
        publishers.spawn_local(publish_share(connection, share, bench, load, turn));
    }
    let pacing = Attached::to(pace(Rc::clone(load), turns));
    while let Some(ended) = publishers.join_next().await {
        ended.expect("invariant: a publisher neither panics nor is cancelled")?;
    }
    Ok(pacing)
}

/// Tells publishers when it is their turn, until it is cancelled.
async fn pace(load: Rc<RefCell<OpenLoop>>, turns: Vec<Rc<Notify>>) {
    loop {
        {
            let load = &mut *load.borrow_mut();
            let due = load.schedule.due_by(load.began.elapsed());
            let publishers = turns.len() as u64;
            for number in load.due..due.min(load.due + publishers) {
                turns[(number % publishers) as usize].notify_one();
            }
            load.due = due;
        }
        tokio::task::yield_now().await;
    }
}

async fn publish_share(
    mut connection: Connection,
    mut share: Share,
    bench: Rc<Bench>,
    load: Rc<RefCell<OpenLoop>>,
    turn: Rc<Notify>,
) -> Result<(), LoadError> {
    loop {
        {
            let load = &mut *load.borrow_mut();
            load.send(&mut share, connection.outgoing());
            if share.unanswered == 0 && load.has_sent_all(&share) {
                return Ok(());
            }
        }
        tokio::select! {
            // First, since it is what writes.
            biased;
            ready = connection.ready() => ready?,
            () = turn.notified() => continue,
        }
        let load = &mut *load.borrow_mut();
        let mut now = None;
        bench.read(&mut connection, |_, answer| {
            let Some(number) = request_id(&answer)? else {
                return Ok(());
            };
            if u64::from(number) >= share.next || share.unanswered == 0 {
                return Err(LoadError::NoResponse);
            }
            share.unanswered -= 1;
            // Behind the read: what waited in the socket waited.
            let now = *now.get_or_insert_with(|| load.began.elapsed());
            load.answers.add(&answer, load.schedule.due(number), now);
            Ok(())
        })?;
    }
}
