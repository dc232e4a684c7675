//! Damage at rest, and reads that fail: what can't be read is told, and everything else is served.
//!
//! What nobody can tell after a kill: a batch that is damaged looks as one that was not written whole, unless one behind it, which is
//! not damaged, says that it was synced. Exactly such batches may be missing untold, all from the first damaged one on.

use std::{fs, ops::Range, path::PathBuf};

use super::world::{Ending, World};
use crate::{
    datalog::{DataLog, LogNumber, OpenError, Recovered, disk::simulated::Call},
    domain::LogExtent,
    protocol::{Sequence, stored_publications},
};

/// What damage was done.
pub(super) struct Damaged {
    /// Which file, in the data directory, and where in it.
    name: PathBuf,
    range: Range<usize>,
    /// What was in the file.
    bytes: Vec<u8>,
}

impl World {
    /// Damages one file, while nothing runs; says how.
    pub(super) fn damage(&mut self) -> String {
        let files = self.disk.files();
        let (path, len) = files[self.random.usize(..files.len())].clone();
        // Zeros at its end may be the last publication's.
        let bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0);
        let end = end.map_or(0, |end| end + 1);
        let name = path.strip_prefix(self.disk.dir()).unwrap().to_owned();
        let at = self.random.usize(..=end.saturating_sub(1));
        let random = &mut self.random;
        let (what, range, how) = match random.u8(0..8) {
            0 => {
                self.disk.lose(&path);
                ("files lost", 0..end, "lost".to_owned())
            }
            1 | 2 => {
                self.disk.damage(&path, |bytes| bytes.truncate(at));
                ("files cut", at..end, format!("cut at {at} of {len}"))
            }
            _ if end == 0 => return format!("{} has nothing to damage", name.display()),
            3 => {
                let range = at..end.min(at + random.usize(1..2000));
                let overwrite =
                    |bytes: &mut Vec<u8>| bytes[range.clone()].fill_with(|| random.u8(..));
                self.disk.damage(&path, overwrite);
                let how = format!("overwritten from {at} to {}", range.end);
                ("files overwritten", range, how)
            }
            _ => {
                let bit = random.u8(0..8);
                self.disk.damage(&path, |bytes| bytes[at] ^= 1 << bit);
                let how = format!("bit {bit} at {at} of {end} flipped");
                ("bits flipped", at..at + 1, how)
            }
        };
        self.counts.add(what, 1);
        let how = format!("{} {how}", name.display());
        self.damaged = Some(Damaged { name, range, bytes });
        how
    }

    /// Starts on what is damaged.
    pub(super) fn check_damaged(&mut self, ending: Ending) {
        let opened = DataLog::open(self.options());
        let (log, recovered) = match opened {
            Ok(opened) => opened,
            Err(
                error @ (OpenError::Format { .. }
                | OpenError::DamagedFormat(_)
                | OpenError::NoFormat(_)),
            ) if self.is_damaged("format") => {
                self.steps.push(format!("  {error}"));
                self.counts.add("formats refused", 1);
                return;
            }
            Err(error) => panic!("it does not start: {error}"),
        };
        self.steps.push(format!("  {}", recovered.report));
        self.begin(log, &recovered);
        if let Err(untold) = self.compare(&recovered) {
            assert_ne!(ending, Ending::Orderly, "untold: {untold}");
            self.check_tail(&recovered, &untold);
            self.counts.add("damaged tails that nobody can tell", 1);
        } else if !recovered.report.damage.is_empty() {
            self.counts.add("damages told by a start", 1);
        }
        if !self.events.lock().is_empty() {
            self.counts.add("damages told while serving", 1);
        }
        // It goes on, and the next start finds no more.
        self.asked_nothing();
        self.commit();
        self.settle();
        assert!(!self.is_over(), "it does not go on");
        let running = self.running_no_more();
        drop(running.broker);
        running.log.close().unwrap();
        let (log, again) = DataLog::open(self.options()).unwrap();
        assert_eq!(again.uncertain, [], "{}", again.report);
        drop(log);
    }

    fn is_damaged(&self, prefix: &str) -> bool {
        let damaged = self.damaged.as_ref();
        damaged.is_some_and(|damaged| damaged.name.starts_with(prefix))
    }

    /// Whether everything that is missing was told, and was where damage was done.
    fn compare(&mut self, recovered: &Recovered) -> Result<(), String> {
        let expected = self.written();
        let is_told = !recovered.report.damage.is_empty();
        let logs: Vec<_> = expected.logs.keys().copied().collect();
        for number in logs {
            let log = &expected.logs[&number];
            let extent = recovered.logs.get(&number);
            let last = extent.map_or(Sequence(0), |extent| extent.last);
            let mut missing: Vec<_> = log.frames.range(last.next()..).map(|(at, _)| *at).collect();
            match extent {
                None if !is_told => return Err(format!("log {} is gone", number.0)),
                Some(_) if last < log.last && !recovered.uncertain.contains(&number) => {
                    return Err(format!(
                        "log {} ends with {last}, not {}",
                        number.0, log.last
                    ));
                }
                Some(extent) if extent.first != log.first && !is_told => {
                    return Err(format!("log {} begins with {}", number.0, extent.first));
                }
                _ => {}
            }
            if let Some(extent) = extent {
                missing.extend(self.missing(number, extent, &expected));
            }
            for at in missing {
                let Some(frame) = log.frames.get(&at) else {
                    continue;
                };
                let damaged = self.damaged.as_ref();
                let was_there = damaged.is_some_and(|damaged| find(&damaged.bytes, frame));
                // A log that nobody knows any more takes its publications with it.
                let is_unknown = extent.is_none() && !self.is_state_whole();
                assert!(
                    was_there || is_unknown,
                    "{at} of log {} is missing, and was whole",
                    number.0
                );
            }
        }
        let is_same = recovered.state.len() == expected.state.len()
            && recovered
                .state
                .iter()
                .all(|(key, value)| expected.state.get(key) == Some(value));
        if !is_same {
            assert!(!self.is_state_whole(), "state is lost, and was whole");
            if !is_told {
                return Err("state is lost".into());
            }
        }
        Ok(())
    }

    /// State is in journals, and what of it is sealed is in two places.
    fn is_state_whole(&self) -> bool {
        !self.is_damaged("journal")
    }

    /// What of a log can't be read. What is read has to be right, but for what retention took and damage brought back.
    fn missing(
        &mut self,
        number: LogNumber,
        extent: &LogExtent,
        expected: &crate::datalog::tests::shadow::Shadow,
    ) -> Vec<Sequence> {
        let log = &expected.logs[&number];
        let reader = &self.running().reader;
        let (mut at, mut missing) = (Sequence(0), Vec::new());
        while at < extent.last {
            let page = reader.page(number, at, extent.last, 900).unwrap();
            if let Some(gap) = page.gap {
                missing.extend((gap.from.0..=gap.to.0).map(Sequence));
                at = gap.to;
            } else {
                assert!(!page.frames.is_empty(), "log {} ends with {at}", number.0);
            }
            for publication in stored_publications(&page.frames).map(Result::unwrap) {
                at = at.next();
                assert_eq!(publication.sequence(), at);
                if at >= log.first {
                    assert_eq!(publication.frame(), &log.frames[&at][..], "{at}");
                }
            }
        }
        missing
    }

    /// What is missing untold is the tail that no batch that is left says was synced.
    fn check_tail(&mut self, recovered: &Recovered, untold: &str) {
        let Some(Damaged { name, range, .. }) = &self.damaged else {
            panic!("untold, and nothing was damaged: {untold}");
        };
        let (last, begins) = &self.last_batch;
        let is_last_hit = self.disk.dir().join(name) == *last && range.end as u64 > *begins;
        let floor = match is_last_hit {
            true => 0,
            false => self.synced_before_last,
        };
        let mut candidate = self.found.clone();
        let mut differences = Vec::new();
        for number in 0..=self.batches.len() {
            if number >= floor {
                differences.push(candidate.difference(recovered));
            }
            for record in self.batches.get(number).into_iter().flatten() {
                candidate.apply(record);
            }
        }
        let is_one = differences.iter().any(Option::is_none);
        assert!(is_one, "untold: {untold}: {differences:?}");
    }

    /// Reads everything while reads fail, and again when they don't.
    pub(super) fn check_failing_reads(&mut self) {
        if self.is_over() {
            return;
        }
        let written = self.written();
        for _ in 0..4 {
            let (nth, before) = (self.random.u64(..6), self.disk.failures());
            self.disk.fail(Call::Read, nth);
            for number in written.logs.keys() {
                let reader = self.running().reader.clone();
                let told = self.events.lock().len();
                let mut at = Sequence(0);
                let log = &written.logs[number];
                while at < log.last {
                    let Ok(page) = reader.page(*number, at, log.last, 900) else {
                        break;
                    };
                    if let Some(gap) = page.gap {
                        let is_told = self.events.lock().len() > told;
                        assert!(gap.to < log.first || is_told || self.disk.failures() > before);
                        at = gap.to;
                    }
                    for publication in stored_publications(&page.frames).map(Result::unwrap) {
                        at = at.next();
                        assert_eq!(publication.frame(), &log.frames[&at][..]);
                    }
                }
            }
            self.disk.fail_no_more();
        }
        written.check(&self.running().reader.clone());
    }
}

fn find(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
