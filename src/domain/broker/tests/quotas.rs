//! What an identity may have.

use std::sync::Arc;

use super::*;
use crate::domain::broker::Quotas;

fn quotas(quotas: Quotas) -> BrokerLimits {
    BrokerLimits { quotas, ..limits() }
}

/// A transient connection of `name`; false if it is closed with 4010 instead.
fn admitted(bench: &mut Bench, number: u64, name: &str) -> bool {
    let principal = Principal {
        name: Some(name.into()),
        ..Principal::anonymous()
    };
    let now = bench.now;
    bench
        .broker
        .connect(connection(number), Identity::Transient, &principal, now);
    !bench
        .commit()
        .iter()
        .any(|effect| matches!(effect, Effect::Close(_, 4010, _)))
}

fn delete(name: &str) -> ClientCommand {
    ClientCommand::DeleteSubscription(named(name))
}

#[test]
fn connections_of_an_identity_are_limited_and_anonymous_ones_are_not() {
    let mut bench = Bench::with(quotas(Quotas {
        connections: Some(2),
        ..Quotas::default()
    }));
    assert!(admitted(&mut bench, 10, "a") && admitted(&mut bench, 11, "a"));
    assert!(!admitted(&mut bench, 12, "a"));
    assert!(admitted(&mut bench, 13, "b"));
    bench.broker.disconnected(connection(12), &[], bench.now);
    assert!(!admitted(&mut bench, 14, "a"));
    bench.broker.disconnected(connection(10), &[], bench.now);
    assert!(admitted(&mut bench, 15, "a"));
    for number in [11, 13, 15] {
        bench
            .broker
            .disconnected(connection(number), &[], bench.now);
    }
    assert!(bench.broker.holdings.is_empty());
}

#[test]
fn subscriptions_that_an_identity_made_are_limited_after_a_restart_too() {
    let mut bench = Bench::with(quotas(Quotas {
        subscriptions: Some(2),
        ..Quotas::default()
    }));
    assert!(admitted(&mut bench, 10, "a"));
    bench.call(connection(10), submission("one"));
    bench.call(connection(10), create("two", SettingsPatch::default()));
    for refused in [
        submission("three"),
        create("three", SettingsPatch::default()),
        subscribe("three", None, None),
    ] {
        assert_eq!(
            bench.error(connection(10), refused),
            ErrorCode::LimitReached
        );
    }
    // Those that others made are none of its own.
    bench.submit("three");
    bench.call(connection(10), submission("three"));

    let mut bench = bench.restart();
    assert!(admitted(&mut bench, 10, "a"));
    assert_eq!(
        bench.error(connection(10), submission("four")),
        ErrorCode::LimitReached
    );
    bench.call(connection(10), delete("two"));
    bench.call(connection(10), submission("four"));
}

#[test]
fn bytes_of_the_logs_that_an_identity_made_are_limited_whoever_publishes() {
    let mut bench = Bench::with(quotas(Quotas {
        log_bytes: Some(12),
        ..Quotas::default()
    }));
    assert!(admitted(&mut bench, 10, "a"));
    bench.call(connection(10), submission("one"));
    bench.call(connection(10), submission("two"));
    bench.submit("one");
    for (number, name) in [(10, "one"), (10, "three"), (1, "two")] {
        let error = bench.error(connection(number), submission(name));
        assert_eq!(error, ErrorCode::LogFull, "{name}");
    }
    // Logs of others have no limit, and what is deleted makes room.
    for _ in 0..9 {
        bench.submit("of nobody");
    }
    bench.call(connection(10), delete("one"));
    bench.call(connection(10), submission("two"));
    bench.call(connection(10), submission("two"));
    assert_eq!(
        bench.error(connection(10), submission("two")),
        ErrorCode::LogFull
    );
    // What retention removed is noticed when it is counted again.
    let two = named("two").id;
    let known = bench.broker.subscriptions.get_mut(&two).unwrap();
    known.bytes -= 4;
    bench.broker.set_clock(bench.now, 1_000);
    bench.call(connection(10), submission("two"));

    let mut bench = bench.restart();
    bench.broker.set_clock(bench.now, 2_000);
    assert!(admitted(&mut bench, 10, "b"));
    let error = bench.error(connection(10), submission("two"));
    assert_eq!(error, ErrorCode::LogFull);
    let owner = bench.broker.subscriptions[&two].owner.clone();
    assert_eq!(owner, Some(Arc::from("a")));
}
