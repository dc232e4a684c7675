//! `infotainer redrive`: puts dead letters back into their Queue.
//!
//! A dead letter stays where it is: a log is only added to. What is put back has an id that follows from that of the dead letter, so
//! that doing it again adds nothing.

use std::{collections::HashMap, pin::pin};

use clap::Args;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream::FuturesOrdered};
use infotainer::{
    client::{Client, PublishError},
    protocol::{
        ErrorCode, Kind, PublicationId, ReceivedPublication, Sequence, Submitted, SubscriptionId,
        SubscriptionReference,
    },
};
use uuid::Uuid;

use super::{
    Failure,
    connect::{self, ServerArgs, Stop},
    output::Output,
    progress::{Extent, Notes, Progress},
    start::{self, Start},
    values,
};

/// Publications that wait for their answers at once.
const UNDER_WAY: u64 = 256;

/// Puts the dead letters of a Queue back into it, once
///
/// Each is published to the Queue that gave it up, behind what it holds, with an id that follows from the dead letter's own. So doing it
/// again adds nothing as long as the Queue's log holds what was put back. The dead letters stay in their log; delete the dead-letter
/// subscription when nobody needs them any more.
#[derive(Args, Debug)]
pub(super) struct RedriveArgs {
    /// The Queue, a name or a UUID; or a dead-letter subscription, whose dead letters then go back each to its own Queue
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    /// Begin in the log of dead letters with a sequence, with the last N (-N), with what was given up so long ago (30m), or since a
    /// time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "START", value_parser = start::parse, allow_hyphen_values = true)]
    #[arg(default_value = "first")]
    from: Start,

    /// End when so many were put back; those that are back already do not count
    #[arg(long, value_name = "N", value_parser = values::positive)]
    count: Option<u64>,

    /// Print each answer of the server on stdout, one JSON object a line
    #[arg(long)]
    json: bool,

    /// Don't say on stderr what was put back
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Where dead letters are read, and which of them.
struct Source {
    log: SubscriptionReference,
    of: Option<SubscriptionId>,
}

pub(super) fn run(args: RedriveArgs) -> Result<(), Failure> {
    connect::run(async {
        let mut stop = Stop::new()?;
        let client = args.server.connect(None, &Notes::alone()).await?;
        let source = source(&args, &client).await?;
        let mut redriving = Redriving::new(&args, &client);
        let outcome = tokio::select! {
            outcome = redriving.run(&source) => outcome,
            () = stop.asked() => Err(Failure::Failed("interrupted".to_owned())),
        };
        let flushed = redriving.out.flush();
        stop.unless_asked(client.clone().close()).await;
        redriving.end(outcome.and(flushed))
    })
}

async fn source(args: &RedriveArgs, client: &Client) -> Result<Source, Failure> {
    let meta = client.get(&args.name).await?;
    if meta.kind == Kind::Broadcast {
        return Ok(Source {
            log: args.name.clone(),
            of: None,
        });
    }
    let Some(dead_letter) = meta.settings.dead_letter else {
        return Err(Failure::Failed(format!(
            "{} has no dead letters",
            args.name
        )));
    };
    Ok(Source {
        log: dead_letter.into(),
        of: Some(meta.subscription_id),
    })
}

/// The id under which the publication that was given up as `dead_letter` comes back.
fn id_of(dead_letter: PublicationId) -> PublicationId {
    PublicationId(Uuid::new_v5(&dead_letter.0, b"infotainer:redrive"))
}

/// What was put back so far.
struct Redriving<'a> {
    args: &'a RedriveArgs,
    client: &'a Client,
    out: Output,
    notes: Notes,
    progress: Progress,
    /// Queues that dead letters tell of, and whether they are there.
    queues: HashMap<SubscriptionId, bool>,
    under_way: FuturesOrdered<BoxFuture<'static, Result<Submitted, PublishError>>>,
    put_back: u64,
    duplicates: u64,
    /// Those whose Queue is gone.
    left: u64,
}

impl<'a> Redriving<'a> {
    fn new(args: &'a RedriveArgs, client: &'a Client) -> Self {
        Self {
            args,
            client,
            out: Output::new(),
            notes: Notes::alone(),
            progress: Progress::none(),
            queues: HashMap::new(),
            under_way: FuturesOrdered::new(),
            put_back: 0,
            duplicates: 0,
            left: 0,
        }
    }

