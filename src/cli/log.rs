//! `infotainer log`: prints what a subscription holds, and ends; or goes on with what is published, as `sub` does.

use clap::Args;
use futures_util::TryStreamExt;
use infotainer::{
    client::{Client, Event, Gap, GapCause},
    protocol::{Sequence, SubscribeFrom, SubscriptionReference},
};

use super::{
    Failure,
    connect::{self, ServerArgs, Stop},
    output::is_watched,
    print::{PrintArgs, Printer},
    progress::{Extent, Notes, Progress},
    start::{self, Start},
    subscribe::{self, Following},
    values,
};

/// Prints what is stored, and ends
#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// The subscription: a name or a UUID
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    /// Begin with the oldest kept (first), with a sequence, with the last N (-N), with what was published so long ago (30m), or
    /// since a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "START", value_parser = start::parse, allow_hyphen_values = true)]
    #[arg(default_value = "first")]
    from: Start,

    /// End with this sequence
    #[arg(long, value_name = "SEQ", value_parser = values::positive)]
    to: Option<u64>,

    /// Go on with what is published
    #[arg(long, short, conflicts_with = "to")]
    follow: bool,

    #[command(flatten)]
    print: PrintArgs,

    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn run(args: LogArgs) -> Result<(), Failure> {
    connect::run(async {
        let mut stop = Stop::new()?;
        let client = args.server.connect(None, &Notes::alone()).await?;
        // First of all, since to subscribe would make it.
        let meta = client.get(&args.name).await?;
        let after = args.from.position(&client, &args.name, &meta).await?;
        if args.follow {
            let from = SubscribeFrom::After(after);
            let subscribe = client.subscribe(&args.name).from(from).epoch(meta.epoch);
            let following = Following {
                subscription: subscribe.await?,
                printer: args.print.printer(),
                progress: subscribe::progress(&args.print),
                acknowledges: false,
                wait: None,
                printed: None,
            };
            return following.run(client, &mut stop).await;
        }
        let end = args.to.map_or(meta.last_sequence, |to| {
            meta.last_sequence.min(Sequence(to))
        });
        let mut printer = args.print.printer();
        let read = Stored {
            args: &args,
            client: &client,
            after,
            end,
        };
        let outcome = tokio::select! {
            outcome = read.print(&mut printer) => outcome,
            () = stop.asked() => Err(Failure::Failed("interrupted".to_owned())),
        };
        printer.flush()?;
        stop.unless_asked(client.close()).await;
        outcome?;
        printer.end("the log holds no more")
    })
}

/// What is stored behind a position, up to another.
struct Stored<'a> {
    args: &'a LogArgs,
    client: &'a Client,
    after: Sequence,
    end: Sequence,
}

impl Stored<'_> {
    async fn print(self, printer: &mut Printer) -> Result<(), Failure> {
        let mut progress = self.progress();
        let notes = progress.notes();
        let log = self.client.log(&self.args.name).after(self.after);
        let mut stored = log.publications();
        let mut last = self.after;
        while last < self.end && !printer.is_done() {
            let next = stored.try_next().await?;
            let next = next.filter(|next| next.sequence <= self.end);
            let found = next.as_ref().map_or(self.end.next(), |next| next.sequence);
            if found > last.next() {
                let gap = self.gap(last.next(), found.previous()).await?;
                printer.event(self.args.name.id, &Event::Gap(gap), &notes)?;
            }
            let Some(next) = next else {
                break;
            };
            printer.publication(&next)?;
            progress.add_publication(next.data.len() as u64);
            last = next.sequence;
        }
        Ok(())
    }

    /// A bar, where the publications can't be seen themselves.
    fn progress(&self) -> Progress {
        if is_watched() {
            return Progress::none();
        }
        let stored = self.end.0.saturating_sub(self.after.0);
        let wanted = self.args.print.count().unwrap_or(u64::MAX);
        Progress::new("reading", &Extent::Publications(stored.min(wanted)))
    }

    /// Why these were not there.
    async fn gap(&self, from: Sequence, to: Sequence) -> Result<Gap, Failure> {
        let first_kept = self.client.get(&self.args.name).await?.first_sequence;
        let cause = if to < first_kept {
            GapCause::Retention
        } else {
            GapCause::Damage
        };
        Ok(Gap { from, to, cause })
    }
}
