//! Tokens: given, fetched, renewed on the living connection, and refused.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use infotainer::{
    access::jwt::{Claims, SigningKey},
    client::{Closed, ConnectionError, Status},
    config::Given,
    domain::Permissions,
};

use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn guarded() -> TestServer {
    TestServer::with(|config| {
        config.credentials.jwt_secret = Some(Given::Value(SECRET.into()));
    })
}

fn token(seconds: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = Claims {
        sub: "alice".to_owned(),
        exp: now.as_secs_f64() + seconds,
        nbf: None,
        iat: None,
        aud: None,
        iss: None,
        infotainer: Permissions::all(),
    };
    let key = SigningKey::of_secret(SECRET).unwrap();
    key.sign(&claims, None).unwrap()
}

#[tokio::test]
async fn a_token_that_is_given_gets_in_and_another_does_not() {
    let server = guarded();
    let client = eager(&server.url()).token(token(3600.0)).connect().await;
    let client = client.unwrap();
    client.publish("news", "x").await.unwrap();
    let refused = eager(&server.url()).token("nonsense").connect().await;
    assert!(matches!(
        refused,
        Err(ConnectionError::Refused { status: 401, .. })
    ));
}

/// The code with which the server ends this connection.
async fn closed_with(client: &Client) -> u16 {
    let mut status = client.status();
    let closed = status.wait_for(|now| matches!(now, Status::Closed(_)));
    let closed = within("the end", closed).await;
    match &*closed.unwrap() {
        Status::Closed(Closed::ByServer(ConnectionError::Closed { code, .. })) => *code,
        other => panic!("not closed by the server: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let server = guarded();
    // The server looks twice a second, and warns in the middle: of a shorter one it could see the end alone.
    let first = token(2.0);
    let fetched = Arc::new(AtomicUsize::new(0));
    let (counted, given) = (Arc::clone(&fetched), first.clone());
    let client = eager(&server.url())
        .token_from(move || {
            let is_first = counted.fetch_add(1, SeqCst) == 0;
            let token = if is_first {
                given.clone()
            } else {
                token(3600.0)
            };
            async move { Ok::<_, Infallible>(token) }
        })
        .connect()
        .await
        .unwrap();
    // Whoever has nothing but the first one is there as long as that is good.
    let witness = eager(&server.url()).token(first).connect().await.unwrap();
    assert_eq!(closed_with(&witness).await, 4501);
    client.publish("news", "x").await.unwrap();
    assert_eq!(fetched.load(SeqCst), 2);
    assert!(matches!(*client.status().borrow(), Status::Connected(_)));
}

#[tokio::test]
async fn a_client_whose_token_ended_does_not_come_back() {
    let server = guarded();
    let client = eager(&server.url()).token(token(1.0)).connect().await;
    assert_eq!(closed_with(&client.unwrap()).await, 4501);
}

#[tokio::test]
async fn a_token_that_can_not_be_fetched_is_an_attempt_that_failed() {
    let server = guarded();
    let failing = eager(&server.url()).token_from(|| async { Err::<String, _>("it is Sunday") });
    let error = failing.connect().await.unwrap_err();
    assert!(error.to_string().contains("it is Sunday"), "{error}");
    assert!(!error.is_final());
}
