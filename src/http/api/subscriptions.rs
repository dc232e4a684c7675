//! Subscriptions: made, changed, shown, listed, deleted.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header::HeaderMap},
};
use bytes::Bytes;
use serde::Serialize;

use super::{
    answer, ask, body,
    link::{Link, internal},
    negotiate::{ContentType, Format, answer_format},
    problem::Problem,
    target::Parameters,
};
use crate::protocol::{
    ClientCommand, ListSubscriptions, ServerResponse, SubscriptionId, SubscriptionMeta,
    SubscriptionReference,
    codec::{Pairs, encode_reference},
};

/// How many are listed unless it is said, and at the most.
const LISTED: u64 = 100;
const MAX_LISTED: u64 = 1_000;

/// Lists subscriptions in the order of their ids.
pub(super) async fn list(
    link: &mut Link,
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<HttpResponse, Problem> {
    #[derive(Serialize)]
    struct Page {
        subscriptions: Vec<SubscriptionMeta>,
        more: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<SubscriptionId>,
    }
    let format = answer_format(headers)?;
    let limit = parameters.number("limit", 1, MAX_LISTED)?.unwrap_or(LISTED);
    let after = match parameters.text("after")? {
        None => None,
        Some(text) => match SubscriptionReference::from(text) {
            SubscriptionReference { id, name: None } => Some(id),
            SubscriptionReference { .. } => {
                return Err(Problem::invalid("`after` has to be a UUID"));
            }
        },
    };
    let command = ClientCommand::ListSubscriptions(ListSubscriptions {
        after,
        limit: limit as usize,
    });
    let ServerResponse::Subscriptions(listed) = ask(link, command).await? else {
        return Err(internal().into());
    };
    let last = listed.subscriptions.last().map(|meta| meta.subscription_id);
    let page = Page {
        next: last.filter(|_| listed.more),
        subscriptions: listed.subscriptions,
        more: listed.more,
    };
    Ok(answer(format, StatusCode::OK, &page))
}

/// Shows one.
pub(super) async fn get(
    link: &mut Link,
    headers: &HeaderMap,
    subscription: SubscriptionReference,
) -> Result<HttpResponse, Problem> {
    let format = answer_format(headers)?;
    let response = ask(link, ClientCommand::GetSubscription(subscription)).await?;
    shown(format, response)
}

/// Makes one, or finds it made so already.
pub(super) async fn create(
    link: &mut Link,
    headers: &HeaderMap,
    subscription: &SubscriptionReference,
    body: &Bytes,
) -> Result<HttpResponse, Problem> {
    change(link, headers, "CreateSubscription", subscription, body).await
}

/// Replaces the settings that are given.
pub(super) async fn update(
    link: &mut Link,
    headers: &HeaderMap,
    subscription: &SubscriptionReference,
    body: &Bytes,
) -> Result<HttpResponse, Problem> {
    change(link, headers, "UpdateSubscription", subscription, body).await
}

async fn change(
    link: &mut Link,
    headers: &HeaderMap,
    command: &str,
    subscription: &SubscriptionReference,
    body: &Bytes,
) -> Result<HttpResponse, Problem> {
    let format = answer_format(headers)?;
    let mut pairs = match ContentType::of(headers) {
        ContentType::Fields(format) => body::pairs(format, body)?,
        ContentType::Unsaid if body.is_empty() => Pairs::default(),
        ContentType::Payload | ContentType::Unsaid | ContentType::Other => {
            return Err(Problem::unsupported("application/json or application/cbor"));
        }
    };
    pairs.put("subscription_id", encode_reference(subscription));
    let id = link.next_id();
    link.push(&pairs.message(id, command));
    shown(format, link.answer(id).await?)
}

/// Deletes one with its log.
pub(super) async fn delete(
    link: &mut Link,
    subscription: SubscriptionReference,
) -> Result<HttpResponse, Problem> {
    ask(link, ClientCommand::DeleteSubscription(subscription)).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn shown(format: Format, response: ServerResponse) -> Result<HttpResponse, Problem> {
    match response {
        ServerResponse::SubscriptionMeta(meta) => Ok(answer(format, StatusCode::OK, &*meta)),
        _ => Err(internal().into()),
    }
}
