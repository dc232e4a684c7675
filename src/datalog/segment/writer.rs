//! Writing a segment: one pass, in order of (log, sequence), with memory for one block and the runs' descriptors.

use std::io;
use std::path::{Path, PathBuf};

use super::format::{
    CLIENT_ID, ID_ENTRY_LEN, Trailer, encode_block, encode_footer, encode_header, encode_trailer,
    footer_crc, seal_index,
};
use super::{BLOCK_SIZE, Block, RunDescriptor, SegmentError, SegmentHeader, SegmentSummary};
use crate::datalog::{
    LogNumber,
    disk::{self, File},
};
use crate::protocol::{PublicationId, Sequence, StoredPublication, Timestamp};

/// Bytes gathered before they are handed to the disk: what a sync of the journal may have to wait behind.
const WRITE_SIZE: usize = 256 << 10;

/// Makes one segment file. Dropped unfinished, it leaves nothing behind.
pub(crate) struct SegmentWriter {
    header: SegmentHeader,
    output: Output,
    runs: Vec<RunDescriptor>,
    run: Option<OpenRun>,
    block: OpenBlock,
}

struct OpenRun {
    log: LogNumber,
    first: Sequence,
    last: Sequence,
    first_time: Timestamp,
    last_time: Timestamp,
    bytes: u64,
    client_ids: bool,
    offset: u64,
    index: Vec<u8>,
    /// Last time of the newest block in `index`.
    indexed_time: Timestamp,
}

#[derive(Default)]
struct OpenBlock {
    frames: Vec<u8>,
    ids: Vec<u8>,
    first: Sequence,
    first_time: Timestamp,
    bytes: u64,
}

impl SegmentWriter {
    /// Begins the segment's file in the directory `segments`, under a temporary name.
    ///
    /// # Errors
    /// If the file can't be made or written.
    pub(crate) fn create(segments: &Path, header: SegmentHeader) -> Result<Self, SegmentError> {
        let mut output = Output::create(segments, header)?;
        output.put(&encode_header(&header))?;
        Ok(Self {
            header,
            output,
            runs: Vec::new(),
            run: None,
            block: OpenBlock::default(),
        })
    }

    /// Adds ready frames of `log`, back to back: behind all of earlier logs, and of this log in sequence order. Where a
    /// sequence does not follow the one before, a new run begins.
    ///
    /// `client_id` is told of each id that the server did not make.
    ///
    /// # Errors
    /// If writing fails, the frames are none, or out of order. The segment can't be finished then.
    pub(crate) fn append(
        &mut self,
        log: LogNumber,
        frames: &[u8],
        client_id: &mut dyn FnMut(PublicationId, Sequence),
    ) -> Result<(), SegmentError> {
        let mut rest = frames;
        while !rest.is_empty() {
            let (publication, behind) =
                StoredPublication::split_first(rest).map_err(|source| SegmentError::Frames {
                    log,
                    after: self.last_of(log),
                    source,
                })?;
            rest = behind;
            self.append_one(log, &publication, client_id)?;
        }
        Ok(())
    }

    fn append_one(
        &mut self,
        log: LogNumber,
        publication: &StoredPublication<'_>,
        client_id: &mut dyn FnMut(PublicationId, Sequence),
    ) -> Result<(), SegmentError> {
        let (id, sequence, time) = (
            publication.publication_id(),
            publication.sequence(),
            publication.time(),
        );
        let frame = publication.frame();
        match &self.run {
            Some(run) if run.log == log && run.last.next() == sequence => {
                if !self.block.frames.is_empty()
                    && self.block.frames.len() + frame.len() > BLOCK_SIZE
                {
                    self.end_block()?;
                }
            }
            Some(run) if (run.log, run.last) >= (log, sequence) => {
                return Err(SegmentError::Order {
                    log,
                    after: self.last_of(log),
                    sequence,
                });
            }
            _ => {
                self.end_run()?;
                self.run = Some(OpenRun::begin(log, sequence, time, self.output.offset()));
            }
        }

        let run = self.run.as_mut().expect("invariant: a run is open here");
        let client = !id.is_made_for(time, sequence);
        let payload = publication.data().len() as u32;
        run.last = sequence;
        // A clock that went back must not break the search by time, whatever let it through.
        run.last_time = run.last_time.max(time);
        run.bytes += u64::from(payload);
        run.client_ids |= client;
        if self.block.frames.is_empty() {
            self.block.first = sequence;
            self.block.first_time = run.last_time;
        }
        self.block.bytes += u64::from(payload);
        self.block.frames.extend_from_slice(frame);
        self.block.ids.extend_from_slice(id.0.as_bytes());
        self.block
            .ids
            .extend_from_slice(&(payload | if client { CLIENT_ID } else { 0 }).to_le_bytes());
        if client {
            client_id(id, sequence);
        }
        Ok(())
    }

    /// Bytes that were handed to the disk.
    pub(crate) fn written(&self) -> u64 {
        self.output.written
    }

