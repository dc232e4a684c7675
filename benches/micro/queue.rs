//! Publications of a Queue are leased, acknowledged, given back, and what that changes is noted.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use infotainer::{
    domain::{
        ConnectionId, Page,
        queue::{Grant, Progress, Queue, QueueHead, QueueRules, Rejected},
    },
    protocol::{PublicationId, Sequence},
};

use crate::{Area, allocations, frames_of, publication_id, table::Table};

const WORKERS: u64 = 64;
const PREFETCH: u16 = 32;
/// As many as all workers may have on lease, which is about what a queue keeps in memory.
const PUBLICATIONS: u64 = WORKERS * PREFETCH as u64;
/// What one command acknowledges.
const AT_ONCE: usize = 16;
/// Milliseconds.
const NOW: u64 = 1_000_000;

const RULES: QueueRules = QueueRules {
    ack_timeout: 30_000,
    max_deliveries: 10,
    unwritten: 1 << 20,
};

/// A queue with everything pending and read, and its workers.
fn pending(frames: &Bytes) -> Queue {
    let last = Sequence(PUBLICATIONS);
    let progress = Progress::restored(QueueHead::default(), [], Sequence(1), last);
    let mut queue = Queue::new(progress, RULES, last);
    for worker in 0..WORKERS {
        queue.subscribe(ConnectionId::new(0, worker), PREFETCH);
    }
    let ranges = queue.wanted().expect("a queue with workers wants to read");
    let page = |(first, last)| {
        assert_eq!((first, last), (Sequence(1), Sequence(PUBLICATIONS)));
        let page = Page {
            gap: None,
            frames: frames.clone(),
            first,
            last,
        };
        ((first, last), page)
    };
    let dead = queue.load(ranges.into_iter().map(page).collect(), NOW);
    assert!(dead.is_empty());
    queue
}

fn grant_all(queue: &mut Queue) -> u64 {
    std::iter::from_fn(|| queue.next_grant(NOW)).count() as u64
}

/// A queue with everything on lease, and the ids as the commands of its workers name them.
fn leased(frames: &Bytes) -> (Queue, Vec<(ConnectionId, Vec<PublicationId>)>) {
    let mut queue = pending(frames);
    let mut of_worker = vec![Vec::new(); WORKERS as usize];
    while let Some(Grant {
        connection,
        sequence,
        ..
    }) = queue.next_grant(NOW)
    {
        // The number of a connection of worker 0 is all that tells it apart.
        let worker = (0..WORKERS).find(|worker| ConnectionId::new(0, *worker) == connection);
        let worker = worker.expect("a grant goes to a worker");
        of_worker[worker as usize].push(publication_id(sequence.0));
    }
    let commands = of_worker.iter().zip(0..).flat_map(|(ids, worker)| {
        let connection = ConnectionId::new(0, worker);
        ids.chunks(AT_ONCE)
            .map(move |ids| (connection, ids.to_vec()))
    });
    (queue, commands.collect())
}

/// Measures what `work` does to a state that is made anew each time, once for each publication.
fn measure<S>(area: &mut Area<'_>, name: &str, state: impl Fn() -> S, work: impl Fn(&mut S)) {
    let handled = Throughput::Elements(PUBLICATIONS);
    area.run(name, handled, |bencher, allocations| {
        allocations.get_or_insert_with(|| {
            let mut state = state();
            allocations::during(PUBLICATIONS, || work(&mut state))
        });
        bencher.iter_batched_ref(&state, &work, BatchSize::PerIteration);
    });
}

pub(crate) fn benchmarks(criterion: &mut Criterion, table: &mut Table) {
    let frames = Bytes::from(frames_of(1, PUBLICATIONS));
    let mut area = Area::new("queue", criterion, table);
    measure(
        &mut area,
        "lease",
        || pending(&frames),
        |queue| assert_eq!(grant_all(queue), PUBLICATIONS),
    );
    measure(
        &mut area,
        "acknowledge 16 at a time",
        || leased(&frames),
        |(queue, commands)| {
            for (connection, ids) in commands {
                assert_eq!(queue.acknowledge(*connection, ids).count, ids.len() as u64);
            }
        },
    );
    measure(
        &mut area,
        "acknowledge 16 at a time, and note it",
        || leased(&frames),
        |(queue, commands)| {
            for (connection, ids) in commands {
                queue.acknowledge(*connection, ids);
                queue.progress_mut().take_changes();
            }
        },
    );
    measure(
        &mut area,
        "give back 16 at a time, and lease again",
        || leased(&frames),
        |(queue, commands)| {
            for (connection, ids) in commands {
                queue.reject(*connection, ids, Rejected::Later(0), NOW);
                while queue.next_grant(NOW).is_some() {}
            }
        },
    );
}
