//! The data log as a whole, on real files.

#[macro_use]
mod small_disk;

mod backup;
mod basics;
mod crash_points;
mod damage;
mod every_file;
mod failures;
mod full_disk;
mod measure;
mod model;
mod outdated;
pub(crate) mod shadow;
mod verify;

use std::{path::Path, time::Duration};

use super::*;
use crate::protocol::{Sequence, Timestamp};
use sample::*;

pub(super) fn put(key: &str, value: &str) -> Record {
    Record::Put {
        key: key.as_bytes().into(),
        value: value.as_bytes().into(),
    }
}

pub(super) fn delete(key: &str) -> Record {
    Record::Delete {
        key: key.as_bytes().into(),
    }
}

/// Small journals, so that tests seal and rotate.
pub(super) fn options(dir: &Path) -> Options {
    Options {
        journal_size: 64 << 10,
        lull: Duration::ZERO,
        sled_cache: 1 << 20,
        ..Options::new(dir)
    }
}

pub(super) fn open(dir: &Path) -> (DataLog, Recovered) {
    DataLog::open(options(dir)).unwrap()
}
