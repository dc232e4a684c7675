//! Appending: one batch, one write.

use std::{io, ops::Range, sync::Arc};

use uuid::Uuid;

use super::{
    JournalFile, Unsealed,
    format::{BatchBuilder, BatchHeader},
};
use crate::datalog::Record;

/// Where a batch was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    pub(crate) generation: u64,
    /// In its journal.
    pub(crate) offset: u64,
}

/// The current journal, and the batch that is being put together for it.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    store: Uuid,
    builder: BatchBuilder,
    file: Arc<JournalFile>,
    generation: u64,
    end: u64,
    /// Of the last batch written, in this journal or before.
    number: u64,
    /// Of the last batch in front of this journal: it is synced.
    before: u64,
    synced_through: u64,
}

impl JournalWriter {
    /// Begins `generation` in `file`; `number` is that of the last batch before.
    pub(crate) fn new(store: Uuid, file: Arc<JournalFile>, generation: u64, number: u64) -> Self {
        Self {
            store,
            builder: BatchBuilder::new(),
            file,
            generation,
            end: 0,
            number,
            before: number,
            synced_through: number,
        }
    }

    pub(crate) fn file(&self) -> &Arc<JournalFile> {
        &self.file
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Of the last batch written, here or before.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that still fit.
    pub(crate) fn left(&self) -> u64 {
        self.file.capacity() - self.end
    }

    /// Whether nothing was written to the journal.
    pub(crate) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Begins a batch; one that was not written is forgotten.
    pub(crate) fn begin(&mut self) {
        self.builder.clear();
    }

    /// Adds a record to the batch. Of publications: where in the batch their frames are.
    pub(crate) fn push(&mut self, record: &Record) -> Option<Range<usize>> {
        self.builder.push(record)
    }

    /// Bytes of the batch.
    pub(crate) fn batch_len(&self) -> u64 {
        self.builder.len() as u64
    }

    /// Writes the batch, which must fit.
    pub(crate) fn write(&mut self) -> io::Result<Written> {
        let header = BatchHeader {
            generation: self.generation,
            number: self.number + 1,
            // Of other journals it says nothing: where they are sealed, a start can't tell what lies in front of this one.
            synced_through: match self.synced_through > self.before {
                true => self.synced_through,
                false => 0,
            },
        };
        let bytes = self.builder.finish(self.store, header);
        let offset = self.end;
        assert!(
            bytes.len() as u64 <= self.file.capacity() - offset,
            "invariant: the batch fits"
        );
        self.file.write_at(bytes, offset)?;
        self.end += bytes.len() as u64;
        self.number += 1;
        Ok(Written {
            generation: self.generation,
            offset,
        })
    }

    /// Makes everything written durable.
    ///
    /// # Durability
    /// `fdatasync`: the file was preallocated, so there is no metadata to write.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.synced_through < self.number {
            self.file.sync()?;
            self.synced_through = self.number;
        }
        Ok(())
    }

    /// Goes on in `next` as if it had begun there: nothing was written to the journal that it gives back.
    pub(crate) fn replace_file(&mut self, next: Arc<JournalFile>) -> Arc<JournalFile> {
        assert!(self.is_empty(), "invariant: what is written is handed over");
        std::mem::replace(&mut self.file, next)
    }

    /// Goes on in `next`, with the batch that is being put together. What was written before is synced first.
    pub(crate) fn rotate(&mut self, next: Arc<JournalFile>) -> io::Result<Unsealed> {
        self.sync()?;
        let sealed = Unsealed {
            file: std::mem::replace(&mut self.file, next),
            generation: self.generation,
            spans: std::iter::once(0..usize::try_from(self.end).map_err(io::Error::other)?)
                .collect(),
            end: self.end,
        };
        self.generation += 1;
        self.end = 0;
        self.before = self.number;
        Ok(sealed)
    }
}
