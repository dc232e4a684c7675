//! Reading a log: what is stored, without subscribing.

use futures_core::Stream;
use futures_util::{TryStreamExt, stream};

use super::{Client, RequestError, handle::Handle};
use crate::protocol::{
    ClientCommand, GetLogEntries, GetLogIndex, LogIndex, MAX_ENTRIES, PublicationId,
    ReceivedPublication, Sequence, ServerResponse, SubscriptionReference,
    codec::decode_publication,
};

impl Client {
    /// Reads what the log of a subscription holds.
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
    /// use futures_util::TryStreamExt;
    /// use infotainer::{client::Client, protocol::Sequence};
    ///
    /// let client = Client::connect(&url).await?;
    /// for text in ["one", "two", "three"] {
    ///     client.publish("news", text).await?;
    /// }
    ///
    /// let mut stored = client.log("news").after(Sequence(1)).publications();
    /// while let Some(publication) = stored.try_next().await? {
    ///     println!("{}: {} bytes", publication.sequence, publication.data.len());
    /// }
    /// # server.stop()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "server"))]
    /// # fn main() {}
    /// ```
    pub fn log(&self, subscription: impl Into<SubscriptionReference>) -> Log {
        Log {
            handle: self.handle.clone(),
            range: GetLogIndex {
                log: subscription.into(),
                after: Sequence::ZERO,
                limit: 1_000,
            },
        }
    }

    /// The publications with these ids, in sequence order, and the ids that the log does not hold.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn entries(
        &self,
        subscription: impl Into<SubscriptionReference>,
        ids: impl IntoIterator<Item = PublicationId>,
    ) -> Result<LogPage, RequestError> {
        let reference = subscription.into();
        let mut wanted: Vec<_> = ids.into_iter().collect();
        let mut all = LogPage::default();
        while !wanted.is_empty() {
            let asked = wanted[..wanted.len().min(MAX_ENTRIES)].to_vec();
            let command =
                ClientCommand::GetLogEntries(GetLogEntries::Ids(reference.clone(), asked.clone()));
            let page = page_of(self.handle.request(command).await?)?;
            let mut settled: std::collections::HashSet<_> = page.missing.iter().copied().collect();
            settled.extend(page.publications.iter().map(|one| one.publication_id));
            if settled.is_empty() {
                return Err(RequestError::Answer("a page without progress".to_owned()));
            }
            // An answer without more has settled all that was asked, an id that stood twice among them.
            let more = page.more;
            let mut left = asked.len();
            wanted.retain(|id| {
                let was_asked = left > 0;
                left = left.saturating_sub(1);
                !settled.contains(id) && (more || !was_asked)
            });
            all.publications.extend(page.publications);
            all.missing.extend(page.missing);
        }
        all.publications
            .sort_by_key(|publication| publication.sequence);
        Ok(all)
    }
}

/// A range of a log that is about to be read.
#[derive(Clone, Debug)]
#[must_use = "nothing is read until a stream of this is polled"]
pub struct Log {
    handle: Handle,
    range: GetLogIndex,
}

/// Some publications of a log.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct LogPage {
    /// In sequence order.
    pub publications: Vec<ReceivedPublication>,
    /// Ids that were looked up and can't be read: not in the log, or damaged.
    pub missing: Vec<PublicationId>,
    /// Whether there are more behind the last.
    pub more: bool,
}

impl Log {
    /// Reads from behind this position; from the oldest kept if it is not said.
    pub fn after(mut self, position: Sequence) -> Self {
        self.range.after = position;
        self
    }

    /// The most publications of a page, 1 to 10,000. Default 1,000. A page is also cut at 4 MiB.
    pub fn page_size(mut self, publications: usize) -> Self {
        self.range.limit = publications.clamp(1, MAX_ENTRIES);
        self
    }

    /// The pages up to the end that the log has when the last is read. One is asked for when it is polled for, so that a slow reader
    /// costs one page. Ends behind an error.
    pub fn pages(self) -> impl Stream<Item = Result<LogPage, RequestError>> + Send + Unpin {
        let range = Some(self.range);
        let handle = self.handle;
        Box::pin(stream::try_unfold(range, move |range| {
            let handle = handle.clone();
            async move {
                let Some(mut range) = range else {
                    return Ok(None);
                };
                let command = ClientCommand::GetLogEntries(GetLogEntries::Range(range.clone()));
                let page = page_of(handle.request(command).await?)?;
                let last = page.publications.last().map(|last| last.sequence);
                let next = match last {
                    Some(last) if page.more => {
                        range.after = last;
                        Some(range)
                    }
                    None if page.more => {
                        return Err(RequestError::Answer("a page without progress".to_owned()));
                    }
                    _ => None,
                };
                Ok(Some((page, next)))
            }
        }))
    }

    /// The publications of all [`pages`](Self::pages), one by one.
    pub fn publications(
        self,
    ) -> impl Stream<Item = Result<ReceivedPublication, RequestError>> + Send + Unpin {
        self.pages()
            .map_ok(|page| stream::iter(page.publications.into_iter().map(Ok)))
            .try_flatten()
    }

    /// The ids of the publications, page by page, without their payloads.
    pub fn index(self) -> impl Stream<Item = Result<LogIndex, RequestError>> + Send + Unpin {
        let range = Some(self.range);
        let handle = self.handle;
        Box::pin(stream::try_unfold(range, move |range| {
            let handle = handle.clone();
            async move {
                let Some(mut range) = range else {
                    return Ok(None);
                };
                let command = ClientCommand::GetLogIndex(range.clone());
                let index = match handle.request(command).await? {
                    ServerResponse::LogIndex(index) => *index,
                    other => return Err(RequestError::unexpected(&other)),
                };
                if index.more && index.entries.is_empty() {
                    return Err(RequestError::Answer("a page without progress".to_owned()));
                }
                // What is kept has no holes, so the ids are those of the sequences that follow.
                let begin = range.after.max(index.first_sequence.previous());
                range.after = Sequence(begin.0 + index.entries.len() as u64);
                let next = index.more.then_some(range);
                Ok(Some((index, next)))
            }
        }))
    }
}

fn page_of(response: ServerResponse) -> Result<LogPage, RequestError> {
    let entry = match response {
        ServerResponse::DataLogEntry(entry) => *entry,
        other => return Err(RequestError::unexpected(&other)),
    };
    let publications = entry
        .publications
        .iter()
        .map(decode_publication)
        .collect::<Result<_, _>>()
        .map_err(|error| RequestError::Answer(error.to_string()))?;
    Ok(LogPage {
        publications,
        missing: entry.missing,
        more: entry.more,
    })
}
