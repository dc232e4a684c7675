//! A server in this process.

use std::{net::SocketAddr, path::Path, time::Duration};

use infotainer::{RunningServer, Server, config::Config};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::Client;

/// A server on a free port, with a fresh folder of its own.
pub struct TestServer {
    running: Option<RunningServer>,
    config: Config,
    dir: TempDir,
}

impl TestServer {
    /// With the settings of a fresh installation.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With other settings.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: dir.path().join("data"),
            max_connections: 1_000,
            shutdown_timeout: Duration::from_secs(5),
            workers: 2,
            ..Config::default()
        };
        change(&mut config);
        let running = Server::start(config.clone()).unwrap();
        Self {
            running: Some(running),
            config,
            dir,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("the server runs").address()
    }

    /// Where its metrics are, if they have an address of their own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        let running = self.running.as_ref().expect("the server runs");
        running.metrics_address()
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// A client with a transient session.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// A client with this durable session.
    pub async fn resume(&self, session: Uuid) -> Client {
        Client::resume(self.address(), session).await
    }

    /// Other settings, from the next start on.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Reads again what lies in files. Whether all of it could be read.
    pub fn reload(&self) -> bool {
        self.running.as_ref().expect("the server runs").reload()
    }

    /// Stops in order, while others go on reading.
    pub async fn stop(&mut self) {
        self.begin_stop().await.unwrap();
    }

    /// Begins to stop in order; the task ends when it has.
    pub fn begin_stop(&mut self) -> JoinHandle<()> {
        let running = self.running.take().expect("the server runs");
        tokio::task::spawn_blocking(move || running.stop().unwrap())
    }

    /// Starts again on the same folder.
    pub async fn start_again(&mut self) {
        let config = self.config.clone();
        let running = tokio::task::spawn_blocking(move || Server::start(config))
            .await
            .unwrap();
        self.running = Some(running.unwrap());
    }

    /// Stops and starts again on the same folder. Nobody may be connected who does not read.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // A test that fails has said why already.
            _ = running.stop();
        }
    }
}
