//! `infotainer token` and `key`, and the token of the commands of the client.

use std::{fs, path::PathBuf};

use infotainer::config::Given;
use tempfile::TempDir;

use crate::{infotainer, objects, printed, said, sentence, support::TestServer};

const SECRET: (&str, &str) = (
    "INFOTAINER_JWT_SECRET",
    "a secret of more than thirty-two bytes",
);

struct Guarded {
    server: TestServer,
    dir: TempDir,
}

impl Guarded {
    fn serve() -> Self {
        let dir = TempDir::new().unwrap();
        let keys = dir.path().join("keys.json");
        fs::write(&keys, "{\"keys\": []}").unwrap();
        let server = TestServer::with(|config| {
            config.credentials.jwt_secret = Some(Given::Value(SECRET.1.into()));
            config.credentials.api_keys_file = Some(keys);
        });
        Self { server, dir }
    }

    fn url(&self) -> String {
        format!("ws://{}/ws", self.server.address())
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys.json")
    }
}

#[test]
fn a_token_that_is_made_here_gets_in_and_does_what_it_grants() {
    let server = Guarded::serve();
    let url = server.url();
    let made = infotainer(
        &[
            "token",
            "create",
            "alice",
            "--publish",
            "orders.*",
            "--read=orders.eu",
        ],
        &[SECRET],
    );
    let token = printed(&made).trim().to_owned();
    let with = |args: &[&str]| {
        infotainer(
            args,
            &[("INFOTAINER_URL", &url), ("INFOTAINER_TOKEN", &token)],
        )
    };
    let published = with(&["pub", "orders.eu", "hello"]);
    assert!(published.status.success(), "{}", said(&published));
    let read = with(&["log", "orders.eu", "--json"]);
    assert_eq!(objects(&read)[0]["publisher"], "alice");
    let denied = with(&["pub", "news", "hello"]);
    assert!(sentence(&denied, 4).contains("no permission to publish news"));

    let file = server.dir.path().join("token");
    fs::write(&file, format!("{token}\n")).unwrap();
    let by_file = infotainer(
        &[
            "pub",
            "orders.eu",
            "hello",
            "--token-file",
            file.to_str().unwrap(),
        ],
        &[("INFOTAINER_URL", &url)],
    );
    assert!(by_file.status.success(), "{}", said(&by_file));

    let everything = infotainer(
        &["pub", "orders.eu", "hello"],
        &[
            ("INFOTAINER_URL", &url),
            ("INFOTAINER_TOKEN", &token),
            ("RUST_LOG", "trace,tungstenite=trace"),
        ],
    );
    let log = said(&everything);
    assert!(log.contains(" TRACE "), "{log}");
    assert!(!log.contains(&token[token.len() - 20..]), "{log}");

    let refused = infotainer(
        &["pub", "orders.eu", "hello"],
        &[("INFOTAINER_URL", &url), ("INFOTAINER_TOKEN", "nonsense")],
    );
    assert!(sentence(&refused, 4).contains("401"));
}

#[test]
fn loads_are_put_on_a_server_that_asks_who_comes() {
    let server = Guarded::serve();
    let url = server.url();
    let made = infotainer(&["token", "create", "bench", "--all", "load*"], &[SECRET]);
    let token = printed(&made).trim().to_owned();
    let file = server.dir.path().join("token");
    fs::write(&file, format!("{token}\n")).unwrap();
    let (by_variable, by_file) = (
        ("INFOTAINER_TOKEN", &*token),
        ("INFOTAINER_TOKEN_FILE", file.to_str().unwrap()),
    );
    let bench = |load: &[&str], given: (&str, &str)| {
        let args = [&["bench"], load, &["--subscription=load"]].concat();
        infotainer(&args, &[("INFOTAINER_URL", &url), given])
    };
    for (load, given) in [
        (
            &["pub", "--publishers=3", "--count=100", "--subscriptions=2"][..],
            by_variable,
        ),
        (&["fanout", "--subscribers=3", "--count=100"], by_file),
        (
            &["latency", "--rate=1000", "--count=100", "--deaf=1"],
            by_variable,
        ),
    ] {
        let output = bench(load, given);
        assert!(output.status.success(), "{load:?}: {}", said(&output));
    }

    let once = ["pub", "--count=1"];
    let refused = bench(&once, ("INFOTAINER_TOKEN", "nonsense"));
    assert!(sentence(&refused, 1).contains("401"));
    let unfit = bench(&once, ("INFOTAINER_TOKEN", "two\nlines"));
    assert!(sentence(&unfit, 1).contains("no header can hold it"));
    let gone = bench(&once, ("INFOTAINER_TOKEN_FILE", "/nowhere"));
    assert!(sentence(&gone, 1).contains("/nowhere can't be read"));
}

