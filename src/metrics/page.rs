//! The page: every metric, with its name, its help and where its value comes from, in the order of the table in `docs/operations.md`.
//!
//! Owns the names. They end with the unit, counters with `_total` (which `prometheus-client` adds), and every time series is there from
//! the beginning, so that the first increase of each is seen.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
        text::encode,
    },
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use super::{
    Metrics, WorkerCounts,
    count::{By, Count, Label, Seen},
    health::Reason,
    labels::{CommandName, Outcome},
    scrape::Found,
};
use crate::datalog::RecoveryReport;

/// Microseconds, in seconds.
const MICROSECOND: f64 = 1e-6;

/// The page in the format of OpenMetrics.
pub(super) fn write(metrics: Arc<Metrics>, found: Found) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { metrics, found }));
    let mut text = String::with_capacity(24 << 10);
    // Writing to a string never fails.
    let _ = encode(&mut text, &registry);
    text
}

/// What is written.
#[derive(Debug)]
struct Page {
    metrics: Arc<Metrics>,
    found: Found,
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.health(&mut out)?;
        self.connections(&mut out)?;
        self.commands(&mut out)?;
        self.commits(&mut out)?;
        self.subscribers(&mut out)?;
        self.queues(&mut out)?;
        self.log(&mut out)?;
        self.recovery(&mut out)?;
        self.process(&mut out)
    }
}

impl Page {
    fn health(&self, out: &mut Out<'_>) -> fmt::Result {
        let health = &self.metrics.health;
        let reasons = health.reasons();
        out.gauge(
            "infotainer_ready",
            "Whether the server does its work: 1 or 0.",
            u64::from(reasons.is_empty()),
        )?;
        let held = Reason::VALUES.iter().map(|reason| {
            let holds = reasons.iter().any(|held| held.as_str() == *reason);
            ([("reason", *reason)], u64::from(holds))
        });
        out.gauges(
            "infotainer_not_ready",
            "Whether this keeps the server from doing its work: 1 or 0.",
            held,
        )?;
        let wellbeing = health.wellbeing();
        let silences = wellbeing
            .iter()
            .map(|one| ([("actor", &*one.actor)], one.silence.as_secs_f64()));
        out.gauges(
            "infotainer_actor_silence_seconds",
            "How long ago each actor of the server answered last.",
            silences,
        )?;
        out.info(
            "infotainer_build",
            "The version that runs.",
            &[("version", env!("CARGO_PKG_VERSION"))],
        )
    }

    fn connections(&self, out: &mut Out<'_>) -> fmt::Result {
        out.gauge(
            "infotainer_connections",
            "Connections that are open: WebSockets, and those of HTTP under /v1.",
            self.found.hubs.connections,
        )?;
        out.gauge(
            "infotainer_connections_max",
            "Connections that there may be (INFOTAINER_MAX_CONNECTIONS).",
            self.metrics.max_connections,
        )?;
        out.counter(
            "infotainer_connections_opened",
            "Connections that were opened: WebSockets, and those of HTTP under /v1.",
            self.sum(|worker| &worker.opened),
        )?;
        out.counters(
            "infotainer_connections_closed",
            "Connections that ended, by the reason.",
            self.sums("reason", |worker| &worker.closed),
        )?;
        out.counters(
            "infotainer_handshakes_refused",
            "WebSocket handshakes that were refused, by the reason.",
            self.sums("reason", |worker| &worker.refused),
        )?;
        let failures = self.metrics.auth_failures.iter();
        out.counters(
            "infotainer_auth_failures",
            "Connections and requests that were not let in, by what was wrong with their credentials.",
            failures.map(|(reason, count)| ([("reason", reason)], count.get())),
        )?;
        out.counter(
            "infotainer_received_bytes",
            "Bytes of commands that were read from connections.",
            self.sum(|worker| &worker.received),
        )?;
        out.counter(
            "infotainer_sent_bytes",
            "Bytes of answers and publications that were written to connections.",
            self.sum(|worker| &worker.sent),
        )
    }

    fn commands(&self, out: &mut Out<'_>) -> fmt::Result {
        let workers = self.metrics.workers.lock().clone();
        let counted = |place: usize, outcome: usize| {
            let of = |worker: &Arc<WorkerCounts>| {
                let mut commands = worker.commands.iter();
                let (_, outcomes) = commands.nth(place)?;
                outcomes.iter().nth(outcome).map(|(_, count)| count.get())
            };
            workers.iter().filter_map(of).sum::<u64>()
        };
        let commands = CommandName::VALUES.iter().enumerate();
        let commands = commands.flat_map(|(place, command)| {
            let outcomes = Outcome::VALUES.iter().enumerate();
            outcomes.map(move |(outcome, name)| (place, *command, outcome, *name))
        });
        out.counters(
            "infotainer_commands",
            "Commands of clients, by what became of them; none is what was no command.",
            commands.map(|(place, command, outcome, name)| {
                let labels = [("command", command), ("outcome", name)];
                (labels, counted(place, outcome))
            }),
        )?;
        out.counters(
            "infotainer_command_errors",
            "Errors that commands were answered by, by their code.",
            self.sums("code", |worker| &worker.errors),
        )?;
        let under_way = self.metrics.gate.get().map_or(0, |gate| gate.under_way());
        out.gauge(
            "infotainer_commands_under_way_bytes",
            "What commands that have not taken effect count for, and what no worker has taken yet; at 64 MiB, publishers wait.",
            under_way,
        )
    }

