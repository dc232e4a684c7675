//! What was told of a log, held against what is there of it.
//!
//! Told is what was answered, delivered or read: whoever was told of sequence 7 knows that there were 1 to 7, since sequences have no
//! holes. Knows besides what was ever submitted, so that what nobody was told of can be judged, too.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::lost::{Lost, Part, lost};

/// Which submission: the how manyth of its publisher to this log, from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Submission {
    pub publisher: u64,
    pub number: u64,
}

/// Payload, by what tells it from every other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// As the payload itself says; none if it doesn't.
    pub submission: Option<Submission>,
    pub len: u64,
    digest: u64,
}

impl Content {
    pub fn of(data: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        data.hash(&mut hasher);
        Self {
            submission: submission_of(data),
            len: data.len() as u64,
            digest: hasher.finish(),
        }
    }
}

/// A payload of this length that says whose it is.
pub fn payload(submission: Submission, len: usize, filling: u8) -> Vec<u8> {
    let Submission { publisher, number } = submission;
    let mut data = format!("{publisher}:{number}:").into_bytes();
    data.resize(len.max(data.len()), filling);
    data
}

fn submission_of(data: &[u8]) -> Option<Submission> {
    let mut parts = data.splitn(3, |byte| *byte == b':');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    Some(Submission {
        publisher: number()?,
        number: number()?,
    })
}

/// One publication that somebody was told of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Told {
    pub id: Uuid,
    pub content: Content,
    pub since: Instant,
}

/// One submission.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sent {
    pub content: Content,
    pub since: Instant,
    /// The id that the client gave it.
    pub supplied: Option<Uuid>,
}

/// What a log's retention keeps: it may take everything else, and nothing of this.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Keep {
    All,
    Newest(u64),
    Bytes(u64),
    YoungerThan(Duration),
}

/// What may be missing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Allowance {
    pub keep: Keep,
    /// After a power cut, of a log that is not Synced: an end that nobody was told of before this.
    pub end_since: Option<Instant>,
}

impl Allowance {
    /// What retention took, and nothing else.
    pub fn only(keep: Keep) -> Self {
        Self {
            keep,
            end_since: None,
        }
    }
}

/// What a server says that the log is.
#[derive(Clone, PartialEq, Debug)]
pub struct LogThere {
    pub epoch: Uuid,
    pub last: u64,
    pub publications: BTreeMap<u64, (Uuid, Content)>,
}

impl LogThere {
    /// The oldest kept; behind the last while nothing is.
    pub fn first(&self) -> u64 {
        let first = self.publications.first_key_value();
        first.map_or(self.last + 1, |(sequence, _)| *sequence)
    }
}

/// What is wrong with a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFinding {
    /// Told of, and not there.
    Lost(Lost),
    /// The same publication stands in two places.
    Twice { first: u64, second: u64 },
    /// A publication has another sequence than was told.
    Moved { from: u64, to: u64 },
    /// Another publication has its sequence.
    Replaced { sequence: u64 },
    /// Its payload is another one.
    Changed { sequence: u64 },
    /// Nobody submitted it.
    Stranger { sequence: u64 },
    /// What its publisher submitted before it does not stand in front of it.
    OutOfOrder { sequence: u64 },
    /// A client's id was not kept.
    OtherId { sequence: u64 },
    /// A new epoch, and no reason for it.
    OtherEpoch,
    /// An end is lost, and what comes next could be taken for it.
    SameEpoch,
}

/// What is known of a log.
#[derive(Clone, Default, Debug)]
pub struct KnownLog {
    pub epoch: Option<Uuid>,
    told: BTreeMap<u64, Told>,
    sent: HashMap<Submission, Sent>,
    /// It is a dead-letter log: others submitted what it holds.
    is_fed: bool,
    contradictions: Vec<LogFinding>,
}

impl KnownLog {
    pub fn of_dead_letters() -> Self {
        Self {
            is_fed: true,
            ..Self::default()
        }
    }

    pub fn submit(&mut self, content: Content, supplied: Option<Uuid>, now: Instant) {
        let submission = content
            .submission
            .expect("invariant: a payload says whose it is");
        let sent = Sent {
            content,
            since: now,
            supplied,
        };
        self.sent.insert(submission, sent);
    }

    /// Notes what was answered, delivered or read.
    pub fn tell(&mut self, sequence: u64, id: Uuid, content: Content, now: Instant) {
        let told = Told {
            id,
            content,
            since: now,
        };
        let before = self.told.entry(sequence).or_insert(told);
        if before.id != id {
            self.contradictions.push(LogFinding::Replaced { sequence });
        } else if before.content != content {
            self.contradictions.push(LogFinding::Changed { sequence });
        }
    }

    /// The newest that anybody was told of.
    pub fn last(&self) -> u64 {
        self.told.last_key_value().map_or(0, |(last, _)| *last)
    }

    pub fn told(&self) -> &BTreeMap<u64, Told> {
        &self.told
    }

    /// The id that a client gave the submission that a publication is of.
    pub fn supplied(&self, content: &Content) -> Option<Uuid> {
        self.sent.get(&content.submission?)?.supplied
    }

