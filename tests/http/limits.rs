//! What an identity may have and send, as it is told over HTTP.

use infotainer::config::IdentityLimits;
use serde_json::{Value, json};

use crate::{
    access::{ask, bearer, guard},
    support::{Http, TestServer},
};

const LOG: &str = "/v1/subscriptions/orders/publications";
const EVENTS: &str = "/v1/subscriptions/orders/events";

fn limited(change: impl FnOnce(&mut IdentityLimits)) -> TestServer {
    TestServer::with(|config| {
        guard(config);
        change(&mut config.limits.identity);
    })
}

fn of(name: &str) -> String {
    let all = ["*"];
    let grants = json!({"publish": all, "subscribe": all, "read": all, "manage": all});
    bearer(name, 60.0, &grants)
}

#[tokio::test]
async fn connections_of_an_identity_are_counted_whichever_way_they_came() {
    let server = limited(|identity| identity.max_connections = Some(1));
    let (shop, office) = (of("shop"), of("office"));
    let mut stream = Http::connect(server.address()).await;
    let head = stream
        .subscribe("orders", "", &[("Authorization", &shop)])
        .await;
    assert_eq!(head.status, 200);
    let mut http = Http::connect(server.address()).await;
    let body = r#"{"data": "1"}"#;
    for (method, path) in [("POST", LOG), ("GET", LOG), ("GET", EVENTS)] {
        ask(&mut http, method, path, &shop, body)
            .await
            .problem(503, "limit-reached");
    }
    // The connection is good for whoever else asks, and for the first one when there is room.
    ask(&mut http, "POST", LOG, &office, body).await.json(201);
    drop(stream);
    crate::support::eventually("there is room", async || {
        ask(&mut http, "POST", LOG, &shop, body).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn what_is_over_a_rate_is_429_and_says_when_to_come_back() {
    let server = limited(|identity| identity.rate.bytes = Some(10 << 10));
    let (shop, office) = (of("shop"), of("office"));
    let body = json!({"data": "x".repeat(180 << 10)}).to_string();
    let mut http = Http::connect(server.address()).await;
    ask(&mut http, "POST", LOG, &shop, &body).await.json(201);
    // Another connection, another link.
    let mut other = Http::connect(server.address()).await;
    let answer = ask(&mut other, "POST", LOG, &shop, &body).await;
    let problem = answer.problem(429, "rate-limited");
    let wait = problem["retry_after"].as_u64().unwrap();
    let header = answer.header("retry-after").unwrap();
    assert_eq!(header, wait.div_ceil(1000).to_string());
    assert_eq!(problem["temporary"], Value::Bool(true));
    ask(&mut other, "POST", LOG, &office, &body).await.json(201);
}

#[tokio::test]
async fn what_an_identity_made_is_limited_over_http_too() {
    let server = limited(|identity| {
        identity.max_subscriptions = Some(1);
        identity.max_log_bytes = Some(2 << 10);
    });
    let shop = of("shop");
    let mut http = Http::connect(server.address()).await;
    let body = json!({"data": "x".repeat(1500)}).to_string();
    ask(&mut http, "POST", LOG, &shop, &body).await.json(201);
    ask(&mut http, "POST", LOG, &shop, &body)
        .await
        .problem(507, "log-full");
    let another = "/v1/subscriptions/invoices/publications";
    ask(&mut http, "POST", another, &shop, &body)
        .await
        .problem(503, "limit-reached");
}
