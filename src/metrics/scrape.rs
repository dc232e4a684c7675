//! A scrape: asks the actors, and looks at the rest.
//!
//! Owns whom to ask, and the last figures of each. All are asked at once, and waited for as long as a scrape may take; who does not answer in
//! that time is told as it was the last time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use tokio::time::timeout;

use super::{Metrics, Pulse, page, process};
use crate::domain::broker::Figures;

/// How long a scrape waits for the actors. Those who collect wait for 10 s.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answered by PubSubService.
#[derive(Message, Clone, Copy)]
#[rtype(result = "Figures")]
pub(crate) struct TellBroker;

/// Answered by a Hub, which walks its connections for that.
#[derive(Message, Clone, Copy)]
#[rtype(result = "HubFigures")]
pub(crate) struct TellHub;

/// What the connections of a worker are like now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct HubFigures {
    /// Connections.
    pub(crate) connections: u64,
    /// What they subscribe.
    pub(crate) subscribers: u64,
    /// Subscribers that are behind.
    pub(crate) behind: u64,
    /// Publications that these have not been sent, in all.
    pub(crate) missing: u64,
    /// The most that one of them has not been sent.
    pub(crate) most_missing: u64,
    /// Bytes that wait in outboxes.
    pub(crate) outbox_bytes: u64,
}

impl HubFigures {
    /// Those of two workers together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            subscribers: self.subscribers + other.subscribers,
            behind: self.behind + other.behind,
            missing: self.missing + other.missing,
            most_missing: self.most_missing.max(other.most_missing),
            outbox_bytes: self.outbox_bytes + other.outbox_bytes,
        }
    }
}

/// Who is asked, and what was answered last.
#[derive(Debug, Default)]
pub(super) struct Sources {
    broker: Option<Recipient<TellBroker>>,
    hubs: BTreeMap<usize, Recipient<TellHub>>,
    broker_figures: Figures,
    hub_figures: BTreeMap<usize, HubFigures>,
    process: process::Process,
}

/// What a scrape found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) broker: Figures,
    pub(super) hubs: HubFigures,
    pub(super) process: process::Process,
}

impl Metrics {
    /// PubSubService is there: it is watched, and asked for what it knows.
    pub(crate) fn watch_broker(&self, pulse: Recipient<Pulse>, tell: Recipient<TellBroker>) {
        self.health.add("PubSubService", pulse);
        self.sources.lock().broker = Some(tell);
    }

    /// A worker's Hub is there.
    pub(crate) fn watch_hub(
        &self,
        worker: usize,
        pulse: Recipient<Pulse>,
        tell: Recipient<TellHub>,
    ) {
        self.health.add(format!("Hub {worker}"), pulse);
        self.sources.lock().hubs.insert(worker, tell);
    }

    /// Everything there is to tell, as OpenMetrics.
    pub(crate) async fn scrape(self: Arc<Self>) -> String {
        self.ask().await;
        let found = {
            let sources = self.sources.lock();
            let hubs = sources.hub_figures.values().copied();
            Found {
                broker: sources.broker_figures,
                hubs: hubs.fold(HubFigures::default(), HubFigures::and),
                process: sources.process,
            }
        };
        page::write(self, found)
    }

    /// Asks all who know something, and keeps what they answer.
    async fn ask(&self) {
        let (broker, hubs) = {
            let sources = self.sources.lock();
            (sources.broker.clone(), sources.hubs.clone())
        };
        let broker = async {
            if let Some(broker) = broker
                && let Ok(Ok(figures)) = timeout(PATIENCE, broker.send(TellBroker)).await
            {
                self.sources.lock().broker_figures = figures;
            }
        };
        let hubs = hubs.into_iter().map(async |(worker, hub)| {
            if let Ok(Ok(figures)) = timeout(PATIENCE, hub.send(TellHub)).await {
                self.sources.lock().hub_figures.insert(worker, figures);
            }
        });
        let data_dir = self.data_dir.clone();
        let looked = tokio::task::spawn_blocking(move || process::look(&data_dir));
        let process = async {
            if let Ok(Ok(process)) = timeout(PATIENCE, looked).await {
                self.sources.lock().process = process;
            }
        };
        tokio::join!(broker, process, futures_util::future::join_all(hubs));
    }
}
