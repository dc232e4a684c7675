//! `/v1`: the server for programs that speak HTTP rather than WebSocket.
//!
//! Owns what is HTTP's: paths, methods, formats, statuses, origins. Does not own what a command means: each request becomes commands on a
//! connection of the server's own ([`link`]), and the answers to those become the answer. `docs/openapi.json` describes all of it.
//!
//! Invariants: what a request does to a subscription it does by a command; a link is used by one request at a time.

mod body;
mod events;
pub(super) mod link;
mod negotiate;
mod problem;
mod publish;
mod read;
mod subscriptions;
mod target;

use std::{rc::Rc, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
    web,
};
use serde::Serialize;

use self::{
    link::{Link, LinkPlace, Open},
    negotiate::Format,
    problem::Problem,
    target::{Parameters, Target},
};
use super::{origin, token::bearer};
use crate::{
    actors::{session::Conversation, worker::Worker},
    config::Config,
    connection::Permit,
    domain::Principal,
    metrics::labels::AuthFailure,
    protocol::{
        ClientCommand, Request, SERVER, ServerError, ServerResponse,
        codec::{encode_request, encode_value},
    },
};

/// The description, which is served as it stands.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

/// Bodies may be longer than messages, since JSON makes bytes longer, and many publications may come at once.
const LEAST_MAX_BODY: usize = 1 << 20;

/// What pages of other origins may send, and see.
const ALLOWED_HEADERS: &str = "Accept, Authorization, Content-Type, Idempotency-Key, Last-Event-ID";
const EXPOSED_HEADERS: &str = "Allow, Location, Retry-After, WWW-Authenticate";

/// Seconds for which a browser need not ask again what it may.
const PREFLIGHT_AGE: &str = "600";

/// What requests need of their worker.
pub(super) struct Api {
    worker: Rc<Worker>,
    config: Arc<Config>,
    open: Open,
}

impl Api {
    /// For the requests that come to `worker`.
    pub(super) fn new<C: Conversation>(worker: Rc<Worker>, config: Arc<Config>) -> Self {
        Self {
            worker,
            config,
            open: Link::open::<C>,
        }
    }

    fn max_body(&self) -> usize {
        LEAST_MAX_BODY.max(2 * self.config.max_message_size)
    }

    /// Whom `request` speaks for (RFC 6750, section 2.1).
    fn principal(&self, request: &HttpRequest) -> Result<Principal, Problem> {
        let authenticator = &self.worker.authenticator;
        if authenticator.is_open() {
            // Whoever has a token for another server may ask here, too.
            return Ok(Principal::anonymous());
        }
        let mut given = request.headers().get_all(header::AUTHORIZATION);
        let (Some(value), None) = (given.next(), given.next()) else {
            let failures = authenticator.failures();
            failures.of(AuthFailure::Missing).add_one();
            return Err(Problem::unauthorized(false));
        };
        authenticator
            .authenticate(bearer(value))
            .map_err(|_| Problem::unauthorized(true))
    }

    /// The link of the connection that `request` came by, or a new one.
    fn link(&self, request: &HttpRequest, principal: Principal) -> Result<Link, Problem> {
        let place = request.conn_data::<LinkPlace>();
        if let Some(link) = place.and_then(|place| place.take(&principal)) {
            return Ok(link);
        }
        let permit = request.conn_data::<Rc<Permit>>().cloned();
        let permit = permit.ok_or_else(Problem::no_room)?;
        (self.open)(&self.worker, permit, principal).ok_or_else(Problem::no_room)
    }
}

/// Answers a request to a path under `/v1`.
pub(super) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
) -> HttpResponse {
    let origin = match judge_origin(&request, &api) {
        Ok(origin) => origin,
        Err(problem) => return finished(problem.answer(), None),
    };
    let answered = respond(&request, payload, &api).await;
    finished(answered.unwrap_or_else(|problem| problem.answer()), origin)
}

/// The origin of the page that asks, if one does.
fn judge_origin(request: &HttpRequest, api: &Api) -> Result<Option<HeaderValue>, Problem> {
    let headers = request.headers();
    if origin::may_ask(headers, &api.config, api.worker.authenticator.is_open()) {
        Ok(headers.get(header::ORIGIN).cloned())
    } else {
        Err(Problem::origin())
    }
}

