//! What is remembered of a chunk in a journal: where it is, and what would else have to be read again.

use crate::protocol::{
    NUMBER_LIMIT, NotAPublication, PublicationId, Sequence, Timestamp, stored_publications,
};

/// A chunk in a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkEntry {
    pub(crate) generation: u64,
    pub(crate) first: Sequence,
    pub(crate) first_time: Timestamp,
    pub(crate) last_time: Timestamp,
    /// Where its frames are in the journal.
    pub(crate) offset: u32,
    /// Of the frames.
    pub(crate) len: u32,
    pub(crate) crc: u32,
    pub(crate) count: u32,
    /// Sum of its payloads.
    pub(crate) bytes: u32,
}

impl ChunkEntry {
    /// Looks through the frames of a chunk, and tells of every id that a client supplied.
    pub(crate) fn survey(
        frames: &[u8],
        mut client_id: impl FnMut(PublicationId, Sequence),
    ) -> Result<Self, NotAPublication> {
        let len = u32::try_from(frames.len()).map_err(|_| NotAPublication)?;
        let mut entry: Option<Self> = None;
        for publication in stored_publications(frames) {
            let publication = publication?;
            let (sequence, time) = (publication.sequence(), publication.time());
            if !(1..NUMBER_LIMIT).contains(&sequence.0) {
                return Err(NotAPublication);
            }
            // Lazily, or each publication would have the whole chunk's checksum made.
            let entry = entry.get_or_insert_with(|| Self {
                generation: 0,
                first: sequence,
                first_time: time,
                last_time: time,
                offset: 0,
                len,
                crc: crc32c::crc32c(frames),
                count: 0,
                bytes: 0,
            });
            if sequence.0 != entry.first.0 + u64::from(entry.count) {
                return Err(NotAPublication);
            }
            entry.count += 1;
            entry.last_time = time;
            entry.bytes += u32::try_from(publication.data().len()).map_err(|_| NotAPublication)?;
            let id = publication.publication_id();
            if !id.is_made_for(time, sequence) {
                client_id(id, sequence);
            }
        }
        entry.ok_or(NotAPublication)
    }

    pub(crate) fn last(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.count) - 1)
    }

    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }
}
