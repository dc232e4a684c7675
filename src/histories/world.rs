//! A server without actors and sockets on a simulated disk: broker and data log, joined as the actors join them, and some clients.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;

use super::{
    Counts,
    damage::Damaged,
    told::{Since, Told},
};
use crate::{
    actors::{
        log_reader::{CommittedIds, LogFetcher},
        pubsub_service::room,
    },
    datalog::{
        DataLog, Event, LogReader, Options, Record, Recovered,
        disk::simulated::{Disk, End},
        tests::shadow::Shadow,
    },
    domain::{
        Broker, BrokerLimits, ConnectionId, Defaults, Effect, Identity, Principal, Read, ReplyTo,
        SealedBatch, StateEntry, broker::RestoredState,
    },
    protocol::{
        ClientCommand, Durability, Epoch, ErrorCode, Limits, PublicationId, Request, RequestId,
        Retention, ServerResponse, SessionId, SubscriptionId, SubscriptionReference, Timestamp,
        stored_publications,
    },
};

/// Bytes of a journal: some dozens of publications.
const JOURNAL_SIZE: u64 = 16 << 10;

/// The largest submission.
pub(super) const LARGEST: usize = 600;

/// The clients; the last has a transient session.
pub(super) const CLIENTS: usize = 3;
pub(super) const TRANSIENT: usize = CLIENTS - 1;

/// What was asked, until it is answered.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Submit(SubscriptionId, Bytes),
    /// To be a subscriber, or none.
    Place(usize, SubscriptionId),
    UpTo(usize, SubscriptionId, crate::protocol::Sequence),
    Ids(SubscriptionId, Vec<PublicationId>),
    /// Settings that are set.
    Change(SubscriptionId),
    Show(SubscriptionId),
    Delete(SubscriptionId),
    Other,
}

/// How a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Orderly,
    Sudden(End),
}

/// See the module.
pub(super) struct World {
    pub(super) disk: Disk,
    pub(super) random: fastrand::Rng,
    pub(super) counts: Counts,
    pub(super) told: Told,
    pub(super) steps: Vec<String>,
    running: Option<Running>,
    /// What is synced, in this boot or before.
    pub(super) durable: Shadow,
    /// Batches that were written since.
    volatile: Vec<Vec<Record>>,
    /// A batch that was perhaps written.
    perhaps: Option<Vec<Record>>,
    /// What a start found, and the batches behind that: of the last, how many it says were synced when it was written, and where
    /// it is.
    pub(super) found: Shadow,
    pub(super) batches: Vec<Vec<Record>>,
    pub(super) synced_before_last: usize,
    pub(super) last_batch: (std::path::PathBuf, u64),
    pub(super) damaged: Option<Damaged>,
    /// Calls were made to fail: a catalogue that could not be written is made again.
    had_failures: bool,
    is_catalogue_old: bool,
    failures_seen: u64,
    /// The log failed.
    has_failed: bool,
    now: u64,
    next_connection: u64,
    next_request: u64,
    asked: HashMap<RequestId, Asked>,
    epochs: HashMap<SubscriptionId, Epoch>,
    clients: [Client; CLIENTS],
    /// Since the start.
    delivered: HashSet<(SubscriptionId, PublicationId)>,
    /// Damage that was told while serving.
    pub(super) events: Arc<Mutex<Vec<String>>>,
}

pub(super) struct Running {
    pub(super) log: DataLog,
    pub(super) broker: Broker,
    fetcher: LogFetcher,
    pub(super) reader: LogReader,
}

#[derive(Default)]
struct Client {
    connection: Option<ConnectionId>,
    leases: BTreeMap<SubscriptionId, Vec<PublicationId>>,
}

fn session(client: usize) -> SessionId {
    SessionId(uuid::Uuid::from_u128(client as u128 + 1))
}