    async fn run(&mut self, source: &Source) -> Result<(), Failure> {
        let log = match self.client.get(&source.log).await {
            Ok(log) => log,
            // Nothing was given up yet.
            Err(error) if error.code() == Some(ErrorCode::NotFound) && source.of.is_some() => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if log.kind == Kind::Queue {
            return Err(Failure::Usage(format!(
                "the dead letters of {} go to a Queue, {}: work them there with sub",
                self.args.name, log.subscription_id
            )));
        }
        let after = self
            .args
            .from
            .position(self.client, &source.log, &log)
            .await?;
        self.progress = self.progress(after, log.last_sequence);
        self.notes = self.progress.notes();
        let letters = self.client.log(&source.log).after(after).publications();
        let mut letters = pin!(letters);
        // What is given up again meanwhile is for the next time.
        while !self.is_enough()
            && let Some(letter) = letters.try_next().await?
            && letter.sequence <= log.last_sequence
        {
            self.progress.add_publication(letter.data.len() as u64);
            self.submit(source, letter).await?;
            while self.under_way.len() as u64 >= self.room() && self.settle().await? {}
        }
        while self.settle().await? {}
        Ok(())
    }

    fn progress(&self, after: Sequence, last: Sequence) -> Progress {
        let letters = last.0.saturating_sub(after.0);
        Progress::new("putting back", &Extent::Publications(letters))
    }

    fn is_enough(&self) -> bool {
        self.args.count.is_some_and(|count| self.put_back >= count)
    }

    /// How many may be under way, so that no more are put back than are wanted.
    fn room(&self) -> u64 {
        let wanted = self.args.count.unwrap_or(u64::MAX);
        wanted.saturating_sub(self.put_back).clamp(1, UNDER_WAY)
    }

    async fn submit(
        &mut self,
        source: &Source,
        letter: ReceivedPublication,
    ) -> Result<(), Failure> {
        let Some(dead_letter) = letter.dead_letter else {
            // Published there by somebody.
            return Ok(());
        };
        let queue = dead_letter.subscription_id;
        if source.of.is_some_and(|of| of != queue) {
            return Ok(());
        }
        if !self.is_there(queue).await? {
            self.left += 1;
            return Ok(());
        }
        let publication = self.client.publish(queue, letter.data);
        let publication = publication
            .id(id_of(letter.publication_id))
            .kind(Kind::Queue);
        let acknowledgement = publication.send().await?;
        self.under_way
            .push_back(acknowledgement.into_future().boxed());
        Ok(())
    }

    /// Whether the Queue is there: publishing would make it, under its UUID.
    async fn is_there(&mut self, queue: SubscriptionId) -> Result<bool, Failure> {
        if let Some(is_there) = self.queues.get(&queue) {
            return Ok(*is_there);
        }
        let is_there = match self.client.get(queue).await {
            Ok(_) => true,
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                self.notes
                    .say(format_args!("the Queue {queue} does not exist any more"));
                false
            }
            Err(error) => return Err(error.into()),
        };
        self.queues.insert(queue, is_there);
        Ok(is_there)
    }

    /// Takes the next answer; `false` if nothing is under way.
    async fn settle(&mut self) -> Result<bool, Failure> {
        let Some(submitted) = self.under_way.next().await else {
            return Ok(false);
        };
        let submitted = submitted?;
        if submitted.duplicate {
            self.duplicates += 1;
        } else {
            self.put_back += 1;
        }
        if self.args.json {
            self.out.json(&submitted)?;
        }
        Ok(true)
    }

    fn end(self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let put_back = self.put_back;
        outcome.map_err(|failure| {
            failure.reworded(|sentence| format!("{sentence} ({put_back} were put back)"))
        })?;
        if !self.args.quiet {
            self.notes.say(format_args!(
                "{put_back} put back, {} were back already",
                self.duplicates
            ));
        }
        if self.left > 0 {
            return Err(Failure::Failed(format!(
                "{} left: their Queue does not exist any more",
                self.left
            )));
        }
        match self.args.count {
            Some(count) if put_back < count => {
                let why = "there are no more dead letters";
                Err(Failure::too_few(put_back, count, why))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_dead_letters_and_its_own_from_that() {
        let given_up = PublicationId(Uuid::from_u128(7));
        let back = id_of(given_up);
        assert_eq!(back, id_of(given_up));
        // Who does the same in another language gets the same.
        assert_eq!(back.to_string(), "dcc9670c-057a-5f81-bb64-7ce0e571e0ee");
        let again = id_of(back);
        assert!(again != back && again != given_up);
    }
}
