//! What effects do to connections.
//!
//! Owns the order: effects of a connection are carried out in the order of the log. While a read of a connection is under way, what comes
//! behind it for that connection is held; so answers keep their order, and `Ping` is a barrier, without numbering anything.

use std::{cell::OnceCell, rc::Rc};

use actix_web::rt::spawn;
use bytes::Bytes;

use crate::{
    actors::{
        closing::CloseReason,
        log_reader::{DataLogFetch, DataLogSince},
        worker::Worker,
    },
    connection::{
        Connection, Credited, Held, Offer, Phase, Subscriber, budget_cost, encoded, kept_position,
    },
    datalog::ReadError,
    domain::{
        ConnectionId, Delivery, Effect, QueueDelivery, Read, ReplyTo, Start, SubscribeEffect,
        WelcomeEffect,
    },
    protocol::{
        About, ErrorCode, Form, Kind, Sequence, ServerError, ServerResponse, Subscribed,
        SubscriptionId, Timestamp, json,
    },
};

/// How long a connection may take to flush behind a held Close. Milliseconds.
const HELD_CLOSE_TIMEOUT: u64 = 10_000;

/// What a release counts for beside its publications: what is released is flushed after some dozen releases at the latest.
const RELEASE_SHARE: usize = 16 << 10;

impl Worker {
    /// Carries out what one batch brings.
    pub(super) fn release(self: &Rc<Self>, effects: Vec<Effect>) {
        let mut refund = 0;
        // Answers to pipelined commands come one behind the other: most look-ups find the one before.
        let mut latest: Option<Rc<Connection>> = None;
        for effect in effects {
            let id = match effect {
                Effect::Publications(delivery) => {
                    self.publish(&delivery);
                    self.flush_if_much(delivery.chunk.frames.len());
                    continue;
                }
                Effect::Deliver(ref delivery) => {
                    let frames = delivery.publications.iter();
                    self.flush_if_much(frames.map(|(frame, _)| frame.len()).sum());
                    delivery.connection
                }
                Effect::Deleted {
                    subscription,
                    except,
                } => {
                    self.delete(subscription, except);
                    continue;
                }
                ref effect => match effect.connection() {
                    Some(id) => id,
                    None => continue,
                },
            };
            let to = effect.reply_to();
            if let Some(to) = to {
                refund += budget_cost(to.credit);
            }
            if latest.as_ref().is_none_or(|latest| latest.id() != id) {
                latest = self.connection(id);
            }
            let Some(connection) = &latest else {
                if let Some(to) = to {
                    self.counts.dropped(to.command);
                }
                continue;
            };
            self.accept(connection, effect);
        }
        self.gate.refund(refund);
        self.flush_if_much(RELEASE_SHARE);
    }

    /// Carries an effect for one connection out, or holds it.
    fn accept(self: &Rc<Self>, connection: &Rc<Connection>, effect: Effect) {
        if let Effect::Subscribe(effect) = &effect {
            let mut table = self.table.borrow_mut();
            table.announce(effect.subscription, effect.log, effect.last);
        }
        if connection.is_holding() {
            connection.hold(Held::Effect(effect));
        } else {
            self.carry_out(connection, effect);
        }
    }

    fn carry_out(self: &Rc<Self>, connection: &Rc<Connection>, effect: Effect) {
        match effect {
            Effect::Answer(to, response) => self.answer(connection, to, &response),
            Effect::Read(to, read) => self.read(connection, to, read),
            Effect::Subscribe(effect) => match effect.start {
                Start::Since(time) if connection.phase() == Phase::Open => {
                    self.subscribe_since(connection, effect, time);
                }
                _ => self.subscribe(connection, &effect),
            },
            Effect::Unsubscribe(to, subscription, response) => {
                self.unsubscribe(connection, subscription);
                self.answer(connection, to, &response);
            }
            Effect::Welcome(effect) => self.welcome(connection, *effect),
            Effect::Deliver(delivery) => self.deliver(connection, &delivery),
            Effect::Withdraw(_, subscription) => {
                let notice = DeletedNotice::of(subscription);
                self.end_subscriber(connection, subscription, &notice);
            }
            Effect::Push(_, response) => {
                // No command asked for it, so it gives no credit back.
                connection.answer(None, &response, Credited::default());
                self.mark_dirty(connection);
            }
            Effect::Close(_, code, text) => {
                self.close(connection, CloseReason::at_once(code, text));
            }
            Effect::Dropped(to) => self.counts.dropped(to.command),
            Effect::Publications(_) | Effect::Deleted { .. } => {}
        }
    }

