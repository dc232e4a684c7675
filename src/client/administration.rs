//! Subscriptions as such: made, changed, shown, deleted.

use futures_core::Stream;
use futures_util::stream;

use super::{Client, RequestError};
use crate::protocol::{
    ClientCommand, CreateSubscription, Kind, ListSubscriptions, ServerResponse, SettingsPatch,
    SubscriptionId, SubscriptionMeta, SubscriptionReference, Timestamp, UpdateSubscription,
};

/// Subscriptions that are asked for at once.
const PAGE: usize = 100;

impl Client {
    /// Makes a subscription with these settings. The same again is fine.
    ///
    /// # Errors
    /// [`Conflict`](crate::protocol::ErrorCode::Conflict) if it exists with other settings or another kind; else see [`RequestError`].
    ///
    /// # Examples
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
    /// use infotainer::{client::Client, protocol::{Durability, Retention, SettingsPatch}};
    ///
    /// let client = Client::connect(&url).await?;
    /// let settings = SettingsPatch {
    ///     durability: Durability::Written.into(),
    ///     retention: Retention { max_publications: Some(1_000), ..Retention::default() }.into(),
    ///     ..SettingsPatch::default()
    /// };
    /// let meta = client.create("prices", None, settings).await?;
    /// assert_eq!(meta.settings.durability, Durability::Written);
    /// # server.stop()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "server"))]
    /// # fn main() {}
    /// ```
    pub async fn create(
        &self,
        subscription: impl Into<SubscriptionReference>,
        kind: Option<Kind>,
        settings: SettingsPatch,
    ) -> Result<SubscriptionMeta, RequestError> {
        self.meta(ClientCommand::CreateSubscription(CreateSubscription {
            subscription: subscription.into(),
            kind,
            settings,
        }))
        .await
    }

    /// Replaces the settings that are given; [`Patch::Default`](crate::protocol::Patch::Default) sets the default again.
    ///
    /// # Errors
    /// [`NotFound`](crate::protocol::ErrorCode::NotFound) if it does not exist; else see [`RequestError`].
    pub async fn update(
        &self,
        subscription: impl Into<SubscriptionReference>,
        settings: SettingsPatch,
    ) -> Result<SubscriptionMeta, RequestError> {
        self.meta(ClientCommand::UpdateSubscription(UpdateSubscription {
            subscription: subscription.into(),
            settings,
        }))
        .await
    }

    /// What a subscription is like now.
    ///
    /// # Errors
    /// [`NotFound`](crate::protocol::ErrorCode::NotFound) if it does not exist; else see [`RequestError`].
    pub async fn get(
        &self,
        subscription: impl Into<SubscriptionReference>,
    ) -> Result<SubscriptionMeta, RequestError> {
        self.meta(ClientCommand::GetSubscription(subscription.into()))
            .await
    }

    async fn meta(&self, command: ClientCommand) -> Result<SubscriptionMeta, RequestError> {
        match self.handle.request(command).await? {
            ServerResponse::SubscriptionMeta(meta) => Ok(*meta),
            other => Err(RequestError::unexpected(&other)),
        }
    }

    /// Every subscription of the server, in order of their ids, asked for page by page. Ends behind an error.
    pub fn list(
        &self,
    ) -> impl Stream<Item = Result<SubscriptionMeta, RequestError>> + Send + Unpin + use<> {
        struct Listing {
            page: std::vec::IntoIter<SubscriptionMeta>,
            after: Option<SubscriptionId>,
            more: bool,
        }
        let handle = self.handle.clone();
        let listing = Listing {
            page: Vec::new().into_iter(),
            after: None,
            more: true,
        };
        Box::pin(stream::try_unfold(listing, move |mut listing| {
            let handle = handle.clone();
            async move {
                loop {
                    if let Some(meta) = listing.page.next() {
                        listing.after = Some(meta.subscription_id);
                        return Ok(Some((meta, listing)));
                    }
                    if !listing.more {
                        return Ok(None);
                    }
                    let command = ClientCommand::ListSubscriptions(ListSubscriptions {
                        after: listing.after,
                        limit: PAGE,
                    });
                    let page = match handle.request(command).await? {
                        ServerResponse::Subscriptions(page) => *page,
                        other => return Err(RequestError::unexpected(&other)),
                    };
                    listing.more = page.more && !page.subscriptions.is_empty();
                    listing.page = page.subscriptions.into_iter();
                }
            }
        }))
    }

    /// Deletes a subscription with its log. Everybody who is subscribed is told.
    ///
    /// # Errors
    /// [`NotFound`](crate::protocol::ErrorCode::NotFound) if it does not exist; else see [`RequestError`].
    pub async fn delete(
        &self,
        subscription: impl Into<SubscriptionReference>,
    ) -> Result<(), RequestError> {
        let command = ClientCommand::DeleteSubscription(subscription.into());
        match self.handle.request(command).await? {
            ServerResponse::Deleted(_) => Ok(()),
            other => Err(RequestError::unexpected(&other)),
        }
    }

    /// Waits until everything that was asked before is answered, and gives the server's time.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn ping(&self) -> Result<Timestamp, RequestError> {
        match self.handle.request(ClientCommand::Ping).await? {
            ServerResponse::Pong(pong) => Ok(pong.time),
            other => Err(RequestError::unexpected(&other)),
        }
    }
}
