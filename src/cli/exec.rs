//! `infotainer sub --exec`: a command for each publication of a Queue; how it ends says what becomes of the publication.
//!
//! Owns the commands that run, and holds their leases while they do. A publication that is delivered again while its command still runs
//! (its lease ended with a connection, say) is not worked on twice: the command goes on under the new lease.

use std::{
    collections::{HashMap, VecDeque},
    ffi::{OsStr, OsString},
    io::{self, Write},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use infotainer::{
    client::{Delivery, Queue, Rejection},
    protocol::{PublicationId, ReceivedPublication},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};

use super::{Failure, connect::Stop, print::Utc, progress::Notes, subscribe::at, work::ended};

/// A lease is extended so many times in its ack time-out.
const EXTENSIONS: u32 = 3;

/// A Queue whose publications are given to commands.
pub(super) struct Executing<'a> {
    pub(super) queue: Queue,
    pub(super) command: OsString,
    /// For commands that are clients of the server themselves.
    pub(super) server: &'a str,
    pub(super) ack_timeout: Duration,
    pub(super) reject_delay: Duration,
    pub(super) count: Option<u64>,
    pub(super) wait: Option<Duration>,
    pub(super) notes: Notes,
}

/// The lease under which a command runs; another one when it was delivered again.
type Held = Arc<Mutex<Delivery>>;

/// The commands that run, and what waits for its turn.
#[derive(Default)]
struct Running {
    held: HashMap<PublicationId, Held>,
    ends: FuturesUnordered<BoxFuture<'static, (Delivery, Result<Ended, Failure>)>>,
    /// Since when, and what.
    waiting: VecDeque<(Instant, Delivery)>,
    begun: u64,
}

/// How a command ended, and whether its publication was still leased to us.
struct Ended {
    status: ExitStatus,
    is_held: bool,
}

impl Executing<'_> {
    /// Runs commands until it is enough, nothing comes any more, or somebody stops it; those that run are waited for.
    pub(super) async fn run(mut self, stop: &mut Stop) -> Result<(), Failure> {
        let mut running = Running::default();
        // Why no more are begun.
        let mut why = None;
        let mut ends_at = self.ends_at();
        loop {
            if why.is_none() {
                self.begin(&mut running).await?;
            }
            let is_enough = self.count.is_some_and(|count| running.begun >= count);
            if running.ends.is_empty() && (is_enough || why.is_some()) {
                break;
            }
            let is_idle = running.ends.is_empty();
            tokio::select! {
                biased;
                () = stop.asked() => {
                    if why == Some("interrupted") {
                        return Err(Failure::Failed("interrupted: what was running was left alone".to_owned()));
                    }
                    why = Some("interrupted");
                    if !is_idle {
                        self.notes.say(format_args!(
                            "waiting for {} to end; once more to leave them alone",
                            running.ends.len()
                        ));
                    }
                }
                Some((delivery, end)) = running.ends.next() => {
                    running.held.remove(&delivery.publication.publication_id);
                    self.tell(&delivery, &end?);
                    ends_at = self.ends_at();
                }
                next = self.queue.next(), if !matches!(why, Some(why) if why != "interrupted") => {
                    match ended(next)? {
                        Ok(delivery) => running.deliver(delivery),
                        Err(end) => {
                            self.notes.say(end);
                            why.get_or_insert(end);
                        }
                    }
                    ends_at = self.ends_at();
                }
                () = at(ends_at), if is_idle => why = Some("nothing came any more"),
            }
        }
        match self.count {
            Some(count) if running.begun < count => Err(Failure::too_few(
                running.begun,
                count,
                why.unwrap_or_default(),
            )),
            _ => Ok(()),
        }
    }

    /// Begins what waits, as far as there is room.
    async fn begin(&self, running: &mut Running) -> Result<(), Failure> {
        while running.ends.len() < usize::from(self.queue.prefetch())
            && self.count.is_none_or(|count| running.begun < count)
            && let Some((since, delivery)) = running.waiting.pop_front()
        {
            // What has waited for others to end may be somebody else's by now.
            if since.elapsed() >= self.period() && !delivery.extend().await? {
                continue;
            }
            running.begun += 1;
            let held = Arc::new(Mutex::new(delivery.clone()));
            let id = delivery.publication.publication_id;
            running.held.insert(id, Arc::clone(&held));
            let command = self.spawn(&delivery.publication);
            let (period, delay) = (self.period(), self.reject_delay);
            let end = async move {
                let end = attend(command, &held, period, delay).await;
                (delivery, end)
            };
            running.ends.push(end.boxed());
        }
        Ok(())
    }

    fn spawn(&self, publication: &ReceivedPublication) -> JoinHandle<io::Result<ExitStatus>> {
        let (command, server) = (self.command.clone(), self.server.to_owned());
        let publication = publication.clone();
        spawn_blocking(move || execute(&command, &server, &publication))
    }

    /// The pause between two extensions of a lease.
    fn period(&self) -> Duration {
        self.ack_timeout / EXTENSIONS
    }

    fn ends_at(&self) -> Option<Instant> {
        self.wait.map(|wait| Instant::now() + wait)
    }

    fn tell(&self, delivery: &Delivery, end: &Ended) {
        let sequence = delivery.publication.sequence;
        if !end.status.success() {
            self.notes.say(format_args!(
                "publication {sequence}, delivery {}, is rejected: the command ended with {}",
                delivery.number(),
                end.status
            ));
        }
        if !end.is_held {
            self.notes.say(format_args!(
                "publication {sequence} may come again: its lease ended before the command did"
            ));
        }
    }
}