    fn answer(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        to: ReplyTo,
        response: &ServerResponse,
    ) {
        let credit = Credited {
            commands: 1,
            bytes: u64::from(to.credit),
        };
        self.counts.answered(to.command, response);
        let is_error = matches!(response, ServerResponse::Error(_));
        if to.silent && !is_error {
            return self.give_back(connection, credit);
        }
        let credit = connection.answer(to.request_id, response, credit);
        self.give_back(connection, credit);
        self.mark_dirty(connection);
    }

    fn welcome(self: &Rc<Self>, connection: &Rc<Connection>, effect: WelcomeEffect) {
        if connection.phase() != Phase::Opening {
            if let Some((to, _)) = effect.answer {
                self.counts.dropped(to.command);
            }
            return;
        }
        connection.open(effect.durable);
        let welcome = ServerResponse::Welcome(Box::new(effect.welcome));
        // No command asked for it, so it gives no credit back.
        connection.answer(None, &welcome, Credited::default());
        if let Some((to, authenticated)) = effect.answer {
            self.answer(
                connection,
                to,
                &ServerResponse::Authenticated(authenticated),
            );
        }
        for restored in effect.restored {
            let subscriber = Subscriber::new(
                restored.subscription,
                restored.log,
                restored.source,
                restored.cursor,
            );
            let subscriber = match restored.kind {
                Kind::Broadcast => subscriber,
                Kind::Queue => subscriber.of_queue(restored.joined),
            };
            self.add(connection, subscriber, restored.last);
        }
        self.mark_dirty(connection);
        connection.wake();
    }
}

/// Publications and deletion.
impl Worker {
    fn publish(&self, delivery: &Delivery) {
        let chunk = &delivery.chunk;
        let (mut taken, mut fell_behind) = (0, 0);
        // Of this worker alone: its first connection in JSON came behind the release.
        let own_json = OnceCell::new();
        let in_json = || {
            let convert = || json::convert_frames(&chunk.frames);
            match &delivery.json {
                Some(shared) => shared.get_or_init(convert),
                None => own_json.get_or_init(convert),
            }
        };
        let mut table = self.table.borrow_mut();
        for (connection, subscriber) in table.released(delivery.subscription, chunk.log, chunk.last)
        {
            let offer = match connection.form() {
                Form::Cbor => connection.deliver(subscriber, chunk, self.outbox_size),
                Form::Json => connection.deliver_json(subscriber, chunk, in_json, self.outbox_size),
            };
            match offer {
                Offer::Taken => {
                    taken += 1;
                    self.mark_dirty(connection);
                }
                Offer::Behind => {
                    fell_behind += u64::from(connection.fall_behind(subscriber));
                    self.mark_dirty(connection);
                }
                Offer::Known => {}
            }
        }
        let publications = chunk.last.0 + 1 - chunk.first.0;
        self.counts.deliveries.add(taken * publications);
        self.counts.fell_behind.add(fell_behind);
    }

    fn fall_behind(&self, connection: &Connection, subscriber: &Rc<Subscriber>) {
        let is_new = connection.fall_behind(subscriber);
        self.counts.fell_behind.add(u64::from(is_new));
    }

    /// A connection has publications of a Queue on lease. There is room for them, or the lease would not have been given.
    fn deliver(&self, connection: &Rc<Connection>, delivery: &QueueDelivery) {
        let subscriber = connection
            .subscriber(delivery.subscription)
            .filter(|one| one.is_of_queue() && one.log == delivery.log);
        let (Some(subscriber), Phase::Open) = (subscriber, connection.phase()) else {
            return;
        };
        connection.deliver_leased(&subscriber, &delivery.publications);
        let publications = delivery.publications.len();
        self.counts.deliveries.add(publications as u64);
        self.mark_dirty(connection);
    }

    /// The subscription was deleted: at this place of each connection's stream, it ends.
    fn delete(self: &Rc<Self>, subscription: SubscriptionId, except: Option<ConnectionId>) {
        let notice = DeletedNotice::of(subscription);
        let subscribers = self.table.borrow_mut().take(subscription);
        let others = |connection: &Rc<Connection>| except != Some(connection.id());
        for (connection, _) in subscribers {
            if !others(&connection) {
                continue;
            }
            if connection.is_holding() {
                connection.hold(Held::Deleted(subscription));
            } else {
                self.end_subscriber(&connection, subscription, &notice);
            }
        }
        // A `Subscribe` that is still held stands in front of this.
        for connection in self.holding() {
            if connection.holds_subscribe(subscription) && others(&connection) {
                connection.hold(Held::Deleted(subscription));
            }
        }
    }

