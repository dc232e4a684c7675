//! One history: what happens, in which order, follows from its seed.

use bytes::Bytes;

use super::{
    Counts,
    world::{Asked, CLIENTS, Ending, LARGEST, TRANSIENT, World},
};
use crate::{
    datalog::disk::simulated::{Call, End},
    protocol::{
        Acknowledge, Acknowledged, ClientCommand, CreateSubscription, Durability, GetLogEntries,
        GetLogIndex, Kind, Patch, PublicationId, Reject, Retention, Sequence, SettingsPatch,
        SubmitPublication, Subscribe, SubscribeFrom, SubscriptionReference, UpdateSubscription,
    },
};

/// A subscription of a history.
struct Spec {
    name: &'static str,
    kind: Kind,
    durability: Durability,
}

const fn spec(name: &'static str, kind: Kind, durability: Durability) -> Spec {
    Spec {
        name,
        kind,
        durability,
    }
}

const SPECS: [Spec; 5] = [
    spec("synced", Kind::Broadcast, Durability::Synced),
    spec("written", Kind::Broadcast, Durability::Written),
    spec("other", Kind::Broadcast, Durability::Synced),
    spec("queue", Kind::Queue, Durability::Synced),
    spec("written-queue", Kind::Queue, Durability::Written),
];

impl Spec {
    fn reference(&self) -> SubscriptionReference {
        SubscriptionReference::named(self.name.into())
    }
}

/// What may fail in a start. Segments that can't be opened or read are damaged, and told to be.
const CHANGES: [Call; 3] = [Call::Write, Call::Sync, Call::Name];
/// What may fail later.
const CALLS: [Call; 4] = [Call::Write, Call::Sync, Call::Name, Call::Open];

/// Runs the history of a seed; what happened in it, and a number that stands for everything that was asked of the disk. Panics if something is not as it has to be.
pub(super) fn run(seed: u64, show: &dyn Fn(&[String])) -> (Counts, u64) {
    let mut history = History {
        world: World::new(seed),
        show,
    };
    history.run();
    let trace = history.world.disk.trace();
    for (what, count) in history.world.disk.counts() {
        history.world.counts.add(what, count);
    }
    (std::mem::take(&mut history.world.counts), trace)
}

struct History<'a> {
    world: World,
    show: &'a dyn Fn(&[String]),
}

impl Drop for History<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.show)(&self.world.steps);
        }
    }
}