fn limits() -> BrokerLimits {
    BrokerLimits {
        defaults: Defaults {
            durability: Durability::Synced,
            retention: Retention::default(),
        },
        max_subscriptions: 100,
        max_sessions: 10,
        session_expiry: 24 * 3600 * 1000,
        outbox_size: 1 << 20,
        memory_log: 1 << 20,
        quotas: Default::default(),
        limits: Limits {
            max_message_size: LARGEST as u64,
            max_subscriptions: 20,
            heartbeat_interval: 25_000,
            heartbeat_timeout: 10_000,
        },
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            disk: Disk::with_turns(random.u64(..)),
            random,
            counts: Counts::default(),
            told: Told::default(),
            steps: Vec::new(),
            running: None,
            durable: Shadow::default(),
            volatile: Vec::new(),
            perhaps: None,
            found: Shadow::default(),
            batches: Vec::new(),
            synced_before_last: 0,
            last_batch: Default::default(),
            damaged: None,
            had_failures: false,
            is_catalogue_old: false,
            failures_seen: 0,
            has_failed: false,
            now: 1_000_000,
            next_connection: 0,
            next_request: 0,
            asked: HashMap::new(),
            epochs: HashMap::new(),
            clients: Default::default(),
            delivered: HashSet::new(),
            events: Arc::default(),
        }
    }

    pub(super) fn options(&self) -> Options {
        let events = self.events.clone();
        Options {
            journal_size: JOURNAL_SIZE,
            merge_at: 3,
            sled_cache: 1 << 20,
            events: Arc::new(move |event| {
                if let Event::Damage(what) = event {
                    events.lock().push(what);
                }
            }),
            ..Options::new(self.disk.dir())
        }
    }

    pub(super) fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("the server runs")
    }

    /// Whether the log failed, or everything ended.
    pub(super) fn is_over(&self) -> bool {
        let log = self.running.as_ref().map(|running| &running.log);
        let has_failed = log.is_some_and(|log| log.backlog().failed().is_some());
        self.has_failed || has_failed || self.disk.has_ended()
    }
}

/// Start and stop.
impl World {
    /// Opens the data log, whatever comes between, and begins with what it finds.
    pub(super) fn start(&mut self, ended: &mut Ending) -> Recovered {
        let opened = loop {
            match DataLog::open(self.options()) {
                Ok(opened) => break opened,
                Err(_) if self.disk.has_ended() => {
                    self.counts.add("ends in a start", 1);
                    self.steps.push("  it ends while it starts".into());
                    let was_cut = self.revive();
                    if was_cut {
                        *ended = Ending::Sudden(End::PowerCut);
                    }
                }
                Err(error) => {
                    let was_made = self.disk.failures() > self.failures_seen;
                    let is_full = self.disk.times_full() > 0;
                    assert!(was_made || is_full, "the start fails: {error}");
                    self.failures_seen = self.disk.failures();
                    self.had_failures |= was_made;
                    self.counts.add("failed starts", 1);
                    self.steps.push(format!("  the start fails: {error}"));
                    self.disk.set_room(None);
                }
            }
        };
        let (log, recovered) = opened;
        self.begin(log, &recovered);
        recovered
    }

    /// Makes a broker of what a start found.
    pub(super) fn begin(&mut self, log: DataLog, recovered: &Recovered) {
        let reader = log.reader();
        let restored = RestoredState {
            entries: recovered.state.clone(),
            logs: recovered.logs.clone(),
            next_log: recovered.next_log,
            uncertain: recovered.uncertain.clone(),
            unclean_boot: recovered.unclean_boot,
        };
        let known = Box::new(CommittedIds(reader.clone()));
        let mut broker = Broker::new(limits(), restored, known, Timestamp(self.now));
        broker.set_clock(Timestamp(self.now), self.now);
        let space = log.space();
        broker.set_room(room(space));
        self.running = Some(Running {
            log,
            broker,
            fetcher: LogFetcher::new(reader.clone()),
            reader,
        });
        self.has_failed = false;
    }

