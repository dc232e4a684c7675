//! Where a client has its token from: given once, or fetched whenever one is needed.

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::ConnectionError;
use crate::protocol::Secret;

/// Before another attempt to fetch a token for a connection that is there.
const PAUSE: Duration = Duration::from_secs(1);

type Fetching = Pin<Box<dyn Future<Output = Result<Secret, ConnectionError>> + Send>>;

/// A token that is being fetched, until there is one.
pub(super) type Renewal = Pin<Box<dyn Future<Output = Secret> + Send>>;

/// Where a client has its token from.
#[derive(Clone, Default)]
pub(super) enum TokenSource {
    /// It has none.
    #[default]
    None,
    /// It was given one.
    Given(Secret),
    /// It is told how to get one.
    Fetched(Arc<dyn Fn() -> Fetching + Send + Sync>),
}

impl TokenSource {
    pub(super) fn fetched<F, T, E>(fetch: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<String>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::Fetched(Arc::new(move || {
            let fetching = fetch();
            Box::pin(async move {
                let fetched = fetching.await;
                fetched
                    .map(|token| Secret::from(token.into()))
                    .map_err(|error| ConnectionError::Token(error.into().to_string()))
            })
        }))
    }

    /// The token for the next connection.
    ///
    /// # Errors
    /// If it can't be fetched.
    pub(super) async fn next(&self) -> Result<Option<Secret>, ConnectionError> {
        match self {
            Self::None => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::Fetched(fetch) => fetch().await.map(Some),
        }
    }

    /// Another one for a connection whose own is about to end; `None` if there is no other.
    pub(super) fn renewed(&self) -> Option<Renewal> {
        let Self::Fetched(fetch) = self else {
            return None;
        };
        let fetch = Arc::clone(fetch);
        Some(Box::pin(async move {
            loop {
                match fetch().await {
                    Ok(token) => return token,
                    Err(error) => log::warn!("{error}; trying again in {PAUSE:?}"),
                }
                sleep(PAUSE).await;
            }
        }))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no token",
            Self::Given(_) => "a token",
            Self::Fetched(_) => "a way to get tokens",
        })
    }
}
