//! Signals, and what the service manager is told.

use std::os::unix::net::UnixDatagram;

use tempfile::TempDir;

use crate::support::{PATIENCE, Process, Raw, eventually};

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, dir }
    }

    fn start(&self, others: &[(&str, &str)]) -> Process {
        let path = self.dir.path().join("notify");
        let mut variables = vec![("NOTIFY_SOCKET", path.to_str().unwrap())];
        variables.extend(others);
        Process::start_in(&[], &variables)
    }

    /// The next that it is told.
    fn told(&self) -> Vec<String> {
        let mut message = [0; 1024];
        let len = self.socket.recv(&mut message).unwrap();
        let message = str::from_utf8(&message[..len]).unwrap();
        message.lines().map(String::from).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_when_the_server_listens_reads_again_and_stops() {
    let manager = Manager::new();
    let mut server = manager.start(&[]);
    let listens = format!("STATUS=serves on {}", server.address());
    assert_eq!(manager.told(), ["READY=1", &listens]);
    let client = server.client().await;

    server.signal("-HUP");
    let told = manager.told();
    assert_eq!(told[0], "RELOADING=1");
    let usec = told[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(usec.parse::<u64>().unwrap() > 0);
    assert_eq!(manager.told(), ["READY=1", &listens]);

    server.signal("-TERM");
    assert_eq!(manager.told(), ["STOPPING=1"]);
    drop(client);
    assert_eq!(server.exited().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_is_told_that_the_server_answers() {
    let manager = Manager::new();
    let _server = manager.start(&[("WATCHDOG_USEC", "200000")]);
    assert_eq!(manager.told()[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.told(), ["WATCHDOG=1"]);
    }
}

#[tokio::test]
async fn sighup_ends_nothing() {
    let server = Process::start(&[]);
    let mut client = server.client().await;
    client.publish("orders", b"before").await;
    server.signal("-HUP");
    eventually("it is told", async || server.said().contains("SIGHUP")).await;
    client.publish("orders", b"behind").await;
    assert_eq!(client.log("orders").await.len(), 2);
}

#[tokio::test]
async fn a_second_signal_ends_the_program_at_once_and_keeps_what_was_acknowledged() {
    for (first, second, code) in [("-TERM", "-TERM", 143), ("-TERM", "-INT", 130)] {
        let mut server = Process::start(&[]);
        server.client().await.publish("orders", b"x").await;
        // It does not answer the Close frame, and the stop waits for that.
        let mut silent = Raw::open(server.address(), "/ws").await;
        server.signal(first);
        assert_eq!(silent.closed().await, 1001);
        server.signal(second);
        assert_eq!(server.exited().await.code(), Some(code));
        assert!(server.said().contains("ended at once"), "{}", server.said());
        server.start_again();
        assert_eq!(server.client().await.log("orders").await.len(), 1);
    }
}
