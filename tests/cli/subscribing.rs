//! `infotainer sub`.

use std::{fs::File, net::TcpListener, process::Command, time::Instant};

use assert_cmd::cargo::cargo_bin;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    PATIENCE, Running, infotainer, objects, printed, said, sentence, serve, support::Process,
};

#[test]
fn a_publication_is_a_line_with_its_sequence_and_time_and_nothing_that_a_terminal_obeys() {
    let served = serve();
    served.publish("news", "hello\n\u{1b}[31mred\n");
    let lines = served.prints(&["sub", "news", "--from", "first", "--count", "2"]);
    let cells: Vec<Vec<_>> = lines
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    assert_eq!((cells[0][0], cells[0][2]), ("1", "hello"));
    assert_eq!((cells[1][0], cells[1][2]), ("2", r"\u{1b}[31mred"));
    let time = humantime::parse_rfc3339(cells[0][1]).unwrap();
    assert!(time.elapsed().unwrap().as_secs() < 600, "{lines}");
}

#[test]
fn it_begins_where_one_wants() {
    let served = serve();
    served.publish("news", "a\nb\nc\nd\n");
    for (from, expected) in [
        ("first", "a\nb\nc\nd\n"),
        ("3", "c\nd\n"),
        ("-1", "d\n"),
        ("-9", "a\nb\nc\nd\n"),
        ("1h", "a\nb\nc\nd\n"),
    ] {
        let count = expected.lines().count().to_string();
        let sub = ["sub", "news", "--raw", "--from", from, "--count", &count];
        assert_eq!(served.prints(&sub), expected, "{from}");
    }
}

#[test]
fn without_a_start_it_prints_what_is_published_from_then_on() {
    let served = serve();
    served.publish("news", "old\n");
    let mut sub = served.start(&["sub", "news", "--raw", "--count", "1"]);
    let deadline = Instant::now() + PATIENCE;
    while objects(&served.run(&["info", "news", "--json"]))[0]["connected"] != 1 {
        assert!(Instant::now() < deadline, "it never subscribed");
    }
    served.publish("news", "new\n");
    assert_eq!(sub.line(), "new");
    assert_eq!(sub.ended(), (Some(0), String::new()));
}

#[test]
fn objects_carry_text_as_data_and_other_bytes_as_base64() {
    let served = serve();
    served.run_with("grün\n".as_bytes(), &["pub", "news"]);
    served.run_with(b"\xff\n", &["pub", "news"]);
    let sub = ["sub", "news", "--from", "first", "--count", "2", "--json"];
    let lines = objects(&served.run(&sub));
    assert_eq!(lines[0]["data"], "grün");
    assert_eq!(lines[0]["sequence"], 1);
    assert!(lines[0]["time"].is_u64() && lines[0]["publication_id"].is_string());
    assert_eq!(lines[0].get("data_base64"), None);
    assert_eq!(lines[1]["data_base64"], "/w==");
    assert_eq!(lines[1].get("data"), None);
}

