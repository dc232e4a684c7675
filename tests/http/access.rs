//! Who asks, and what they may do: the same tokens and permissions as over WebSocket.

use std::time::{SystemTime, UNIX_EPOCH};

use infotainer::config::{Config, Given};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::{Answer, Http, TestServer};

const SECRET: &str = "a secret of more than thirty-two bytes";
const LOG: &str = "/v1/subscriptions/orders.eu/publications";

fn guarded() -> TestServer {
    TestServer::with(guard)
}

pub(crate) fn guard(config: &mut Config) {
    config.credentials.jwt_secret = Some(Given::Value(SECRET.into()));
}

/// `Bearer` and a token that is good for so many seconds.
pub(crate) fn bearer(name: &str, seconds: f64, grants: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = json!({"sub": name, "exp": now.as_secs_f64() + seconds, "infotainer": grants});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    format!("Bearer {token}")
}

pub(crate) async fn ask(
    http: &mut Http,
    method: &str,
    path: &str,
    bearer: &str,
    body: &str,
) -> Answer {
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", bearer),
    ];
    http.ask(method, path, &headers, body.as_bytes()).await
}

#[tokio::test]
async fn without_a_good_token_nothing_is_answered_but_the_description() {
    let server = guarded();
    let good = bearer("shop", 60.0, &json!({"publish": ["*"]}));
    let expired = bearer("shop", -120.0, &json!({"publish": ["*"]}));
    let forged = format!("{}x", good.trim_end_matches('x'));
    for headers in [
        &[][..],
        &[("Authorization", "Bearer")],
        &[("Authorization", "Basic c2hvcDpzaG9w")],
        &[("Authorization", &*expired)],
        &[("Authorization", &*forged)],
        &[("Authorization", &*good), ("Authorization", &*good)],
    ] {
        for (method, path) in [
            ("GET", "/v1/subscriptions"),
            ("POST", LOG),
            ("POST", "/v1/publications"),
            ("GET", "/v1/subscriptions/orders.eu/events"),
            ("DELETE", "/v1/subscriptions/orders.eu"),
        ] {
            let mut http = Http::connect(server.address()).await;
            let answer = http.ask(method, path, headers, b"").await;
            answer.problem(401, "not-authorized");
            assert!(
                answer
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Bearer")
            );
        }
    }
    let mut http = Http::connect(server.address()).await;
    http.get("/v1/openapi.json").await.json(200);
    http.get("/v1/x").await.problem(404, "not-found");
    ask(&mut http, "POST", LOG, &good, r#"{"data": "1"}"#)
        .await
        .json(201);
}

#[tokio::test]
async fn what_is_not_granted_is_not_done_and_looks_like_what_is_not_there() {
    let server = guarded();
    let shop = bearer("shop", 60.0, &json!({"publish": ["orders.*"]}));
    let office = bearer(
        "office",
        60.0,
        &json!({"read": ["orders.*"], "manage": ["*"]}),
    );
    let mut http = Http::connect(server.address()).await;
    ask(&mut http, "POST", LOG, &shop, r#"{"data": "1"}"#)
        .await
        .json(201);
    let read = ask(&mut http, "GET", LOG, &office, "").await.json(200);
    assert_eq!(read["publications"][0]["publisher"], "shop");
    for (method, path, body) in [
        ("GET", LOG, ""),
        ("GET", "/v1/subscriptions/orders.eu", ""),
        ("DELETE", "/v1/subscriptions/orders.eu", ""),
    ] {
        let denied = ask(&mut http, method, path, &shop, body).await;
        let absent = path.replace("orders.eu", "orders.us");
        let absent = ask(&mut http, method, &absent, &shop, body).await;
        assert_eq!(denied.status, absent.status, "{method} {path}");
        let told = |answer: &Answer| {
            let problem = answer.json(answer.status);
            format!("{} {}", problem["code"], problem["detail"]).replace("orders.us", "orders.eu")
        };
        assert_eq!(told(&denied), told(&absent));
    }
    let answer = ask(
        &mut http,
        "POST",
        "/v1/subscriptions/news/publications",
        &shop,
        r#"{"data": "1"}"#,
    );
    assert!(matches!(answer.await.status, 403 | 404));
    let listed = ask(&mut http, "GET", "/v1/subscriptions", &shop, "")
        .await
        .json(200);
    assert_eq!(listed["subscriptions"], json!([]));
    let listed = ask(&mut http, "GET", "/v1/subscriptions", &office, "")
        .await
        .json(200);
    assert_eq!(listed["subscriptions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn requests_of_many_over_one_connection_are_each_their_own() {
    let server = guarded();
    let grants = json!({"publish": ["*"], "read": ["*"]});
    let tokens = ["a", "b"].map(|name| bearer(name, 60.0, &grants));
    let mut http = Http::connect(server.address()).await;
    for _ in 0..3 {
        for token in &tokens {
            ask(&mut http, "POST", LOG, token, r#"{"data": "1"}"#)
                .await
                .json(201);
        }
    }
    let read = ask(&mut http, "GET", LOG, &tokens[0], "").await.json(200);
    let publishers = read["publications"].as_array().unwrap().iter();
    let publishers: Vec<_> = publishers
        .map(|one| one["publisher"].as_str().unwrap())
        .collect();
    assert_eq!(publishers, ["a", "b", "a", "b", "a", "b"]);
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let server = guarded();
    let token = bearer("reader", 1.0, &json!({"subscribe": ["*"], "manage": ["*"]}));
    let mut stream = Http::connect(server.address()).await;
    let head = stream
        .subscribe("orders.eu", "", &[("Authorization", &token)])
        .await;
    assert_eq!(head.status, 200);
    assert_eq!(stream.event().await.unwrap().name, "subscribed");
    let closed = stream.event().await.unwrap();
    assert_eq!(
        (&*closed.name, &closed.data["code"]),
        ("closed", &json!(4501))
    );
    assert_eq!(stream.event().await, None);
}
