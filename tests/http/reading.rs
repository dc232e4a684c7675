//! Reading logs.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Http, TestServer};

const LOG: &str = "/v1/subscriptions/orders/publications";

#[tokio::test]
async fn a_log_is_read_page_by_page() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.publish_many("orders", 25).await;
    let mut http = Http::connect(server.address()).await;
    let (mut path, mut read) = (format!("{LOG}?limit=10"), Vec::new());
    loop {
        let page = http.get(&path).await.json(200);
        let publications = page["publications"].as_array().unwrap();
        read.extend(
            publications
                .iter()
                .map(|one| one["sequence"].as_u64().unwrap()),
        );
        if page["more"] == false {
            assert!(page.get("next").is_none());
            break;
        }
        path = format!("{LOG}?limit=10&after={}", page["next"]);
    }
    assert_eq!(read, (1..=25).collect::<Vec<_>>());
    let beyond = http.get(&format!("{LOG}?after=99")).await.json(200);
    assert_eq!(beyond, json!({"publications": [], "more": false}));
}

#[tokio::test]
async fn a_page_is_cut_at_four_mebibytes_and_tells_where_to_go_on() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let headers = [("Content-Type", "application/octet-stream")];
    for _ in 0..30 {
        let answer = http.ask("POST", LOG, &headers, &[7; 200_000]).await;
        answer.json(201);
    }
    let first = http.get(LOG).await.json(200);
    let count = first["publications"].as_array().unwrap().len();
    assert!((1..30).contains(&count), "{count}");
    assert_eq!(first["next"], count);
    let rest = http.get(&format!("{LOG}?after={count}")).await.json(200);
    assert_eq!(rest["publications"].as_array().unwrap().len(), 30 - count);
}

#[tokio::test]
async fn a_publication_is_read_by_its_id() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let id = client.publish_many("orders", 3).await[1];
    let mut http = Http::connect(server.address()).await;
    let read = http.get(&format!("{LOG}/{id}")).await.json(200);
    assert_eq!(read["publication_id"], id.to_string());
    assert_eq!((&read["sequence"], &read["data"]), (&json!(2), &json!("2")));
    let other = Uuid::new_v4();
    http.get(&format!("{LOG}/{other}"))
        .await
        .problem(404, "not-found");
    http.get("/v1/subscriptions/others/publications")
        .await
        .problem(404, "not-found");
    http.get(&format!("{LOG}/1"))
        .await
        .problem(400, "invalid-argument");
    for query in [
        "limit=0",
        "limit=10001",
        "after=-1",
        "after=x",
        "payload=xml",
    ] {
        let answer = http.get(&format!("{LOG}?{query}")).await;
        answer.problem(400, "invalid-argument");
    }
}

#[tokio::test]
async fn payloads_stand_in_json_as_is_asked_for() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let json = b"{\"b\": 1.0,\n \"a\": [\"\\u00fc\"]}";
    for data in [&json[..], b"text", b"\xff"] {
        client.publish("orders", data).await;
    }
    let mut http = Http::connect(server.address()).await;
    let answer = http.get(&format!("{LOG}?payload=json")).await;
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let shown = format!("\"data_json\":{}", str::from_utf8(json).unwrap());
    assert!(text.contains(&shown), "{text}");
    let read = answer.json(200);
    assert_eq!(read["publications"][1]["data"], "text");
    assert_eq!(read["publications"][2]["data_base64"], "/w==");
    let read = http.get(&format!("{LOG}?payload=base64")).await.json(200);
    assert_eq!(read["publications"][1]["data_base64"], "dGV4dA==");
    // What was read can be published again as it is.
    let again = format!("{{{shown}}}");
    let headers = [("Content-Type", "application/json")];
    http.ask("POST", LOG, &headers, again.as_bytes())
        .await
        .json(201);
    let fields = fields! { "log_id": "orders", "after": 3 };
    let entry = client.call("GetLogEntries", fields).await;
    assert_eq!(entry.maps("publications")[0].bytes("data"), json);
}
