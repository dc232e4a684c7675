//! `infotainer sub`: prints what is published, as it comes, and goes on by itself when the connection was lost.

use std::{ffi::OsString, future::pending, pin::pin, time::Duration};

use clap::Args;
use futures_util::FutureExt;
use infotainer::{
    client::{Client, Event, Status, Subscription},
    protocol::{ErrorCode, Kind, Sequence, SessionId, SubscriptionReference},
};
use tokio::time::{Instant, sleep_until};

use super::{
    Failure,
    connect::{self, ServerArgs, Stop},
    exec::Executing,
    output::{is_watched, unread},
    print::{PrintArgs, Printer},
    progress::{Extent, Progress, is_told},
    start::{self, Start},
    values,
    work::Working,
};

/// Publications after which the output is handed on, and signals are looked for, however fast more of them come.
const AT_ONCE: usize = 1024;

/// How many publications of a Queue are leased at once, unless something else is said or fewer are wanted: what the server says.
const PREFETCH: u16 = 32;

/// Prints publications as they come, or works a Queue
///
/// Of a Queue, each publication is acknowledged when it was printed; or by what stdin says (--ack manual); or it is given to a command, and
/// acknowledged if that succeeds (--exec). What is not acknowledged when this ends goes to others.
#[derive(Args, Debug)]
pub(super) struct SubArgs {
    /// The subscription: a name or a UUID. It is made if it does not exist
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    /// What to make if it does not exist, broadcast (by default) or queue; one of another kind is refused
    #[arg(long, value_parser = values::kind)]
    kind: Option<Kind>,

    /// Begin with the oldest kept (first), with what is published from now on (new), with a sequence, with the last N (-N), with
    /// what was published so long ago (30m), or since a time (2026-01-31T12:00:00Z) [default: where the session left off, or new]
    #[arg(long, value_name = "START", value_parser = start::parse, allow_hyphen_values = true)]
    from: Option<Start>,

    /// Open or resume this durable session: the server remembers where it left off. The id is a secret
    #[arg(long, value_name = "UUID", value_parser = values::session)]
    session: Option<SessionId>,

    /// Acknowledge what was printed (auto, which a Queue does anyway): a session then resumes behind it; without, what the server has
    /// sent counts as done. Of a Queue also manual: ids are printed, and each line of stdin is ack, reject, dead-letter or extend
    /// and ids
    #[arg(long, value_name = "auto|manual", num_args = 0..=1, default_missing_value = "auto")]
    #[arg(value_parser = acknowledging)]
    ack: Option<Acknowledging>,

    /// Of a Queue: how many publications may be on their way here at once; with --exec, how many commands run at once. What is on its
    /// way when this ends counts as delivered once more [default: 32, or --count if that is less; with --exec 1]
    #[arg(long, value_name = "N", value_parser = values::prefetch)]
    prefetch: Option<u16>,

    /// Of a Queue: run this in a shell for each publication, with its data on stdin and PUBLICATION_ID, PUBLICATION_SEQUENCE,
    /// PUBLICATION_TIME, PUBLICATION_DELIVERY and PUBLICATION_SUBSCRIPTION_ID in the environment. Exit code 0 acknowledges, any
    /// other rejects
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["ack", "json", "raw"])]
    exec: Option<OsString>,

    /// How long after a COMMAND that failed the publication may be delivered again
    #[arg(long, value_name = "DURATION", value_parser = values::duration, requires = "exec")]
    #[arg(default_value = "1s")]
    reject_delay: Duration,

    /// End when nothing has come for so long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    wait: Option<Duration>,

    #[command(flatten)]
    print: PrintArgs,

    #[command(flatten)]
    server: ServerArgs,
}

/// When what was printed is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Acknowledging {
    Auto,
    Manual,
}

fn acknowledging(text: &str) -> Result<Acknowledging, String> {
    match text {
        "auto" => Ok(Acknowledging::Auto),
        "manual" => Ok(Acknowledging::Manual),
        _ => Err("auto or manual".to_owned()),
    }
}

