//! What the operating system says to a server that runs, and what the service manager is told about it.
//!
//! ```text
//!  SIGHUP            settings that lie in files are read again
//!  SIGTERM, SIGINT   the server stops in order; the second one ends the process at once
//!  NOTIFY_SOCKET     READY=1, RELOADING=1, STOPPING=1, and WATCHDOG=1 while the server answers (sd_notify(3))
//! ```

use std::time::Duration;

use infotainer::{RunningServer, StopError};
use sd_notify::NotifyState;
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    task::JoinError,
    time::{self, Interval},
};

use super::Failure;

/// The signals of a server that is not there yet: SIGHUP waits for it. The others still end the process, since a start loses nothing.
pub(super) struct Signals {
    runtime: Runtime,
    hangup: Signal,
}

/// The signals of a server that is there: all of them wait for [`serve`](Self::serve).
pub(super) struct AllSignals {
    begun: Signals,
    stop: Stop,
}

/// Those that end it.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

/// One of those, and its number.
#[derive(Clone, Copy)]
struct Asked(&'static str, u8);

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Failed(format!("can't start: {error}")))?;
        let hangup = listen(&runtime, SignalKind::hangup())?;
        Ok(Self { runtime, hangup })
    }

    /// From here on SIGTERM and SIGINT wait, too.
    pub(super) fn all(self) -> Result<AllSignals, Failure> {
        let stop = Stop {
            terminate: listen(&self.runtime, SignalKind::terminate())?,
            interrupt: listen(&self.runtime, SignalKind::interrupt())?,
        };
        Ok(AllSignals { begun: self, stop })
    }
}

impl AllSignals {
    /// Lets `server` run until it is told to stop.
    pub(super) fn serve(self, server: RunningServer) -> Result<(), Failure> {
        let Self { begun, mut stop } = self;
        let Signals {
            runtime,
            mut hangup,
        } = begun;
        let outcome = runtime.block_on(until_stopped(server, &mut hangup, &mut stop));
        // A stop that nobody waits for any more has a thread of its own.
        runtime.shutdown_background();
        outcome
    }
}

fn listen(runtime: &Runtime, kind: SignalKind) -> Result<Signal, Failure> {
    let _entered = runtime.enter();
    signal(kind).map_err(|error| Failure::Failed(format!("can't listen to signals: {error}")))
}

async fn until_stopped(
    server: RunningServer,
    hangup: &mut Signal,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let listens = format!("serves on {}", server.address());
    tell(&[NotifyState::Ready, NotifyState::Status(&listens)]);
    let mut watchdog = watchdog();
    let Asked(name, _) = loop {
        tokio::select! {
            asked = stop.asked() => break asked,
            _ = hangup.recv() => reload(&server, &listens),
            answers = watched(&server, &mut watchdog) => if answers {
                tell(&[NotifyState::Watchdog]);
            },
        }
    };
    log::info!("{name}: stopping");
    tell(&[NotifyState::Stopping]);
    let mut stopped = tokio::task::spawn_blocking(move || server.stop());
    loop {
        tokio::select! {
            outcome = &mut stopped => return end(outcome),
            Asked(name, number) = stop.asked() => {
                return Err(Failure::AtOnce {
                    sentence: format!("{name} again: ended at once, with connections open; what was acknowledged is kept"),
                    code: 128 + number,
                });
            }
            // Nothing is left to be read for.
            _ = hangup.recv() => {}
        }
    }
}

fn end(outcome: Result<Result<(), StopError>, JoinError>) -> Result<(), Failure> {
    match outcome {
        Ok(outcome) => outcome.map_err(|error| Failure::Failed(error.to_string())),
        Err(error) => Err(Failure::Failed(format!("the stop ended: {error}"))),
    }
}

fn reload(server: &RunningServer, listens: &str) {
    log::info!("SIGHUP: reading again what lies in files");
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("the clock can't be read: {error}"),
    }
    let status = if server.reload() {
        listens.to_owned()
    } else {
        format!("{listens}; not everything could be read again, see the log")
    };
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Tells the service manager, if there is one.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager can't be told {state:?}: {error}");
    }
}

/// Three times as often as the service manager wants to hear, if it watches: so one time may be missed.
fn watchdog() -> Option<Interval> {
    let every = sd_notify::watchdog_enabled()? / 3;
    Some(time::interval(every.max(Duration::from_millis(1))))
}

/// At the next tick of the watchdog: whether the server answers. For ever without one.
async fn watched(server: &RunningServer, watchdog: &mut Option<Interval>) -> bool {
    match watchdog {
        Some(interval) => {
            let period = interval.period();
            interval.tick().await;
            time::timeout(period, server.answers())
                .await
                .unwrap_or(false)
        }
        None => std::future::pending().await,
    }
}

impl Stop {
    /// May be dropped and called again.
    async fn asked(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked("SIGTERM", 15),
            _ = self.interrupt.recv() => Asked("SIGINT", 2),
        }
    }
}
