//! The runs of one log, packed: some 20 bytes each instead of 80, because there are many logs and most are quiet.
//!
//! Owns the packing, which is in memory only. Each run is written relative to the one in front of it: within a log sequences
//! and times only grow, so that the differences are small. Reading is going through them, some 30 ns a run; since segments are
//! merged, even a log of 100 GB has only some hundred.

use super::{
    LogNumber,
    segment::{RunDescriptor, SegmentId, put_varint, take_varint},
};
use crate::protocol::{Sequence, Timestamp};

/// See the module. In order of sequences; no two overlap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Runs {
    packed: Box<[u8]>,
}

impl Runs {
    /// Those of log `log`.
    pub(super) fn iter(&self, log: LogNumber) -> Iter<'_> {
        Iter {
            log,
            rest: &self.packed,
            before: Before::default(),
        }
    }

    /// Adds `run` where it belongs.
    pub(super) fn insert(&mut self, run: &RunDescriptor) {
        let mut iter = self.iter(run.log);
        let behind = iter.by_ref().any(|other| other.first > run.first);
        if behind {
            self.edit(run.log, |runs| {
                let at = runs.partition_point(|other| other.first < run.first);
                runs.insert(at, *run);
            });
        } else {
            let before = iter.before;
            let mut packed = std::mem::take(&mut self.packed).into_vec();
            packed.reserve_exact(MOST);
            before.pack(run, &mut packed);
            self.packed = packed.into();
        }
    }

    /// Lets `change` loose on the unpacked runs.
    pub(super) fn edit<T>(
        &mut self,
        log: LogNumber,
        change: impl FnOnce(&mut Vec<RunDescriptor>) -> T,
    ) -> T {
        let mut runs = self.iter(log).collect();
        let changed = change(&mut runs);
        *self = runs.iter().collect();
        changed
    }
}

impl<'a> FromIterator<&'a RunDescriptor> for Runs {
    fn from_iter<I: IntoIterator<Item = &'a RunDescriptor>>(runs: I) -> Self {
        let mut packed = Vec::new();
        let mut before = Before::default();
        for run in runs {
            before.pack(run, &mut packed);
            before = Before::of(run);
        }
        Self {
            packed: packed.into(),
        }
    }
}

/// Room that a packed run usually needs at most; one with larger numbers makes its own.
const MOST: usize = 32;

/// What the run in front left for the next to be relative to.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    last: Sequence,
    last_time: Timestamp,
    segment: SegmentId,
}

impl Before {
    fn of(run: &RunDescriptor) -> Self {
        Self {
            last: run.last,
            last_time: run.last_time,
            segment: run.segment,
        }
    }

    /// Differences wrap: what does not grow takes more bytes, and is right nevertheless.
    fn pack(&self, run: &RunDescriptor, packed: &mut Vec<u8>) {
        let mut put = |value| put_varint(packed, value);
        put(run.first.0.wrapping_sub(self.last.0));
        put(run.last.0.wrapping_sub(run.first.0));
        put(run.first_time.0.wrapping_sub(self.last_time.0));
        put(run.last_time.0.wrapping_sub(run.first_time.0));
        put(run.bytes);
        put(run.segment.0.wrapping_sub(self.segment.0));
        put(run.index_offset);
        put(u64::from(run.index_len) << 1 | u64::from(run.client_ids));
        put(run.stored_bytes);
    }

    fn unpack(&self, log: LogNumber, packed: &mut &[u8]) -> Option<RunDescriptor> {
        let mut take = || take_varint(packed);
        let first = self.last.0.wrapping_add(take()?);
        let last = first.wrapping_add(take()?);
        let first_time = self.last_time.0.wrapping_add(take()?);
        let last_time = first_time.wrapping_add(take()?);
        let bytes = take()?;
        let segment = self.segment.0.wrapping_add(take()?);
        let index_offset = take()?;
        let index_len = take()?;
        Some(RunDescriptor {
            log,
            first: Sequence(first),
            last: Sequence(last),
            first_time: Timestamp(first_time),
            last_time: Timestamp(last_time),
            bytes,
            segment: SegmentId(segment),
            index_offset,
            index_len: (index_len >> 1) as u32,
            stored_bytes: take()?,
            client_ids: index_len & 1 == 1,
        })
    }
}

/// Unpacks one run after the other.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    log: LogNumber,
    rest: &'a [u8],
    before: Before,
}

impl Iterator for Iter<'_> {
    type Item = RunDescriptor;

    fn next(&mut self) -> Option<RunDescriptor> {
        if self.rest.is_empty() {
            return None;
        }
        let run = self.before.unpack(self.log, &mut self.rest);
        let run = run.expect("invariant: what was packed can be unpacked");
        self.before = Before::of(&run);
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: LogNumber = LogNumber(7);

    prop_compose! {
        fn any_run(first: u64)(
            numbers in any::<[u64; 6]>(), small in any::<[u32; 2]>(), client_ids: bool,
        ) -> RunDescriptor {
            let [last, first_time, last_time, bytes, segment, stored_bytes] = numbers;
            RunDescriptor {
                log: LOG,
                first: Sequence(first),
                last: Sequence(last),
                first_time: Timestamp(first_time),
                last_time: Timestamp(last_time),
                bytes,
                segment: SegmentId(segment),
                index_offset: u64::from(small[0]) << 8,
                index_len: small[1],
                stored_bytes,
                client_ids,
            }
        }
    }

    fn any_runs() -> impl Strategy<Value = Vec<RunDescriptor>> {
        let firsts = proptest::collection::btree_set(1_u64..1 << 40, 0..8);
        firsts.prop_flat_map(|firsts| firsts.into_iter().map(any_run).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(runs in any_runs()) {
            let packed: Runs = runs.iter().collect();
            prop_assert_eq!(packed.iter(LOG).collect::<Vec<_>>(), runs);
        }

        #[test]
        fn runs_are_in_order_however_they_came(
            runs in any_runs().prop_shuffle(),
        ) {
            let mut packed = Runs::default();
            for run in &runs {
                packed.insert(run);
            }
            let mut ordered = runs;
            ordered.sort_by_key(|run| run.first);
            prop_assert_eq!(packed, ordered.iter().collect());
        }
    }

    #[test]
    fn a_quiet_logs_run_takes_some_20_bytes() {
        let run = |number: u64| RunDescriptor {
            log: LOG,
            first: Sequence(10 * number + 1),
            last: Sequence(10 * number + 10),
            first_time: Timestamp(1_800_000_000_000 + 100_000 * number),
            last_time: Timestamp(1_800_000_000_000 + 100_000 * number + 1_000),
            bytes: 1_280,
            segment: SegmentId(100 + number),
            index_offset: 50_000_000,
            index_len: 30,
            stored_bytes: 2_000,
            client_ids: false,
        };
        let runs: Vec<_> = (0..10).map(run).collect();
        let packed: Runs = runs.iter().collect();
        assert!(packed.packed.len() <= 200, "{}", packed.packed.len());
    }
}