pub(super) fn run(args: SubArgs) -> Result<(), Failure> {
    connect::run(async {
        let mut stop = Stop::new()?;
        let progress = progress(&args.print);
        let client = args.server.connect(args.session, &progress.notes()).await?;
        match args.kind(&client).await? {
            Kind::Broadcast => args.follow(client, progress, &mut stop).await,
            Kind::Queue => args.work(client, progress, &mut stop).await,
        }
    })
}

impl SubArgs {
    /// The kind that it has, or is to be made with.
    async fn kind(&self, client: &Client) -> Result<Kind, Failure> {
        let works = self.exec.is_some()
            || self.prefetch.is_some()
            || self.ack == Some(Acknowledging::Manual);
        let kind = match self.kind {
            Some(kind) => kind,
            None => match client.get(&self.name).await {
                Ok(meta) => meta.kind,
                Err(error) if error.code() == Some(ErrorCode::NotFound) && works => Kind::Queue,
                Err(error) if error.code() == Some(ErrorCode::NotFound) => Kind::Broadcast,
                Err(error) => return Err(error.into()),
            },
        };
        let wrong = match kind {
            Kind::Broadcast if works => {
                "--exec, --prefetch and --ack manual are for a queue, and this is a broadcast"
            }
            Kind::Broadcast if self.ack.is_some() && self.session.is_none() => {
                "--ack needs --session: it is the session that resumes behind what was acknowledged"
            }
            Kind::Queue if self.from.is_some() => {
                "--from is for a broadcast: a queue delivers what nobody has acknowledged"
            }
            _ => return Ok(kind),
        };
        Err(Failure::Usage(wrong.to_owned()))
    }

    /// Whether a person waits for what comes, without having said for how long.
    fn is_endless(&self) -> bool {
        self.print.count().is_none() && self.wait.is_none() && is_told()
    }

    async fn follow(
        self,
        client: Client,
        progress: Progress,
        stop: &mut Stop,
    ) -> Result<(), Failure> {
        let mut subscribe = client.subscribe(&self.name);
        if let Some(from) = self.from {
            subscribe = subscribe.from(from.for_subscriber(&client).await?);
        }
        if self.ack.is_none() {
            subscribe = subscribe.acknowledge_by_hand();
        }
        let subscription = subscribe.await?;
        if self.is_endless() {
            progress.notes().say(format_args!(
                "subscribed to {} behind sequence {}; Ctrl-C ends",
                self.name,
                subscription.position()
            ));
        }
        let following = Following {
            subscription,
            printer: self.print.printer(),
            progress,
            acknowledges: self.ack.is_some(),
            wait: self.wait,
            printed: None,
        };
        following.run(client, stop).await
    }

    async fn work(
        self,
        client: Client,
        progress: Progress,
        stop: &mut Stop,
    ) -> Result<(), Failure> {
        // What is leased and not printed is back soon, but has been delivered once more.
        let count = self.print.count().unwrap_or(u64::MAX);
        let wanted = if self.exec.is_some() { 1 } else { PREFETCH };
        let wanted = u16::try_from(count).map_or(wanted, |count| count.min(wanted));
        let prefetch = self.prefetch.unwrap_or(wanted);
        let queue = client.queue(&self.name).prefetch(prefetch).await?;
        let notes = progress.notes();
        if self.is_endless() {
            notes.say(format_args!("working {}; Ctrl-C ends", self.name));
        }
        if let Some(command) = self.exec {
            let ack_timeout = client.get(&self.name).await?.settings.ack_timeout;
            let executing = Executing {
                queue,
                command,
                server: self.server.url(),
                ack_timeout: Duration::from_millis(ack_timeout.unwrap_or(u64::MAX)),
                reject_delay: self.reject_delay,
                count: self.print.count(),
                wait: self.wait,
                notes,
            };
            let outcome = executing.run(stop).await;
            stop.unless_asked(client.close()).await;
            return outcome;
        }
        let is_manual = self.ack == Some(Acknowledging::Manual);
        let mut printer = self.print.printer();
        if is_manual {
            printer = printer.with_ids();
        }
        let mut working = Working {
            queue,
            printer,
            progress,
            wait: self.wait,
        };
        let outcome = if is_manual {
            working.by_hand(stop).await
        } else {
            working.acknowledging(stop).await
        };
        stop.unless_asked(client.close()).await;
        working.printer.end(outcome?)
    }
}