    fn commits(&self, out: &mut Out<'_>) -> fmt::Result {
        let (log, direct) = (&self.metrics.log, &self.metrics.direct);
        out.counter(
            "infotainer_publications",
            "Publications that were accepted.",
            log.published.publications.get() + direct.publications.get(),
        )?;
        out.counter(
            "infotainer_publication_bytes",
            "Bytes of the publications that were accepted, as they are stored and sent.",
            log.published.bytes.get() + direct.bytes.get(),
        )?;
        out.histogram(
            "infotainer_commit_seconds",
            "From the newest command of a batch until the batch was committed as its durability asks.",
            &log.commit.seen(MICROSECOND),
        )?;
        out.histogram(
            "infotainer_fsync_seconds",
            "Syncs of the journal.",
            &log.fsync.seen(MICROSECOND),
        )?;
        out.histogram(
            "infotainer_batch_publications",
            "Publications of a batch; one commit is one batch.",
            &log.batch_publications.seen(1.0),
        )?;
        out.histogram(
            "infotainer_batch_bytes",
            "Bytes of a batch in the journal, at most.",
            &log.batch_bytes.seen(1.0),
        )
    }

    fn subscribers(&self, out: &mut Out<'_>) -> fmt::Result {
        let (broker, hubs) = (&self.found.broker, &self.found.hubs);
        out.gauges(
            "infotainer_subscriptions",
            "Subscriptions that exist.",
            [
                ([("kind", "Broadcast")], broker.broadcasts),
                ([("kind", "Queue")], broker.queues),
            ],
        )?;
        out.gauge(
            "infotainer_durable_sessions",
            "Durable sessions that are remembered, with a connection or without.",
            broker.durable_sessions,
        )?;
        out.gauge(
            "infotainer_subscribers",
            "Subscribers on open connections.",
            hubs.subscribers,
        )?;
        out.counter(
            "infotainer_deliveries",
            "Publications that were put into the outboxes of subscribers.",
            self.sum(|worker| &worker.deliveries),
        )?;
        out.gauge(
            "infotainer_outbox_bytes",
            "Bytes that wait in outboxes for clients to take them.",
            hubs.outbox_bytes,
        )?;
        out.gauge(
            "infotainer_subscribers_behind",
            "Subscribers that are served from the log, because they are new or slow.",
            hubs.behind,
        )?;
        out.gauge(
            "infotainer_subscribers_behind_publications",
            "Publications that subscribers who are behind have not been sent yet, in all.",
            hubs.missing,
        )?;
        out.gauge(
            "infotainer_subscribers_behind_publications_max",
            "Publications that the subscriber who is furthest behind has not been sent yet.",
            hubs.most_missing,
        )?;
        out.counter(
            "infotainer_subscribers_fell_behind",
            "Times that a subscriber fell behind, those included that began with a past.",
            self.sum(|worker| &worker.fell_behind),
        )
    }

    fn queues(&self, out: &mut Out<'_>) -> fmt::Result {
        let broker = &self.found.broker;
        out.gauge(
            "infotainer_queue_pending",
            "Publications of all Queues that are neither settled nor in flight.",
            broker.pending,
        )?;
        out.gauge(
            "infotainer_queue_in_flight",
            "Publications of all Queues that a subscriber has on lease.",
            broker.in_flight,
        )?;
        out.counter(
            "infotainer_queue_acknowledged",
            "Publications of Queues that were acknowledged.",
            broker.acknowledged,
        )?;
        out.counter(
            "infotainer_queue_redeliveries",
            "Deliveries of Queues that were not the first of their publication.",
            broker.redeliveries,
        )?;
        out.counters(
            "infotainer_queue_dead_letters",
            "Publications of Queues that were moved to the dead letters.",
            [
                ([("reason", "max-deliveries")], broker.dead_max_deliveries),
                ([("reason", "rejected")], broker.dead_rejected),
            ],
        )
    }

