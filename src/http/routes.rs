//! What is no upgrade: `/v1`, a line for people, and one for health checks.

use std::time::Duration;

use actix::Recipient;
use actix_service::ServiceFactory;
use actix_web::{
    App, Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    web,
};

use tokio::time::timeout;

use super::api::{self, Api};
use crate::{
    actors::pubsub_service::{CheckHealth, Health},
    protocol::SERVER,
};

/// How long the server may take to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// The routes.
pub(super) fn app(
    health: Recipient<CheckHealth>,
    api: Api,
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
        .app_data(web::Data::new(health))
        .app_data(web::Data::new(api))
        .service(web::resource(["/v1", "/v1/{target:.*}"]).to(api::serve))
        .route("/", web::get().to(about))
        .route("/healthz", web::get().to(healthz))
        .route("/ws", web::to(upgrade_required))
        .route("/ws/{session_id}", web::to(upgrade_required))
        .default_service(web::to(not_found))
}

async fn about() -> HttpResponse {
    text(HttpResponse::Ok().body(format!(
        "{SERVER}: publish/subscribe over WebSocket; connect to /ws, or ask /v1/openapi.json\n"
    )))
}

async fn healthz(health: web::Data<Recipient<CheckHealth>>) -> HttpResponse {
    let health = timeout(HEALTH_TIMEOUT, health.send(CheckHealth)).await;
    let problem = match health {
        Ok(Ok(Health::Good)) => return text(HttpResponse::Ok().body("ok\n")),
        Ok(Ok(Health::LogUnavailable)) => "the log can't be written: nothing is accepted\n",
        Ok(Ok(Health::Stopping) | Err(_)) => "the server is stopping\n",
        Err(_) => "the server does not answer\n",
    };
    text(HttpResponse::ServiceUnavailable().body(problem))
}

async fn upgrade_required() -> HttpResponse {
    let mut response = HttpResponse::UpgradeRequired();
    response.insert_header((header::UPGRADE, "websocket"));
    response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
    text(response.body("this is a WebSocket endpoint\n"))
}

async fn not_found() -> HttpResponse {
    text(HttpResponse::NotFound().body("there is nothing here; connect to /ws\n"))
}

fn text(mut response: HttpResponse) -> HttpResponse {
    let content_type = header::HeaderValue::from_static("text/plain; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::SERVER, header::HeaderValue::from_static(SERVER));
    response
}
