//! What a data log should hold: a simple model of it, fed with the records that are written to it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    datalog::{LogExtent, LogNumber, LogReader, ReadError, Record, Recovered},
    domain::StateEntry,
    protocol::{GapCause, Sequence, StoredPublication, stored_publications},
};

/// See the module.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shadow {
    pub(crate) logs: BTreeMap<LogNumber, ShadowLog>,
    pub(crate) state: BTreeMap<Box<[u8]>, Box<[u8]>>,
    removed: Vec<LogNumber>,
    next_log: u64,
}

/// One log.
#[derive(Clone, Debug)]
pub(crate) struct ShadowLog {
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
    /// Those kept.
    pub(crate) frames: BTreeMap<Sequence, Bytes>,
}

impl Shadow {
    /// The number of the next log.
    pub(crate) fn next_log(&self) -> LogNumber {
        LogNumber(self.next_log.max(1))
    }

    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::CreateLog(log) => {
                self.next_log = self.next_log.max(log.0 + 1);
                let empty = ShadowLog {
                    first: Sequence(1),
                    last: Sequence(0),
                    frames: BTreeMap::new(),
                };
                self.logs.entry(*log).or_insert(empty);
            }
            Record::Publications(chunk) => {
                let log = self.logs.get_mut(&chunk.log).expect("the log exists");
                for publication in stored_publications(&chunk.frames).map(Result::unwrap) {
                    assert_eq!(publication.sequence(), log.last.next(), "a hole is written");
                    log.last = publication.sequence();
                    let frame = chunk.frames.slice_ref(publication.frame());
                    log.frames.insert(log.last, frame);
                }
            }
            Record::Truncate { log, first } => {
                let log = self.logs.get_mut(log).expect("the log exists");
                log.first = log.first.max(*first);
                log.frames = log.frames.split_off(first);
            }
            Record::RemoveLog(log) => {
                self.logs.remove(log);
                self.removed.push(*log);
            }
            Record::Put { key, value } => drop(self.state.insert(key.clone(), value.clone())),
            Record::Delete { key } => drop(self.state.remove(key)),
        }
    }

    /// What is other than what a start found.
    pub(crate) fn difference(&self, recovered: &Recovered) -> Option<String> {
        if recovered.next_log != self.next_log.max(1) {
            let (found, next) = (recovered.next_log, self.next_log);
            return Some(format!("the next log is {found}, not {next}"));
        }
        if recovered.logs.len() != self.logs.len() {
            let (found, logs) = (recovered.logs.len(), self.logs.len());
            return Some(format!("{found} logs, not {logs}"));
        }
        for (number, log) in &self.logs {
            let Some(extent) = recovered.logs.get(number) else {
                return Some(format!("log {} is gone", number.0));
            };
            let kept = log.extent();
            let is_same = if log.frames.is_empty() {
                // The time of the newest may be known, though it is not kept.
                (extent.first, extent.last, extent.bytes) == (kept.first, kept.last, kept.bytes)
            } else {
                *extent == kept
            };
            if !is_same {
                return Some(format!("log {} has {extent:?}, not {kept:?}", number.0));
            }
        }
        let is_same = recovered.state.len() == self.state.len()
            && recovered
                .state
                .iter()
                .all(|(key, value)| self.state.get(key) == Some(value));
        (!is_same).then(|| {
            let found: BTreeMap<_, _> = recovered.state.iter().cloned().collect();
            let keys = self.state.keys().chain(found.keys());
            let differs = keys.filter(|key| self.state.get(*key) != found.get(*key));
            let shown: Vec<_> = differs
                .map(|key| {
                    let of = |state: &BTreeMap<Box<[u8]>, Box<[u8]>>| {
                        let entry = state.get(key).map(|value| StateEntry::decode(key, value));
                        format!("{entry:?}")
                    };
                    (of(&self.state), of(&found))
                })
                .collect();
            format!("of the state differ (written, found): {shown:?}")
        })
    }

    /// What is read is what was written: nothing else, and nothing is missing.
    pub(crate) fn check(&self, reader: &LogReader) {
        self.check_pages(reader);
        for (number, log) in &self.logs {
            let ids = reader.ids(*number, Sequence(0), log.last, 10_000).unwrap();
            let written: Vec<_> = log.publications().map(|it| it.publication_id()).collect();
            assert_eq!(ids.ids, written, "ids of log {}", number.0);
            let found = reader.find(*number, &written, log.last).unwrap();
            let places: Vec<_> = log.frames.keys().copied().map(Some).collect();
            assert_eq!(found, places, "places in log {}", number.0);
        }
    }

    /// The same of the publications alone, for which the catalogue is not needed.
    pub(crate) fn check_pages(&self, reader: &LogReader) {
        for log in &self.removed {
            let page = reader.page(*log, Sequence(0), Sequence(1), 1);
            assert!(matches!(page, Err(ReadError::Gone)), "log {}", log.0);
        }
        for number in self.logs.keys() {
            let missing = self.missing(reader, *number);
            assert_eq!(missing, [], "of log {} is missing", number.0);
        }
    }

    /// Reads a log to its end: what of it is damaged. What is given has to be right.
    pub(crate) fn missing(&self, reader: &LogReader, number: LogNumber) -> Vec<Sequence> {
        let log = &self.logs[&number];
        let (mut at, mut missing) = (Sequence(0), Vec::new());
        while at < log.last {
            let page = reader.page(number, at, log.last, 700).unwrap();
            if let Some(gap) = page.gap {
                assert_eq!(gap.from, at.next());
                if gap.cause == GapCause::Damage {
                    missing.extend((gap.from.0..=gap.to.0).map(Sequence));
                } else {
                    assert!(gap.to < log.first, "retention took {gap:?}");
                }
                at = gap.to;
            }
            let is_end = page.frames.is_empty() && page.gap.is_none();
            assert!(!is_end, "log {} ends with {at}", number.0);
            for publication in stored_publications(&page.frames).map(Result::unwrap) {
                at = at.next();
                assert_eq!(publication.sequence(), at, "log {}", number.0);
                let written = log.frames.get(&at);
                let written = written.unwrap_or_else(|| panic!("{at} of log {}", number.0));
                assert_eq!(publication.frame(), &written[..], "{at} of {}", number.0);
            }
            assert_eq!(page.last, at);
        }
        missing
    }
}

impl ShadowLog {
    fn publications(&self) -> impl DoubleEndedIterator<Item = StoredPublication<'_>> {
        let first = |frame| stored_publications(frame).next().unwrap().unwrap();
        self.frames.values().map(move |frame| first(&frame[..]))
    }

    fn extent(&self) -> LogExtent {
        let time = |publication: StoredPublication<'_>| publication.time();
        let mut publications = self.publications();
        LogExtent {
            first: self.first,
            last: self.last,
            bytes: self.publications().map(|it| it.data().len() as u64).sum(),
            last_time: publications.next_back().map(time).unwrap_or_default(),
            first_time: self.publications().next().map(time).unwrap_or_default(),
        }
    }
}