async fn respond(
    request: &HttpRequest,
    payload: web::Payload,
    api: &Api,
) -> Result<HttpResponse, Problem> {
    let target = Target::of(request.uri().path())?;
    let method = request.method();
    if !target.allows(method) {
        return Err(Problem::method(target.allow()));
    }
    if method == Method::OPTIONS {
        return Ok(options(&target));
    }
    if target == Target::Description {
        return Ok(description());
    }
    let permit = request.conn_data::<Rc<Permit>>();
    if !permit.is_some_and(|permit| permit.is_granted()) {
        return Err(Problem::no_room());
    }
    // Before the body: who may not ask has nothing read.
    let principal = api.principal(request)?;
    let parameters = Parameters::of(request.query_string())?;
    let headers = request.headers();
    let body = match *method {
        Method::POST | Method::PUT | Method::PATCH => {
            body::read(request, payload, api.max_body()).await?
        }
        _ => web::Bytes::new(),
    };
    let mut link = api.link(request, principal)?;
    if let Target::Events(subscription) = target {
        let heartbeat = api.config.heartbeat_interval;
        let is_head = method == Method::HEAD;
        return events::subscribe(link, headers, subscription, &parameters, heartbeat, is_head)
            .await;
    }
    let max_message_size = api.config.max_message_size;
    let answered = match (&target, method.as_str()) {
        (Target::Subscriptions, _) => subscriptions::list(&mut link, headers, &parameters).await,
        (Target::Publications, _) => {
            publish::many(&mut link, headers, body, max_message_size).await
        }
        (Target::Log(subscription), "POST") => {
            publish::one(&mut link, headers, subscription, body, max_message_size).await
        }
        (Target::Log(subscription), _) => {
            read::range(&mut link, headers, subscription.clone(), &parameters).await
        }
        (Target::Entry(subscription, id), _) => {
            read::one(&mut link, headers, subscription.clone(), *id, &parameters).await
        }
        (Target::Subscription(subscription), "PUT") => {
            subscriptions::create(&mut link, headers, subscription, &body).await
        }
        (Target::Subscription(subscription), "PATCH") => {
            subscriptions::update(&mut link, headers, subscription, &body).await
        }
        (Target::Subscription(subscription), "DELETE") => {
            subscriptions::delete(&mut link, subscription.clone()).await
        }
        (Target::Subscription(subscription), _) => {
            subscriptions::get(&mut link, headers, subscription.clone()).await
        }
        (Target::Description | Target::Events(_), _) => Err(Problem::no_such_path()),
    };
    if let Some(place) = request.conn_data::<LinkPlace>() {
        place.keep(link);
    }
    answered
}

/// Sends a command and waits for its answer.
async fn ask(link: &mut Link, command: ClientCommand) -> Result<ServerResponse, ServerError> {
    let id = link.next_id();
    link.push(&encode_request(&Request {
        id: Some(id),
        command,
    }));
    link.answer(id).await
}

/// An answer of one value.
fn answer<T: Serialize>(format: Format, status: StatusCode, value: &T) -> HttpResponse {
    let body = match format {
        Format::Json => serde_json::to_vec(value).unwrap_or_default(),
        Format::Cbor => encode_value(value),
    };
    HttpResponse::build(status)
        .insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.media_type()),
        ))
        .body(body)
}

fn description() -> HttpResponse {
    let content_type = HeaderValue::from_static("application/json");
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .body(OPENAPI)
}

/// What can be done; to pages, too.
fn options(target: &Target) -> HttpResponse {
    let allow = HeaderValue::from_static(target.allow());
    HttpResponse::NoContent()
        .insert_header((header::ALLOW, allow.clone()))
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, allow))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE))
        .finish()
}

/// What every answer says.
fn finished(mut response: HttpResponse, origin: Option<HeaderValue>) -> HttpResponse {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("Origin, Accept"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(EXPOSED_HEADERS),
        );
    }
    response
}