impl Running {
    /// One more, or the new lease of one that runs or waits.
    fn deliver(&mut self, delivery: Delivery) {
        let id = delivery.publication.publication_id;
        if let Some(held) = self.held.get(&id) {
            *held.lock().unwrap_or_else(PoisonError::into_inner) = delivery;
        } else {
            self.waiting
                .retain(|(_, waiting)| waiting.publication.publication_id != id);
            self.waiting.push_back((Instant::now(), delivery));
        }
    }
}

fn current(held: &Held) -> Delivery {
    held.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Waits for the end of `command`, keeping its lease, and settles it.
async fn attend(
    mut command: JoinHandle<io::Result<ExitStatus>>,
    held: &Held,
    period: Duration,
    delay: Duration,
) -> Result<Ended, Failure> {
    let status = loop {
        tokio::select! {
            status = &mut command => break status,
            () = sleep(period) => {
                // Whether it is lost shows at the end; until then it may have come again.
                current(held).extend().await?;
            }
        }
    };
    let status = status
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(|error| Failure::Failed(format!("can't run sh: {error}")))?;
    loop {
        let delivery = current(held);
        let is_held = if status.success() {
            delivery.acknowledge().await?
        } else {
            delivery.reject(Rejection::After(delay)).await?
        };
        if is_held || current(held).lease() == delivery.lease() {
            return Ok(Ended { status, is_held });
        }
    }
}

/// Runs `command` in a shell, with the data on stdin, and waits for its end.
fn execute(
    command: &OsStr,
    server: &str,
    publication: &ReceivedPublication,
) -> io::Result<ExitStatus> {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        // Not named INFOTAINER_*, or a server in the command would take them for settings that it does not know.
        .env(
            "PUBLICATION_SUBSCRIPTION_ID",
            publication.subscription_id.to_string(),
        )
        .env("PUBLICATION_ID", publication.publication_id.to_string())
        .env("PUBLICATION_SEQUENCE", publication.sequence.to_string())
        .env("PUBLICATION_TIME", Utc(publication.time).to_string())
        .env(
            "PUBLICATION_DELIVERY",
            publication.delivery.unwrap_or(1).to_string(),
        )
        .env("INFOTAINER_URL", server)
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its stdin is no worse for it.
        drop(stdin.write_all(&publication.data));
    }
    child.wait()
}
