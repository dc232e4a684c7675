//! Connections that begin by `Authenticate`, and credentials that fall between their judgement and their use. Each command that was under way
//! is answered or dropped, once: what it holds of the budget that all connections share comes back by that.

use super::*;
use crate::domain::broker::Quotas;

const OWNED: Identity = Identity::Durable(SessionId(uuid::Uuid::from_u128(7)));

fn principal(name: &str) -> Principal {
    Principal {
        name: Some(name.into()),
        permissions: Principal::anonymous().permissions,
        expires: None,
        standing: Default::default(),
    }
}

fn first_command(connection: ConnectionId) -> ReplyTo {
    ReplyTo {
        connection,
        request_id: Some(RequestId(1)),
        command: Some("Authenticate"),
        silent: false,
        credit: 200,
    }
}

/// What became of a beginning, and of the command that it was.
#[derive(PartialEq, Debug)]
enum Begun {
    Welcomed,
    Closed(u16),
    /// It waits for the connection that it took the place of.
    Waiting,
}

impl Bench {
    /// A connection begins by a command.
    fn begin(&mut self, number: u64, identity: Identity, principal: &Principal) {
        let command = first_command(connection(number));
        self.broker
            .connect_by(command, identity, principal, self.now);
    }

    /// What became of it until now, and that its command came to its end with it.
    #[track_caller]
    fn begun(&mut self, number: u64, effects: &[Effect]) -> Begun {
        let to = first_command(connection(number));
        let (mut begun, mut answered, mut dropped) = (Begun::Waiting, 0, 0);
        for effect in effects {
            match effect {
                Effect::Welcome(welcome) if welcome.connection == to.connection => {
                    let answer = welcome.answer.as_ref();
                    answered += usize::from(answer.is_some_and(|(answer, _)| *answer == to));
                    begun = Begun::Welcomed;
                }
                Effect::Close(closed, code, _) if *closed == to.connection => {
                    begun = Begun::Closed(*code);
                }
                Effect::Answer(answer, _) if *answer == to => panic!("answered without Welcome"),
                Effect::Dropped(drop) if *drop == to => dropped += 1,
                _ => {}
            }
        }
        let expected = match begun {
            Begun::Welcomed => (1, 0),
            Begun::Closed(_) => (0, 1),
            Begun::Waiting => (0, 0),
        };
        assert_eq!((answered, dropped), expected, "{effects:?}");
        begun
    }

    #[track_caller]
    fn begin_and_see(&mut self, number: u64, identity: Identity, principal: &Principal) -> Begun {
        self.begin(number, identity, principal);
        let effects = self.commit();
        self.begun(number, &effects)
    }
}

fn dropped(effects: &[Effect], number: u64) -> usize {
    let to = first_command(connection(number));
    let is_it = |effect: &&Effect| matches!(effect, Effect::Dropped(drop) if *drop == to);
    effects.iter().filter(is_it).count()
}

#[test]
fn a_beginning_that_is_refused_gives_back_what_it_held() {
    let mut bench = Bench::with(BrokerLimits {
        max_sessions: 1,
        quotas: Quotas {
            connections: Some(2),
            ..Quotas::default()
        },
        ..limits()
    });
    let (alice, bob) = (principal("alice"), principal("bob"));
    assert_eq!(bench.begin_and_see(10, OWNED, &alice), Begun::Welcomed);
    // Of another identity, a session more than there may be, and a connection more than the identity may have.
    assert_eq!(bench.begin_and_see(11, OWNED, &bob), Begun::Closed(4501));
    let another = Identity::Durable(SessionId(uuid::Uuid::from_u128(8)));
    assert_eq!(bench.begin_and_see(12, another, &bob), Begun::Closed(4010));
    let transient = Identity::Transient;
    assert_eq!(bench.begin_and_see(13, transient, &alice), Begun::Welcomed);
    assert_eq!(
        bench.begin_and_see(14, transient, &alice),
        Begun::Closed(4010)
    );
    for number in 10..15 {
        bench
            .broker
            .disconnected(connection(number), &[], bench.now);
        assert_eq!(dropped(&bench.commit(), number), 0, "twice");
    }
    assert!(bench.broker.holdings.is_empty());
}

