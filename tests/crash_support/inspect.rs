//! What a server says that it has, and what is wrong with that.

use std::collections::BTreeMap;

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    ledger::Ledger,
    lines,
    load::{settle, uuid_of},
    log_checker::{Allowance, Content, Keep, LogThere},
    passing::PassingThere,
    queue_checker::{Dead, QueueAllowance, QueueThere},
    subscriptions::{MAX_DELIVERIES, SUBSCRIPTIONS, Subscription, dead_letter_logs},
};
use crate::support::{Client, Fields, Process, Response, eventually};

/// How the server ended.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Ended {
    /// By kill -9: nothing at all may be missing.
    Killed,
    /// By a power cut. What is not Synced may lack what was told since.
    Cut { may_lack_since: Instant },
}

/// Everything that a server has of what a ledger knows.
pub struct There {
    logs: BTreeMap<&'static str, LogThere>,
    queues: BTreeMap<&'static str, QueueThere>,
    passing: BTreeMap<String, Option<PassingThere>>,
    cursors: BTreeMap<Uuid, (u64, Uuid)>,
    /// Who has all that is pending of a Queue.
    holders: Vec<Holder>,
}

struct Holder {
    queue: &'static str,
    client: Client,
    held: Vec<(u64, Uuid)>,
}

impl There {
    /// Asks a server for everything. What is pending in Queues is delivered for that.
    pub async fn on(server: &Process, ledger: &Ledger) -> Self {
        let mut client = server.client().await;
        let mut there = Self {
            logs: BTreeMap::new(),
            queues: BTreeMap::new(),
            passing: BTreeMap::new(),
            cursors: BTreeMap::new(),
            holders: Vec::new(),
        };
        for subscription in SUBSCRIPTIONS {
            if let Some(log) = log(&mut client, subscription.name).await {
                there.logs.insert(subscription.name, log);
            }
        }
        for (queue, dead_letters) in SUBSCRIPTIONS
            .into_iter()
            .filter_map(|it| Some((it.name, it.dead_letters?)))
        {
            there.look_into(server, queue, dead_letters).await;
        }
        for name in ledger.passing.keys() {
            let meta = meta(&mut client, name).await;
            let passing = meta.map(|meta| PassingThere {
                epoch: meta.uuid("epoch"),
                last: meta.number("last_sequence"),
                limit: meta
                    .map("settings")
                    .map("retention")
                    .number("max_publications"),
            });
            there.passing.insert(name.clone(), passing);
        }
        if !ledger.cursors.is_empty() {
            let session = server.resume(ledger.session).await;
            for restored in session.welcome.maps("subscriptions") {
                let place = (restored.number("cursor"), restored.uuid("epoch"));
                there
                    .cursors
                    .insert(restored.uuid("subscription_id"), place);
            }
        }
        there
    }

    async fn look_into(
        &mut self,
        server: &Process,
        queue: &'static str,
        dead_letters: &'static str,
    ) {
        let Some(last) = self.logs.get(queue).map(|log| log.last) else {
            return;
        };
        let mut client = server.client().await;
        let fields = fields! { "subscription_id": queue, "prefetch": 65_535 };
        client.call("Subscribe", fields).await;
        let (mut there, mut held) = (QueueThere::default(), Vec::new());
        there.last = last;
        // What is to become a dead letter counts as pending until it is one.
        eventually("all that is pending has come", async || {
            let meta = client.meta(queue).await;
            for publication in client.unread() {
                let publication = publication.expect("Publication");
                let sequence = publication.number("sequence");
                there.came.insert(sequence, publication.number("delivery"));
                held.push((sequence, publication.uuid("publication_id")));
            }
            meta.number("pending") == 0 && meta.number("in_flight") == held.len() as u64
        })
        .await;
        if let Some(log) = log(&mut client, dead_letters).await {
            for letter in client.log(dead_letters).await {
                there.dead.push(dead(&letter));
            }
            self.logs.insert(dead_letters, log);
        }
        self.queues.insert(queue, there);
        self.holders.push(Holder {
            queue,
            client,
            held,
        });
    }

    /// Everything that is wrong, a line each.
    pub fn check(&self, ledger: &Ledger, ended: Ended) -> Vec<String> {
        let now = Instant::now();
        let mut wrong = ledger.contradictions.clone();
        for subscription in SUBSCRIPTIONS.into_iter().chain(dead_letter_logs()) {
            let Subscription { name, keep, .. } = subscription;
            let known = &ledger.logs[name];
            let since = ended.may_lack_since(&subscription);
            let Some(there) = self.logs.get(name) else {
                if known.last() > 0 {
                    wrong.push(format!("{name}: it is gone"));
                }
                continue;
            };
            let allowed = Allowance {
                keep,
                end_since: since,
            };
            wrong.extend(lines(name, &known.check(there, allowed, now)));
            if let Some(there) = self.queues.get(name) {
                let allowed = QueueAllowance {
                    max_deliveries: MAX_DELIVERIES,
                    counts_may_lag: ended != Ended::Killed,
                    undone_since: since,
                };
                wrong.extend(lines(name, &ledger.queues[name].check(there, allowed)));
                wrong.extend(self.misfed(ledger, &subscription));
            }
        }
        for (name, passing) in &ledger.passing {
            wrong.extend(lines(name, &passing.check(self.passing[name])));
        }
        wrong.extend(self.misplaced_cursors(ledger));
        wrong
    }