/// A bar where the publications can't be seen themselves, and it is known how many there will be.
pub(super) fn progress(print: &PrintArgs) -> Progress {
    match print.count() {
        Some(count) if !is_watched() => Progress::new("receiving", &Extent::Publications(count)),
        _ => Progress::none(),
    }
}

/// A subscription that is printed as it comes.
pub(super) struct Following {
    pub(super) subscription: Subscription,
    pub(super) printer: Printer,
    pub(super) progress: Progress,
    /// Whether the client acknowledges by itself what came before the last event asked for.
    pub(super) acknowledges: bool,
    pub(super) wait: Option<Duration>,
    /// The last sequence that was printed, of the epoch that there is.
    pub(super) printed: Option<Sequence>,
}

impl Following {
    /// Prints until it is enough, nothing comes any more, or somebody stops it; then closes `client`.
    pub(super) async fn run(mut self, client: Client, stop: &mut Stop) -> Result<(), Failure> {
        let ended = self.print(stop).await;
        let closed = async {
            let acknowledged = self.acknowledge(&client).await;
            client.close().await;
            acknowledged
        };
        let closed = stop.unless_asked(closed).await.unwrap_or(Ok(()));
        let why = ended?;
        closed?;
        self.printer.end(why)
    }

    /// Says why it ends, should that be too early.
    async fn print(&mut self, stop: &mut Stop) -> Result<&'static str, Failure> {
        let notes = self.progress.notes();
        let mut unread = pin!(unread());
        let mut at_once = 0;
        let mut ends_at = self.wait.map(|wait| Instant::now() + wait);
        while !self.printer.is_done() {
            // To ask for the next event is to acknowledge this one, which has to be out by then.
            let may_gather = !self.acknowledges && at_once < AT_ONCE;
            let ready = may_gather.then(|| self.subscription.next().now_or_never());
            at_once += 1;
            let event = if let Some(Some(event)) = ready {
                event
            } else {
                self.printer.flush()?;
                at_once = 0;
                tokio::select! {
                    biased;
                    () = stop.asked() => return Ok("interrupted"),
                    () = &mut unread => return Err(Failure::Unread),
                    event = self.subscription.next() => event,
                    () = at(ends_at) => return Ok("nothing came any more"),
                }
            };
            let Some(event) = event.transpose()? else {
                return Ok("the subscription has ended");
            };
            self.printer.event(self.subscription.id(), &event, &notes)?;
            if self.acknowledges {
                self.printer.flush()?;
            }
            match event {
                Event::Publication(publication) => {
                    self.printed = Some(publication.sequence);
                    self.progress.add_publication(publication.data.len() as u64);
                    ends_at = self.wait.map(|wait| Instant::now() + wait);
                }
                Event::NotRecovered(_) | Event::Deleted => self.printed = None,
                Event::Gap(_) => {}
            }
        }
        self.printer.flush()?;
        Ok("")
    }

    /// What was printed last, which no next event has acknowledged.
    async fn acknowledge(&self, client: &Client) -> Result<(), Failure> {
        let Some(printed) = self.printed.filter(|_| self.acknowledges) else {
            return Ok(());
        };
        // Somebody waits for the end.
        if !matches!(*client.status().borrow(), Status::Connected(_)) {
            return Err(Failure::Failed(format!(
                "publication {printed} could not be acknowledged: there is no connection"
            )));
        }
        self.subscription.acknowledge(printed).await?;
        Ok(())
    }
}

/// Waits for `time`, or for ever.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
