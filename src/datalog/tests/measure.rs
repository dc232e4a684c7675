//! Figures, not promises: run with `--release -- --ignored --nocapture datalog::tests::measure`.

use std::{
    fs,
    time::{Duration, Instant},
};

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

/// In MiB, as the system tells it.
fn memory_of(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mut words = status.lines().filter_map(|told| told.strip_prefix(line));
    let kib: u64 = words.next().unwrap()[1..]
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib >> 10
}

fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} times, p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        took.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

/// The sleeps are the pace of the load, which is steady.
#[test]
#[ignore = "measures, with --release"]
fn sealing_a_journal_of_hundred_thousand_logs_stalls_nobody_and_takes_little() {
    let dir = tempfile::tempdir().unwrap();
    let production = Options {
        journal_size: 64 << 20,
        ..Options::new(dir.path())
    };
    let (mut log, _) = DataLog::open(production).unwrap();
    let one = LogNumber(LOGS + 1);
    log.write(&[Record::CreateLog(one), chunk(one, 1, 5)])
        .unwrap();
    let (mut last, key) = (5, |number| format!("the state of subscription {number}"));
    for round in 1..=4 {
        for number in (1..=LOGS).step_by(100) {
            let mut records = Vec::new();
            for number in number..number + 100 {
                if round == 1 {
                    records.push(Record::CreateLog(LogNumber(number)));
                }
                records.push(put(&key(number), &format!("{round:0100}")));
                records.push(chunk(LogNumber(number), round, round));
            }
            log.write(&records).unwrap();
        }
        log.sync().unwrap();
        println!("resident: {} MiB", memory_of("VmRSS:"));
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let unsealed = log.journal_files()[0].clone();
        let reader = log.reader();
        let began = Instant::now();
        log.end_journal();
        let (mut writes, mut finds) = (Vec::new(), Vec::new());
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (ended, finds) = (&ended, &mut finds);
            scope.spawn(move || {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    let began = Instant::now();
                    let found = reader.find(one, &[id(one, 5)], Sequence(5)).unwrap();
                    finds.push(began.elapsed());
                    assert_eq!(found, [Some(Sequence(5))]);
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
            while log.journal_files()[0].path() == unsealed.path() {
                let began = Instant::now();
                log.write(&[chunk(one, last + 1, last + 1)]).unwrap();
                log.sync().unwrap();
                writes.push(began.elapsed());
                last += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        println!("round {round}: sealed after {:?}", began.elapsed());
        tell("writing and syncing meanwhile", writes);
        tell("looking for an id meanwhile", finds);
        drop(unsealed);
        log.settle();
        println!(
            "resident at most {} MiB, then {} MiB",
            memory_of("VmHWM:"),
            memory_of("VmRSS:")
        );
    }
}
