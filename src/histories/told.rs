//! What clients were told, and so have to find again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::{
    datalog::tests::shadow::Shadow,
    domain::{StateEntry, SubscriptionState},
    protocol::{
        Durability, Epoch, PublicationId, Sequence, SessionId, ShownSettings, SubscriptionId,
        stored_publications,
    },
};

/// How what a start found came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Since {
    pub(super) was_power_cut: bool,
    /// Logs that are not synced get a new epoch.
    pub(super) is_end_unknown: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Told {
    subscriptions: HashMap<SubscriptionId, OfSubscription>,
}

/// What was told of one epoch: nothing else may ever be told of it.
#[derive(Default)]
struct Life {
    /// Answered `Submitted`.
    publications: BTreeMap<Sequence, (PublicationId, Bytes)>,
    /// Served to somebody.
    shown: BTreeMap<Sequence, Bytes>,
}

/// What was told of a subscription, as long as nobody asked for its end.
#[derive(Default)]
pub(super) struct OfSubscription {
    exists: bool,
    /// Somebody asked for its end.
    is_ending: bool,
    epoch: Option<Epoch>,
    /// None while somebody asked for others.
    settings: Option<ShownSettings>,
    lives: HashMap<Epoch, Life>,
    /// What a durable session acknowledged, of a Broadcast; none while it asked for another place.
    cursors: HashMap<SessionId, Sequence>,
    /// Answered `Acknowledged`, of a Queue.
    settled: BTreeSet<PublicationId>,
    /// Somebody asked to settle these, or to move them.
    touched: BTreeSet<PublicationId>,
    /// How often each was delivered.
    deliveries: HashMap<PublicationId, u32>,
}

impl Told {
    pub(super) fn of(&mut self, id: SubscriptionId) -> &mut OfSubscription {
        self.subscriptions.entry(id).or_default()
    }

    /// Somebody asks for the end of a subscription.
    pub(super) fn ends(&mut self, id: SubscriptionId) {
        self.of(id).is_ending = true;
    }

    /// It is said to be gone.
    pub(super) fn ended(&mut self, id: SubscriptionId) {
        self.subscriptions.remove(&id);
    }

    /// Holds what a start found against it. What may be gone, with this end, is forgotten.
    pub(super) fn check(&mut self, found: &Shadow, since: Since) {
        let mut entries = HashMap::new();
        for (key, value) in &found.state {
            if let StateEntry::Subscription(id, state) = StateEntry::decode(key, value).unwrap() {
                entries.insert(id, state);
            }
        }
        self.subscriptions.retain(|_, told| !told.is_ending);
        for (id, told) in &mut self.subscriptions {
            match entries.get(id) {
                Some(state) => told.check(*id, state, found, since),
                None => assert!(!told.exists, "{id} is gone"),
            }
        }
    }

    /// A session came back.
    pub(super) fn check_cursor(&self, session: SessionId, id: SubscriptionId, cursor: Sequence) {
        let told = self.subscriptions.get(&id);
        if let Some(acknowledged) = told.and_then(|told| told.cursors.get(&session)) {
            assert!(
                cursor >= *acknowledged,
                "{id} goes on behind {cursor}, and {acknowledged} was acknowledged"
            );
        }
    }

    /// Every subscription that anything was told of.
    pub(super) fn all(&self) -> impl Iterator<Item = (SubscriptionId, &OfSubscription)> {
        self.subscriptions.iter().map(|(id, told)| (*id, told))
    }
}

