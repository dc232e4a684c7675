//! Reading a log for a client, wherever it lies: pages and ids become `LogIndex` and `DataLogEntry`.

use bytes::Bytes;

use super::{Ids, Page, Read, ReadWhat};
use crate::protocol::{
    DataLogEntry, LogIndex, PublicationId, ResponseRoom, Sequence, ServerResponse,
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
