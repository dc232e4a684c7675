//! What the commands of the client have in common when they can't do what they are asked for.

use std::net::TcpListener;

use crate::{infotainer, sentence, serve};

const COMMANDS: [&[&str]; 9] = [
    &["pub", "news", "hello"],
    &["sub", "news"],
    &["log", "news"],
    &["subscriptions"],
    &["info", "news"],
    &["create", "news"],
    &["update", "news"],
    &["delete", "news"],
    &["redrive", "news"],
];

#[test]
fn a_server_that_is_not_there_ends_every_command_with_1_and_a_sentence() {
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let url = format!("ws://{address}/ws");
    for command in COMMANDS {
        let said = sentence(&infotainer(command, &[("INFOTAINER_URL", &url)]), 1);
        let expected = format!("can't connect to {url}: Connection refused");
        assert!(said.starts_with(&expected), "{command:?}: {said}");
    }
}

#[test]
fn a_server_that_does_not_answer_ends_it_with_3() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", silent.local_addr().unwrap());
    let said = sentence(
        &infotainer(
            &["info", "news", "--server", &url, "--timeout", "100ms"],
            &[],
        ),
        3,
    );
    assert_eq!(
        said,
        format!("can't connect to {url}: the server did not answer in time")
    );
}

#[test]
fn a_bad_url_ends_every_command_with_2_its_variable_what_it_got_and_what_it_wants() {
    let wants =
        "must be the URL of a server, such as ws://127.0.0.1:8949/ws or wss://example.com/ws";
    for command in COMMANDS {
        let said = sentence(&infotainer(command, &[("INFOTAINER_URL", "http://a")]), 2);
        assert_eq!(
            said,
            format!(r#"INFOTAINER_URL is "http://a", but {wants}"#),
            "{command:?}"
        );
    }
    let said = sentence(&infotainer(&["info", "news"], &[("INFOTAINER_URL", "")]), 2);
    assert_eq!(said, format!("INFOTAINER_URL is empty, but {wants}"));
    let flag = ["info", "news", "--server", "localhost"];
    let said = sentence(
        &infotainer(&flag, &[("INFOTAINER_URL", "ws://127.0.0.1:1")]),
        2,
    );
    assert_eq!(said, format!(r#"--server is "localhost", but {wants}"#));
}

#[test]
fn settings_of_the_server_do_not_matter_to_its_clients() {
    let served = serve();
    let variables = [
        ("INFOTAINER_URL", &*served.url),
        ("INFOTAINER_WORKERS", "many"),
    ];
    let output = infotainer(&["pub", "news", "hello"], &variables);
    assert_eq!(sentence(&output, 0), "published to news: sequence 1");
}

#[test]
fn a_name_that_is_none_is_a_matter_of_usage() {
    for name in ["", "two\nlines", &"x".repeat(256)] {
        let said = sentence(&infotainer(&["info", name], &[]), 2);
        let wants = "must be a name of 1 to 255 bytes without control characters, or a UUID";
        assert!(
            said.starts_with("<NAME> is ") && said.ends_with(wants),
            "{said}"
        );
    }
}