#[test]
fn inspecting_a_token_says_what_is_in_it_and_whether_it_is_good() {
    let made = infotainer(
        &[
            "token", "create", "alice", "--all", "orders.*", "--ttl", "5m",
        ],
        &[SECRET],
    );
    let token = printed(&made).trim().to_owned();
    let good = infotainer(&["token", "inspect", &token], &[SECRET]);
    let shown = printed(&good);
    for line in [
        "kind:     JWT, HS256",
        "identity: alice",
        "manage orders.*",
        "verdict:  good here",
    ] {
        assert!(shown.contains(line), "{line} is not in {shown}");
    }
    let unjudged = printed(&infotainer(&["token", "inspect", &token], &[]));
    assert!(unjudged.contains("not judged"), "{unjudged}");
    let another = (
        "INFOTAINER_JWT_SECRET",
        "another secret of more than 32 bytes",
    );
    let refused = infotainer(&["token", "inspect", &token], &[another]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(
        said(&refused).contains("its signature is wrong"),
        "{}",
        said(&refused)
    );
    let none = infotainer(&["token", "inspect", "nonsense"], &[]);
    assert!(sentence(&none, 2).contains("neither a JWT nor an API key"));
}

#[test]
fn a_key_is_shown_once_listed_without_itself_and_ends_when_it_is_revoked() {
    let server = Guarded::serve();
    let (url, keys) = (server.url(), server.keys());
    let file = ("INFOTAINER_API_KEYS_FILE", keys.to_str().unwrap());
    let made = infotainer(
        &["key", "create", "billing", "--publish", "invoices"],
        &[file],
    );
    let key = printed(&made).trim().to_owned();
    assert!(key.starts_with("ifk_") && said(&made).contains("can't be shown again"));
    let with = || {
        infotainer(
            &["pub", "invoices", "1"],
            &[("INFOTAINER_URL", &url), ("INFOTAINER_TOKEN", &key)],
        )
    };
    assert_eq!(with().status.code(), Some(4));
    assert!(server.server.reload());
    assert!(with().status.success());

    let listed = infotainer(&["key", "list", "--json"], &[file]);
    let [listed] = &objects(&listed)[..] else {
        panic!("one key is listed")
    };
    assert_eq!(listed["identity"], "billing");
    let table = printed(&infotainer(&["key", "list"], &[file]));
    assert!(
        table.contains("publish invoices") && !table.contains(&key),
        "{table}"
    );

    let id = listed["id"].as_str().unwrap();
    assert!(infotainer(&["key", "revoke", id], &[file]).status.success());
    let again = infotainer(&["key", "revoke", id], &[file]);
    assert!(sentence(&again, 1).contains("has no key"));
    assert!(server.server.reload());
    assert_eq!(with().status.code(), Some(4));
}

#[test]
fn a_secret_is_shown_neither_by_help_nor_by_what_is_wrong_with_it() {
    let short = ("INFOTAINER_JWT_SECRET", "hunter2");
    for (args, code) in [
        (&["serve", "--help"][..], 0),
        (&["token", "create", "--help"], 0),
        (&["config"], 0),
        (&["serve"], 2),
        (&["token", "create", "alice"], 2),
        (&["config", "--check"], 2),
        (&["pub", "--help"], 0),
    ] {
        let token = ("INFOTAINER_TOKEN", "hunter2");
        let output = infotainer(args, &[short, token]);
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            said(&output)
        );
        assert!(!shown.contains("hunter2"), "{args:?}: {shown}");
        assert!(
            output.status.code() == Some(code) || args == ["config"],
            "{args:?}: {shown}"
        );
    }
}
