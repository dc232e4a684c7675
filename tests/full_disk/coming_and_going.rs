//! Room that comes and goes at any moment, with kill -9 and SIGTERM in between.

use super::{
    support::{Ballast, Refused},
    *,
};

const ROUNDS: u32 = 6;
const MIB: u64 = 1 << 20;

#[test]
fn room_that_comes_and_goes_loses_nothing_that_was_answered() {
    on_disks(this_test!(), async |mut small| {
        let seed = std::env::var("INFOTAINER_TEST_SEED").ok();
        let seed = seed
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| fastrand::u64(..));
        println!("INFOTAINER_TEST_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let ballast = Ballast::leaving(&small.disk, 40 * MIB);
        let mut ledger = Ledger::default();
        for round in 0..ROUNDS {
            let mut publishers = Vec::new();
            for number in 0..3 {
                let log = format!("{round}-{}", number % 2);
                let client = small.server.client().await;
                let sizes = &[100_000, 5_000, 180_000, 30];
                let publishing =
                    submit(client, log.clone(), format!("{round}-{number}"), sizes, 400);
                publishers.push((log, tokio::spawn(publishing)));
            }
            for _ in 0..3 {
                if random.bool() {
                    ballast.take_all();
                } else {
                    ballast.give(random.u64(..50 * MIB));
                }
            }
            let is_over = random.u32(..3);
            match is_over {
                0 => small.server.kill(),
                1 => {
                    small.server.signal("-TERM");
                    // Without room to say that it was in order, it was not, and nothing else follows.
                    small.server.exited().await;
                }
                _ => {}
            }
            for (log, publisher) in publishers {
                ledger.add(&log, publisher.await.unwrap());
            }
            if is_over < 2 {
                start_with_room(&mut small, &ballast);
            }
            let mut client = small.server.client().await;
            ledger.check_kept(&mut client).await;
            if random.bool() && !ledger.0.is_empty() {
                let log = ledger
                    .0
                    .keys()
                    .nth(random.usize(..ledger.0.len()))
                    .unwrap()
                    .clone();
                let fields = fields! { "subscription_id": &log[..] };
                client.call("DeleteSubscription", fields).await;
                ledger.0.remove(&log);
            }
        }
        let mut client = small.server.client().await;
        for log in ledger.0.keys() {
            let fields = fields! { "subscription_id": &log[..] };
            client.call("DeleteSubscription", fields).await;
        }
        ballast.remove();
        eventually("publications are taken again", async || {
            takes_more(&mut client).await
        })
        .await;
    });
}

/// Starts it, giving it room as long as it says that it has none.
fn start_with_room(small: &mut Small, ballast: &Ballast) {
    while let Err(Refused { code, said }) = small.server.try_start_again() {
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        ballast.give(4 * MIB);
    }
}