    /// Ends the file, syncs it, gives it its name and syncs the directory. After this it survives a power cut.
    ///
    /// # Errors
    /// If any of that fails.
    pub(crate) fn finish(mut self) -> Result<SegmentSummary, SegmentError> {
        self.end_run()?;
        let footer = encode_footer(&self.runs);
        let head = encode_header(&self.header);
        let trailer = Trailer {
            footer_len: footer.len() as u64,
            runs: u32::try_from(self.runs.len())
                .expect("invariant: a segment holds fewer than 2^32 runs"),
            footer_crc: footer_crc(&head, &footer),
        };
        self.output.put(&footer)?;
        self.output.put(&encode_trailer(&trailer))?;
        let file_len = self.output.finish()?;
        Ok(SegmentSummary {
            header: self.header,
            runs: self.runs,
            file_len,
        })
    }

    fn last_of(&self, log: LogNumber) -> Sequence {
        self.run
            .as_ref()
            .filter(|run| run.log == log)
            .map_or(Sequence::ZERO, |run| run.last)
    }

    fn end_block(&mut self) -> Result<(), SegmentError> {
        let Some(run) = self.run.as_mut().filter(|_| !self.block.frames.is_empty()) else {
            return Ok(());
        };
        let block = Block {
            log: run.log,
            offset: self.output.offset(),
            len: u32::try_from(self.block.frames.len())
                .expect("invariant: a frame is far below 4 GiB"),
            first: self.block.first,
            last: Sequence(self.block.first.0 + (self.block.ids.len() / ID_ENTRY_LEN) as u64 - 1),
            first_time: self.block.first_time,
            last_time: run.last_time,
            bytes: self.block.bytes,
            bytes_before: run.bytes - self.block.bytes,
            crc: crc32c::crc32c(&self.block.frames),
            ids_crc: crc32c::crc32c(&self.block.ids),
        };
        encode_block(&block, run.indexed_time, &mut run.index);
        run.indexed_time = block.last_time;
        self.output.put(&self.block.frames)?;
        self.output.put(&self.block.ids)?;
        self.block.frames.clear();
        self.block.ids.clear();
        self.block.bytes = 0;
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), SegmentError> {
        self.end_block()?;
        let Some(mut run) = self.run.take() else {
            return Ok(());
        };
        seal_index(self.header.id, run.log, run.first, &mut run.index);
        let index_offset = self.output.offset();
        self.output.put(&run.index)?;
        self.runs.push(RunDescriptor {
            log: run.log,
            first: run.first,
            last: run.last,
            first_time: run.first_time,
            last_time: run.last_time,
            bytes: run.bytes,
            segment: self.header.id,
            index_offset,
            index_len: u32::try_from(run.index.len())
                .expect("invariant: a run index is far below 4 GiB"),
            stored_bytes: self.output.offset() - run.offset,
            client_ids: run.client_ids,
        });
        Ok(())
    }
}

impl OpenRun {
    fn begin(log: LogNumber, first: Sequence, time: Timestamp, offset: u64) -> Self {
        Self {
            log,
            first,
            last: first,
            first_time: time,
            last_time: time,
            bytes: 0,
            client_ids: false,
            offset,
            index: Vec::new(),
            indexed_time: time,
        }
    }
}

/// The file under its temporary name, and what waits to be written to it.
struct Output {
    segments: PathBuf,
    path: PathBuf,
    name: PathBuf,
    file: File,
    buffer: Vec<u8>,
    written: u64,
    finished: bool,
}

impl Output {
    fn create(segments: &Path, header: SegmentHeader) -> Result<Self, SegmentError> {
        let name = header.id.path(segments);
        let path = name.with_extension("segment.tmp");
        let file = File::create(&path).map_err(|source| SegmentError::Io {
            path: path.clone(),
            source,
        })?;
        let buffer = Vec::with_capacity(WRITE_SIZE);
        Ok(Self {
            segments: segments.into(),
            path,
            name,
            file,
            buffer,
            written: 0,
            finished: false,
        })
    }

    /// Where the next byte goes.
    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < WRITE_SIZE {
            return Ok(());
        }
        self.write().map_err(|source| self.error(source))
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.written)?;
        let end = self.written + self.buffer.len() as u64;
        self.file.start_writing(self.written..end);
        self.written = end;
        self.buffer.clear();
        Ok(())
    }

    fn finish(&mut self) -> Result<u64, SegmentError> {
        self.write()
            .and_then(|()| self.file.sync_all())
            .and_then(|()| disk::rename(&self.path, &self.name))
            .and_then(|()| disk::sync_dir(&self.segments))
            .map_err(|source| self.error(source))?;
        self.finished = true;
        Ok(self.written)
    }

    fn error(&self, source: io::Error) -> SegmentError {
        SegmentError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what is left with this ending is removed when the data directory is opened.
            let _ = disk::remove(&self.path);
        }
    }
}
