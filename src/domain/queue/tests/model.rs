//! The queue against a model that remembers every publication by itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{RULES, Stored, connection, empty, id, page, restarted};
use crate::{
    domain::{
        MissingRange, Page,
        queue::{Progress, Queue, Rejected, Touched},
    },
    protocol::{GapCause, PublicationId, Sequence},
};

/// One step of the model.
#[derive(Clone, Debug)]
enum Step {
    Submit,
    Read,
    Subscribe(u64, u16),
    Unsubscribe(u64, bool),
    Acknowledge(u64, Vec<u8>),
    Reject(u64, Vec<u8>, u64),
    Condemn(u64, Vec<u8>),
    Extend(u64, Vec<u8>),
    Stale(u64),
    Pass(u64),
    Damage,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..4u64;
    let which = || prop::collection::vec(any::<u8>(), 0..6);
    prop_oneof![
        8 => Just(Step::Submit),
        8 => Just(Step::Read),
        3 => (who.clone(), 1..5u16).prop_map(|(who, prefetch)| Step::Subscribe(who, prefetch)),
        1 => (who.clone(), any::<bool>()).prop_map(|(who, spare)| Step::Unsubscribe(who, spare)),
        6 => (who.clone(), which()).prop_map(|(who, which)| Step::Acknowledge(who, which)),
        2 => (who.clone(), which(), 0..80u64)
            .prop_map(|(who, which, delay)| Step::Reject(who, which, delay / 40 * delay)),
        1 => (who.clone(), which()).prop_map(|(who, which)| Step::Condemn(who, which)),
        1 => (who.clone(), which()).prop_map(|(who, which)| Step::Extend(who, which)),
        1 => who.prop_map(Step::Stale),
        3 => (1..120u64).prop_map(Step::Pass),
        1 => Just(Step::Damage),
        1 => Just(Step::Restart),
    ]
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
enum Fate {
    #[default]
    Waiting,
    Held(u64, u64),
    Delayed(u64),
    Dead,
    Settled,
    Moved,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    fate: Fate,
    deliveries: u32,
    failures: u32,
    unreadable: bool,
}

/// The queue beside what is known of every publication.
struct Model {
    queue: Queue,
    stored: Stored,
    known: BTreeMap<u64, Known>,
    prefetch: BTreeMap<u64, u16>,
    now: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            queue: empty(),
            stored: Stored::default(),
            known: BTreeMap::new(),
            prefetch: BTreeMap::new(),
            now: 0,
        }
    }

    fn last(&self) -> u64 {
        self.known.len() as u64
    }

    fn held_by(&self, who: u64) -> Vec<u64> {
        let held = self.known.iter();
        held.filter(|(_, known)| matches!(known.fate, Fate::Held(holder, _) if holder == who))
            .map(|(sequence, _)| *sequence)
            .collect()
    }

    /// A lease was given: it must have been the turn of this one.
    fn granted(&mut self, who: u64, sequence: u64, delivery: u32) {
        let held = self.held_by(who).len();
        assert!(held < usize::from(self.prefetch[&who]), "{who} had no room");
        let first = self
            .known
            .iter()
            .find(|(_, known)| known.fate == Fate::Waiting && !known.unreadable)
            .map(|(sequence, _)| *sequence);
        assert_eq!(first, Some(sequence), "what is first goes first");
        // What could not be read in front of it is settled now.
        for (_, known) in self.known.range_mut(..sequence) {
            if known.fate == Fate::Waiting {
                known.fate = Fate::Settled;
            }
        }
        let known = self.known.get_mut(&sequence).unwrap();
        known.deliveries += 1;
        assert_eq!(known.deliveries, delivery);
        known.fate = Fate::Held(who, self.now + RULES.ack_timeout);
    }

    fn ended(&mut self, sequence: u64, fails: bool, until: Option<u64>) {
        let known = self.known.get_mut(&sequence).unwrap();
        known.failures += u32::from(fails);
        known.fate = if u64::from(known.failures) >= RULES.max_deliveries {
            Fate::Dead
        } else {
            until.map_or(Fate::Waiting, Fate::Delayed)
        };
    }

    fn pick(&self, who: u64, which: &[u8]) -> (Vec<PublicationId>, Vec<u64>, Vec<PublicationId>) {
        // Of all, not only of those held: most are lost.
        let candidates: Vec<_> = self.known.keys().copied().collect();
        let held = self.held_by(who);
        let mut picked = BTreeSet::new();
        for (place, pick) in which.iter().enumerate() {
            let from = if place % 3 == 2 { &candidates } else { &held };
            if !from.is_empty() {
                picked.insert(from[usize::from(*pick) % from.len()]);
            }
        }
        let (mine, others): (Vec<u64>, Vec<u64>) =
            picked.iter().partition(|sequence| held.contains(sequence));
        let ids = picked.into_iter().map(id).collect();
        (ids, mine, others.into_iter().map(id).collect())
    }

    fn check(&self, touched: Touched, mine: &[u64], lost: Vec<PublicationId>) {
        let expected = Touched {
            count: mine.len() as u64,
            lost,
        };
        assert_eq!(touched, expected);
    }

    fn read(&mut self) {
        loop {
            while let Some(grant) = self.queue.next_grant(self.now) {
                let who = (0..4).find(|who| connection(*who) == grant.connection);
                self.granted(who.unwrap(), grant.sequence.0, grant.delivery);
            }
            let Some(ranges) = self.queue.wanted() else {
                break;
            };
            let mut pages = Vec::new();
            for (first, last) in ranges {
                let mut at = first.0;
                while at <= last.0 {
                    let unreadable = |sequence: &u64| {
                        let known = self.known.get(sequence);
                        known.is_some_and(|known| known.unreadable)
                    };
                    let hole = (at..=last.0).take_while(unreadable).count() as u64;
                    let whole = (at + hole..=last.0)
                        .take_while(|sequence| !unreadable(sequence))
                        .count() as u64;
                    let gap = (hole > 0).then(|| MissingRange {
                        from: Sequence(at),
                        to: Sequence(at + hole - 1),
                        cause: GapCause::Damage,
                    });
                    let read = page((Sequence(at + hole), Sequence(at + hole + whole - 1))).1;
                    pages.push(((Sequence(at), last), Page { gap, ..read }));
                    at += hole + whole;
                }
            }
            for dead in self.queue.load(pages, self.now) {
                let known = self.known.get_mut(&dead.sequence.0).unwrap();
                assert_eq!(known.fate, Fate::Dead);
                assert_eq!(known.deliveries, dead.deliveries);
                known.fate = Fate::Moved;
                self.queue.moved(dead.sequence);
            }
            let (queue, known) = (&self.queue, &mut self.known);
            for (sequence, known) in known.iter_mut().filter(|(_, known)| known.unreadable) {
                if queue.progress().is_settled(*sequence) {
                    known.fate = Fate::Settled;
                }
            }
        }
        for (sequence, known) in &mut self.known {
            if known.unreadable && self.queue.progress().is_settled(*sequence) {
                known.fate = Fate::Settled;
            }
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Submit => {
                let sequence = self.last() + 1;
                self.known.insert(sequence, Known::default());
                let leased =
                    self.queue
                        .lease_fresh(Sequence(sequence), id(sequence), 100, self.now);
                self.queue.set_readable(Sequence(sequence));
                if let Some(leased) = leased {
                    let who = (0..4).find(|who| connection(*who) == leased);
                    self.granted(who.unwrap(), sequence, 1);
                }
            }
            Step::Read => self.read(),
            Step::Subscribe(who, prefetch) => {
                self.queue.subscribe(connection(who), prefetch);
                self.prefetch.insert(who, prefetch);
            }
            Step::Unsubscribe(who, spare) => {
                self.queue.unsubscribe(connection(who), spare);
                for sequence in self.held_by(who) {
                    self.ended(sequence, !spare, None);
                }
                self.prefetch.remove(&who);
            }
            Step::Acknowledge(who, which) => {
                let (ids, mine, lost) = self.pick(who, &which);
                let touched = self.queue.acknowledge(connection(who), &ids);
                self.check(touched, &mine, lost);
                for sequence in mine {
                    self.known.get_mut(&sequence).unwrap().fate = Fate::Settled;
                }
            }
            Step::Reject(who, which, delay) => {
                let (ids, mine, lost) = self.pick(who, &which);
                let (connection, now) = (connection(who), self.now);
                let touched = self
                    .queue
                    .reject(connection, &ids, Rejected::Later(delay), now);
                self.check(touched, &mine, lost);
                for sequence in mine {
                    self.ended(sequence, true, (delay > 0).then_some(now + delay));
                }
            }
            Step::Condemn(who, which) => {
                let (ids, mine, lost) = self.pick(who, &which);
                let (connection, now) = (connection(who), self.now);
                let touched = self
                    .queue
                    .reject(connection, &ids, Rejected::DeadLetter, now);
                self.check(touched, &mine, lost);
                for sequence in mine {
                    self.known.get_mut(&sequence).unwrap().fate = Fate::Dead;
                }
            }
            Step::Extend(who, which) => {
                let (ids, mine, lost) = self.pick(who, &which);
                let touched = self.queue.extend(connection(who), &ids, self.now);
                self.check(touched, &mine, lost);
                for sequence in mine {
                    let until = self.now + RULES.ack_timeout;
                    self.known.get_mut(&sequence).unwrap().fate = Fate::Held(who, until);
                }
            }
            Step::Stale(who) => {
                // Who holds nothing changes nothing.
                let ids: Vec<_> = self.known.keys().copied().map(id).collect();
                let mine = self
                    .held_by(who)
                    .into_iter()
                    .map(id)
                    .collect::<BTreeSet<_>>();
                let stale: Vec<_> = ids.into_iter().filter(|id| !mine.contains(id)).collect();
                let before = (
                    self.queue.pending(Sequence(self.last())),
                    self.queue.in_flight(),
                );
                let touched = self.queue.acknowledge(connection(who), &stale);
                assert_eq!((touched.count, touched.lost), (0, stale));
                let after = (
                    self.queue.pending(Sequence(self.last())),
                    self.queue.in_flight(),
                );
                assert_eq!(before, after);
            }
            Step::Pass(time) => {
                self.now += time;
                self.queue.expire(self.now);
                let now = self.now;
                for sequence in self.known.keys().copied().collect::<Vec<_>>() {
                    match self.known[&sequence].fate {
                        Fate::Held(_, until) if until <= now => self.ended(sequence, true, None),
                        Fate::Delayed(until) if until <= now => {
                            self.known.get_mut(&sequence).unwrap().fate = Fate::Waiting;
                        }
                        _ => {}
                    }
                }
                assert!(self.queue.next_due().is_none_or(|due| due > now));
            }
            Step::Damage => {
                // Only of what is not in memory already.
                let delivered = self.queue.progress().delivered().0;
                let loaded = self.queue.loaded_through.0.max(delivered);
                if let Some(known) = self.known.get_mut(&(loaded + 2)) {
                    known.unreadable = true;
                }
            }
            Step::Restart => {
                // The connections are gone with the server.
                let holders: Vec<_> = self.prefetch.keys().copied().collect();
                for who in holders {
                    for sequence in self.held_by(who) {
                        self.ended(sequence, true, None);
                    }
                }
                for known in self.known.values_mut() {
                    if matches!(known.fate, Fate::Delayed(_)) {
                        known.fate = Fate::Waiting;
                    }
                }
                self.prefetch.clear();
                self.queue = restarted(&mut self.queue, &mut self.stored, self.known.len() as u64);
            }
        }
        self.check_numbers();
    }

    fn check_numbers(&self) {
        let count = |fate: fn(&Fate) -> bool| {
            self.known
                .values()
                .filter(|known| fate(&known.fate))
                .count() as u64
        };
        let in_flight = count(|fate| matches!(fate, Fate::Held(..)));
        assert_eq!(self.queue.in_flight(), in_flight);
        let pending = count(|fate| matches!(fate, Fate::Waiting | Fate::Delayed(_) | Fate::Dead));
        assert_eq!(self.queue.pending(Sequence(self.last())), pending);
        for (sequence, known) in &self.known {
            let is_settled = matches!(known.fate, Fate::Settled | Fate::Moved);
            assert_eq!(self.queue.progress().is_settled(*sequence), is_settled);
        }
    }

    /// Whatever happened, a last subscriber gets all that is left.
    fn drain(mut self) {
        for who in 0..4 {
            self.apply(Step::Unsubscribe(who, true));
        }
        self.apply(Step::Pass(1_000));
        self.apply(Step::Subscribe(0, 1));
        loop {
            self.read();
            let held = self.held_by(0);
            if held.is_empty() {
                break;
            }
            let ids: Vec<_> = held.iter().copied().map(id).collect();
            assert_eq!(self.queue.acknowledge(connection(0), &ids).lost, []);
            for sequence in held {
                self.known.get_mut(&sequence).unwrap().fate = Fate::Settled;
            }
        }
        self.check_numbers();
        assert_eq!(self.queue.pending(Sequence(self.last())), 0);
        assert_eq!(self.queue.progress().settled().0, self.last());
        self.stored.write(&mut self.queue);
        assert!(self.stored.blocks.len() <= 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn nothing_is_in_flight_twice_nothing_is_lost_and_the_order_holds(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step);
        }
        model.drain();
    }

    #[test]
    fn what_is_settled_in_any_order_is_read_again(
        order in Just((1..=2500u64).collect::<Vec<_>>()).prop_shuffle(),
        settled in 0..2500usize,
        writes in 1..400usize,
    ) {
        let mut progress = Progress::default();
        for _ in 0..2500 {
            progress.deliver_next();
        }
        let mut queue = Queue::new(progress, RULES, Sequence(2500));
        let mut stored = Stored::default();
        for (place, sequence) in order[..settled].iter().enumerate() {
            queue.progress_mut().settle(*sequence);
            if place % writes == 0 {
                stored.write(&mut queue);
            }
        }
        stored.write(&mut queue);
        let blocks = stored.blocks.clone();
        let again = Progress::restored(stored.head, blocks, Sequence(1), Sequence(2500));
        let open: BTreeSet<_> = order[settled..].iter().copied().collect();
        prop_assert!(again.open().eq(open.iter().copied()));
        prop_assert_eq!(again.settled().0 + 1, open.first().copied().unwrap_or(2501));
        prop_assert!(!again.has_changed());
    }
}