impl OfSubscription {
    fn check(
        &mut self,
        id: SubscriptionId,
        state: &SubscriptionState,
        found: &Shadow,
        since: Since,
    ) {
        let is_synced = state.settings.durability == Durability::Synced;
        if since.was_power_cut {
            self.deliveries.clear();
            if !is_synced {
                self.settled.clear();
            }
        }
        if since.is_end_unknown && !is_synced {
            // It is about to get another epoch.
            self.epoch = None;
            self.cursors.clear();
            return;
        }
        if self.epoch.is_some_and(|epoch| epoch != state.epoch) {
            assert!(since.was_power_cut && !is_synced, "{id} has another epoch");
            self.cursors.clear();
        }
        let log = &found.logs[&state.log];
        let Some(life) = self.lives.get(&state.epoch) else {
            return;
        };
        for (sequence, (publication_id, data)) in life.publications.range(log.first..) {
            let frame = log.frames.get(sequence);
            let frame = frame.unwrap_or_else(|| panic!("{sequence} of {id} was answered"));
            let publication = stored_publications(frame).next().unwrap().unwrap();
            assert_eq!(publication.publication_id(), *publication_id);
            assert_eq!(publication.data(), &data[..]);
        }
        for (sequence, shown) in life.shown.range(log.first..) {
            let frame = log.frames.get(sequence);
            assert_eq!(frame, Some(shown), "{sequence} of {id} was shown");
        }
    }

    /// It was told to be there, in this epoch.
    pub(super) fn exists(&mut self, epoch: Epoch) {
        self.exists = true;
        if self.epoch.is_some_and(|told| told != epoch) {
            self.cursors.clear();
            self.settled.clear();
        }
        self.epoch = Some(epoch);
    }

    pub(super) fn settings(&mut self, shown: &ShownSettings, is_answer_to_change: bool) {
        if is_answer_to_change {
            self.settings = Some(shown.clone());
        }
        if let Some(told) = &self.settings {
            assert_eq!(shown, told, "the settings are others");
        }
    }

    /// Somebody asked for other settings.
    pub(super) fn unsettle(&mut self) {
        self.settings = None;
    }

    pub(super) fn submitted(&mut self, sequence: Sequence, id: PublicationId, data: Bytes) {
        let publications = &mut self.life().publications;
        if let Some((told, _)) = publications.get(&sequence) {
            assert_eq!(*told, id, "sequence {sequence} was given twice");
        }
        publications.insert(sequence, (id, data));
    }

    fn life(&mut self) -> &mut Life {
        let epoch = self.epoch.expect("the epoch is known");
        self.lives.entry(epoch).or_default()
    }

    pub(super) fn shown(&mut self, frames: &Bytes) {
        for publication in stored_publications(frames).map(Result::unwrap) {
            let frame = frames.slice_ref(publication.frame());
            let before = self
                .life()
                .shown
                .insert(publication.sequence(), frame.clone());
            assert!(
                before.is_none_or(|before| before == frame),
                "sequence {} was shown as another",
                publication.sequence()
            );
        }
    }

    /// A place that was told holds until somebody asks for another.
    pub(super) fn acknowledged(&mut self, session: SessionId, sequence: Sequence) {
        let told = self.cursors.entry(session).or_default();
        *told = sequence.max(*told);
    }

    pub(super) fn moved(&mut self, session: SessionId) {
        self.cursors.remove(&session);
    }

    pub(super) fn touched(&mut self, ids: &[PublicationId]) {
        self.touched.extend(ids);
    }

    pub(super) fn settled(&mut self, ids: &[PublicationId], lost: &[PublicationId]) {
        let settled = ids.iter().filter(|id| !lost.contains(id));
        self.settled.extend(settled);
    }

    pub(super) fn delivered(&mut self, frame: &Bytes, delivery: u32) {
        self.shown(frame);
        let publication = stored_publications(frame).next().unwrap().unwrap();
        let id = publication.publication_id();
        assert!(!self.settled.contains(&id), "{id} was settled");
        let before = self.deliveries.insert(id, delivery).unwrap_or_default();
        assert!(
            delivery > before,
            "delivery {delivery} of {id} behind {before}"
        );
    }

    /// What a Queue has to deliver now, if everybody has room.
    pub(super) fn pending(&self, first: Sequence) -> impl Iterator<Item = PublicationId> {
        let life = self.epoch.and_then(|epoch| self.lives.get(&epoch));
        let publications = life
            .into_iter()
            .flat_map(move |life| life.publications.range(first..));
        let ids = publications.map(|(_, (id, _))| *id);
        ids.filter(|id| !self.touched.contains(id))
    }
}
