//! What the server tells about itself over HTTP: `/metrics`, `/healthz` and `/readyz`.
//!
//! Owns who may read the metrics, and the form of the answers; what they say is from [`Metrics`]. Health is told to everybody, since
//! who asks for it is a load balancer or a kubelet without credentials.
//!
//! The metrics name nobody, but say how much goes on. On the port of the clients they are therefore told to this machine, but not
//! through a proxy on it, and to whoever may manage everything; on a listener of their own (`INFOTAINER_METRICS_LISTEN`) to everybody whom that lets in.
//!
//! Invariants: nothing here waits for an actor but a scrape, which has a time-out.

use std::{
    convert::Infallible,
    fmt::Write,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, KeepAlive};
use actix_service::{Service, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::{
    App, Error, HttpRequest, HttpResponse, Route,
    body::MessageBody,
    dev::{AppConfig, ServiceRequest, ServiceResponse},
    guard,
    http::header,
    rt::{
        spawn,
        time::{sleep, timeout},
    },
    web,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    accepting, origin,
    routes::{not_found, text},
    token::bearer,
};
use crate::{
    access::Authenticator,
    certificates::Certificates,
    connection::Gate,
    domain::{Pattern, Permission},
    metrics::{self, Metrics, Wellbeing},
};

/// How long a request may take to come, on a listener that is served by [`serve`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the rest of such a connection may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Such connections at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// The pause after an error of accepting: most come from a lack of something that others have to give back.
const PAUSE: Duration = Duration::from_millis(100);

/// Headers by which a proxy says that it is one.
const OF_PROXIES: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Who may read the metrics on a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Readers {
    /// Whoever reaches it.
    Everybody,
    /// Clients on this machine, but no proxy.
    ThisMachine,
    /// They are told elsewhere.
    Nobody,
}

impl Readers {
    /// On the port of the clients, if there is a listener of their own at `elsewhere` or not.
    pub(crate) fn beside(elsewhere: Option<SocketAddr>) -> Self {
        match elsewhere {
            Some(_) => Self::Nobody,
            None => Self::ThisMachine,
        }
    }
}

/// What is answered to a request for anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Otherwise {
    /// There is nothing.
    NotFound,
    /// There will be something, when the server is ready.
    NotYet,
}

/// The routes of this module. Tokens are judged by `authenticator`, if there is one.
pub(super) fn routes(
    metrics: Arc<Metrics>,
    readers: Readers,
    authenticator: Option<Arc<Authenticator>>,
) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        config
            .app_data(web::Data::from(metrics))
            .app_data(web::Data::new(readers))
            .app_data(web::Data::new(authenticator))
            .route("/healthz", get().to(healthz))
            .route("/readyz", get().to(readyz));
        if readers != Readers::Nobody {
            config.route("/metrics", get().to(tell_metrics));
        }
    }
}

/// GET, and HEAD, whose answer is the same without its body.
fn get() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