#[test]
fn a_beginning_that_is_taken_over_before_its_welcome_gives_back_what_it_held() {
    let mut bench = Bench::new();
    let alice = principal("alice");
    assert_eq!(bench.begin_and_see(10, OWNED, &alice), Begun::Welcomed);
    // Each waits until the worker of the one before has told what that was handed.
    assert_eq!(bench.begin_and_see(11, OWNED, &alice), Begun::Waiting);
    bench.begin(12, OWNED, &alice);
    let effects = bench.commit();
    assert_eq!(bench.begun(12, &effects), Begun::Waiting);
    assert_eq!(dropped(&effects, 11), 1);

    bench.broker.taken_over(connection(10), &[]);
    bench.broker.taken_over(connection(11), &[]);
    let effects = bench.commit();
    assert_eq!(bench.begun(12, &effects), Begun::Welcomed);
    assert_eq!(dropped(&effects, 11), 0, "twice");
}

#[test]
fn a_beginning_whose_connection_ends_before_its_welcome_gives_back_what_it_held() {
    let mut bench = Bench::new();
    let alice = principal("alice");
    assert_eq!(bench.begin_and_see(10, OWNED, &alice), Begun::Welcomed);
    assert_eq!(bench.begin_and_see(11, OWNED, &alice), Begun::Waiting);
    bench.broker.disconnected(connection(11), &[], bench.now);
    assert_eq!(dropped(&bench.commit(), 11), 1);
    bench.broker.taken_over(connection(10), &[]);
    let effects = bench.commit();
    assert_eq!(dropped(&effects, 11), 0, "twice");
    assert_eq!(bench.begin_and_see(12, OWNED, &alice), Begun::Welcomed);
}

#[test]
fn what_falls_between_judgement_and_use_does_not_come_in() {
    let mut bench = Bench::new();
    let (revoked, changed, ended) = (principal("a"), principal("b"), principal("c"));
    revoked.standing.revoke();
    changed.standing.change();
    let ended = Principal {
        expires: Some(bench.now),
        ..ended
    };
    for (number, principal, code) in [(20, revoked, 4501), (30, changed, 4011), (40, ended, 4501)] {
        for (number, identity) in (number..).zip([Identity::Transient, OWNED]) {
            // By its first command, and by its handshake.
            let begun = bench.begin_and_see(number, identity, &principal);
            assert_eq!(begun, Begun::Closed(code));
            let other = connection(number + 5);
            bench.broker.connect(other, identity, &principal, bench.now);
            let effects = bench.commit();
            assert!(
                matches!(effects[..], [Effect::Close(closed, with, _)] if (closed, with) == (other, code)),
                "{effects:?}"
            );
            assert_eq!(bench.broker.session_of(other), None);
        }
    }
    // None of them made the session theirs.
    let owner = principal("owner");
    assert_eq!(bench.begin_and_see(50, OWNED, &owner), Begun::Welcomed);
}

#[test]
fn a_token_that_falls_between_judgement_and_use_takes_no_other_ones_place() {
    let mut bench = Bench::new();
    let alice = principal("alice");
    let me = connection(10);
    assert_eq!(bench.begin_and_see(10, OWNED, &alice), Begun::Welcomed);
    let (revoked, ended) = (principal("alice"), principal("alice"));
    revoked.standing.revoke();
    let ended = Principal {
        expires: Some(bench.now),
        ..ended
    };
    for fallen in [revoked, ended] {
        let to = first_command(me);
        bench.broker.authenticate(to, Ok(fallen), bench.now);
        let effects = bench.commit();
        let [Effect::Answer(answered, ServerResponse::Error(error))] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!((*answered, error.code), (to, ErrorCode::NotAuthorized));
    }
    // The one before counts as it did.
    bench.broker.check_standing();
    bench.broker.expire_tokens(Timestamp(bench.now.0 + 1));
    assert!(bench.commit().is_empty());
    bench.call(me, submission("news"));
    // And what falls while it is used closes, and its commands come to nothing.
    alice.standing.revoke();
    bench.broker.check_standing();
    assert!(matches!(
        bench.commit()[..],
        [Effect::Close(closed, 4501, _)] if closed == me
    ));
    bench.send(me, submission("news"));
    assert!(matches!(bench.commit()[..], [Effect::Dropped(to)] if to.connection == me));
}