impl History<'_> {
    fn run(&mut self) {
        self.restart(Ending::Orderly);
        for _ in 0..self.world.random.u64(2..5) {
            for _ in 0..self.world.random.u64(4..25) {
                self.step();
                if self.world.is_over() {
                    self.say("everything is read although it is over");
                    self.world.check_reading();
                    break;
                }
            }
            let ending = match self.world.random.u8(0..8) {
                0 | 1 => Ending::Orderly,
                2..5 => Ending::Sudden(End::Kill),
                _ => Ending::Sudden(End::PowerCut),
            };
            if !self.world.disk.has_ended() && self.world.random.u8(0..4) == 0 {
                // It comes while the run ends, or in the start behind it.
                self.plan_end(40);
            }
            self.restart(ending);
        }
        self.world.disk.go_on();
        self.world.disk.set_room(None);
        if self.world.is_over() {
            self.restart(Ending::Orderly);
            self.world.disk.go_on();
        }
        match self.world.random.u8(0..4) {
            0 => self.end_damaged(),
            1 => {
                self.say("reads fail");
                self.world.commit();
                self.world.check_failing_reads();
            }
            _ => {
                self.say("everything is done, then an orderly end");
                self.world.commit();
                self.world.settle();
                self.world.check_reading();
                self.restart(Ending::Orderly);
            }
        }
    }

    /// The last end of a history: what is on the disk is damaged then, and what is whole is served.
    fn end_damaged(&mut self) {
        for _ in 0..self.world.random.u64(..6) {
            self.submit();
        }
        if self.world.random.bool() {
            self.world.settle();
            self.submit();
        }
        self.world.commit();
        let ending = match self.world.random.bool() {
            true => Ending::Orderly,
            false => Ending::Sudden(End::Kill),
        };
        self.say(format!("{ending:?} end, then damage"));
        let ending = self.world.stop(ending);
        let what = self.world.damage();
        self.say(format!("  {what}"));
        self.world.check_damaged(ending);
    }

    fn say(&mut self, what: impl Into<String>) {
        self.world.steps.push(what.into());
    }

    fn restart(&mut self, ending: Ending) {
        self.say(format!("{ending:?} end"));
        let mut ending = self.world.stop(ending);
        if ending == Ending::Orderly && self.world.random.u8(0..4) == 0 {
            self.say("  then the power is cut");
            self.world.disk.end(End::PowerCut);
            self.world.revive();
        }
        self.world.disk.set_room(None);
        if self.world.random.u8(0..10) == 0 {
            self.say("  the catalogue is as it was once, or gone");
            self.world.forget_catalogue();
        }
        self.world.disk.fail_no_more();
        match self.world.random.u8(0..8) {
            0 => self.plan_end(60),
            1 => self.plan_failure(30, &CHANGES),
            _ => {}
        }
        let recovered = self.world.start(&mut ending);
        if self.world.random.bool() {
            self.world.disk.go_on();
        }
        self.say(format!("  started ({ending:?}): {}", recovered.report));
        self.world.check_found(&recovered, ending);
        if self.world.disk.has_ended() {
            return;
        }
        self.world.welcome();
        if self.world.random.bool() && !self.world.is_over() {
            let queues = [3, 4].map(|number: usize| SPECS[number].reference());
            self.world.check_pending(&queues);
        }
    }

    fn plan_end(&mut self, within: u64) {
        let end = match self.world.random.bool() {
            true => End::Kill,
            false => End::PowerCut,
        };
        let calls = self.world.random.u64(..within);
        self.say(format!("  {end:?} after {calls} calls"));
        self.world.disk.end_after(calls, end);
    }

    fn plan_failure(&mut self, within: u64, calls: &[Call]) {
        let call = calls[self.world.random.usize(..calls.len())];
        let nth = self.world.random.u64(..within);
        self.say(format!("  {call:?} {nth} fails"));
        self.world.disk.fail(call, nth);
    }

    fn step(&mut self) {
        match self.world.random.u8(0..64) {
            0..21 => self.submit(),
            21..23 => self.subscribe(),
            23 => self.unsubscribe(),
            24..27 => self.acknowledge(),
            27..32 => self.settle_leases(),
            32..35 => self.create(),
            35..38 => self.update(),
            38 => self.delete(),
            39..41 => self.read(),
            41..45 => {
                self.say("retention");
                self.world.retain();
                self.world.commit();
            }
            45..47 => {
                self.say("sync");
                self.world.sync();
            }
            47..51 => {
                self.say("the journal ends");
                self.world.commit();
                if !self.world.is_over() {
                    self.world.end_journal();
                }
            }
            51..55 => {
                let turns = self.world.random.u8(1..6);
                self.say(format!("{turns} turns"));
                for _ in 0..turns {
                    self.world.turn();
                }
            }
            55 => {
                self.say("settle");
                self.world.settle();
            }
            56 => self.come_or_go(),
            57 => {
                let time = self.world.random.u64(1..60_000);
                self.say(format!("{time} ms pass"));
                self.world.pass(time);
                self.world.commit();
            }
            58 => self.plan_end(80),
            59 => self.plan_failure(40, &CALLS),
            60 => {
                let room = self.world.random.u64(..60_000);
                self.say(format!("room for {room} bytes"));
                self.world.disk.set_room(Some(room));
            }
            61 => {
                self.say("room again");
                self.world.disk.set_room(None);
            }
            _ => {
                self.say("everything is read");
                self.world.check_reading();
            }
        }
    }

    fn any(&mut self) -> usize {
        self.world.random.usize(..SPECS.len())
    }

    fn client(&mut self) -> usize {
        self.world.random.usize(..CLIENTS)
    }

    fn submit(&mut self) {
        let client = self.client();
        let number = match self.world.random.u8(0..3) {
            0 => 1,
            _ => self.any(),
        };
        let count = self.world.random.u64(1..8);
        self.say(format!(
            "{client} submits {count} to {}",
            SPECS[number].name
        ));
        for _ in 0..count {
            let random = &mut self.world.random;
            let data = vec![random.u8(..); random.usize(..LARGEST)];
            let data = Bytes::from(data);
            // Some come twice.
            let supplied = match random.u8(0..4) {
                0 => Some(PublicationId(uuid::Uuid::from_u128(
                    random.u128(1..1 << 10) | 1 << 80,
                ))),
                _ => None,
            };
            let spec = &SPECS[number];
            let submit = SubmitPublication {
                subscription: spec.reference(),
                submission: data.clone(),
                kind: Some(spec.kind),
                publication_id: supplied,
                expected_sequence: None,
            };
            let asked = Asked::Submit(spec.reference().id, data);
            self.world
                .send(client, ClientCommand::SubmitPublication(submit), asked);
        }
        if self.world.random.u8(0..4) > 0 {
            self.world.commit();
        }
    }

    fn subscribe(&mut self) {
        let (client, number) = (self.client(), self.any());
        let spec = &SPECS[number];
        let from = match self.world.random.u8(0..4) {
            0 => None,
            1 => Some(SubscribeFrom::New),
            2 => Some(SubscribeFrom::First),
            _ => Some(SubscribeFrom::After(Sequence(self.world.random.u64(..40)))),
        };
        self.say(format!("{client} subscribes {} from {from:?}", spec.name));
        let subscribe = Subscribe {
            subscription: spec.reference(),
            kind: Some(spec.kind),
            from,
            epoch: None,
            prefetch: Some(self.world.random.u16(1..20)),
        };
        self.world.commit();
        self.do_alone(
            client,
            ClientCommand::Subscribe(subscribe),
            Asked::Place(client, spec.reference().id),
        );
    }

    fn unsubscribe(&mut self) {
        let (client, number) = (self.client(), self.any());
        let reference = SPECS[number].reference();
        self.say(format!("{client} unsubscribes {}", SPECS[number].name));
        let asked = Asked::Place(client, reference.id);
        self.do_alone(client, ClientCommand::Unsubscribe(reference), asked);
    }

    /// What takes back something that was told comes when everything else is answered.
    fn do_alone(&mut self, client: usize, command: ClientCommand, asked: Asked) {
        self.world.commit();
        if !self.world.is_over() {
            self.world.send(client, command, asked);
            if self.world.random.bool() {
                self.world.commit();
            }
        }
    }

    fn acknowledge(&mut self) {
        let (client, number) = (self.client(), self.world.random.usize(..3));
        let sequence = Sequence(self.world.random.u64(1..30));
        let reference = SPECS[number].reference();
        self.say(format!(
            "{client} acknowledges {} to {sequence}",
            SPECS[number].name
        ));
        let acknowledge = Acknowledge {
            subscription: reference.clone(),
            what: Acknowledged::UpTo(sequence),
        };
        let asked = Asked::UpTo(client, reference.id, sequence);
        self.world
            .send(client, ClientCommand::Acknowledge(acknowledge), asked);
        self.world.commit();
    }

    fn settle_leases(&mut self) {
        let (client, number) = (self.client(), self.world.random.usize(3..5));
        let reference = SPECS[number].reference();
        if !self.world.is_connected(client) {
            return;
        }
        let ids = self.world.take_leases(client, reference.id);
        if ids.is_empty() {
            return;
        }
        let asked = Asked::Ids(reference.id, ids.clone());
        let what = self.world.random.u8(0..8);
        self.say(format!(
            "{client} settles {} of {} ({what})",
            ids.len(),
            SPECS[number].name
        ));
        if what < 6 {
            let acknowledge = Acknowledge {
                subscription: reference,
                what: Acknowledged::Ids(ids),
            };
            self.world
                .send(client, ClientCommand::Acknowledge(acknowledge), asked);
        } else {
            let reject = Reject {
                subscription: reference,
                publication_ids: ids,
                delay: None,
                dead_letter: what == 7,
            };
            self.world
                .send(client, ClientCommand::Reject(reject), asked);
        }
        self.world.commit();
    }

    fn patch(&mut self, kind: Kind, durability: Durability) -> SettingsPatch {
        let random = &mut self.world.random;
        let retention = match random.u8(0..3) {
            0 => Patch::Absent,
            1 => Patch::Value(Retention {
                max_publications: Some(random.u64(1..20)),
                ..Retention::default()
            }),
            _ => Patch::Value(Retention {
                max_bytes: Some(random.u64(1000..6000)),
                ..Retention::default()
            }),
        };
        SettingsPatch {
            retention,
            durability: Patch::Value(durability),
            max_deliveries: match kind {
                Kind::Queue => Patch::Value(random.u64(0..2) * 5),
                Kind::Broadcast => Patch::Absent,
            },
            ..SettingsPatch::default()
        }
    }

    fn create(&mut self) {
        let (client, number) = (self.client(), self.any());
        let Spec {
            name,
            kind,
            durability,
        } = SPECS[number];
        let settings = self.patch(kind, durability);
        self.say(format!("{client} creates {name} with {settings:?}"));
        let create = CreateSubscription {
            subscription: SPECS[number].reference(),
            kind: Some(kind),
            settings,
        };
        let asked = Asked::Change(SPECS[number].reference().id);
        self.do_alone(client, ClientCommand::CreateSubscription(create), asked);
    }

    fn update(&mut self) {
        let (client, number) = (self.client(), self.any());
        let durability = match self.world.random.u8(0..4) {
            0 => Durability::Written,
            1 => Durability::Synced,
            _ => SPECS[number].durability,
        };
        let settings = self.patch(SPECS[number].kind, durability);
        self.say(format!(
            "{client} sets {} to {settings:?}",
            SPECS[number].name
        ));
        let update = UpdateSubscription {
            subscription: SPECS[number].reference(),
            settings,
        };
        let asked = Asked::Change(SPECS[number].reference().id);
        self.do_alone(client, ClientCommand::UpdateSubscription(update), asked);
    }

    fn delete(&mut self) {
        let (client, number) = (self.client(), self.any());
        let reference = SPECS[number].reference();
        self.say(format!("{client} deletes {}", SPECS[number].name));
        let asked = Asked::Delete(reference.id);
        self.do_alone(client, ClientCommand::DeleteSubscription(reference), asked);
    }

    fn read(&mut self) {
        let (client, number) = (self.client(), self.any());
        self.say(format!("{client} reads {}", SPECS[number].name));
        let read = GetLogIndex {
            log: SPECS[number].reference(),
            after: Sequence(self.world.random.u64(..20)),
            limit: self.world.random.usize(1..100),
        };
        let read = ClientCommand::GetLogEntries(GetLogEntries::Range(read));
        self.world.send(client, read, Asked::Other);
        self.world.commit();
    }

    fn come_or_go(&mut self) {
        let client = self.world.random.usize(..TRANSIENT + 1);
        self.say(format!("{client} comes or goes"));
        if self.world.is_connected(client) {
            self.world.disconnect(client);
        } else {
            self.world.connect(client);
        }
        self.world.commit();
    }
}
