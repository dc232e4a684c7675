//! The way from a handle to the connection's task and back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::UnboundedSender,
        oneshot::{self, Receiver},
        watch,
    },
    time::{Instant, timeout_at},
};

use super::{
    Closed, Lease, RequestError, Settlement, Status, SubscribeError,
    core::{Begun, Command, QueueBegun, QueueWanted, Reply, Settling, Wanted},
};
use crate::protocol::{ClientCommand, Epoch, MAX_ENTRIES, ServerResponse, SubscriptionReference};

/// Bytes of a message that asks for something of leases, but for their ids: the longest name, and room to spare.
const WITHOUT_IDS: u64 = 512;

/// Bytes of an id in a message.
const ID: u64 = 17;

/// Cheap to clone. What goes through its channel is bounded all the same: requests by their permits, the rest by the number of subscriptions.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pub(super) commands: UnboundedSender<Command>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) request_timeout: Duration,
    pub(super) status: watch::Receiver<Status>,
}

/// The answer to a request that is under way.
#[derive(Debug)]
pub(super) struct Answer {
    receiver: Receiver<Result<ServerResponse, RequestError>>,
    deadline: Instant,
    /// As long as somebody waits for an answer, the client lives.
    handle: Handle,
}

impl Handle {
    /// Why there is no task any more.
    pub(super) fn closed(&self) -> Closed {
        match &*self.status.borrow() {
            Status::Closed(closed) => closed.clone(),
            _ => Closed::ByClient,
        }
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        // A time-out of for ever is one of a long time.
        const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
        now + self.request_timeout.min(FOR_EVER)
    }

    /// Waits for the right to have one more request under way, and hands it over.
    pub(super) async fn send(
        &self,
        command: ClientCommand,
        epoch: Option<Epoch>,
    ) -> Result<Answer, RequestError> {
        let deadline = self.deadline();
        let permit = self.permit(deadline).await?;
        self.hand_over(command, epoch, permit, deadline)
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, RequestError> {
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_elapsed| RequestError::TimedOut)?
            .map_err(|_closed| self.closed())?;
        Ok(permit)
    }

    fn hand_over(
        &self,
        command: ClientCommand,
        epoch: Option<Epoch>,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let (reply, receiver) = oneshot::channel();
        self.commands
            .send(Command::Request {
                command,
                epoch,
                reply,
                permit,
            })
            .map_err(|_gone| self.closed())?;
        Ok(Answer {
            receiver,
            deadline,
            handle: self.clone(),
        })
    }

    pub(super) async fn request(
        &self,
        command: ClientCommand,
    ) -> Result<ServerResponse, RequestError> {
        self.send(command, None).await?.wait().await
    }

    pub(super) async fn subscribe(&self, wanted: Wanted) -> Result<Begun, SubscribeError> {
        self.begin(|reply| Command::Subscribe { wanted, reply })
            .await
    }

    pub(super) async fn subscribe_queue(
        &self,
        wanted: QueueWanted,
    ) -> Result<QueueBegun, SubscribeError> {
        self.begin(|reply| Command::SubscribeQueue { wanted, reply })
            .await
    }

    async fn begin<T>(
        &self,
        command: impl FnOnce(Reply<T, SubscribeError>) -> Command,
    ) -> Result<T, SubscribeError> {
        let (reply, receiver) = oneshot::channel();
        self.commands
            .send(command(reply))
            .map_err(|_gone| self.closed())?;
        match timeout_at(self.deadline(), receiver).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(_gone)) => Err(self.closed().into()),
            Err(_elapsed) => Err(SubscribeError::TimedOut),
        }
    }

    /// Asks for something of leases, in as many requests as they need.
    pub(super) async fn settle(
        &self,
        subscription: &SubscriptionReference,
        leases: &[Lease],
        how: Settling,
    ) -> Result<Settlement, RequestError> {
        let mut all = Settlement::default();
        for leases in leases.chunks(self.leases_at_once()) {
            let deadline = self.deadline();
            let permit = self.permit(deadline).await?;
            let (reply, receiver) = oneshot::channel();
            let command = Command::Settle {
                subscription: subscription.clone(),
                leases: leases.to_vec(),
                how,
                reply,
                permit,
            };
            self.commands.send(command).map_err(|_gone| self.closed())?;
            let settlement = match timeout_at(deadline, receiver).await {
                Ok(Ok(answer)) => answer?,
                Ok(Err(_gone)) => return Err(self.closed().into()),
                Err(_elapsed) => return Err(RequestError::TimedOut),
            };
            all.count += settlement.count;
            all.lost.extend(settlement.lost);
        }
        Ok(all)
    }

    /// How many the server takes in one message.
    fn leases_at_once(&self) -> usize {
        let limit = match &*self.status.borrow() {
            Status::Connected(welcome) => welcome.limits.max_message_size,
            _ => u64::MAX,
        };
        let ids = limit.saturating_sub(WITHOUT_IDS) / ID;
        usize::try_from(ids).map_or(MAX_ENTRIES, |ids| ids.clamp(1, MAX_ENTRIES))
    }
}

impl Answer {
    pub(super) async fn wait(self) -> Result<ServerResponse, RequestError> {
        match timeout_at(self.deadline, self.receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_gone)) => Err(self.handle.closed().into()),
            Err(_elapsed) => Err(RequestError::TimedOut),
        }
    }
}
