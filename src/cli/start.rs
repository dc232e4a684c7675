//! Where reading begins, as `--from` says it.

use std::time::Duration;

use futures_util::TryStreamExt;
use infotainer::{
    client::{Client, RequestError},
    protocol::{
        ReceivedPublication, Sequence, SubscribeFrom, SubscriptionMeta, SubscriptionReference,
        Timestamp,
    },
};

use super::values;

/// Where reading begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// With the oldest kept.
    First,
    /// With what is published from now on.
    New,
    /// With this sequence.
    At(Sequence),
    /// With the last so many.
    Last(u64),
    /// With what was published so long ago.
    Ago(Duration),
    /// With what was published at this time or later.
    Since(Timestamp),
}

/// `first`, `new`, a sequence, a negative number, a duration, or a time as it is printed.
pub(super) fn parse(text: &str) -> Result<Start, String> {
    let last = text.strip_prefix('-');
    let start = match text {
        "first" => Some(Start::First),
        "new" => Some(Start::New),
        _ => match (last, values::positive(last.unwrap_or(text))) {
            (Some(_), Ok(count)) => Some(Start::Last(count)),
            (None, Ok(sequence)) => Some(Start::At(Sequence(sequence))),
            _ => {
                let ago = values::duration(text).ok().map(Start::Ago);
                ago.or_else(|| values::time(text).ok().map(Start::Since))
            }
        },
    };
    start.ok_or_else(|| {
        "first, new, a sequence, -N for the last N, how long ago (30m), or a time (2026-01-31T12:00:00Z)"
            .into()
    })
}

impl Start {
    /// The same for a subscriber. Time is the server's, whatever the clock of this machine says.
    pub(super) async fn for_subscriber(
        self,
        client: &Client,
    ) -> Result<SubscribeFrom, RequestError> {
        Ok(match self {
            Self::First => SubscribeFrom::First,
            Self::New => SubscribeFrom::New,
            Self::At(sequence) => SubscribeFrom::After(sequence.previous()),
            Self::Last(count) => SubscribeFrom::Last(count),
            Self::Ago(ago) => SubscribeFrom::Since(before(client.ping().await?, ago)),
            Self::Since(time) => SubscribeFrom::Since(time),
        })
    }

    /// The position in front of it in what a log holds now.
    pub(super) async fn position(
        self,
        client: &Client,
        subscription: &SubscriptionReference,
        meta: &SubscriptionMeta,
    ) -> Result<Sequence, RequestError> {
        let oldest = meta.first_sequence.previous();
        Ok(match self {
            Self::First => oldest,
            Self::New => meta.last_sequence,
            Self::At(sequence) => sequence.previous(),
            Self::Last(count) => oldest.max(Sequence(meta.last_sequence.0.saturating_sub(count))),
            Self::Ago(ago) => {
                let time = before(client.ping().await?, ago);
                in_front_of(client, subscription, meta, time).await?
            }
            Self::Since(time) => in_front_of(client, subscription, meta, time).await?,
        })
    }
}

fn before(now: Timestamp, ago: Duration) -> Timestamp {
    let ago = ago.as_millis().try_into().unwrap_or(u64::MAX);
    Timestamp(now.0.saturating_sub(ago))
}

/// The position in front of the first publication of `time` or later. Time never decreases in a log, so that halving it finds it.
async fn in_front_of(
    client: &Client,
    subscription: &SubscriptionReference,
    meta: &SubscriptionMeta,
    time: Timestamp,
) -> Result<Sequence, RequestError> {
    let (mut low, mut high) = (meta.first_sequence.previous(), meta.last_sequence);
    // Everything up to `low` is earlier, everything behind `high` is not.
    while low < high {
        let middle = Sequence(low.0 + (high.0 - low.0) / 2);
        match behind(client, subscription, middle).await? {
            Some(next) if next.time < time => low = next.sequence,
            // What was between `middle` and the next one can't be read.
            _ => high = middle,
        }
    }
    Ok(high)
}

async fn behind(
    client: &Client,
    subscription: &SubscriptionReference,
    position: Sequence,
) -> Result<Option<ReceivedPublication>, RequestError> {
    let one = client.log(subscription).after(position).page_size(1);
    one.publications().try_next().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_a_word_a_number_a_duration_or_a_time() {
        for (text, start) in [
            ("first", Start::First),
            ("new", Start::New),
            ("1", Start::At(Sequence(1))),
            ("-10", Start::Last(10)),
            ("30m", Start::Ago(Duration::from_secs(1800))),
            ("1970-01-01T00:00:01.5Z", Start::Since(Timestamp(1500))),
        ] {
            assert_eq!(parse(text), Ok(start), "{text}");
        }
        for text in [
            "", "0", "-0", "-", "--1", "-30m", "First", "1.5", "+3", "now",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
