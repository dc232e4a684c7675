//! `infotainer pub`: publishes what it is given, many at once under way, and ends when the server has answered all of them.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, pin::pin, time::Duration};

use bytes::Bytes;
use clap::Args;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use infotainer::{
    client::{Client, PublishError},
    protocol::{Kind, PublicationId, Submitted, SubscriptionReference},
};

use tokio::time::timeout;

use super::{
    Failure,
    connect::{self, ServerArgs, Stop},
    input::{self, Lines},
    output::{Output, unread},
    progress::{Extent, Notes, Progress},
    values,
};

/// Publications that wait for their answers at once: what a client has under way unless it says otherwise.
const UNDER_WAY: usize = 256;

/// Bytes of them after which no more are read.
const BYTES_UNDER_WAY: usize = 16 << 20;

/// How long answers are waited for when something has failed.
const LAST: Duration = Duration::from_secs(3);

/// Publishes DATA, or each line of stdin
#[derive(Args, Debug)]
pub(super) struct PubArgs {
    /// The subscription: a name or a UUID. It is made if it does not exist
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    /// What to publish. Without it, or with -, each line of stdin is one publication
    #[arg(allow_negative_numbers = true)]
    data: Option<OsString>,

    /// What to make if it does not exist, broadcast (by default) or queue; one of another kind is refused
    #[arg(long, value_parser = values::kind)]
    kind: Option<Kind>,

    /// Publish DATA so many times; of stdin, the first so many lines
    #[arg(long, value_name = "N", value_parser = values::positive)]
    count: Option<u64>,

    /// The id of the one publication: the same again is not added again
    #[arg(long, value_name = "UUID", value_parser = values::publication_id)]
    #[arg(conflicts_with = "count")]
    id: Option<PublicationId>,

    /// Print each answer of the server on stdout, one JSON object a line
    #[arg(long)]
    json: bool,

    /// Don't say on stderr what was published
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Where the publications come from.
enum Source {
    Repeated { data: Bytes, left: u64 },
    Stdin { lines: Lines, left: Option<u64> },
}

impl Source {
    /// The next one. Nothing is lost if the future is dropped.
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        match self {
            Self::Repeated { data, left } => {
                *left = left.checked_sub(1)?;
                Some(Ok(data.clone()))
            }
            Self::Stdin { left: Some(0), .. } => None,
            Self::Stdin { lines, left } => {
                let line = lines.next().await;
                if let Some(left) = left {
                    *left -= 1;
                }
                line
            }
        }
    }
}

impl PubArgs {
    fn source(&self) -> Source {
        match &self.data {
            Some(data) if data != "-" => Source::Repeated {
                data: data.clone().into_vec().into(),
                left: self.count.unwrap_or(1),
            },
            _ => Source::Stdin {
                lines: Lines::of_stdin(),
                left: self.count,
            },
        }
    }

    /// Whether there is one publication, whatever comes.
    fn is_one(&self) -> bool {
        !self.reads_stdin() && self.count.is_none()
    }

    fn reads_stdin(&self) -> bool {
        self.data.as_ref().is_none_or(|data| data == "-")
    }

    /// What the bar counts.
    fn extent(&self) -> Extent {
        match (self.count, input::file_size()) {
            (Some(count), _) => Extent::Publications(count),
            (None, Some(size)) if self.reads_stdin() => Extent::Bytes(size),
            _ => Extent::Unknown,
        }
    }
}

pub(super) fn run(args: PubArgs) -> Result<(), Failure> {
    if args.id.is_some() && args.reads_stdin() {
        return Err(Failure::Usage(
            "--id needs DATA: it is the id of one publication".to_owned(),
        ));
    }
    connect::run(async {
        let mut stop = Stop::new()?;
        let is_typed = args.reads_stdin() && input::is_typed();
        let progress = if is_typed {
            Progress::none()
        } else {
            Progress::new("publishing", &args.extent())
        };
        let notes = progress.notes();
        let client = args.server.connect(None, &notes).await?;
        if is_typed && !args.quiet {
            notes.say("each line is published when it ends; Ctrl-D ends the input");
        }
        let mut publishing = Publishing::new(&args, &client, progress);
        let outcome = publishing.run(&mut args.source(), &mut stop).await;
        stop.unless_asked(client.clone().close()).await;
        publishing.end(outcome, &notes)
    })
}

/// What was sent, and what has come of it.
struct Publishing<'a> {
    args: &'a PubArgs,
    client: &'a Client,
    out: Output,
    progress: Progress,
    under_way: FuturesOrdered<BoxFuture<'static, Answered>>,
    bytes_under_way: usize,
    sent: u64,
    published: u64,
    first: Option<Submitted>,
    last: Option<Submitted>,
}

/// What has come of one publication.
struct Answered {
    number: u64,
    size: usize,
    result: Result<Submitted, PublishError>,
}

