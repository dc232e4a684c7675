//! A start without room.

use super::{
    support::{Ballast, Refused, on_small_disks},
    *,
};

#[test]
fn first_start_without_room_says_why_and_ends_with_1() {
    on_small_disks(this_test!(), 64, |disk| {
        let data = disk.join("data");
        for spare in [0, 4 << 10, 64 << 10, 1 << 20] {
            let ballast = Ballast::leaving(disk, spare);
            let (code, said) = Process::refused(&data, &[]);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("No space left on device"), "{said}");
            ballast.remove();
        }
        // What the failed starts left does no harm.
        let ballast = Ballast::leaving(disk, 40 << 20);
        let server = start(disk);
        run(async {
            let mut client = server.client().await;
            client.subscribe("news", "First").await;
        });
        ballast.remove();
    });
}

#[test]
fn full_disk_is_started_on_by_the_reserve_and_without_it_nothing_is_lost() {
    on_disks(this_test!(), async |mut small| {
        let ballast = Ballast::leaving(&small.disk, 0);
        let ledger = fill_with(&small, "large").await;
        small.server.signal("-TERM");
        assert_eq!(small.server.exited().await.code(), Some(0));
        for _ in 0..3 {
            small.server.start_again();
            let mut client = small.server.client().await;
            ledger.check(&mut client).await;
            assert!(!takes_more(&mut client).await);
            small.server.kill();
        }

        // Somebody takes what the reserve gave.
        ballast.take_all();
        let mut refused = 0;
        for _ in 0..3 {
            match small.server.try_start_again() {
                Ok(()) => {
                    ledger.check(&mut small.server.client().await).await;
                    small.server.kill();
                }
                Err(Refused { code, said }) => {
                    assert_eq!(code, Some(1), "{said}");
                    assert!(said.contains("No space left on device"), "{said}");
                    refused += 1;
                }
            }
        }
        println!("{refused} of 3 starts refused");
        ballast.remove();
        small.server.start_again();
        let mut client = small.server.client().await;
        ledger.check(&mut client).await;
        eventually("publications are taken again", async || {
            takes_more(&mut client).await
        })
        .await;
    });
}
