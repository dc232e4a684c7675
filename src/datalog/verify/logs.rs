//! Going through logs part by part, as they are served.

use std::ops::ControlFlow;

use super::{Progress, VerifyError};
use crate::{
    datalog::{
        LogNumber, MissingRange,
        background::Holdings,
        segment::{Block, SegmentFile},
        units::{Source, Unit, publications},
    },
    protocol::{GapCause, Sequence},
};

/// Goes through logs, and tells how far it is.
pub(super) struct Walk<'a, F> {
    source: &'a Source,
    holdings: &'a Holdings,
    progress: &'a mut F,
    done: u64,
    total: u64,
}

impl<'a, F: FnMut(Progress) -> ControlFlow<()>> Walk<'a, F> {
    pub(super) fn new(source: &'a Source, holdings: &'a Holdings, progress: &'a mut F) -> Self {
        let segments = holdings.segments.keys();
        let total = segments.map(|id| source.index.live(*id).bytes).sum();
        Self {
            source,
            holdings,
            progress,
            done: 0,
            total,
        }
    }

    /// Bytes of segments that were read.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Reads a log from `first` to `last`: what of that can't be read. What is wrong otherwise goes to `damage`.
    pub(super) fn log(
        &mut self,
        log: LogNumber,
        first: Sequence,
        last: Sequence,
        damage: &mut Vec<String>,
    ) -> Result<Vec<MissingRange>, VerifyError> {
        let mut missing: Vec<MissingRange> = Vec::new();
        let mut miss = |from: Sequence, to: Sequence| match missing.last_mut() {
            Some(before) if before.to.next() == from => before.to = to,
            _ => missing.push(MissingRange {
                from,
                to,
                cause: GapCause::Damage,
            }),
        };
        self.tell()?;
        let mut units = self.source.units(log, first, last);
        while let Some(unit) = units.next()? {
            let (from, to) = (unit.first().max(first), unit.last().min(last));
            match &unit {
                Unit::Hole(_) => miss(from, to),
                Unit::Chunk(..) => {
                    if self.source.frames(&unit)?.is_none() {
                        miss(from, to);
                    }
                }
                Unit::Block(block, file) => {
                    let ids = self.source.ids(&unit)?;
                    match self.source.frames(&unit)? {
                        None => miss(from, to),
                        Some(frames) => {
                            if let Some(what) = self.compare(block, &frames, ids, first)? {
                                damage.push(said_of(file, block, &what));
                            }
                        }
                    }
                    self.done += u64::from(block.len) + block.ids_len();
                    self.tell()?;
                }
            }
        }
        Ok(missing)
    }

    /// Says what of a block's publications is not as its tables and the catalogue say.
    fn compare(
        &self,
        block: &Block,
        frames: &[u8],
        ids: Option<Vec<(crate::protocol::PublicationId, u32)>>,
        kept: Sequence,
    ) -> Result<Option<String>, VerifyError> {
        let (mut next, mut read, mut time) = (block.first, 0, block.first_time);
        for publication in publications(frames) {
            let (sequence, id) = (publication.sequence(), publication.publication_id());
            if sequence != next {
                return Ok(Some(format!("it holds publication {sequence} at {next}")));
            }
            if publication.time() < time || publication.time() > block.last_time {
                return Ok(Some(format!("the time of publication {sequence} is wrong")));
            }
            let told = ids
                .as_ref()
                .map(|ids| ids.get(sequence.0.abs_diff(block.first.0) as usize));
            let expected = (id, publication.data().len() as u32);
            if told.is_some_and(|told| told != Some(&expected)) {
                return Ok(Some(format!(
                    "its table has another id of publication {sequence}"
                )));
            }
            if sequence >= kept && !id.is_made_for(publication.time(), sequence) {
                let found = self.holdings.catalogue.find_id(block.log, &id)?;
                if found != Some(sequence) {
                    return Ok(Some(format!(
                        "the catalogue does not know the id of publication {sequence}"
                    )));
                }
            }
            time = publication.time();
            read += publication.frame().len();
            next = next.next();
        }
        let is_all = read == frames.len() && next == block.last.next();
        Ok((!is_all).then(|| format!("it ends in front of publication {next}")))
    }

    fn tell(&mut self) -> Result<(), VerifyError> {
        let (done, total) = (self.done, self.total);
        match (self.progress)(Progress { done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(VerifyError::Stopped),
        }
    }
}

fn said_of(file: &SegmentFile, block: &Block, what: &str) -> String {
    let (path, log) = (file.path().display(), block.log.0);
    format!("{path}: block at {} (log {log}): {what}", block.offset)
}
