//! Pages of other origins (CORS).

use infotainer::config::AllowedOrigins;

use crate::support::{Http, TestServer};

const ORDERS: &str = "/v1/subscriptions/orders";
const PAGE: &str = "https://example.com";

fn with_page() -> TestServer {
    TestServer::with(|config| config.allowed_origins = AllowedOrigins::List(vec![PAGE.into()]))
}

#[tokio::test]
async fn a_page_that_is_allowed_may_ask_and_see_the_answer() {
    let server = with_page();
    let mut http = Http::connect(server.address()).await;
    let preflight = [("Origin", PAGE), ("Access-Control-Request-Method", "PUT")];
    let answer = http.ask("OPTIONS", ORDERS, &preflight, b"").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    let headers = answer.header("access-control-allow-headers").unwrap();
    for name in [
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
    ] {
        assert!(headers.contains(name), "{headers}");
    }
    let answer = http.ask("GET", ORDERS, &[("Origin", PAGE)], b"").await;
    answer.problem(404, "not-found");
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    assert!(answer.header("vary").unwrap().contains("Origin"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_page_that_is_not_allowed_gets_and_changes_nothing() {
    let server = with_page();
    let mut http = Http::connect(server.address()).await;
    for origin in ["https://evil.com", "null", "http://example.com"] {
        for method in ["OPTIONS", "GET", "PUT"] {
            let answer = http.ask(method, ORDERS, &[("Origin", origin)], b"").await;
            answer.problem(403, "not-authorized");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    http.get(ORDERS).await.problem(404, "not-found");
    let own = format!("http://{}", server.address());
    http.ask("PUT", ORDERS, &[("Origin", &own)], b"")
        .await
        .json(200);
}