    /// What a start found is what was there. What may be gone with this end may be.
    pub(super) fn check_found(&mut self, recovered: &Recovered, ending: Ending) {
        let was_power_cut = ending == Ending::Sudden(End::PowerCut);
        let report = &recovered.report;
        self.counts
            .add("torn tails", u64::from(report.cut_bytes > 0));
        self.counts
            .add("catalogues made again", u64::from(report.catalogue_rebuilt));
        for line in &report.damage {
            // Of sled's files any part may be lost. One that goes back in time may tell of a segment that was let go.
            let is_old = self.is_catalogue_old && line.contains("can't be read: No such file");
            let is_allowed = line.starts_with("the catalogue") || is_old;
            assert!(is_allowed, "told: {line}");
        }
        assert_eq!(recovered.uncertain, []);
        let batches = std::mem::take(&mut self.volatile);
        let written = batches.len();
        let perhaps = self.perhaps.take();
        let mut candidate = std::mem::take(&mut self.durable);
        let mut differences = vec![candidate.difference(recovered)];
        let mut found = differences[0].is_none().then(|| (0, candidate.clone()));
        for (number, batch) in (1..).zip(batches.into_iter().chain(perhaps)) {
            for record in &batch {
                candidate.apply(record);
            }
            let difference = candidate.difference(recovered);
            if difference.is_none() {
                found = Some((number, candidate.clone()));
            }
            differences.push(difference);
        }
        let Some((number, found)) = found else {
            panic!("no state from the last sync on was found: {differences:?}");
        };
        assert!(
            was_power_cut || number >= written,
            "{number} of {written} batches are left, and the power was never cut"
        );
        if number < written {
            self.counts.add("ends that took batches", 1);
            assert!(recovered.unclean_boot, "nobody is told of lost batches");
        }
        let is_end_unknown = recovered.unclean_boot;
        let since = Since {
            was_power_cut,
            is_end_unknown,
        };
        self.told.check(&found, since);
        found.check(&self.running().reader.clone());
        for (key, value) in &found.state {
            self.note_epoch(key, value);
        }
        self.found = found.clone();
        self.batches.clear();
        self.durable = found;
        self.asked.clear();
        self.delivered.clear();
    }

    /// Clients come back, and find what they were told.
    pub(super) fn welcome(&mut self) {
        for client in 0..CLIENTS {
            if client == TRANSIENT || self.random.u8(0..4) > 0 {
                self.connect(client);
            }
        }
        let ids: Vec<_> = self.told.all().map(|(id, _)| id).collect();
        for id in ids {
            let show = ClientCommand::GetSubscription(SubscriptionReference { id, name: None });
            self.send(TRANSIENT, show, Asked::Show(id));
        }
        self.commit();
    }

    /// Everything that a Queue has comes again, if somebody takes it.
    pub(super) fn check_pending(&mut self, queues: &[SubscriptionReference]) {
        for queue in queues {
            let mut entries = self.durable.state.iter();
            let state =
                entries.find_map(|(key, value)| match StateEntry::decode(key, value).ok()? {
                    StateEntry::Subscription(id, state) if id == queue.id => Some(state),
                    _ => None,
                });
            let Some(state) = state else { continue };
            let subscribe = crate::protocol::Subscribe {
                subscription: queue.clone(),
                kind: None,
                from: None,
                epoch: None,
                prefetch: Some(u16::MAX),
            };
            self.send(TRANSIENT, ClientCommand::Subscribe(subscribe), Asked::Other);
            self.commit();
            if self.is_over() {
                return;
            }
            let first = self.durable.logs[&state.log].first;
            let told = self.told.of(queue.id);
            let missing: Vec<_> = told
                .pending(first)
                .filter(|id| !self.delivered.contains(&(queue.id, *id)))
                .collect();
            let moved: HashSet<_> = self
                .durable
                .logs
                .iter()
                .filter(|(log, _)| **log != state.log)
                .flat_map(|(_, log)| log.frames.values())
                .map(|frame| stored_publications(frame).next().unwrap().unwrap())
                .map(|publication| publication.publication_id())
                .collect();
            let missing: Vec<_> = missing.iter().filter(|id| !moved.contains(id)).collect();
            assert!(missing.is_empty(), "{} lacks {missing:?}", queue.id);
            self.counts.add("queues drained", 1);
        }
    }

    /// Ends the run, and makes what is on the disk ready for the next.
    pub(super) fn stop(&mut self, ending: Ending) -> Ending {
        let Some(mut running) = self.running.take() else {
            return ending;
        };
        for client in &mut self.clients {
            let connection = client.connection.take();
            client.leases.clear();
            if ending == Ending::Orderly
                && !self.disk.has_ended()
                && let Some(connection) = connection
            {
                running.broker.stop();
                running
                    .broker
                    .disconnected(connection, &[], Timestamp(self.now));
            }
        }
        let mut ending = ending;
        match ending {
            Ending::Sudden(end) => self.disk.end(end),
            Ending::Orderly => {
                self.running = Some(running);
                self.commit();
                running = self.running.take().expect("it was put there");
            }
        }
        let Running { log, broker, .. } = running;
        drop(broker);
        if ending == Ending::Orderly && !self.is_over() {
            match log.close() {
                Ok(()) => self.is_synced(),
                Err(error) => {
                    assert!(self.disk.has_ended() || self.is_excused(), "{error}");
                    ending = Ending::Sudden(End::Kill);
                }
            }
        } else {
            drop(log);
            if ending == Ending::Orderly {
                ending = Ending::Sudden(End::Kill);
            }
        }
        if self.disk.has_ended() {
            ending = Ending::Sudden(match self.revive() {
                true => End::PowerCut,
                false => End::Kill,
            });
        }
        ending
    }