impl<'a> Publishing<'a> {
    fn new(args: &'a PubArgs, client: &'a Client, progress: Progress) -> Self {
        Self {
            args,
            client,
            out: Output::new(),
            progress,
            under_way: FuturesOrdered::new(),
            bytes_under_way: 0,
            sent: 0,
            published: 0,
            first: None,
            last: None,
        }
    }

    /// Publishes everything of `source`, until something fails, and waits for all answers.
    async fn run(&mut self, source: &mut Source, stop: &mut Stop) -> Result<(), Failure> {
        let fed = self.feed(source, stop).await;
        if let Err(Failure::Unread) = fed {
            return fed;
        }
        // The server answers in time, or the client says that it did not; but somebody waits for the end of what has failed.
        let patience = if fed.is_ok() { Duration::MAX } else { LAST };
        let settled = stop
            .unless_asked(timeout(patience, self.settle_rest()))
            .await;
        match settled {
            Some(Ok(settled)) => fed.and(settled),
            Some(Err(_)) | None => fed.and(Err(interrupted())),
        }
    }

    async fn feed(&mut self, source: &mut Source, stop: &mut Stop) -> Result<(), Failure> {
        let mut unread = pin!(unread());
        loop {
            let has_room =
                self.under_way.len() < UNDER_WAY && self.bytes_under_way < BYTES_UNDER_WAY;
            tokio::select! {
                biased;
                () = stop.asked() => return Err(interrupted()),
                () = &mut unread, if self.args.json => return Err(Failure::Unread),
                Some(answered) = self.under_way.next() => {
                    self.settle(answered)?;
                    if self.under_way.is_empty() {
                        self.out.flush()?;
                    }
                }
                data = source.next(), if has_room => match data {
                    Some(data) => self.send(data?).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn send(&mut self, data: Bytes) -> Result<(), Failure> {
        let size = data.len();
        self.sent += 1;
        let number = self.sent;
        let mut publication = self.client.publish(&self.args.name, data);
        if let Some(id) = self.args.id {
            publication = publication.id(id);
        }
        if let Some(kind) = self.args.kind {
            publication = publication.kind(kind);
        }
        // No more are under way than the client lets, so it waits for nothing.
        let acknowledgement = publication.send().await?;
        self.bytes_under_way += size;
        let answered = async move {
            Answered {
                number,
                size,
                result: acknowledgement.await,
            }
        };
        self.under_way.push_back(answered.boxed());
        Ok(())
    }

    fn settle(&mut self, answered: Answered) -> Result<(), Failure> {
        self.bytes_under_way -= answered.size;
        let submitted = answered.result.map_err(|error| {
            let failure = Failure::from(error);
            if self.args.is_one() {
                failure
            } else {
                failure.reworded(|sentence| format!("publication {}: {sentence}", answered.number))
            }
        })?;
        self.published += 1;
        self.first.get_or_insert(submitted);
        self.last = Some(submitted);
        self.progress.add_publication(answered.size as u64);
        if self.args.json {
            self.out.json(&submitted)?;
        }
        Ok(())
    }

    /// What is under way may be in the log, and counts, whatever failed before.
    async fn settle_rest(&mut self) -> Result<(), Failure> {
        let mut outcome = Ok(());
        while let Some(answered) = self.under_way.next().await {
            outcome = outcome.and(self.settle(answered));
        }
        outcome.and(self.out.flush())
    }

    /// Says what was published.
    fn end(self, outcome: Result<(), Failure>, notes: &Notes) -> Result<(), Failure> {
        let published = self.published;
        if let Err(failure) = outcome {
            return Err(if self.args.is_one() {
                failure
            } else {
                failure.reworded(|sentence| format!("{sentence} (published before: {published})"))
            });
        }
        if !self.args.quiet {
            notes.say(self.summary());
        }
        match self.args.count {
            Some(count) if published < count => {
                let why = "stdin has no more lines";
                Err(Failure::too_few(published, count, why))
            }
            _ => Ok(()),
        }
    }

    fn summary(&self) -> String {
        let name = &self.args.name;
        match (self.first, self.last) {
            (Some(one), _) if self.args.is_one() && one.duplicate => {
                format!("{name} holds it already: sequence {}", one.sequence)
            }
            (Some(one), _) if self.published == 1 => {
                format!("published to {name}: sequence {}", one.sequence)
            }
            (Some(first), Some(last)) => format!(
                "{} published to {name}: sequences {} to {}, in {:.2} s",
                self.published,
                first.sequence,
                last.sequence,
                self.progress.elapsed().as_secs_f64()
            ),
            _ => format!("nothing published to {name}"),
        }
    }
}

fn interrupted() -> Failure {
    Failure::Failed("interrupted".to_owned())
}
