//! A catalogue that went back in time is found out, and loses nothing.

use std::fs;

use super::*;

const LOGS: u64 = 3;

/// Appends 20 publications to each log and some state, and lets it be sealed.
fn round(log: &mut DataLog, round: u64) {
    let mut records = vec![put("round", &round.to_string())];
    for number in (1..=LOGS).map(LogNumber) {
        if round == 0 {
            records.push(Record::CreateLog(number));
        }
        records.push(chunk(number, round * 20 + 1, round * 20 + 20));
    }
    log.write(&records).unwrap();
    log.sync().unwrap();
    log.end_journal();
    log.settle();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn with_merges(dir: &Path) -> DataLog {
    let options = Options {
        merge_at: 4,
        ..options(dir)
    };
    DataLog::open(options).unwrap().0
}

#[test]
fn catalogue_that_went_back_in_time_is_made_again() {
    const ROUNDS: u64 = 10;
    let dir = tempfile::tempdir().unwrap();
    let catalogues = tempfile::tempdir().unwrap();
    let mut count = 0;
    let mut keep = || {
        let target = catalogues.path().join(count.to_string());
        copy_dir(&dir.path().join("catalogue"), &target);
        count += 1;
    };
    let mut log = with_merges(dir.path());
    for number in 0..ROUNDS {
        round(&mut log, number);
        keep();
        if number % 3 == 2 {
            log.close().unwrap();
            keep();
            log = with_merges(dir.path());
        }
    }
    log.close().unwrap();

    for number in 0..count {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let catalogue = copy.path().join("catalogue");
        fs::remove_dir_all(&catalogue).unwrap();
        copy_dir(&catalogues.path().join(number.to_string()), &catalogue);
        for _ in 0..2 {
            let mut log = with_merges(copy.path());
            let reader = log.reader();
            for number in (1..=LOGS).map(LogNumber) {
                let (sequences, gaps) = read(&reader, number, 0, ROUNDS * 20, 3000);
                assert_eq!(sequences.len() as u64, ROUNDS * 20, "{gaps:?}");
                let ids = [id(number, 5), id(number, 195)];
                let found = reader.find(number, &ids, Sequence(ROUNDS * 20)).unwrap();
                assert_eq!(found, [Some(Sequence(5)), Some(Sequence(195))]);
            }
            log.settle();
            log.close().unwrap();
        }
        let (_, recovered) = open(copy.path());
        let round = (*b"round".as_slice()).into();
        assert_eq!(
            recovered.state,
            [(round, (ROUNDS - 1).to_string().into_bytes().into())]
        );
    }
}
