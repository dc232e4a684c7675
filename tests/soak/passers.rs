//! What is there for a moment only: subscriptions, sessions, connections, and peers that never say anything sensible.

use std::fs;

use tokio::net::TcpStream;
use uuid::Uuid;

use super::{
    support::{Client, Raw},
    *,
};

pub(crate) fn spawn(load: Load, tasks: &mut JoinSet<()>, random: &mut Rng) {
    tasks.spawn(make_and_delete(load, random.fork()));
    tasks.spawn(come_once(load));
    tasks.spawn(knock(load, random.fork()));
}

async fn make_and_delete(load: Load, mut random: Rng) {
    let (mut client, mut beat) = (
        Client::connect(load.address).await,
        every(Duration::from_millis(200)),
    );
    while load.goes_on() {
        beat.tick().await;
        let name = format!("temporary {}", random.u64(..));
        let durability = *random.choice(&["Synced", "Written", "Memory"]).unwrap();
        let settings = fields! { "durability": durability };
        let fields = fields! { "subscription_id": &name[..], "settings": settings };
        client.call("CreateSubscription", fields).await;
        let id = Uuid::from_u128(random.u128(..));
        let fields = fields! {
            "subscription_id": &name[..], "submission": &[7; 1_000], "publication_id": id,
        };
        client.call("SubmitPublication", fields).await;
        client.subscribe(&name[..], "First").await;
        client.publication(1).await;
        client
            .call(
                "DeleteSubscription",
                fields! { "subscription_id": &name[..] },
            )
            .await;
    }
}

/// A durable session that never comes back, and that the server forgets.
async fn come_once(load: Load) {
    let mut beat = every(Duration::from_millis(250));
    while load.goes_on() {
        beat.tick().await;
        let mut client = Client::resume(load.address, Uuid::new_v4()).await;
        client.subscribe("dead", "First").await;
        client.close().await;
    }
}

/// Connections that end before they are ones.
async fn knock(load: Load, mut random: Rng) {
    let mut beat = every(Duration::from_millis(100));
    while load.goes_on() {
        beat.tick().await;
        match random.u8(..4) {
            0 => drop(TcpStream::connect(load.address).await.unwrap()),
            1 => {
                let mut raw = Raw::connect(load.address, None).await;
                raw.write(b"GET /ws HTTP/1.1\r\nHost: here\r\nUpgr").await;
            }
            2 => {
                let mut raw = Raw::open(load.address, "/ws").await;
                raw.write(&[0xff; 20]).await;
            }
            _ => drop(Client::connect(load.address).await),
        }
    }
}

/// Of all that passed nothing is left, and when what stayed is deleted, nothing of that.
pub(crate) async fn check_nothing_is_left(server: &Process) {
    let mut client = server.client().await;
    eventually("sessions that do not come back are forgotten", async || {
        client.meta("dead").await.number("subscribers") == 0
    })
    .await;
    let list = client.call("ListSubscriptions", fields! {}).await;
    let mut names: Vec<_> = list
        .maps("subscriptions")
        .iter()
        .map(|meta| meta.map("settings").text("name").to_owned())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["dead", "ids", "jobs", "memory", "synced", "written"]
    );
    for name in names {
        let fields = fields! { "subscription_id": &name[..] };
        client.call("DeleteSubscription", fields).await;
    }
    let segments = server.data_dir().join("segments");
    eventually("no segment is left", async || {
        fs::read_dir(&segments).unwrap().count() == 0
    })
    .await;
    client.close().await;
}
