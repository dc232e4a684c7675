//! What is no upgrade: `/v1`, and a line for people; what the server tells about itself is in [`status`].

use std::sync::Arc;

use actix_service::ServiceFactory;
use actix_web::{
    App, Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    web,
};

use super::{
    api::{self, Api},
    status::{self, Readers},
};
use crate::{access::Authenticator, metrics::Metrics, protocol::SERVER};

/// The routes.
pub(super) fn app(
    metrics: Arc<Metrics>,
    readers: Readers,
    authenticator: Arc<Authenticator>,
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
        .configure(status::routes(metrics, readers, Some(authenticator)))
        .app_data(web::Data::new(api))
        .service(web::resource(["/v1", "/v1/{target:.*}"]).to(api::serve))
        .route("/", web::get().to(about))
        .route("/ws", web::to(upgrade_required))
        .route("/ws/{session_id}", web::to(upgrade_required))
        .default_service(web::to(not_found))
}

async fn about() -> HttpResponse {
    text(HttpResponse::Ok().body(format!(
        "{SERVER}: publish/subscribe over WebSocket; connect to /ws, or ask /v1/openapi.json\n"
    )))
}

async fn upgrade_required() -> HttpResponse {
    let mut response = HttpResponse::UpgradeRequired();
    response.insert_header((header::UPGRADE, "websocket"));
    response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
    text(response.body("this is a WebSocket endpoint\n"))
}

/// The answer where there is nothing.
pub(super) async fn not_found() -> HttpResponse {
    text(HttpResponse::NotFound().body("there is nothing here; connect to /ws\n"))
}

/// A response in plain text.
pub(super) fn text(mut response: HttpResponse) -> HttpResponse {
    let content_type = header::HeaderValue::from_static("text/plain; charset=utf-8");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::SERVER, header::HeaderValue::from_static(SERVER));
    response
}
