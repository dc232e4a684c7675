//! Reading a segment: a run's index, then single blocks, each checked against its checksum.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::format::{
    CLIENT_ID, HEADER_LEN, ID_ENTRY_LEN, TRAILER_LEN, decode_header, decode_index, decode_trailer,
    footer_crc, next_run, take,
};
use super::{Damaged, IdEntry, RunDescriptor, SegmentHeader, SegmentId, SegmentSummary};
use crate::datalog::{LogNumber, disk::File};
use crate::protocol::{PublicationId, Sequence, Timestamp};

/// An open segment file. Reading takes no lock and moves no file position, so that any thread may.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    id: SegmentId,
    path: PathBuf,
    file: File,
    len: u64,
}

/// A part of a run: frames that are checked, and so read, together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Block {
    pub(crate) log: LogNumber,
    /// Where its frames are in the file; its ids follow them.
    pub(crate) offset: u64,
    /// Of the frames.
    pub(crate) len: u32,
    pub(crate) first: Sequence,
    pub(crate) last: Sequence,
    pub(crate) first_time: Timestamp,
    pub(crate) last_time: Timestamp,
    /// Sum of its payloads.
    pub(crate) bytes: u64,
    /// Sum of the payloads of the run's blocks in front of it.
    pub(crate) bytes_before: u64,
    pub(super) crc: u32,
    pub(super) ids_crc: u32,
}

impl Block {
    /// Number of publications.
    pub(crate) fn count(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// Bytes that its ids take in the file, behind its frames.
    pub(crate) fn ids_len(&self) -> u64 {
        self.count() * ID_ENTRY_LEN as u64
    }
}

/// Where the blocks of a run are. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RunIndex {
    blocks: Box<[Block]>,
}

impl RunIndex {
    /// In sequence order, without holes.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Which of [`blocks`](Self::blocks) holds `sequence`.
    pub(crate) fn position_of(&self, sequence: Sequence) -> Option<usize> {
        let at = self.blocks.partition_point(|block| block.last < sequence);
        self.blocks
            .get(at)
            .filter(|block| block.first <= sequence)
            .map(|_| at)
    }

    /// Memory that it takes, for a cache's account.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.blocks)
    }
}

/// A segment's footer, each run of it in a few bytes.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) header: SegmentHeader,
    bytes: Vec<u8>,
    file_len: u64,
}

impl Footer {
    /// In order of (log, sequence).
    pub(crate) fn runs(&self) -> impl Iterator<Item = RunDescriptor> + '_ {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || next_run(&mut rest, self.header.id, self.file_len))
    }

    fn is_whole(&self, runs: u32) -> bool {
        let mut rest = &self.bytes[..];
        let mut before = None;
        for _ in 0..runs {
            let Some(run) = next_run(&mut rest, self.header.id, self.file_len) else {
                return false;
            };
            if before.replace((run.log, run.last)) >= Some((run.log, run.first)) {
                return false;
            }
        }
        rest.is_empty()
    }
}