    /// A dead letter has the id and the payload that it had in its Queue.
    fn misfed(&self, ledger: &Ledger, queue: &Subscription) -> Vec<String> {
        let letters = queue.dead_letters.and_then(|name| self.logs.get(name));
        let known = ledger.logs[queue.name].told();
        let dead = &self.queues[queue.name].dead;
        let letters = letters
            .into_iter()
            .flat_map(|log| log.publications.values());
        letters
            .zip(dead)
            .filter(|(letter, dead)| {
                let told = known.get(&dead.sequence);
                told.is_some_and(|told| (told.id, told.content) != **letter)
            })
            .map(|(letter, dead)| {
                format!("{}: {dead:?} is not what it was: {letter:?}", queue.name)
            })
            .collect()
    }

    fn misplaced_cursors(&self, ledger: &Ledger) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, cursor) in &ledger.cursors {
            let Some((place, epoch)) = self.cursors.get(&uuid_of(name)) else {
                wrong.push(format!(
                    "{name}: the session does not subscribe it any more"
                ));
                continue;
            };
            // Of another epoch it says nothing.
            let is_other = ledger.logs[name].epoch.is_some_and(|known| known != *epoch);
            if !is_other && !(cursor.answered..=cursor.asked.max(cursor.answered)).contains(place) {
                wrong.push(format!("{name}: {cursor:?}, but the session is at {place}"));
            }
        }
        wrong
    }

    /// After a check that found nothing: what is there is known now. Of what is pending all is settled but for a few.
    pub async fn absorb(mut self, ledger: &mut Ledger, random: &mut fastrand::Rng) {
        let now = Instant::now();
        for (name, cursor) in &mut ledger.cursors {
            let (place, _) = self.cursors[&uuid_of(name)];
            *cursor = super::ledger::Cursor {
                answered: place,
                asked: place,
            };
        }
        for (name, there) in &self.logs {
            ledger.log(name).absorb(there, now);
        }
        for (name, there) in &self.queues {
            ledger.queue(name).absorb(there, now);
        }
        for (name, there) in &self.passing {
            let passing = ledger.passing.get_mut(name).unwrap();
            passing.absorb(*there);
        }
        for holder in &mut self.holders {
            random.shuffle(&mut holder.held);
            let few = random.usize(..10).min(holder.held.len());
            settle(
                &mut holder.client,
                ledger,
                holder.queue,
                &holder.held[few..],
            )
            .await;
        }
    }

    /// How many dead letters and pending publications there are.
    pub fn counts(&self) -> (usize, usize) {
        let queues = || self.queues.values();
        (
            queues().map(|queue| queue.dead.len()).sum(),
            queues().map(|queue| queue.came.len()).sum(),
        )
    }
}

impl Ended {
    fn may_lack_since(self, subscription: &Subscription) -> Option<Instant> {
        match self {
            Self::Cut { may_lack_since } if !subscription.is_synced() => Some(may_lack_since),
            _ => None,
        }
    }
}

/// None: it does not exist.
async fn meta(client: &mut Client, name: &str) -> Option<Response> {
    let fields = fields! { "subscription_id": name };
    let meta = client.ask("GetSubscription", fields).await;
    if meta.name == "Error" {
        meta.expect_error("not-found");
        return None;
    }
    Some(meta.expect("SubscriptionMeta"))
}

/// The whole log, at one moment of its retention.
async fn log(client: &mut Client, name: &str) -> Option<LogThere> {
    loop {
        let before = meta(client, name).await?;
        let log = client.log(name).await;
        let after = meta(client, name).await?;
        let kept = |meta: &Fields| (meta.number("first_sequence"), meta.number("last_sequence"));
        if kept(&before) != kept(&after) {
            continue;
        }
        let publications = log.iter().map(|publication| {
            let id = publication.uuid("publication_id");
            let content = Content::of(publication.bytes("data"));
            (publication.number("sequence"), (id, content))
        });
        return Some(LogThere {
            epoch: after.uuid("epoch"),
            last: after.number("last_sequence"),
            publications: publications.collect(),
        });
    }
}

fn dead(letter: &Fields) -> Dead {
    let told = letter.map("dead_letter");
    Dead {
        sequence: told.number("sequence"),
        deliveries: told.number("deliveries"),
        reason: told.text("reason").to_owned(),
    }
}

/// Submits again what the logs without retention hold under ids of clients: nothing is added.
pub async fn submit_again(
    server: &Process,
    ledger: &Ledger,
    random: &mut fastrand::Rng,
) -> Vec<String> {
    let mut client = server.client().await;
    let mut wrong = Vec::new();
    for Subscription { name, .. } in SUBSCRIPTIONS
        .into_iter()
        .filter(|subscription| subscription.keep == Keep::All)
    {
        let known = &ledger.logs[name];
        let supplied: Vec<_> = known
            .told()
            .iter()
            .filter_map(|(sequence, told)| Some((*sequence, known.supplied(&told.content)?)))
            .collect();
        for _ in 0..supplied.len().min(8) {
            let (sequence, id) = supplied[random.usize(..supplied.len())];
            let fields = fields! {
                "subscription_id": name, "submission": b"again", "publication_id": id,
            };
            let again = client.call("SubmitPublication", fields).await;
            if !again.truth("duplicate") || again.number("sequence") != sequence {
                wrong.push(format!("{name}: {sequence} was taken again: {again:?}"));
            }
        }
    }
    wrong
}
