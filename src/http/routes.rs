//! What is no upgrade: a line for people, and one for health checks.

use actix_service::ServiceFactory;
use actix_web::{
    App, Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    web,
};

use crate::protocol::SERVER;

/// The routes.
pub(super) fn app() -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    App::new()
        .route("/", web::get().to(about))
        .route("/healthz", web::get().to(health))
        .route("/ws", web::to(upgrade_required))
        .route("/ws/{session_id}", web::to(upgrade_required))
        .default_service(web::to(not_found))
}

async fn about() -> HttpResponse {
    text(HttpResponse::Ok().body(format!(
        "{SERVER}: publish/subscribe over WebSocket; connect to /ws\n"
    )))
}

async fn health() -> HttpResponse {
    text(HttpResponse::Ok().body("ok\n"))
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