    fn log(&self, out: &mut Out<'_>) -> fmt::Result {
        let background = &self.metrics.background;
        let stored = *background.stored.lock();
        let journals = self.metrics.journals.get();
        let (unsealed, journal_bytes) = journals.map_or((0, 0), |journals| journals.look());
        out.gauge(
            "infotainer_log_bytes",
            "Bytes of payload that all subscriptions keep, those in memory included.",
            self.found.broker.log_bytes,
        )?;
        out.gauges(
            "infotainer_log_file_bytes",
            "Bytes of the files of the data log, without the catalogue.",
            [
                ([("file", "journal")], journal_bytes),
                ([("file", "segment")], stored.segment_bytes),
                ([("file", "state")], stored.state_bytes),
            ],
        )?;
        out.gauge(
            "infotainer_segments",
            "Segments that hold publications.",
            stored.segments,
        )?;
        out.gauge(
            "infotainer_journals_unsealed",
            "Full journals that wait to be sealed; commits wait while there are two.",
            unsealed,
        )?;
        out.histogram(
            "infotainer_seal_seconds",
            "Sealing of full journals, its rests included.",
            &background.seal.seen(MICROSECOND),
        )?;
        out.counter(
            "infotainer_merges",
            "Merges of segments.",
            background.merges.get(),
        )?;
        out.counter(
            "infotainer_damage",
            "Parts of files that were found damaged while the server runs.",
            background.damage.get(),
        )?;
        if let Some((free, size)) = self.found.process.disk {
            out.gauge(
                "infotainer_disk_free_bytes",
                "Free room on the disk under the data directory.",
                free,
            )?;
            out.gauge("infotainer_disk_size_bytes", "Size of that disk.", size)?;
        }
        Ok(())
    }

    fn recovery(&self, out: &mut Out<'_>) -> fmt::Result {
        let nothing = RecoveryReport::default();
        let report = self.metrics.recovery.get().unwrap_or(&nothing);
        out.gauge(
            "infotainer_recovery_seconds",
            "How long the start took to read back what is stored.",
            report.duration.as_secs_f64(),
        )?;
        out.gauge(
            "infotainer_recovery_batches",
            "Journal batches that the start replayed.",
            report.batches,
        )?;
        out.gauge(
            "infotainer_recovery_cut_bytes",
            "Bytes of unfinished writes that the start cut.",
            report.cut_bytes,
        )?;
        out.gauge(
            "infotainer_recovery_damage",
            "Damage that the start found, in places.",
            report.damage.len() as u64,
        )?;
        out.gauge(
            "infotainer_recovery_catalogue_rebuilt",
            "Whether the start made the catalogue again: 1 or 0.",
            u64::from(report.catalogue_rebuilt),
        )?;
        out.gauge(
            "infotainer_recovery_unclean",
            "Whether the end before the start was not orderly: 1 or 0.",
            u64::from(report.unclean),
        )
    }

    fn process(&self, out: &mut Out<'_>) -> fmt::Result {
        let process = &self.found.process;
        if let Some(seconds) = process.cpu_seconds {
            out.counter(
                "process_cpu_seconds",
                "User and system time of the process.",
                seconds,
            )?;
        }
        if let Some(bytes) = process.resident {
            out.gauge(
                "process_resident_memory_bytes",
                "Memory that the process has resident.",
                bytes,
            )?;
        }
        if let Some(count) = process.open_fds {
            out.gauge(
                "process_open_fds",
                "Files and sockets that the process has open.",
                count,
            )?;
        }
        if let Some(count) = process.max_fds {
            out.gauge(
                "process_max_fds",
                "Files and sockets that the process may have open.",
                count,
            )?;
        }
        if let Some(seconds) = process.start_time {
            out.gauge(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
                seconds,
            )?;
        }
        Ok(())
    }

    /// What all workers counted.
    fn sum(&self, of: impl Fn(&WorkerCounts) -> &Count) -> u64 {
        let workers = self.metrics.workers.lock();
        workers.iter().map(|worker| of(worker).get()).sum()
    }

    /// What all workers counted, for each value of a label.
    fn sums<L: Label>(
        &self,
        label: &'static str,
        of: impl Fn(&WorkerCounts) -> &By<L, Count>,
    ) -> Vec<([(&'static str, &'static str); 1], u64)> {
        let mut sums: Vec<_> = L::VALUES
            .iter()
            .map(|value| ([(label, *value)], 0))
            .collect();
        for worker in self.metrics.workers.lock().iter() {
            for ((_, sum), (_, count)) in sums.iter_mut().zip(of(worker).iter()) {
                *sum += count.get();
            }
        }
        sums
    }
}

/// Where the page is written to.
struct Out<'a>(DescriptorEncoder<'a>);

/// No sample has an exemplar.
const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

impl Out<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'l str); 1], impl EncodeGaugeValue)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// `name` is without its `_total`.
    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.family(name, help, MetricType::Counter)?
            .encode_counter(&value, NO_EXEMPLAR)
    }

    /// `name` is without its `_total`.
    fn counters<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        for (labels, value) in values {
            family
                .encode_family(&labels)?
                .encode_counter(&value, NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, seen: &Seen) -> fmt::Result {
        let count = seen.buckets.iter().map(|(_, count)| count).sum();
        self.family(name, help, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(seen.sum, count, &seen.buckets, None)
    }

    /// `name` is without its `_info`.
    fn info(&mut self, name: &str, help: &str, labels: &[(&'static str, &str); 1]) -> fmt::Result {
        self.family(name, help, MetricType::Info)?
            .encode_info(labels)
    }
}
