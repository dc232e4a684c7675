//! Reading a journal back, and telling where it ended from where it is damaged.
//!
//! ```text
//!  | batch 7 | batch 8 | torn 9 | zeros or an earlier generation     a torn tail: nobody was told that 9 is durable
//!  | batch 7 | ??????? | batch 9, synced through 7 | ...             torn as well: 8 and 9 were never synced, unless the journal
//!                                                                   ended synced: the next one goes on behind 9
//!  | batch 7 | ??????? | batch 9, synced through 8 | ...             damage: 8 was durable once
//! ```

use std::ops::Range;

use uuid::Uuid;

use super::format::{ALIGNMENT, Batch, HEADER_LEN, MAGIC, peek};

/// What a journal's bytes are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Scan {
    /// Which generation; `None` of a free file.
    pub(crate) generation: Option<u64>,
    /// Where valid batches are, back to back.
    pub(crate) spans: Vec<Range<usize>>,
    /// What lies between the spans, or in front of the first.
    pub(crate) damaged: Vec<Range<usize>>,
    /// Behind the last span: what was being written when the end came.
    pub(crate) torn: Option<Range<usize>>,
    /// Numbers of the first and last valid batch.
    pub(crate) numbers: Option<(u64, u64)>,
    /// How many valid batches there are.
    pub(crate) batches: u64,
}

impl Scan {
    /// Whether nothing of it was lost, as far as that can be seen.
    pub(crate) fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.torn.is_none()
    }
}

/// Finds the batches of the newest generation above `sealed_through` in `bytes`.
///
/// `before` is the number of the last batch in front of this journal, as far as it is known.
pub(crate) fn scan(bytes: &[u8], store: Uuid, sealed_through: u64, before: u64) -> Scan {
    scan_of(bytes, store, sealed_through, before, |_| false)
}

/// The same, where something else may know through which batch the journal was synced when it ended.
pub(crate) fn scan_of(
    bytes: &[u8],
    store: Uuid,
    sealed_through: u64,
    before: u64,
    was_synced_through: impl Fn(u64) -> bool,
) -> Scan {
    let Some(generation) = newest_generation(bytes, store, sealed_through) else {
        return Scan::default();
    };
    let mut scan = Scan {
        generation: Some(generation),
        ..Scan::default()
    };
    let mut last = before;
    let mut at = 0;
    loop {
        let start = at;
        while let Some(batch) = read(bytes, at, store, generation, last) {
            last = batch.header.number;
            scan.batches += 1;
            scan.numbers = Some((scan.numbers.map_or(last, |(first, _)| first), last));
            at = end_of(&batch, at, bytes);
        }
        if at > start {
            scan.spans.push(start..at);
        }
        let mut later = later_batches(bytes, at, store, generation, last).peekable();
        let Some(&(resumed, _)) = later.peek() else {
            scan.torn = torn(bytes, at, generation);
            return scan;
        };
        let (mut end, mut through) = (at, last);
        let was_synced = later.any(|(offset, batch)| {
            end = end_of(&batch, offset, bytes);
            through = batch.header.number;
            batch.header.synced_through > last
        });
        if !was_synced && !was_synced_through(through) {
            scan.torn = Some(at..end);
            return scan;
        }
        scan.damaged.push(at..resumed);
        at = resumed;
    }
}

fn read(bytes: &[u8], at: usize, store: Uuid, generation: u64, last: u64) -> Option<Batch<'_>> {
    let batch = Batch::read(bytes.get(at..)?, store)?;
    (batch.header.generation == generation && batch.header.number > last).then_some(batch)
}

/// A file that was cut may lack some of the last batch's padding, of which nothing is needed.
fn end_of(batch: &Batch<'_>, at: usize, bytes: &[u8]) -> usize {
    (at + batch.len()).min(bytes.len())
}

/// Every valid batch behind `from`, wherever it begins.
fn later_batches(
    bytes: &[u8],
    from: usize,
    store: Uuid,
    generation: u64,
    last: u64,
) -> impl Iterator<Item = (usize, Batch<'_>)> {
    let mut at = from;
    std::iter::from_fn(move || {
        while at + HEADER_LEN <= bytes.len() {
            let here = at;
            at += ALIGNMENT;
            if bytes[here..here + 4] == MAGIC.to_le_bytes()
                && let Some(batch) = read(bytes, here, store, generation, last)
            {
                at = here + batch.len();
                return Some((here, batch));
            }
        }
        None
    })
}

/// The generation that the journal was last used for, if that is above `sealed_through`: that of the batch at the
/// beginning, valid or torn; if there is none, the newest of all that are there.
pub(crate) fn newest_generation(bytes: &[u8], store: Uuid, sealed_through: u64) -> Option<u64> {
    let unsealed = |generation: &u64| *generation > sealed_through;
    if let Some(batch) = Batch::read(bytes, store) {
        return Some(batch.header.generation).filter(unsealed);
    }
    let mut newest = None;
    for at in (0..bytes.len().saturating_sub(HEADER_LEN)).step_by(ALIGNMENT) {
        if bytes[at..at + 4] == MAGIC.to_le_bytes()
            && let Some(batch) = Batch::read(&bytes[at..], store)
        {
            newest = newest.max(Some(batch.header.generation));
        }
    }
    let torn = || peek(bytes).map(|(_, generation)| generation);
    newest.filter(unsealed).or_else(torn).filter(unsealed)
}

