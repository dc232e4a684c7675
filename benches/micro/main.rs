//! What single steps of the server cost, so that a later change sees what it costs.
//!
//! ```sh
//! cargo bench                       # all, in about two minutes; against the last run
//! cargo bench -- queue              # those whose names hold `queue`
//! cargo bench -- --save-baseline before    # and then, after a change: --baseline before
//! ```
//!
//! At the end stands a table of all, which also says how often an operation allocates; of the data log, that is only what the calling
//! thread does. What a server
//! reaches as a whole is measured elsewhere (`infotainer bench`, `benches/side_by_side.py`): nothing here waits for a socket, and only
//! the journal's part touches a disk, that of `target/`.
//!
//! One target of one module for each area, since every target would be linked with the server anew.

mod allocations;
mod codec;
mod frames;
mod journal;
mod queue;
mod routing;
mod table;

use std::time::Duration;

use allocations::Allocations;
use criterion::{Bencher, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use infotainer::protocol::{
    Publication, PublicationId, Sequence, SubscriptionId, SubscriptionReference, Timestamp,
};
use table::Table;

/// The payload of most publications here, as of most figures in `docs/performance.md`.
const PAYLOAD: usize = 128;

fn main() {
    let mut criterion = Criterion::default()
        .output_directory(&table::kept())
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .configure_from_args();
    let mut table = Table::new();
    codec::benchmarks(&mut criterion, &mut table);
    frames::benchmarks(&mut criterion, &mut table);
    journal::benchmarks(&mut criterion, &mut table);
    routing::benchmarks(&mut criterion, &mut table);
    queue::benchmarks(&mut criterion, &mut table);
    criterion.final_summary();
    table.print();
}

/// The benchmarks of one area.
struct Area<'a> {
    name: &'static str,
    group: BenchmarkGroup<'a, WallTime>,
    table: &'a mut Table,
}

impl<'a> Area<'a> {
    fn new(name: &'static str, criterion: &'a mut Criterion, table: &'a mut Table) -> Self {
        let group = criterion.benchmark_group(name);
        Self { name, group, table }
    }

    /// Runs a benchmark that handles so much each time. `run` counts allocations once, if it is run at all.
    fn run(
        &mut self,
        name: &str,
        handled: Throughput,
        mut run: impl FnMut(&mut Bencher<'_>, &mut Option<Allocations>),
    ) {
        let mut allocations = None;
        self.group.throughput(handled.clone());
        self.group
            .bench_function(name, |bencher| run(bencher, &mut allocations));
        if let Some(allocations) = allocations {
            self.table.add(self.name, name, &handled, &allocations);
        }
    }

    /// Measures an operation that can be done again and again.
    fn measure<T>(&mut self, name: &str, handled: Throughput, mut operation: impl FnMut() -> T) {
        let operations = match handled {
            Throughput::Elements(elements) => elements,
            _ => 1,
        };
        self.run(name, handled, |bencher, allocations| {
            allocations.get_or_insert_with(|| allocations::of_each(operations, &mut operation));
            bencher.iter(&mut operation);
        });
    }
}

fn name() -> SubscriptionReference {
    SubscriptionReference::named("measurements/room-17".to_owned())
}

fn publication_id(sequence: u64) -> PublicationId {
    PublicationId::made(Timestamp(1_790_000_000_000), Sequence(sequence), 0)
}

fn publication(sequence: u64, data: &[u8]) -> Publication<'_> {
    Publication {
        subscription_id: SubscriptionId::of_name("measurements/room-17"),
        publication_id: publication_id(sequence),
        sequence: Sequence(sequence),
        time: Timestamp(1_790_000_000_000),
        publisher: None,
        dead_letter: None,
        data,
    }
}

/// The ready frames of publications `first` to `last`.
fn frames_of(first: u64, last: u64) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut publication = publication(first, &[7; PAYLOAD]);
    for sequence in first..=last {
        publication.publication_id = publication_id(sequence);
        publication.sequence = Sequence(sequence);
        publication.encode_into(&mut frames);
    }
    frames
}