    fn end_subscriber(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        subscription: SubscriptionId,
        notice: &DeletedNotice,
    ) {
        if self.remove(connection, subscription).is_some() {
            let notice = notice.encoded(connection.form());
            connection.with_outbox(|outbox| outbox.push_deleted(subscription, notice));
            self.mark_dirty(connection);
        }
    }
}

/// Subscribers.
impl Worker {
    fn subscribe(self: &Rc<Self>, connection: &Rc<Connection>, effect: &SubscribeEffect) {
        let SubscribeEffect {
            to,
            subscription,
            log,
            first,
            last,
            ..
        } = *effect;
        if effect.kind == Kind::Queue {
            return self.subscribe_queue(connection, effect);
        }
        let withdrawn = connection.with_outbox(|outbox| outbox.withdraw(subscription));
        if let Some(notice) = withdrawn.deleted {
            // It is about an earlier life, so it goes in front of the answer.
            connection.answer_encoded(&notice);
        }
        let kept = connection
            .subscriber(subscription)
            .filter(|kept| effect.start == Start::Keep && kept.log == log);
        let (cursor, recovered) = match (effect.start, kept) {
            (Start::Keep, Some(kept)) => {
                let cursor = kept_position(&kept, withdrawn.begun);
                kept.rewind(cursor);
                self.fall_behind(connection, &kept);
                (cursor, cursor.next() >= first)
            }
            (Start::At { cursor, recovered }, _) => {
                self.replace(connection, effect, cursor);
                (cursor, recovered)
            }
            (Start::Keep | Start::Since(_), _) => {
                self.replace(connection, effect, last);
                (last, true)
            }
        };
        self.table.borrow_mut().retract(subscription, log);
        let response = ServerResponse::Subscribed(Box::new(Subscribed {
            subscription_id: subscription,
            kind: effect.kind,
            epoch: effect.epoch,
            first_sequence: first,
            last_sequence: last,
            recovered,
            cursor: Some(cursor),
            prefetch: None,
        }));
        self.answer(connection, to, &response);
        // Also behind a silent success: there may be something to read from the log.
        self.mark_dirty(connection);
    }

    /// A connection takes part in a Queue, or does so with another prefetch: then what is queued for it stays.
    fn subscribe_queue(self: &Rc<Self>, connection: &Rc<Connection>, effect: &SubscribeEffect) {
        let SubscribeEffect {
            to,
            subscription,
            log,
            last,
            ..
        } = *effect;
        let kept = connection
            .subscriber(subscription)
            .filter(|kept| kept.log == log);
        if kept.is_none() {
            let withdrawn = connection.with_outbox(|outbox| outbox.withdraw(subscription));
            if let Some(notice) = withdrawn.deleted {
                connection.answer_encoded(&notice);
            }
            self.remove(connection, subscription);
            let subscriber = Subscriber::new(subscription, log, effect.source, last);
            let subscriber = subscriber.of_queue(effect.joined);
            self.add(connection, subscriber, last);
        }
        self.table.borrow_mut().retract(subscription, log);
        let response = ServerResponse::Subscribed(Box::new(Subscribed {
            subscription_id: subscription,
            kind: effect.kind,
            epoch: effect.epoch,
            first_sequence: effect.first,
            last_sequence: last,
            recovered: !matches!(
                effect.start,
                Start::At {
                    recovered: false,
                    ..
                }
            ),
            cursor: None,
            prefetch: effect.prefetch,
        }));
        self.answer(connection, to, &response);
    }

    /// Finds where `time` is in the log, and subscribes there.
    fn subscribe_since(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        effect: Box<SubscribeEffect>,
        time: Timestamp,
    ) {
        let asked = self.neighbours.since.send(DataLogSince {
            log: effect.log,
            time,
            through: effect.last,
        });
        self.start_holding(connection);
        // It is the first of what waits, for whoever looks whether a `Subscribe` does.
        connection.hold_first(Held::Effect(Effect::Subscribe(effect)));
        let (worker, connection) = (Rc::clone(self), Rc::clone(connection));
        spawn(async move {
            let found = asked.await;
            worker.go_on(&connection, |worker| {
                let Some(Held::Effect(Effect::Subscribe(mut effect))) = connection.next_held()
                else {
                    return;
                };
                // The oldest kept is early enough, whatever the time.
                let oldest = (effect.first.previous(), false);
                let (cursor, recovered) = match found {
                    Ok(Ok(sequence)) => (sequence.previous(), true),
                    // It was deleted meanwhile, as the connection is told next; or the server stops.
                    Ok(Err(ReadError::Gone)) | Err(_) => oldest,
                    Ok(Err(error)) => {
                        log::warn!(
                            "a subscriber of {} begins at the oldest kept, since its log can't be searched by time: {error}",
                            effect.subscription
                        );
                        oldest
                    }
                };
                effect.start = Start::At { cursor, recovered };
                worker.subscribe(&connection, &effect);
            });
        });
    }