    /// Whether the power was cut.
    pub(super) fn revive(&mut self) -> bool {
        let was_cut = self.disk.revive() == End::PowerCut;
        if was_cut {
            self.counts.add("power cuts", 1);
        } else {
            self.counts.add("kills", 1);
        }
        was_cut
    }

    /// The disk was made to fail.
    fn is_excused(&mut self) -> bool {
        let failures = self.disk.failures();
        let is_new = failures > self.failures_seen;
        self.failures_seen = failures;
        self.had_failures |= is_new;
        self.had_failures || self.disk.times_full() > 0
    }
}

/// What the actors do.
impl World {
    pub(super) fn connect(&mut self, client: usize) {
        if self.clients[client].connection.is_some() {
            return;
        }
        self.next_connection += 1;
        let connection = ConnectionId::of_worker_zero(self.next_connection);
        let identity = match client {
            TRANSIENT => Identity::Transient,
            _ => Identity::Durable(session(client)),
        };
        let now = Timestamp(self.now);
        let old = self
            .running()
            .broker
            .connect(connection, identity, &Principal::anonymous(), now);
        assert_eq!(old, None);
        self.clients[client].connection = Some(connection);
    }

    pub(super) fn disconnect(&mut self, client: usize) {
        if let Some(connection) = self.clients[client].connection.take() {
            self.clients[client].leases.clear();
            let now = Timestamp(self.now);
            self.running().broker.disconnected(connection, &[], now);
        }
    }

    /// Gives a command to the broker, when that is ready for it.
    pub(super) fn send(&mut self, client: usize, command: ClientCommand, asked: Asked) {
        self.connect(client);
        for _ in 0..30 {
            if self.running().broker.is_ready() || self.is_over() {
                break;
            }
            self.commit();
            self.turn();
        }
        if !self.running().broker.is_ready() || self.disk.has_ended() {
            return;
        }
        match &asked {
            Asked::Place(client, id) if *client != TRANSIENT => {
                self.told.of(*id).moved(session(*client));
            }
            Asked::Ids(id, ids) => self.told.of(*id).touched(ids),
            Asked::Change(id) => self.told.of(*id).unsettle(),
            Asked::Delete(id) => self.told.ends(*id),
            _ => {}
        }
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.asked.insert(request, asked);
        let to = ReplyTo {
            connection: self.clients[client].connection.expect("it is connected"),
            request_id: Some(request),
            command: Some(command.name()),
            silent: false,
            credit: 10,
        };
        let request = Request {
            id: Some(request),
            command,
        };
        let now = Timestamp(self.now);
        self.running().broker.handle(to, request, now);
    }

    /// One task of the background thread, or the merge.
    pub(super) fn turn(&mut self) -> bool {
        let may_merge = self.random.u8(0..3) == 0;
        let running = self.running();
        let backlog = running.log.backlog();
        let merged = may_merge && backlog.let_merge();
        let waiting = backlog.unsealed_generations().len();
        let is_done = merged || backlog.do_one();
        let sealed = waiting.saturating_sub(backlog.unsealed_generations().len()) as u64;
        let space = running.log.space();
        running.broker.set_room(room(space));
        self.counts.add("merges", u64::from(merged));
        self.counts.add("journals sealed", sealed);
        is_done
    }

    /// The server, to be ended by hand.
    pub(super) fn running_no_more(&mut self) -> Running {
        self.running.take().expect("the server runs")
    }

    /// What was asked is not waited for, and what was told does not hold.
    pub(super) fn asked_nothing(&mut self) {
        self.asked.clear();
        self.told = Told::default();
    }

