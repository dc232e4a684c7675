//! `infotainer sub`: prints what is published, as it comes, and goes on by itself when the connection was lost.

use std::{future::pending, pin::pin, time::Duration};

use clap::Args;
use futures_util::FutureExt;
use infotainer::{
    client::{Client, Event, Status, Subscription},
    protocol::{Sequence, SessionId, SubscriptionReference},
};
use tokio::time::{Instant, sleep_until};

use super::{
    Failure,
    connect::{self, ServerArgs, Stop},
    output::{is_watched, unread},
    print::{PrintArgs, Printer},
    progress::{Extent, Progress, is_told},
    start::{self, Start},
    values,
};

/// Publications after which the output is handed on, and signals are looked for, however fast more of them come.
const AT_ONCE: usize = 1024;

/// Prints publications as they come
#[derive(Args, Debug)]
pub(super) struct SubArgs {
    /// The subscription: a name or a UUID. It is made if it does not exist
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    /// Begin with the oldest kept (first), with what is published from now on (new), with a sequence, with the last N (-N), with
    /// what was published so long ago (30m), or since a time (2026-01-31T12:00:00Z) [default: where the session left off, or new]
    #[arg(long, value_name = "START", value_parser = start::parse, allow_hyphen_values = true)]
    from: Option<Start>,

    /// Open or resume this durable session: the server remembers where it left off. The id is a secret
    #[arg(long, value_name = "UUID", value_parser = values::session)]
    session: Option<SessionId>,

    /// Acknowledge what was printed, so that the session resumes behind it. Without it, what the server has sent counts as done
    #[arg(long, requires = "session")]
    ack: bool,

    /// End when nothing has come for so long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    wait: Option<Duration>,

    #[command(flatten)]
    print: PrintArgs,

    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: SubArgs) -> Result<(), Failure> {
    connect::run(async {
        let mut stop = Stop::new()?;
        let progress = progress(&args.print);
        let client = args.server.connect(args.session, &progress.notes()).await?;
        let mut subscribe = client.subscribe(&args.name);
        if let Some(from) = args.from {
            subscribe = subscribe.from(from.for_subscriber(&client).await?);
        }
        if !args.ack {
            subscribe = subscribe.acknowledge_by_hand();
        }
        let subscription = subscribe.await?;
        if args.print.count().is_none() && args.wait.is_none() && is_told() {
            progress.notes().say(format_args!(
                "subscribed to {} behind sequence {}; Ctrl-C ends",
                args.name,
                subscription.position()
            ));
        }
        let following = Following {
            subscription,
            printer: args.print.printer(),
            progress,
            acknowledges: args.ack,
            wait: args.wait,
            printed: None,
        };
        following.run(client, &mut stop).await
    })
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

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
