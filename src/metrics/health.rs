//! Whether the server is well: each actor answers, and what it needs is there.
//!
//! Owns when each actor answered last, and the reasons for which the server is not ready. Every second each actor is sent a [`Pulse`] through
//! its mailbox, so that its answer says that it does its work, and not only that its thread lives. Looking waits for nobody, so that it can be
//! told that somebody does not answer. Decides nothing: who restarts or takes out of service is whoever looks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use actix::{Message, Recipient};
use parking_lot::Mutex;

use super::{
    Metrics,
    count::{By, Label},
};

/// How often actors are asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// An actor that has not answered for so long is not well. A sync of a slow disk, or a commit that waits until a journal is sealed, may hold
/// DataLogger up for some seconds, and nothing would be gained by a restart.
const LATELY: Duration = Duration::from_secs(30);

/// Answered by whoever takes messages out of its mailbox.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub(crate) struct Pulse;

/// Why the server is not ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// It reads back what is stored.
    Recovering,
    /// A write failed: nothing is accepted until the next start.
    LogUnavailable,
    /// There is no room for publications.
    DiskFull,
    /// It is stopping.
    Stopping,
}

impl Reason {
    const ALL: [Self; 4] = [
        Self::Recovering,
        Self::LogUnavailable,
        Self::DiskFull,
        Self::Stopping,
    ];

    /// As programs read it.
    pub(crate) fn as_str(self) -> &'static str {
        Self::VALUES[self.index()]
    }

    /// As a person reads it.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Recovering => "the server reads back what is stored",
            Self::LogUnavailable => {
                "the log can't be written: nothing is accepted until the server is started again"
            }
            Self::DiskFull => "the disk is full: publications are refused until there is room",
            Self::Stopping => "the server is stopping",
        }
    }
}

impl Label for Reason {
    const VALUES: &'static [&'static str] =
        &["recovering", "log-unavailable", "disk-full", "stopping"];

    fn index(self) -> usize {
        self as usize
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Health {
    began: Instant,
    actors: Mutex<Vec<Arc<Watched>>>,
    reasons: By<Reason, AtomicBool>,
}

/// An actor.
#[derive(Debug)]
struct Watched {
    name: Box<str>,
    pulse: Recipient<Pulse>,
    /// Milliseconds since the server began.
    answered_at: AtomicU64,
    is_asked: AtomicBool,
}

/// How long ago an actor answered.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Wellbeing {
    /// Which one.
    pub(crate) actor: Box<str>,
    /// How long ago.
    pub(crate) silence: Duration,
}

impl Wellbeing {
    /// Whether that was lately.
    pub(crate) fn is_alive(&self) -> bool {
        self.silence <= LATELY
    }
}

impl Health {
    /// A server that begins to recover.
    pub(super) fn new() -> Self {
        let health = Self {
            began: Instant::now(),
            actors: Mutex::default(),
            reasons: By::default(),
        };
        health.set(Reason::Recovering, true);
        health
    }

    /// Notes whether a reason for not being ready holds.
    pub(crate) fn set(&self, reason: Reason, holds: bool) {
        self.reasons.of(reason).store(holds, Relaxed);
    }

    /// Whether a reason for not being ready holds.
    pub(crate) fn holds(&self, reason: Reason) -> bool {
        self.reasons.of(reason).load(Relaxed)
    }

    /// All of them that do.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Reason::ALL.to_vec();
        reasons.retain(|reason| self.holds(*reason));
        reasons
    }

    /// From now on this actor is asked. Its name is that of its type, with a number where there are several.
    pub(crate) fn add(&self, name: impl Into<Box<str>>, pulse: Recipient<Pulse>) {
        self.actors.lock().push(Arc::new(Watched {
            name: name.into(),
            pulse,
            answered_at: self.now().into(),
            is_asked: AtomicBool::new(false),
        }));
    }

    /// How long ago each actor answered.
    pub(crate) fn wellbeing(&self) -> Vec<Wellbeing> {
        let now = self.now();
        let actors = self.actors.lock();
        let wellbeing = actors.iter().map(|actor| Wellbeing {
            actor: actor.name.clone(),
            silence: Duration::from_millis(now.saturating_sub(actor.answered_at.load(Relaxed))),
        });
        wellbeing.collect()
    }

    /// Asks every actor that is not asked already. The answers are waited for until the result is dropped.
    fn ask(metrics: &Arc<Metrics>) -> Vec<impl Future<Output = ()> + use<>> {
        let mut actors = metrics.health.actors.lock().clone();
        actors.retain(|actor| !actor.is_asked.swap(true, Relaxed));
        let asked = actors.into_iter().map(|actor| {
            let metrics = Arc::clone(metrics);
            let answer = actor.pulse.send(Pulse);
            async move {
                // An actor that ended has not answered, and never will.
                if answer.await.is_ok() {
                    actor.answered_at.store(metrics.health.now(), Relaxed);
                    actor.is_asked.store(false, Relaxed);
                }
            }
        });
        asked.collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Asks every actor again and again, with one question to each at a time. Ends never.
pub(crate) async fn watch(metrics: Arc<Metrics>) {
    loop {
        for answer in Health::ask(&metrics) {
            actix::spawn(answer);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use actix::{Actor, Context, Handler, ResponseFuture, System};

    use super::*;

    struct Well;

    impl Actor for Well {
        type Context = Context<Self>;
    }

    impl Handler<Pulse> for Well {
        type Result = ();

        fn handle(&mut self, _: Pulse, _: &mut Self::Context) {}
    }

    struct Stuck;

    impl Actor for Stuck {
        type Context = Context<Self>;
    }

    impl Handler<Pulse> for Stuck {
        type Result = ResponseFuture<()>;

        fn handle(&mut self, _: Pulse, _: &mut Self::Context) -> ResponseFuture<()> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn an_actor_that_does_not_answer_is_told_by_its_name_and_the_others_are_well() {
        System::new().block_on(async {
            let mut metrics = Metrics::new("/".into(), 1, Arc::default());
            metrics.health.add("Well", Well.start().recipient());
            metrics.health.add("Stuck", Stuck.start().recipient());
            // As if both had been silent for a while.
            metrics.health.began -= 2 * LATELY;
            let metrics = Arc::new(metrics);
            let [well, stuck] = Health::ask(&metrics).try_into().ok().unwrap();
            well.await;
            assert!(tokio::time::timeout(Duration::ZERO, stuck).await.is_err());
            let wellbeing = metrics.health.wellbeing();
            let alive: Vec<_> = wellbeing
                .into_iter()
                .map(|one| (one.actor.to_string(), one.is_alive()))
                .collect();
            assert_eq!(
                alive,
                [("Well".to_owned(), true), ("Stuck".to_owned(), false)]
            );
            // Who is asked already is not asked again: that would only fill its mailbox.
            assert_eq!(Health::ask(&metrics).len(), 1);
        });
    }

    #[test]
    fn a_server_is_ready_when_no_reason_is_left() {
        let health = Health::new();
        assert_eq!(health.reasons(), [Reason::Recovering]);
        health.set(Reason::DiskFull, true);
        health.set(Reason::Recovering, false);
        assert_eq!(health.reasons(), [Reason::DiskFull]);
        health.set(Reason::DiskFull, false);
        assert_eq!(health.reasons(), []);
    }
}
