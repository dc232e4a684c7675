//! A data directory that no server has open, held still by its lock.

use std::path::Path;

use super::{Contents, Part, PartName};
use crate::datalog::{
    OpenError, Options, VerifyError,
    recovery::{self, Recovery},
    segment::SegmentId,
    state_log::RewriteError,
    store::Store,
    verify::stand_in::StandIn,
};

/// What a backup of a directory at rest is made of, as a start would find it. Nothing in the directory is changed, and no server can
/// open it until this is dropped.
#[derive(Debug)]
pub struct Still {
    contents: Contents,
    damage: Vec<String>,
    _stand_in: StandIn,
    _store: Store,
}

impl Still {
    /// Recovers the data directory `dir` in a stand-in, with a copy of its catalogue, as a check does.
    ///
    /// # Errors
    /// If a server has the directory open, or it can't be opened.
    pub fn open(dir: &Path) -> Result<Self, VerifyError> {
        let stand_in = StandIn::of(dir)?;
        let store = Store::look(stand_in.original(), stand_in.path())?;
        stand_in.fill()?;
        let recovery = recovery::recover(&store, &Options::new(stand_in.path()))?;
        let damage = &recovery.recovered.report.damage;
        let damage = damage.iter().map(|line| stand_in.in_place(line)).collect();
        let contents = contents(&store, recovery)?;
        Ok(Self {
            contents,
            damage,
            _stand_in: stand_in,
            _store: store,
        })
    }

    /// Its parts.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What a start would tell as damaged, one sentence each.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }
}

fn contents(store: &Store, recovery: Recovery) -> Result<Contents, OpenError> {
    let mut holdings = recovery.holdings;
    let sealed_through = holdings.meta.sealed_through;
    let state_log = &mut holdings.state_log;
    // Written anew, it is one of the stand-in.
    let len = state_log
        .len_through(&holdings.catalogue, sealed_through)
        .map_err(|error| match error {
            RewriteError::Io(source) => OpenError::Io {
                what: "writing a copy of the state log".into(),
                source,
            },
            RewriteError::Catalogue(error) => OpenError::Catalogue(error.to_string()),
        })?;
    let mut parts = vec![Part {
        name: PartName::StateLog,
        path: state_log.path().to_owned(),
        len,
    }];
    let journals = recovery.unsealed.iter().map(|journal| Part {
        name: PartName::Journal(journal.generation),
        path: journal.file.path().to_owned(),
        len: journal.written(),
    });
    parts.extend(journals.filter(|journal| journal.len > 0));
    let segments = store.segment_dir();
    parts.extend(holdings.segments.iter().map(|(id, entry)| Part {
        name: PartName::Segment(id.0),
        path: SegmentId::path(*id, &segments),
        len: entry.file_len,
    }));
    let store = store.id();
    Ok(Contents { store, parts })
}