#[test]
fn fewer_than_count_in_the_time_end_with_3() {
    let served = serve();
    served.publish("news", "a\n");
    let sub = ["sub", "news", "--from", "first", "--wait", "1s"];
    assert_eq!(served.run(&sub).status.code(), Some(0));
    let output = served.run(&[&sub[..], &["--count", "2", "--raw"]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(printed(&output), "a\n");
    assert_eq!(
        said(&output),
        "infotainer: 1 of 2 publications: nothing came any more\n"
    );
}

#[test]
fn a_session_goes_on_behind_what_was_printed_and_acknowledged() {
    let served = serve();
    served.publish("news", "a\nb\nc\nd\ne\n");
    let session = Uuid::new_v4().to_string();
    let sub = |more: &[&str]| {
        let args = ["sub", "news", "--raw", "--session", &session, "--ack"];
        served.prints(&[&args, more].concat())
    };
    assert_eq!(sub(&["--from", "first", "--count", "2"]), "a\nb\n");
    assert_eq!(sub(&["--count", "1"]), "c\n");
    assert_eq!(sub(&["--count", "2"]), "d\ne\n");
    assert_eq!(sub(&["--wait", "100ms"]), "");
}

#[test]
fn what_could_not_be_written_is_not_acknowledged() {
    let served = serve();
    served.publish("news", "a\nb\n");
    let session = Uuid::new_v4().to_string();
    let sub = ["sub", "news", "--session", &session, "--ack", "--raw"];
    let begin = [&sub[..], &["--from", "first", "--count", "1"]].concat();
    assert_eq!(served.prints(&begin), "a\n");

    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut lost = Command::new(cargo_bin("infotainer"));
    let lost = lost
        .args(sub)
        .env("INFOTAINER_URL", &served.url)
        .stdout(full);
    let lost = lost.output().unwrap();
    assert_eq!(lost.status.code(), Some(1));
    assert!(
        said(&lost).contains("can't write to stdout"),
        "{}",
        said(&lost)
    );

    assert_eq!(
        served.prints(&[&sub[..], &["--count", "1"]].concat()),
        "b\n"
    );
}

#[test]
fn it_goes_on_with_the_next_sequence_when_the_server_was_killed_and_came_back() {
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let mut server = Process::start(&[("LISTEN", &address)]);
    let url = format!("ws://{address}/ws");
    let publish = |data| {
        let output = infotainer(&["pub", "news", data, "-q"], &[("INFOTAINER_URL", &url)]);
        assert_eq!(said(&output), "");
    };
    publish("one");
    let mut sub = Running::start(
        &url,
        &["sub", "news", "--from", "first", "--raw", "--count", "2"],
    );
    assert_eq!(sub.line(), "one");
    server.kill();
    assert!(sub.note().ends_with("; connecting again"));
    server.start_again();
    assert_eq!(sub.note(), "infotainer: connected again");
    publish("two");
    assert_eq!(sub.line(), "two");
    assert_eq!(sub.ended(), (Some(0), String::new()));
}

#[test]
fn what_retention_took_and_deletion_are_told_on_both_streams() {
    let served = serve();
    let create = [
        "create",
        "news",
        "--max-publications",
        "2",
        "--durability",
        "Memory",
    ];
    assert_eq!(served.run(&create).status.code(), Some(0));
    served.publish("news", "a\nb\nc\nd\ne\n");
    let mut sub = served.start(&["sub", "news", "--from", "1", "--json"]);
    let gap: Value = serde_json::from_str(&sub.line()).unwrap();
    let gone = gap["to"].as_u64().unwrap();
    assert_eq!(
        (&gap["event"], &gap["from"], &gap["cause"]),
        (&json!("gap"), &json!(1), &json!("retention"))
    );
    assert!(sub.note().ends_with("missing: no longer kept"));
    for sequence in gone + 1..=5 {
        let publication: Value = serde_json::from_str(&sub.line()).unwrap();
        assert_eq!(publication["sequence"], sequence);
    }
    assert_eq!(served.run(&["delete", "news"]).status.code(), Some(0));
    let deleted: Value = serde_json::from_str(&sub.line()).unwrap();
    assert_eq!(deleted["event"], "deleted");
    assert_eq!(
        sub.ended(),
        (
            Some(0),
            "infotainer: the subscription was deleted\n".to_owned()
        )
    );
}

#[test]
fn a_signal_ends_it_in_order_and_with_3_if_count_was_not_reached() {
    let served = serve();
    served.publish("news", "a\n");
    for (signal, more, code) in [("-INT", &[][..], 0), ("-TERM", &["--count", "2"], 3)] {
        let args = ["sub", "news", "--from", "first", "--raw"];
        let mut sub = served.start(&[&args, more].concat());
        assert_eq!(sub.line(), "a");
        sub.signal(signal);
        assert_eq!(sub.ended().0, Some(code), "{signal}");
    }
}

#[test]
fn a_pipe_that_nobody_reads_ends_it_without_a_word_even_if_nothing_more_comes() {
    let served = serve();
    served.publish("news", "a\n");
    let mut sub = served.start(&["sub", "news", "--from", "first", "--raw"]);
    assert_eq!(sub.line(), "a");
    sub.stop_reading();
    assert_eq!(sub.ended(), (Some(0), String::new()));
}

#[test]
fn colour_is_for_terminals_and_never_with_no_color() {
    let served = serve();
    served.publish("news", "a\n");
    let sub = ["sub", "news", "--from", "first", "--count", "1"];
    let url = ("INFOTAINER_URL", &*served.url);
    let colours = |variables: &[(&str, &str)]| {
        let output = infotainer(&sub, &[&[url], variables].concat());
        printed(&output).contains('\u{1b}')
    };
    assert!(!colours(&[]));
    assert!(colours(&[("CLICOLOR_FORCE", "1")]));
    assert!(!colours(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn a_session_that_another_takes_over_ends_it_with_1() {
    let served = serve();
    served.publish("news", "a\n");
    let session = Uuid::new_v4().to_string();
    let sub = [
        "sub",
        "news",
        "--session",
        &session,
        "--raw",
        "--from",
        "first",
    ];
    let mut first = served.start(&sub);
    assert_eq!(first.line(), "a");
    assert_eq!(
        served.prints(&[&sub[..], &["--count", "1"]].concat()),
        "a\n"
    );
    let (code, said) = first.ended();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("closed the connection with code 4502"),
        "{said}"
    );
}

#[test]
fn without_a_connection_it_can_still_be_stopped_and_says_what_was_not_acknowledged() {
    let mut server = Process::start(&[]);
    let url = format!("ws://{}/ws", server.address());
    let published = infotainer(&["pub", "news", "a", "-q"], &[("INFOTAINER_URL", &url)]);
    assert_eq!(said(&published), "");
    let session = Uuid::new_v4().to_string();
    let sub = [
        "sub",
        "news",
        "--from",
        "first",
        "--session",
        &session,
        "--ack",
        "--raw",
    ];
    let mut sub = Running::start(&url, &sub);
    assert_eq!(sub.line(), "a");
    server.kill();
    assert!(sub.note().ends_with("; connecting again"));
    sub.signal("-INT");
    let sentence = "infotainer: publication 1 could not be acknowledged: there is no connection\n";
    assert_eq!(sub.ended(), (Some(1), sentence.to_owned()));
}

#[test]
fn ack_needs_a_session_and_a_session_a_uuid() {
    let served = serve();
    assert_eq!(served.run(&["sub", "news", "--ack"]).status.code(), Some(2));
    let said = sentence(&served.run(&["sub", "news", "--session", "mine"]), 2);
    assert!(
        said.starts_with(r#"--session is "mine", but must be a UUID"#),
        "{said}"
    );
}
