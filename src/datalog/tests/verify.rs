//! A check finds what a start would find, and changes nothing.

use std::{collections::BTreeMap, fs, ops::ControlFlow, path::PathBuf};

use super::{
    damage::{ONE, TWO, files, flip, journal_of, place_of, sealed},
    *,
};

/// Every file with what it holds.
pub(super) fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(snapshot(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

/// A check, which changes nothing.
pub(super) fn check(dir: &Path) -> Result<Report, VerifyError> {
    let before = snapshot(dir);
    let report = verify(dir, |_| ControlFlow::Continue(()));
    let after = snapshot(dir);
    for (path, bytes) in &before {
        assert!(after.get(path) == Some(bytes), "{}", path.display());
    }
    assert_eq!(before.len(), after.len());
    report
}

#[test]
fn whole_directory_is_found_whole_after_any_end() {
    for is_orderly in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let log = sealed(dir.path());
        if is_orderly {
            log.close().unwrap();
        } else {
            drop(log);
        }
        let report = check(dir.path()).unwrap();
        assert!(report.is_whole(), "{report:?}");
        assert_eq!(report.recovery.unclean, !is_orderly);
        assert_eq!(report.recovery.publications, 170);
        assert!(report.copied_bytes > 0 && report.read_bytes > 0);
        let logs: Vec<_> = report
            .logs
            .iter()
            .map(|log| (log.log, log.last.0))
            .collect();
        assert_eq!(logs, [(ONE, 100), (TWO, 70)]);
    }
}

#[test]
fn directory_that_a_start_would_refuse_or_make_is_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let none = verify(&dir.path().join("none"), |_| ControlFlow::Continue(()));
    assert!(matches!(none, Err(VerifyError::None(_))));
    assert!(matches!(check(dir.path()), Err(VerifyError::None(_))));
    assert_eq!(snapshot(dir.path()).len(), 0);
    fs::create_dir(dir.path().join("journal")).unwrap();
    assert!(matches!(
        check(dir.path()),
        Err(VerifyError::Open(OpenError::NoFormat(_)))
    ));
}

#[test]
fn directory_in_use_is_refused_and_two_may_look_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = sealed(dir.path());
    assert!(matches!(
        verify(dir.path(), |_| ControlFlow::Continue(())),
        Err(VerifyError::InUse(_))
    ));
    drop(log);
    let mut inner = None;
    verify(dir.path(), |_| {
        inner.get_or_insert_with(|| check(dir.path()).is_ok());
        assert!(matches!(
            DataLog::open(options(dir.path())),
            Err(OpenError::Locked(_))
        ));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(inner, Some(true));
}

#[test]
fn progress_grows_to_what_there_is_and_may_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    let mut last = Progress { done: 0, total: 0 };
    let report = verify(dir.path(), |progress| {
        assert!(progress.done >= last.done && progress.done <= progress.total);
        last = progress;
        ControlFlow::Continue(())
    });
    assert_eq!(last.done, report.unwrap().read_bytes);
    let stopped = verify(dir.path(), |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(VerifyError::Stopped)));
}

#[test]
fn torn_tail_is_told_and_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    let (path, _) = journal_of(dir.path(), TWO, 61);
    let mut bytes = fs::read(&path).unwrap();
    let place = place_of(&bytes, TWO, 61).unwrap();
    // Behind it may be what an earlier use of the file left.
    bytes[place + 10..].fill(0);
    fs::write(&path, bytes).unwrap();
    let report = check(dir.path()).unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert!(report.recovery.cut_bytes > 0);
    assert_eq!(report.logs[1].last, Sequence(60));
}

#[test]
fn byte_flipped_anywhere_in_a_segment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    let path = files(dir.path(), "segments").swap_remove(1);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        flip(&path, at);
        let report = check(dir.path()).unwrap();
        assert!(!report.is_whole(), "byte {at}");
        let name = path.display().to_string();
        assert!(
            report.damage.iter().any(|line| line.contains(&name)),
            "{report:?}"
        );
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn byte_flipped_anywhere_in_the_state_log_is_found() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    let path = dir.path().join("state/log");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        flip(&path, at);
        let report = check(dir.path()).unwrap();
        // A batch is padded, and nobody reads that.
        let is_padding = whole[at] == 0 && report.is_whole();
        assert!(!report.is_whole() || is_padding, "byte {at}");
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn nothing_is_left_where_the_copies_were() {
    let dir = tempfile::tempdir().unwrap();
    drop(sealed(dir.path()));
    let mut copies = None;
    verify(dir.path(), |_| {
        let mine = fs::read_dir(std::env::temp_dir()).unwrap();
        copies = copies.take().or_else(|| {
            mine.map(|entry| entry.unwrap().path()).find(|path| {
                let link = path.join("state/log");
                fs::read_link(link).is_ok_and(|to| to.starts_with(dir.path()))
            })
        });
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(!copies.expect("a folder with links").exists());
}
