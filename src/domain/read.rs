//! Reading a log for a client, wherever it lies: pages and ids become `LogIndex` and `DataLogEntry`.

use bytes::Bytes;

use super::{Ids, Page, Read, ReadWhat};
use crate::protocol::{
    DataLogEntry, GapCause, LogIndex, PublicationId, ResponseRoom, Sequence, ServerResponse,
    stored_publications,
};

/// A log that can be read.
pub trait ReadLog {
    /// Why it can't.
    type Error;

    /// Ready frames behind `after` up to `through`: see [`Page`].
    ///
    /// # Errors
    /// If the log can't be read.
    fn page(
        &self,
        after: Sequence,
        through: Sequence,
        max_bytes: usize,
    ) -> Result<Page, Self::Error>;

    /// Ids behind `after` up to `through`: see [`Ids`].
    ///
    /// # Errors
    /// If the log can't be read.
    fn ids(&self, after: Sequence, through: Sequence, limit: usize) -> Result<Ids, Self::Error>;

    /// Where each of `ids` is.
    ///
    /// # Errors
    /// If the log can't be read.
    fn find(
        &self,
        ids: &[PublicationId],
        through: Sequence,
    ) -> Result<Vec<Option<Sequence>>, Self::Error>;
}

/// What one page of a range read asks for.
const PAGE_SIZE: usize = 256 * 1024;

/// The answer to `read`.
///
/// # Errors
/// If the log can't be read.
pub fn answer_read<L: ReadLog>(log: &L, read: &Read) -> Result<ServerResponse, L::Error> {
    match &read.what {
        ReadWhat::Index { after, limit } => {
            let ids = log.ids(*after, read.last, *limit)?;
            Ok(ServerResponse::LogIndex(Box::new(LogIndex {
                log_id: read.subscription,
                entries: ids.ids,
                first_sequence: ids.first,
                last_sequence: read.last,
                more: ids.reached < read.last,
            })))
        }
        ReadWhat::Range { after, limit } => range(log, read, *after, *limit),
        ReadWhat::Ids(ids) => by_id(log, read, ids),
    }
}

fn range<L: ReadLog>(
    log: &L,
    read: &Read,
    after: Sequence,
    limit: usize,
) -> Result<ServerResponse, L::Error> {
    let mut answer = Entries::default();
    let mut reached = after;
    while reached < read.last && answer.publications.len() < limit {
        let page = log.page(reached, read.last, PAGE_SIZE)?;
        let is_cut = page.gap.is_some_and(|gap| gap.cause == GapCause::Retention);
        if is_cut && !answer.publications.is_empty() {
            // Retention came in between; a hole in an answer would be taken for damage.
            break;
        }
        let position = page.last.max(page.gap.map_or(Sequence::ZERO, |gap| gap.to));
        if position <= reached {
            break;
        }
        match answer.add(&page.frames, limit) {
            Some(last) => {
                reached = last;
                break;
            }
            None => reached = position,
        }
    }
    Ok(answer.finish(read, Vec::new(), reached < read.last))
}

fn by_id<L: ReadLog>(
    log: &L,
    read: &Read,
    ids: &[PublicationId],
) -> Result<ServerResponse, L::Error> {
    let found = log.find(ids, read.last)?;
    let mut sequences = Vec::with_capacity(ids.len());
    let mut missing = Vec::new();
    for (id, sequence) in ids.iter().zip(found) {
        match sequence {
            Some(sequence) => sequences.push((sequence, *id)),
            None => missing.push(*id),
        }
    }
    sequences.sort_unstable();
    let mut answer = Entries::default();
    let has_room = answer.room.take(missing.len() * PublicationId::ENCODED_LEN);
    debug_assert!(
        has_room,
        "invariant: a list of ids is far below the size of a response"
    );
    let mut more = false;
    for (sequence, id) in sequences {
        // The smallest page: one publication.
        let page = log.page(sequence.previous(), sequence, 1)?;
        if page.frames.is_empty() || page.first != sequence {
            missing.push(id);
        } else if answer.add(&page.frames, usize::MAX).is_some() {
            more = true;
            break;
        }
    }
    Ok(answer.finish(read, missing, more))
}

/// The publications of a `DataLogEntry`, as many as it holds.
#[derive(Default)]
struct Entries {
    publications: Vec<Bytes>,
    room: ResponseRoom,
}

impl Entries {
    /// Adds those of `frames`. If not all have a place, the sequence of the last that has (or the one in front of the first).
    fn add(&mut self, frames: &Bytes, limit: usize) -> Option<Sequence> {
        for publication in stored_publications(frames).map_while(Result::ok) {
            let fields = publication.fields();
            if self.publications.len() == limit || !self.room.take(fields.len()) {
                return Some(publication.sequence().previous());
            }
            self.publications.push(frames.slice_ref(fields));
        }
        None
    }

    fn finish(self, read: &Read, missing: Vec<PublicationId>, more: bool) -> ServerResponse {
        ServerResponse::DataLogEntry(Box::new(DataLogEntry {
            log_id: read.subscription,
            publications: self.publications,
            missing,
            more,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use super::*;
    use crate::{
        domain::{LogNumber, MissingRange},
        protocol::{Publication, SubscriptionId, Timestamp},
    };

    /// A log whose pages are of one publication, and of which retention takes everything up to `cut` behind the first page.
    struct Cut {
        cut: Sequence,
        is_read: Cell<bool>,
    }

    impl ReadLog for Cut {
        type Error = Infallible;

        fn page(&self, after: Sequence, _: Sequence, _: usize) -> Result<Page, Infallible> {
            let kept = if self.is_read.replace(true) {
                after.max(self.cut)
            } else {
                after
            };
            let mut frames = Vec::new();
            Publication {
                subscription_id: SubscriptionId::of_name("a"),
                publication_id: PublicationId::made(Timestamp(1), kept.next(), 1),
                sequence: kept.next(),
                time: Timestamp(1),
                publisher: None,
                dead_letter: None,
                data: b"data",
            }
            .encode_into(&mut frames);
            Ok(Page {
                gap: (kept > after).then_some(MissingRange {
                    from: after.next(),
                    to: kept,
                    cause: GapCause::Retention,
                }),
                frames: frames.into(),
                first: kept.next(),
                last: kept.next(),
            })
        }

        fn ids(&self, _: Sequence, _: Sequence, _: usize) -> Result<Ids, Infallible> {
            unreachable!()
        }

        fn find(
            &self,
            _: &[PublicationId],
            _: Sequence,
        ) -> Result<Vec<Option<Sequence>>, Infallible> {
            unreachable!()
        }
    }

    #[test]
    fn answer_to_a_range_has_no_hole_where_retention_came_in_between() {
        let log = Cut {
            cut: Sequence(5),
            is_read: Cell::new(false),
        };
        let read = |after| Read {
            subscription: SubscriptionId::of_name("a"),
            log: LogNumber(1),
            last: Sequence(7),
            what: ReadWhat::Range {
                after: Sequence(after),
                limit: 10,
            },
        };
        let mut answers = Vec::new();
        for after in [0, 1] {
            let Ok(ServerResponse::DataLogEntry(answer)) = answer_read(&log, &read(after)) else {
                panic!("no entries")
            };
            answers.push((answer.publications.len(), answer.more));
        }
        assert_eq!(answers, [(1, true), (2, false)]);
    }
}
