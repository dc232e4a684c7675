//! Publishing: one, or many at once.
//!
//! Owns what makes it safe to try again: the ids that follow from `Idempotency-Key`.

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderValue},
    },
};
use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::{
    answer, body,
    link::{Link, internal},
    negotiate::{ContentType, Format, answer_format},
    problem::Problem,
};
use crate::protocol::{
    ErrorCode, PublicationId, RequestId, ServerError, ServerResponse, Submitted,
    SubscriptionReference,
    codec::{Pairs, encode_bytes, encode_reference},
};

const COMMAND: &str = "SubmitPublication";

/// Publications of one request. Their answers lie in memory together, and all commands of a request hold credit at once.
const MAX_PUBLICATIONS: usize = 1_000;

/// What can be read.
const FIELDS: &str = "application/json or application/cbor";
const FIELDS_OR_PAYLOAD: &str =
    "application/json, application/cbor, or application/octet-stream (the payload itself)";

/// Publishes one.
pub(super) async fn one(
    link: &mut Link,
    headers: &HeaderMap,
    subscription: &SubscriptionReference,
    body: Bytes,
    max_message_size: usize,
) -> Result<HttpResponse, Problem> {
    let format = answer_format(headers)?;
    let mut pairs = match ContentType::of(headers) {
        ContentType::Fields(format) => body::submission(format, &body)?,
        ContentType::Payload => {
            let mut pairs = Pairs::default();
            pairs.put("submission", encode_bytes(&body));
            pairs
        }
        ContentType::Unsaid | ContentType::Other => {
            return Err(Problem::unsupported(FIELDS_OR_PAYLOAD));
        }
    };
    pairs.put("subscription_id", encode_reference(subscription));
    if let Some(key) = idempotency_key(headers)? {
        identify(&mut pairs, key);
    }
    let id = send(link, &pairs, max_message_size)?;
    match link.answer(id).await? {
        ServerResponse::Submitted(submitted) => Ok(told(format, &submitted)),
        _ => Err(internal().into()),
    }
}

/// Publishes many, each for itself: what became of each stands in the answer, in the same order.
pub(super) async fn many(
    link: &mut Link,
    headers: &HeaderMap,
    body: Bytes,
    max_message_size: usize,
) -> Result<HttpResponse, Problem> {
    #[derive(Serialize)]
    struct Results {
        results: Vec<ServerResponse>,
    }
    let format = answer_format(headers)?;
    let ContentType::Fields(read) = ContentType::of(headers) else {
        return Err(Problem::unsupported(FIELDS));
    };
    let mut all = body::submissions(read, &body)?;
    if all.len() > MAX_PUBLICATIONS {
        return Err(Problem::invalid(format!(
            "`publications` has {}, but can have at most {MAX_PUBLICATIONS}",
            all.len()
        )));
    }
    if let Some(key) = idempotency_key(headers)? {
        for (number, pairs) in all.iter_mut().enumerate() {
            identify(
                pairs,
                PublicationId(Uuid::new_v5(&key.0, number.to_string().as_bytes())),
            );
        }
    }
    // All are sent before the first answer is awaited, so that they share a commit.
    let sent: Vec<_> = all
        .iter()
        .map(|pairs| send(link, pairs, max_message_size))
        .collect();
    let ids: Vec<_> = sent.iter().flatten().copied().collect();
    let mut answers = link.answers(&ids).await;
    let results = sent
        .into_iter()
        .map(|sent| {
            let answered =
                sent.and_then(|id| answers.remove(&id).unwrap_or_else(|| Err(internal())));
            answered.unwrap_or_else(ServerResponse::from)
        })
        .collect();
    Ok(answer(format, StatusCode::OK, &Results { results }))
}

/// Sends a submission, unless the session would refuse its length.
fn send(link: &mut Link, pairs: &Pairs, max_message_size: usize) -> Result<RequestId, ServerError> {
    let id = link.next_id();
    let message = pairs.message(id, COMMAND);
    if message.len() > max_message_size {
        let error = ServerError::new(
            ErrorCode::TooLarge,
            format!("the publication is over {max_message_size} bytes as a message"),
        );
        return Err(error.for_command(COMMAND));
    }
    link.push(&message);
    Ok(id)
}

fn told(format: Format, submitted: &Submitted) -> HttpResponse {
    let status = if submitted.duplicate {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let mut response = answer(format, status, submitted);
    let location = format!(
        "/v1/subscriptions/{}/publications/{}",
        submitted.subscription_id, submitted.publication_id
    );
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A submission that names no id of its own gets this one.
fn identify(pairs: &mut Pairs, id: PublicationId) {
    pairs.drop_null("publication_id");
    if !pairs.has("publication_id") {
        pairs.put("publication_id", encode_bytes(id.0.as_bytes()));
    }
}

/// The longest key.
const MAX_KEY: usize = 255;

/// The publication id that `Idempotency-Key` stands for: a UUID is one, and of any other key it is the version 5 UUID of
/// `infotainer:idempotency-key:` and the key, as names of subscriptions have theirs. The quotes of a structured field are none of it.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<PublicationId>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default().trim();
    let key = key
        .strip_prefix('"')
        .and_then(|key| key.strip_suffix('"'))
        .unwrap_or(key);
    if !(1..=MAX_KEY).contains(&key.len()) {
        return Err(Problem::invalid(
            "Idempotency-Key has to be a UUID, or another text of 1 to 255 visible characters of ASCII",
        ));
    }
    let uuid = (key.len() == uuid::fmt::Hyphenated::LENGTH)
        .then(|| Uuid::try_parse(key).ok())
        .flatten();
    let id = uuid.unwrap_or_else(|| {
        let name = format!("infotainer:idempotency-key:{key}");
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
    });
    Ok(Some(PublicationId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(key: &str) -> Option<Uuid> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::HeaderName::from_static("idempotency-key"),
            HeaderValue::from_str(key).unwrap(),
        );
        idempotency_key(&headers).ok()?.map(|id| id.0)
    }

    #[test]
    fn a_key_that_is_a_uuid_is_the_id() {
        let key = "5F2B6C1E-8d3a-4b7f-9c0d-1e2f3a4b5c6d";
        let id = Uuid::try_parse(key).ok();
        assert_eq!(id_of(key), id);
        assert_eq!(id_of(&format!("\"{key}\"")), id);
    }

    #[test]
    fn any_other_key_stands_for_one_id() {
        let id = id_of("order 17").unwrap();
        assert_eq!(id.get_version_num(), 5);
        assert_eq!(id_of("\"order 17\""), Some(id));
        assert_ne!(id_of("order 18"), Some(id));
        assert_eq!(id_of(""), None);
        assert_eq!(id_of("\"\""), None);
        assert!(id_of(&"x".repeat(255)).is_some());
        assert_eq!(id_of(&"x".repeat(256)), None);
    }
}