/// The batch that was begun at `at`, if its header says that it was.
fn torn(bytes: &[u8], at: usize, generation: u64) -> Option<Range<usize>> {
    let (length, found) = peek(bytes.get(at..)?)?;
    (found == generation).then(|| at..bytes.len().min(at.saturating_add(length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datalog::{
        Record,
        journal::format::{BatchBuilder, BatchHeader},
    };

    const STORE: Uuid = Uuid::from_u128(1);

    fn batch(generation: u64, number: u64, synced_through: u64) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        builder.push(&Record::Put {
            key: (*b"key").into(),
            value: vec![b'v'; 100].into(),
        });
        builder
            .finish(
                STORE,
                BatchHeader {
                    generation,
                    number,
                    synced_through,
                },
            )
            .to_vec()
    }

    fn journal(batches: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = batches.concat();
        bytes.resize(4096, 0);
        bytes
    }

    fn len() -> usize {
        batch(0, 0, 0).len()
    }

    #[test]
    fn zeros_are_a_free_journal() {
        assert_eq!(scan(&[0; 4096], STORE, 0, 0), Scan::default());
    }

    #[test]
    fn sealed_generations_are_a_free_journal() {
        let bytes = journal(&[batch(3, 1, 0), batch(3, 2, 0)]);
        assert_eq!(scan(&bytes, STORE, 3, 0), Scan::default());
        assert_eq!(scan(&bytes, STORE, 2, 0).batches, 2);
    }

    #[test]
    fn earlier_generation_is_no_tail() {
        let bytes = journal(&[batch(4, 3, 2), batch(3, 2, 0)]);
        let scan = scan(&bytes, STORE, 2, 0);
        assert_eq!((scan.generation, scan.batches), (Some(4), 1));
        assert_eq!((scan.torn, scan.damaged), (None, vec![]));
    }

    #[test]
    fn batch_cut_anywhere_is_a_torn_tail() {
        let (whole, last) = (batch(1, 1, 0), batch(1, 2, 0));
        for cut in HEADER_LEN - 4..last.len() - ALIGNMENT {
            let bytes = journal(&[whole.clone(), last[..cut].to_vec()]);
            let scan = scan(&bytes, STORE, 0, 0);
            assert_eq!(scan.batches, 1, "cut at {cut}");
            let torn = scan.torn.unwrap();
            assert_eq!(torn.start, len(), "cut at {cut}");
            assert!(scan.damaged.is_empty(), "cut at {cut}");
        }
    }

    /// The end of the padding was taken for that of the file, and what was not there was to be copied.
    #[test]
    fn batch_without_its_padding_is_whole_or_torn_as_any_other() {
        let last = |number| {
            let mut builder = BatchBuilder::new();
            builder.push(&Record::Delete {
                key: (*b"a key").into(),
            });
            let header = BatchHeader {
                generation: 1,
                number,
                synced_through: 0,
            };
            let padded = builder.finish(STORE, header).to_vec();
            let end = padded.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            assert!(end < padded.len());
            padded[..end].to_vec()
        };
        let first = batch(1, 1, 0);
        let bytes = [first.clone(), last(2)].concat();
        let whole = scan(&bytes, STORE, 0, 0);
        assert_eq!((whole.batches, whole.torn), (2, None));
        assert_eq!(whole.spans.last().unwrap().end, bytes.len());
        let bytes = [first, vec![7; len()], last(3)].concat();
        let torn = scan(&bytes, STORE, 0, 0);
        assert_eq!((torn.batches, torn.torn), (1, Some(len()..bytes.len())));
    }

    #[test]
    fn batch_lost_before_its_sync_is_a_torn_tail_with_all_behind_it() {
        let bytes = journal(&[
            batch(1, 1, 0),
            vec![0; len()],
            batch(1, 3, 1),
            batch(1, 4, 1),
        ]);
        let scan = scan(&bytes, STORE, 0, 0);
        assert_eq!((scan.batches, scan.damaged), (1, vec![]));
        assert_eq!(scan.torn, Some(len()..4 * len()));
    }

    #[test]
    fn batch_lost_after_its_sync_is_damage() {
        let bytes = journal(&[
            batch(1, 1, 0),
            vec![0; len()],
            batch(1, 3, 1),
            batch(1, 4, 3),
        ]);
        let scan = scan(&bytes, STORE, 0, 0);
        assert_eq!(scan.batches, 3);
        assert_eq!(scan.spans, vec![0..len(), 2 * len()..4 * len()]);
        assert_eq!(scan.damaged, vec![len()..2 * len()]);
        assert_eq!(scan.torn, None);
    }

    #[test]
    fn first_batch_lost_is_told_as_any_other() {
        let lost = |synced| journal(&[vec![7; len()], batch(5, 11, synced)]);
        let damaged = scan(&lost(10), STORE, 4, 9);
        assert_eq!((damaged.damaged.len(), damaged.batches), (1, 1));
        let torn = scan(&lost(9), STORE, 4, 9);
        assert_eq!((torn.damaged.len(), torn.batches), (0, 0));
        assert!(torn.torn.is_some());
    }

    #[test]
    fn number_of_the_last_batch_is_known() {
        let bytes = journal(&[batch(1, 8, 0), batch(1, 9, 0)]);
        assert_eq!(scan(&bytes, STORE, 0, 7).numbers, Some((8, 9)));
    }
}