    /// Everything that is wrong with what is there.
    pub fn check(&self, there: &LogThere, allowed: Allowance, now: Instant) -> Vec<LogFinding> {
        let mut findings = self.contradictions.clone();
        let lost = self.lost(there, allowed.keep, now);
        let may_lack = |lost: &Lost| {
            let is_end = matches!(lost.part, Part::End | Part::Everything);
            let young = |since: Instant| {
                self.told
                    .range(lost.from..)
                    .all(|(_, it)| it.since >= since)
            };
            is_end && allowed.end_since.is_some_and(young)
        };
        let lacks_end = lost.iter().any(may_lack);
        findings.extend(
            lost.into_iter()
                .filter(|it| !may_lack(it))
                .map(LogFinding::Lost),
        );
        if let Some(epoch) = self.epoch {
            let is_other = epoch != there.epoch;
            if is_other && allowed.end_since.is_none() {
                findings.push(LogFinding::OtherEpoch);
            }
            if !is_other && lacks_end {
                findings.push(LogFinding::SameEpoch);
            }
        }
        findings.extend(self.misplaced(there));
        if !self.is_fed {
            findings.extend(self.unlike_what_was_sent(there));
        }
        findings
    }

    /// After a check that found nothing: what is there is known now, and what is allowed to be gone is.
    pub fn absorb(&mut self, there: &LogThere, now: Instant) {
        _ = self.told.split_off(&(there.last + 1));
        self.epoch = Some(there.epoch);
        for (sequence, (id, content)) in &there.publications {
            self.tell(*sequence, *id, *content, now);
        }
    }

    fn lost(&self, there: &LogThere, keep: Keep, now: Instant) -> Vec<Lost> {
        let expected = self.must_begin_at(there, keep, now)..=there.last.max(self.last());
        lost(expected, &there.publications.keys().copied().collect())
    }

    /// The oldest that retention can't have taken.
    fn must_begin_at(&self, there: &LogThere, keep: Keep, now: Instant) -> u64 {
        let len = |sequence: u64| {
            let there = there.publications.get(&sequence).map(|(_, it)| it.len);
            there.or_else(|| Some(self.told.get(&sequence)?.content.len))
        };
        let first = there.first();
        match keep {
            Keep::All => 1,
            Keep::Newest(count) => (there.last + 1).saturating_sub(count).max(1),
            Keep::Bytes(limit) => {
                let mut bytes = 0;
                let fits = |sequence: &u64| {
                    // Of what nobody was told of, nobody knows how long it was.
                    bytes += len(*sequence).unwrap_or(u64::MAX / 2);
                    bytes <= limit
                };
                (1..=there.last)
                    .rev()
                    .take_while(fits)
                    .last()
                    .unwrap_or(first)
            }
            Keep::YoungerThan(age) => {
                let is_young = |sequence: &u64| {
                    let told = self.told.get(sequence);
                    let sent = told.and_then(|told| self.sent.get(&told.content.submission?));
                    sent.is_some_and(|sent| sent.since + age > now)
                };
                (1..first)
                    .rev()
                    .take_while(is_young)
                    .last()
                    .unwrap_or(first)
            }
        }
    }

    /// What stands elsewhere than was told, or more than once.
    fn misplaced(&self, there: &LogThere) -> Vec<LogFinding> {
        let mut findings = Vec::new();
        let told_at: HashMap<_, _> = self.told.iter().map(|(at, told)| (told.id, *at)).collect();
        let (mut by_id, mut by_submission) = (HashMap::new(), HashMap::new());
        for (&sequence, (id, content)) in &there.publications {
            match self.told.get(&sequence) {
                Some(told) if told.id != *id => findings.push(LogFinding::Replaced { sequence }),
                Some(told) if told.content != *content => {
                    findings.push(LogFinding::Changed { sequence });
                }
                _ => {}
            }
            if let Some(&from) = told_at.get(id).filter(|from| **from != sequence) {
                findings.push(LogFinding::Moved { from, to: sequence });
            }
            let second = sequence;
            let same_id = by_id.insert(id, sequence);
            let same_submission = content
                .submission
                .and_then(|submission| by_submission.insert(submission, sequence));
            if let Some(first) = same_id.or(same_submission) {
                findings.push(LogFinding::Twice { first, second });
            }
        }
        findings
    }

    /// What nobody submitted so, or not in this order.
    fn unlike_what_was_sent(&self, there: &LogThere) -> Vec<LogFinding> {
        let mut findings = Vec::new();
        let mut next: HashMap<u64, u64> = HashMap::new();
        let is_whole = there.first() == 1;
        for (&sequence, (id, content)) in &there.publications {
            let Some((submission, sent)) = content
                .submission
                .and_then(|it| Some((it, self.sent.get(&it)?)))
            else {
                findings.push(LogFinding::Stranger { sequence });
                continue;
            };
            if sent.content != *content {
                findings.push(LogFinding::Changed { sequence });
            }
            if sent.supplied.is_some_and(|supplied| supplied != *id) {
                findings.push(LogFinding::OtherId { sequence });
            }
            let Submission { publisher, number } = submission;
            let expected = next.insert(publisher, number + 1);
            let expected = expected.or(is_whole.then_some(0));
            if expected.is_some_and(|expected| expected != number) {
                findings.push(LogFinding::OutOfOrder { sequence });
            }
        }
        findings
    }
}
