//! Figures, not promises: run with `--release -- --ignored --nocapture datalog::tests::measure`.

use std::{fs, time::Instant};

use super::*;

const LOGS: u64 = 100_000;

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn append(log: &mut DataLog, number: u64, first: u64, last: u64) -> Vec<Record> {
    let record = chunk(LogNumber(number), first, last);
    while record.encoded_len() > log.space().guaranteed {
        std::thread::yield_now();
    }
    vec![record]
}

#[test]
#[ignore = "measures, with --release"]
fn hundred_thousand_quiet_logs_and_a_long_one_open_soon_and_take_little() {
    let dir = tempfile::tempdir().unwrap();
    let production = Options::new(dir.path());
    let (mut log, _) = DataLog::open(production.clone()).unwrap();
    let began = Instant::now();
    for number in (1..=LOGS).step_by(100) {
        let numbers = number..number + 100;
        let created: Vec<_> = numbers
            .clone()
            .map(|n| Record::CreateLog(LogNumber(n)))
            .collect();
        log.write(&created).unwrap();
        let chunks: Vec<_> = numbers.map(|n| chunk(LogNumber(n), 1, 10)).collect();
        log.write(&chunks).unwrap();
        log.sync().unwrap();
    }
    let long = LOGS + 1;
    log.write(&[Record::CreateLog(LogNumber(long))]).unwrap();
    for first in (1..1_000_000).step_by(200) {
        let records = append(&mut log, long, first, first + 199);
        log.write(&records).unwrap();
    }
    println!("2,000,000 publications written in {:?}", began.elapsed());
    log.settle();
    println!("settled after {:?}", began.elapsed());
    for orderly in [true, false] {
        match orderly {
            true => log.close().unwrap(),
            false => drop(log),
        }
        let before = resident();
        let began = Instant::now();
        let (reopened, recovered) = DataLog::open(production.clone()).unwrap();
        println!("opened in {:?}: {}", began.elapsed(), recovered.report);
        let grown = resident().saturating_sub(before);
        println!("resident: {grown} more, {} a log", grown / LOGS);
        log = reopened;
        assert_eq!(recovered.logs.len() as u64, LOGS + 1);
    }
    let reader = log.reader();
    let began = Instant::now();
    let (mut at, mut pages) = (0, 0);
    while at < 1_000_000 {
        let page = reader
            .page(LogNumber(long), Sequence(at), Sequence(1_000_000), 64 << 10)
            .unwrap();
        at = page.last.0;
        pages += 1;
    }
    println!("1,000,000 read in {pages} pages in {:?}", began.elapsed());
}