impl SegmentFile {
    /// Opens the file of segment `id`. Reads nothing: what is damaged shows when it is read.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub(crate) fn open(segments: &Path, id: SegmentId) -> std::io::Result<Arc<Self>> {
        let path = id.path(segments);
        let file = File::open(&path)?;
        let len = file.len()?;
        Ok(Arc::new(Self {
            id,
            path,
            file,
            len,
        }))
    }

    /// Its number.
    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file itself says that it holds: for making the catalogue again.
    ///
    /// # Errors
    /// If header, trailer or footer are damaged. Its runs can still be read by descriptors that are known from elsewhere.
    pub(crate) fn summary(&self) -> Result<SegmentSummary, Damaged> {
        let footer = self.footer()?;
        Ok(SegmentSummary {
            header: footer.header,
            runs: footer.runs().collect(),
            file_len: self.len,
        })
    }

    /// As [`summary`](Self::summary), for going over runs too many to hold.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn footer(&self) -> Result<Footer, Damaged> {
        let damaged = |offset, len, reason: &str| self.damaged(offset, len, None, reason);
        if self.len < (HEADER_LEN + TRAILER_LEN) as u64 {
            return Err(damaged(0, self.len, "the file is too short"));
        }
        let mut head = [0; HEADER_LEN];
        self.read_exact(&mut head, 0, None)?;
        let header = decode_header(&head)
            .filter(|header| header.id == self.id)
            .ok_or_else(|| damaged(0, HEADER_LEN as u64, "no header of this segment"))?;

        let trailer_offset = self.len - TRAILER_LEN as u64;
        let mut trailer = [0; TRAILER_LEN];
        self.read_exact(&mut trailer, trailer_offset, None)?;
        let trailer = decode_trailer(&trailer)
            .ok_or_else(|| damaged(trailer_offset, TRAILER_LEN as u64, "no trailer"))?;
        let offset = trailer_offset
            .checked_sub(trailer.footer_len)
            .filter(|&offset| offset >= HEADER_LEN as u64)
            .ok_or_else(|| {
                damaged(
                    trailer_offset,
                    TRAILER_LEN as u64,
                    "the footer is longer than the file",
                )
            })?;

        let bytes = self.read(offset, trailer.footer_len, None)?;
        if footer_crc(&head, &bytes) != trailer.footer_crc {
            return Err(damaged(
                offset,
                trailer.footer_len,
                "the footer has a wrong checksum",
            ));
        }
        let footer = Footer {
            header,
            bytes,
            file_len: self.len,
        };
        if !footer.is_whole(trailer.runs) {
            return Err(damaged(
                offset,
                trailer.footer_len,
                "the footer does not fit the file",
            ));
        }
        Ok(footer)
    }

    /// Where the blocks of `run` are. Worth caching.
    ///
    /// # Errors
    /// If the run index is damaged: nothing of the run can be read.
    pub(crate) fn run_index(&self, run: &RunDescriptor) -> Result<Arc<RunIndex>, Damaged> {
        let affected = Some((run.log, run.first, run.last));
        let (offset, len) = (run.index_offset, u64::from(run.index_len));
        if run.segment != self.id {
            return Err(self.damaged(offset, len, affected, "the run is another segment's"));
        }
        let bytes = self.read(offset, len, affected)?;
        let blocks = decode_index(run, &bytes)
            .map_err(|reason| self.damaged(offset, len, affected, reason))?;
        Ok(Arc::new(RunIndex {
            blocks: blocks.into(),
        }))
    }

    /// The ready frames of a block, back to back.
    ///
    /// # Errors
    /// If they are damaged.
    pub(crate) fn read_block(&self, block: &Block) -> Result<Bytes, Damaged> {
        self.read_checked(block.offset, u64::from(block.len), block.crc, block)
            .map(Bytes::from)
    }

    /// Ids and payload lengths of a block's publications, in sequence order.
    ///
    /// # Errors
    /// If the block's id table is damaged; its frames may still be readable.
    pub(crate) fn read_ids(&self, block: &Block) -> Result<Vec<IdEntry>, Damaged> {
        let len = block.ids_len();
        let bytes = self.read_checked(
            block.offset + u64::from(block.len),
            len,
            block.ids_crc,
            block,
        )?;
        let (entries, _) = bytes.as_chunks::<ID_ENTRY_LEN>();
        Ok(entries.iter().map(id_entry).collect())
    }

    /// Every id of the run that a client supplied, with its place: what the catalogue holds of it.
    ///
    /// # Errors
    /// If the run index or an id table is damaged.
    pub(crate) fn client_ids(
        &self,
        run: &RunDescriptor,
    ) -> Result<Vec<(PublicationId, Sequence)>, Damaged> {
        let mut ids = Vec::new();
        if !run.client_ids {
            return Ok(ids);
        }
        for block in self.run_index(run)?.blocks() {
            let sequences = (block.first.0..).map(Sequence);
            let entries = self.read_ids(block)?.into_iter().zip(sequences);
            let supplied = entries.filter(|(entry, _)| entry.client);
            ids.extend(supplied.map(|(entry, sequence)| (entry.id, sequence)));
        }
        Ok(ids)
    }

    fn read_checked(
        &self,
        offset: u64,
        len: u64,
        crc: u32,
        block: &Block,
    ) -> Result<Vec<u8>, Damaged> {
        let affected = Some((block.log, block.first, block.last));
        let bytes = self.read(offset, len, affected)?;
        if crc32c::crc32c(&bytes) != crc {
            return Err(self.damaged(offset, len, affected, "wrong checksum"));
        }
        Ok(bytes)
    }

    /// Compares with the file's length before it allocates.
    fn read(&self, offset: u64, len: u64, affected: Affected) -> Result<Vec<u8>, Damaged> {
        let within = offset.checked_add(len).is_some_and(|end| end <= self.len);
        let Some(size) = usize::try_from(len).ok().filter(|_| within) else {
            return Err(self.damaged(offset, len, affected, "beyond the end of the file"));
        };
        let mut bytes = vec![0; size];
        self.read_exact(&mut bytes, offset, affected)?;
        Ok(bytes)
    }

    fn read_exact(&self, bytes: &mut [u8], offset: u64, affected: Affected) -> Result<(), Damaged> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|error| self.damaged(offset, bytes.len() as u64, affected, &error.to_string()))
    }

    fn damaged(&self, offset: u64, len: u64, run: Affected, reason: &str) -> Damaged {
        Damaged {
            file: self.path.clone(),
            offset,
            len,
            run,
            reason: reason.into(),
        }
    }
}

type Affected = Option<(LogNumber, Sequence, Sequence)>;

fn id_entry(bytes: &[u8; ID_ENTRY_LEN]) -> IdEntry {
    let mut rest = bytes.as_slice();
    let id = take(&mut rest).unwrap_or_default();
    let word = u32::from_le_bytes(take(&mut rest).unwrap_or_default());
    IdEntry {
        id: PublicationId(Uuid::from_bytes(id)),
        payload: word & !CLIENT_ID,
        client: word & CLIENT_ID != 0,
    }
}
