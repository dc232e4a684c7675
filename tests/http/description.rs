//! docs/openapi.json: that it is served, and that everything in it exists. What is in the answers is judged by schemathesis
//! (`tests/http/run.py`), which generates requests from it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Http, TestServer};

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap()
}

#[tokio::test]
async fn the_description_is_served_and_is_of_this_version() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let served = http.get("/v1/openapi.json").await;
    assert_eq!(served.header("content-type"), Some("application/json"));
    let served = served.json(200);
    assert_eq!(served, document());
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn every_path_has_exactly_the_methods_that_are_described() {
    let server = TestServer::start();
    let mut http = Http::connect(server.address()).await;
    let document = document();
    for (path, described) in document["paths"].as_object().unwrap() {
        let concrete = path
            .replace("{subscription}", "orders")
            .replace("{publication_id}", "5f2b6c1e-8d3a-4b7f-9c0d-1e2f3a4b5c6d");
        let answer = http.ask("OPTIONS", &concrete, &[], b"").await;
        assert_eq!(answer.status, 204, "{path}");
        let allowed: BTreeSet<_> = answer
            .header("allow")
            .unwrap()
            .split(", ")
            .filter(|method| !matches!(*method, "HEAD" | "OPTIONS"))
            .map(str::to_lowercase)
            .collect();
        let described = described.as_object().unwrap().keys();
        let described: BTreeSet<_> = described
            .filter(|key| *key != "parameters")
            .cloned()
            .collect();
        assert_eq!(allowed, described, "{path}");
    }
}

#[test]
fn everything_that_is_referred_to_is_there_and_everything_there_is_referred_to() {
    fn walk<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    found.insert(reference);
                }
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut referred = BTreeSet::new();
    walk(&document, &mut referred);
    let mut there = BTreeSet::new();
    for part in ["schemas", "responses", "parameters"] {
        let names = document["components"][part].as_object().unwrap().keys();
        there.extend(names.map(|name| format!("#/components/{part}/{name}")));
    }
    let referred: BTreeSet<_> = referred.into_iter().map(str::to_owned).collect();
    let unused = ["#/components/responses/MethodNotAllowed".to_owned()];
    let missing: Vec<_> = referred.difference(&there).collect();
    let unused: Vec<_> = there
        .difference(&referred)
        .filter(|name| !unused.contains(name))
        .collect();
    assert!(
        missing.is_empty() && unused.is_empty(),
        "{missing:?} {unused:?}"
    );
}