    /// Everything that can be done in the background is done.
    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            if self.is_over() || !self.turn() && !self.turn() && !self.turn() {
                return;
            }
        }
    }

    pub(super) fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        let now = self.now;
        let broker = &mut self.running().broker;
        broker.set_clock(Timestamp(now), now);
        broker.expire_leases();
    }

    pub(super) fn retain(&mut self) {
        let now = Timestamp(self.now);
        let running = self.running();
        let checks = running.broker.retention_due(1, now);
        let cuts = running.fetcher.cuts(checks, now);
        let count = cuts.len() as u64;
        for cut in cuts {
            running.broker.retain(cut);
        }
        self.counts.add("cuts of retention", count);
    }

    pub(super) fn end_journal(&mut self) {
        let ended = self.running().log.try_to_end_journal();
        if ended.is_err() {
            self.fail(None, true);
        }
    }

    /// What was written is synced within a second.
    pub(super) fn sync(&mut self) {
        match self.running().log.sync() {
            Ok(()) => self.is_synced(),
            Err(_) => self.fail(None, true),
        }
    }

    fn is_synced(&mut self) {
        let batches = std::mem::take(&mut self.volatile);
        if self.damaged.is_some() {
            // They follow what the damage left, which is not what was written.
            return;
        }
        for batch in batches {
            for record in &batch {
                self.durable.apply(record);
            }
        }
    }

    /// What is written, synced or not.
    pub(super) fn written(&self) -> Shadow {
        let mut written = self.durable.clone();
        for record in self.volatile.iter().flatten() {
            written.apply(record);
        }
        written
    }

    pub(super) fn check_reading(&mut self) {
        if self.disk.has_ended() {
            return;
        }
        let (written, is_over) = (self.written(), self.is_over());
        let reader = &self.running().reader;
        if is_over {
            // Reading goes on.
            written.check_pages(reader);
            self.counts.add("reads after a failure", 1);
        } else {
            written.check(reader);
        }
    }

    /// As DataLogger does, and PubSubService.
    pub(super) fn commit(&mut self) {
        loop {
            let running = self.running();
            for load in running.broker.take_loads() {
                let pages = running.fetcher.load(&load);
                running.broker.loaded(load.subscription, load.log, pages);
            }
            if self.disk.has_ended() {
                return;
            }
            let Some(batch) = self.running().broker.take_logged() else {
                return;
            };
            self.commit_one(batch);
        }
    }

    fn commit_one(&mut self, mut batch: SealedBatch) {
        if !batch.records.is_empty() {
            let written = self.running().log.write(&batch.records);
            if self.disk.has_ended() && written.is_err() {
                self.perhaps = Some(batch.records);
                return;
            }
            if written.is_err() {
                self.perhaps.get_or_insert(batch.records.clone());
                return self.fail(Some(batch), false);
            }
            for record in &batch.records {
                if let Record::Put { key, value } = record {
                    self.note_epoch(key, value);
                }
            }
            self.synced_before_last = self.batches.len() - self.volatile.len();
            self.last_batch = self.running().log.last_batch();
            self.batches.push(batch.records.clone());
            self.volatile.push(batch.records.clone());
        }
        if self.disk.has_ended() {
            return;
        }
        for (_, effect) in std::mem::take(&mut batch.at_write) {
            self.release(effect);
        }
        if batch.needs_sync {
            match self.running().log.sync() {
                Ok(()) => self.is_synced(),
                Err(_) if self.disk.has_ended() => return,
                Err(_) => return self.fail(Some(batch), true),
            }
        }
        if self.disk.has_ended() {
            return;
        }
        for (_, effect) in std::mem::take(&mut batch.at_sync) {
            self.release(effect);
        }
        let running = self.running();
        running.broker.committed(batch.number, batch.size);
        let space = running.log.space();
        running.broker.set_room(room(space));
        self.check_figures();
    }

    /// What is counted while things change is what is there.
    fn check_figures(&mut self) {
        let broker = &self.running().broker;
        assert_eq!(broker.figures(), broker.walked_figures());
    }

    fn note_epoch(&mut self, key: &[u8], value: &[u8]) {
        if let Ok(StateEntry::Subscription(id, state)) = StateEntry::decode(key, value) {
            self.epochs.insert(id, state.epoch);
        }
    }

    fn fail(&mut self, batch: Option<SealedBatch>, was_written: bool) {
        if self.disk.has_ended() {
            return;
        }
        assert!(self.is_excused(), "the log failed by itself");
        if !self.has_failed {
            self.counts.add("failed logs", 1);
            self.steps.push("  the log failed".into());
        }
        self.has_failed = true;
        self.running().broker.commit_failed(batch, was_written);
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(to, response) | Effect::Unsubscribe(to, _, response) => {
                self.answered(to, &response);
            }
            Effect::Read(to, read) => self.read(to, &read),
            Effect::Publications(delivery) => {
                self.told_to_exist(delivery.subscription);
                let told = self.told.of(delivery.subscription);
                told.shown(&delivery.chunk.frames);
            }
            Effect::Deliver(delivery) => {
                let id = delivery.subscription;
                self.told_to_exist(id);
                for (frame, count) in &delivery.publications {
                    self.told.of(id).delivered(frame, *count);
                    let publication = stored_publications(frame).next().unwrap().unwrap();
                    let publication = publication.publication_id();
                    self.delivered.insert((id, publication));
                    let holds =
                        |client: &&mut Client| client.connection == Some(delivery.connection);
                    if let Some(client) = self.clients.iter_mut().find(holds) {
                        client.leases.entry(id).or_default().push(publication);
                    }
                }
            }
            Effect::Subscribe(effect) => {
                self.told.of(effect.subscription).exists(effect.epoch);
                self.asked
                    .remove(&effect.to.request_id.expect("each has one"));
            }
            Effect::Welcome(effect) => {
                for one in &effect.welcome.subscriptions {
                    let told = self.told.of(one.subscription_id);
                    told.exists(one.epoch);
                    let session = effect.welcome.session_id;
                    self.told
                        .check_cursor(session, one.subscription_id, one.cursor);
                }
            }
            Effect::Dropped(_)
            | Effect::Deleted { .. }
            | Effect::Withdraw(..)
            | Effect::Push(..)
            | Effect::Close(..) => {}
        }
    }

    fn told_to_exist(&mut self, id: SubscriptionId) {
        let epoch = self.epochs[&id];
        self.told.of(id).exists(epoch);
    }

    fn answered(&mut self, to: ReplyTo, response: &ServerResponse) {
        let request = to.request_id.expect("each has one");
        let Some(asked) = self.asked.remove(&request) else {
            return;
        };
        match (asked, response) {
            (_, ServerResponse::Error(error)) => {
                let is_failure = error.code == ErrorCode::LogUnavailable;
                // The background thread may know before a commit does.
                assert!(!is_failure || self.is_over(), "{}", error.message);
                self.counts.add(
                    "refused for room",
                    u64::from(error.code == ErrorCode::LogFull),
                );
            }
            (Asked::Submit(id, data), ServerResponse::Submitted(submitted)) => {
                self.told_to_exist(id);
                let told = self.told.of(id);
                if !submitted.duplicate {
                    told.submitted(submitted.sequence, submitted.publication_id, data);
                }
            }
            (Asked::UpTo(client, id, sequence), ServerResponse::Acknowledged(_))
                if client != TRANSIENT =>
            {
                self.told.of(id).acknowledged(session(client), sequence);
            }
            (Asked::Ids(id, ids), ServerResponse::Acknowledged(settled)) => {
                let lost = settled.lost.as_deref().unwrap_or_default();
                self.told.of(id).settled(&ids, lost);
            }
            (Asked::Change(id), ServerResponse::SubscriptionMeta(meta)) => {
                self.told.of(id).exists(meta.epoch);
                self.told.of(id).settings(&meta.settings, true);
            }
            (Asked::Show(id), ServerResponse::SubscriptionMeta(meta)) => {
                self.told.of(id).exists(meta.epoch);
                self.told.of(id).settings(&meta.settings, false);
            }
            (Asked::Delete(id), ServerResponse::Deleted(_)) => self.told.ended(id),
            _ => {}
        }
    }

    fn read(&mut self, to: ReplyTo, read: &Read) {
        let answer = self.running().fetcher.answer(read);
        if let ServerResponse::DataLogEntry(entry) = &answer {
            assert_eq!(entry.missing, []);
            self.counts
                .add("publications read", entry.publications.len() as u64);
        }
        self.answered(to, &answer);
    }

    /// What a client has on lease.
    pub(super) fn take_leases(&mut self, client: usize, id: SubscriptionId) -> Vec<PublicationId> {
        let leases = self.clients[client].leases.remove(&id).unwrap_or_default();
        let (taken, left) = leases.into_iter().partition(|_| self.random.u8(0..3) > 0);
        self.clients[client].leases.insert(id, left);
        taken
    }

    pub(super) fn is_connected(&self, client: usize) -> bool {
        self.clients[client].connection.is_some()
    }

    /// sled's directory goes back in time, or is gone.
    pub(super) fn forget_catalogue(&mut self) {
        self.disk.forget_catalogue();
        self.is_catalogue_old = true;
        self.counts.add("catalogues forgotten", 1);
    }
}
