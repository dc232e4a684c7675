//! Publishing: acknowledged, pipelined, and once, over reconnects too.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

use bytes::Bytes;

use super::{
    Client, PublishError, RequestError,
    handle::{Answer, Handle},
};
use crate::protocol::{
    ClientCommand, Kind, PublicationId, Sequence, ServerResponse, SubmitPublication, Submitted,
    SubscriptionReference,
};

impl Client {
    /// Publishes `data`. The future resolves when the publication is in the log, as durable as the subscription wants it; the
    /// subscription is made if it does not exist.
    ///
    /// Every publication has an id, a new one of version 7 unless [`id`](Publish::id) gives one. If the connection ends before the
    /// answer, it is sent again with the same id on the next one, and so added once, as long as the log still holds it.
    ///
    /// # Ordering
    /// Publications get their sequences in the order in which [`Publish::send`] returned, or in which the futures of several of them were
    /// polled for the first time.
    ///
    /// # Errors
    /// See [`PublishError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the publication may be in the log or not, and is not sent again after a reconnect.
    ///
    /// # Examples
    /// One after the other, and many under way at once:
    /// ```
    /// # #[cfg(feature = "server")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let server = infotainer::Server::start(infotainer::Config {
    /// #     listen: ([127, 0, 0, 1], 0).into(),
    /// #     data_dir: directory.path().join("data"),
    /// #     ..infotainer::Config::default()
    /// # })?;
    /// # let url = format!("ws://{}/ws", server.address());
    /// use infotainer::client::Client;
    ///
    /// let client = Client::connect(&url).await?;
    /// client.publish("news", "one").await?;
    ///
    /// let mut under_way = Vec::new();
    /// for n in 2..=10 {
    ///     under_way.push(client.publish("news", format!("number {n}")).send().await?);
    /// }
    /// for (acknowledgement, n) in under_way.into_iter().zip(2..) {
    ///     assert_eq!(acknowledgement.await?.sequence.0, n);
    /// }
    /// # server.stop()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "server"))]
    /// # fn main() {}
    /// ```
    pub fn publish(
        &self,
        subscription: impl Into<SubscriptionReference>,
        data: impl Into<Bytes>,
    ) -> Publish {
        Publish {
            handle: self.handle.clone(),
            submit: SubmitPublication {
                subscription: subscription.into(),
                submission: data.into(),
                kind: None,
                publication_id: None,
                expected_sequence: None,
            },
        }
    }
}

/// A publication that is about to be sent; await it, or [`send`](Self::send) it.
#[derive(Debug)]
#[must_use = "a publication is not sent until it is awaited or `send` is"]
pub struct Publish {
    handle: Handle,
    submit: SubmitPublication,
}

impl Publish {
    /// Gives it this id. Publishing with the same id again adds nothing, and is answered with
    /// [`duplicate`](Submitted::duplicate).
    pub fn id(mut self, id: PublicationId) -> Self {
        self.submit.publication_id = Some(id);
        self
    }

    /// Refuses it with [`Conflict`](crate::protocol::ErrorCode::Conflict) unless this will be its sequence.
    pub fn expected_sequence(mut self, sequence: Sequence) -> Self {
        self.submit.expected_sequence = Some(sequence);
        self
    }

    /// Makes the subscription with this kind if it does not exist, and refuses the publication if it exists with another.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.submit.kind = Some(kind);
        self
    }

    /// Puts it in line, and returns without waiting for the answer: as soon as fewer requests are under way than
    /// [`Builder::in_flight`](super::Builder::in_flight) allows.
    ///
    /// # Errors
    /// If there is no room in time, or the client has ended.
    pub async fn send(self) -> Result<Acknowledgement, PublishError> {
        let Self { handle, mut submit } = self;
        let publication_id = *submit
            .publication_id
            .get_or_insert_with(|| PublicationId(uuid::Uuid::now_v7()));
        let command = ClientCommand::SubmitPublication(submit);
        let answer = handle
            .send(command, None)
            .await
            .map_err(|error| error.of_publication(publication_id))?;
        Ok(Acknowledgement {
            publication_id,
            answer,
        })
    }
}

impl IntoFuture for Publish {
    type Output = Result<Submitted, PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send().await?.await })
    }
}

/// The answer to a publication that is under way; await it. Dropping it means that nobody waits: the publication is not sent again
/// after a reconnect.
#[derive(Debug)]
#[must_use = "whether it was published is known only when this is awaited"]
pub struct Acknowledgement {
    publication_id: PublicationId,
    answer: Answer,
}

impl Acknowledgement {
    /// The publication's id.
    pub fn publication_id(&self) -> PublicationId {
        self.publication_id
    }
}

impl IntoFuture for Acknowledgement {
    type Output = Result<Submitted, PublishError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let publication_id = self.publication_id;
        Box::pin(async move {
            match self.answer.wait().await {
                Ok(ServerResponse::Submitted(submitted)) => Ok(submitted),
                Ok(other) => Err(RequestError::unexpected(&other).of_publication(publication_id)),
                Err(error) => Err(error.of_publication(publication_id)),
            }
        })
    }
}