    fn replace(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        effect: &SubscribeEffect,
        cursor: Sequence,
    ) {
        self.remove(connection, effect.subscription);
        let subscriber = Subscriber::new(effect.subscription, effect.log, effect.source, cursor);
        self.add(connection, subscriber, effect.last);
    }

    fn add(&self, connection: &Rc<Connection>, subscriber: Subscriber, last: Sequence) {
        if connection.phase() != Phase::Open {
            return;
        }
        let subscriber = Rc::new(subscriber);
        let mut table = self.table.borrow_mut();
        table.insert(Rc::clone(connection), &subscriber, last);
        if !subscriber.is_of_queue()
            && table
                .end(&subscriber)
                .is_some_and(|end| subscriber.position() < end)
        {
            self.fall_behind(connection, &subscriber);
        }
        connection.add_subscriber(subscriber);
    }

    /// Ends a subscriber; what is queued for it stays.
    fn remove(
        &self,
        connection: &Connection,
        subscription: SubscriptionId,
    ) -> Option<Rc<Subscriber>> {
        let subscriber = connection.remove_subscriber(subscription)?;
        self.table.borrow_mut().remove(&subscriber);
        connection.leave_behind(&subscriber);
        Some(subscriber)
    }

    /// Ends a subscriber with all that is queued for it; a notice that an earlier one was deleted goes out first.
    fn unsubscribe(&self, connection: &Connection, subscription: SubscriptionId) {
        self.remove(connection, subscription);
        let withdrawn = connection.with_outbox(|outbox| outbox.withdraw(subscription));
        if let Some(notice) = withdrawn.deleted {
            connection.answer_encoded(&notice);
        }
    }
}

/// Reads, and what waits for them.
impl Worker {
    fn read(self: &Rc<Self>, connection: &Rc<Connection>, to: ReplyTo, read: Read) {
        let subscription = read.subscription;
        let asked = self.neighbours.fetch.send(DataLogFetch(read));
        self.start_holding(connection);
        let (worker, connection) = (Rc::clone(self), Rc::clone(connection));
        spawn(async move {
            let response = asked.await.unwrap_or_else(|_| {
                ServerError::new(ErrorCode::ShuttingDown, "the server stops")
                    .for_subscription(subscription)
                    .into()
            });
            let response = match response {
                ServerResponse::Error(mut error) => {
                    error.command = error.command.or(to.command);
                    ServerResponse::Error(error)
                }
                response => response,
            };
            worker.go_on(&connection, |worker| {
                worker.answer(&connection, to, &response);
            });
        });
    }

    /// A read has come back: carries out `outcome`, and then what was held, up to the next read.
    fn go_on(self: &Rc<Self>, connection: &Rc<Connection>, outcome: impl FnOnce(&Rc<Self>)) {
        self.stop_holding(connection);
        if connection.phase() == Phase::Ended {
            return;
        }
        outcome(self);
        while !connection.is_holding()
            && let Some(held) = connection.next_held()
        {
            match held {
                Held::Effect(effect) => self.carry_out(connection, effect),
                Held::Deleted(subscription) => {
                    let notice = DeletedNotice::of(subscription);
                    self.end_subscriber(connection, subscription, &notice);
                }
                Held::Close(code, text) => {
                    let reason = CloseReason::orderly(code, text, HELD_CLOSE_TIMEOUT);
                    self.close(connection, reason);
                }
            }
        }
    }
}

/// The push that a subscription was deleted, encoded once for all who get it in the same form.
struct DeletedNotice {
    response: ServerResponse,
    forms: [OnceCell<Bytes>; Form::ALL.len()],
}

impl DeletedNotice {
    fn of(subscription: SubscriptionId) -> Self {
        Self {
            response: ServerResponse::Deleted(About {
                subscription_id: subscription,
            }),
            forms: Default::default(),
        }
    }

    fn encoded(&self, form: Form) -> Bytes {
        self.forms[form as usize]
            .get_or_init(|| encoded(form, &self.response))
            .clone()
    }
}