async fn healthz(request: HttpRequest, metrics: web::Data<Metrics>) -> HttpResponse {
    let actors = metrics.health.wellbeing();
    let is_alive = actors.iter().all(Wellbeing::is_alive);
    let mut response = match is_alive {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    if wants_json(&request) {
        let actors = actors.iter().map(|one| {
            json!({"actor": one.actor, "answered_seconds_ago": one.silence.as_secs_f64(), "alive": one.is_alive()})
        });
        let actors: Vec<_> = actors.collect();
        return response.json(json!({"alive": is_alive, "actors": actors}));
    }
    let mut told = String::from(if is_alive { "ok\n" } else { "" });
    let (dead, alive): (Vec<_>, Vec<_>) = actors.iter().partition(|one| !one.is_alive());
    for one in dead.into_iter().chain(alive) {
        let (actor, silence) = (&one.actor, one.silence.as_secs_f64());
        let verdict = match one.is_alive() {
            true => "answered",
            false => "does not answer: it did",
        };
        // Writing to a string never fails.
        let _ = writeln!(told, "{actor} {verdict} {silence:.1} s ago");
    }
    text(response.body(told))
}

async fn readyz(request: HttpRequest, metrics: web::Data<Metrics>) -> HttpResponse {
    let reasons = metrics.health.reasons();
    let actors = metrics.health.wellbeing();
    let dead: Vec<_> = actors.iter().filter(|one| !one.is_alive()).collect();
    let is_ready = reasons.is_empty() && dead.is_empty();
    let mut response = match is_ready {
        true => HttpResponse::Ok(),
        false => HttpResponse::ServiceUnavailable(),
    };
    let told = reasons
        .iter()
        .map(|reason| (reason.as_str(), reason.sentence().to_owned()));
    let told = told.chain(dead.iter().map(|one| {
        let sentence = format!("{} does not answer", one.actor);
        ("not-alive", sentence)
    }));
    if wants_json(&request) {
        let reasons: Vec<_> = told
            .map(|(reason, message)| json!({"reason": reason, "message": message}))
            .collect();
        return response.json(json!({"ready": is_ready, "reasons": reasons}));
    }
    let lines = told.map(|(reason, sentence)| format!("{reason}: {sentence}\n"));
    let lines: String = lines.collect();
    text(response.body(if is_ready { "ready\n".into() } else { lines }))
}

async fn tell_metrics(
    request: HttpRequest,
    metrics: web::Data<Metrics>,
    readers: web::Data<Readers>,
    authenticator: web::Data<Option<Arc<Authenticator>>>,
) -> HttpResponse {
    let is_told = **readers == Readers::Everybody
        || is_of_this_machine(&request)
        || (authenticator.as_ref().as_ref()).is_some_and(|judge| manages_all(&request, judge));
    if !is_told {
        return text(HttpResponse::Forbidden().body(
            "metrics are told to this machine, and to a token that may manage everything; \
             INFOTAINER_METRICS_LISTEN opens a port for others\n",
        ));
    }
    let told = metrics.into_inner().scrape().await;
    match accepts(&request, "application/openmetrics-text") {
        true => HttpResponse::Ok()
            .content_type(metrics::OPEN_METRICS)
            .body(told),
        false => HttpResponse::Ok()
            .content_type(metrics::CLASSIC)
            .body(metrics::to_classic(&told)),
    }
}

fn is_of_this_machine(request: &HttpRequest) -> bool {
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    let is_proxied = OF_PROXIES
        .iter()
        .any(|name| request.headers().contains_key(*name));
    let host = request.headers().get(header::HOST);
    let is_named_so = host.is_none_or(|host| host.to_str().is_ok_and(origin::is_unforgeable));
    peer.as_ref().is_some_and(IpAddr::is_loopback) && !is_proxied && is_named_so
}

/// Whether the request has a token that grants to manage every subscription.
fn manages_all(request: &HttpRequest, authenticator: &Authenticator) -> bool {
    let value = request.headers().get(header::AUTHORIZATION);
    let Some(value) = value.filter(|_| !authenticator.is_open()) else {
        return false;
    };
    authenticator
        .authenticate(bearer(value))
        .is_ok_and(|principal| {
            let managed = principal.permissions.of(Permission::Manage);
            managed.contains(&Pattern::Every)
        })
}

fn wants_json(request: &HttpRequest) -> bool {
    accepts(request, "application/json")
}

/// Whether the client names this type among those that it takes.
fn accepts(request: &HttpRequest, media_type: &str) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT);
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case(media_type))
}

async fn not_yet() -> HttpResponse {
    let mut response = HttpResponse::ServiceUnavailable();
    response.insert_header((header::RETRY_AFTER, "1"));
    text(response.body("the server reads back what is stored\n"))
}

fn app(
    metrics: Arc<Metrics>,
    readers: Readers,
    otherwise: Otherwise,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    App::new()
        .configure(routes(metrics, readers, None))
        .default_service(match otherwise {
            Otherwise::NotFound => web::to(not_found),
            Otherwise::NotYet => web::to(not_yet),
        })
}

/// Serves these routes alone on `listener`, on this thread and beside whatever else it does: before the workers are there, and on a listener
/// that is no client's. Every connection has one request. Ends never.
pub(crate) async fn serve(
    listener: &TcpListener,
    certificates: Option<Arc<Certificates>>,
    metrics: Arc<Metrics>,
    readers: Readers,
    otherwise: Otherwise,
) -> Infallible {
    let gate = Arc::new(Gate::new(MAX_CONNECTIONS, None));
    let http = HttpService::build()
        .keep_alive(KeepAlive::Disabled)
        .client_request_timeout(REQUEST_TIMEOUT)
        .finish(map_config(app(metrics, readers, otherwise), |()| {
            AppConfig::default()
        }));
    let service = accepting(gate, certificates, REQUEST_TIMEOUT).and_then(http);
    let Ok(service) = service.new_service(()).await else {
        return std::future::pending().await;
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = timeout(CONNECTION_TIMEOUT, service.call(stream));
                spawn(async move {
                    if let Ok(Err(error)) = served.await {
                        log::debug!("a request for metrics or health failed: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                log::debug!("no connection for metrics or health could be accepted: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}
