//! `infotainer log`.

use serde_json::Value;

use crate::{objects, printed, said, sentence, serve};

#[test]
fn a_range_is_printed_and_it_ends() {
    let served = serve();
    served.publish("news", "a\nb\nc\nd\ne\n");
    for (range, expected) in [
        (&[][..], "a\nb\nc\nd\ne\n"),
        (&["--from", "2", "--to", "3"], "b\nc\n"),
        (&["--from", "4", "--to", "9"], "d\ne\n"),
        (&["--from", "9"], ""),
        (&["--from", "-2"], "d\ne\n"),
        (&["--from", "new"], ""),
        (&["--from", "1h", "--count", "2"], "a\nb\n"),
        (&["--from", "1ms"], ""),
    ] {
        let printed = served.prints(&[&["log", "news", "--raw"], range].concat());
        assert_eq!(printed, expected, "{range:?}");
    }
}

#[test]
fn a_time_as_it_is_printed_finds_what_was_published_then_and_later() {
    let served = serve();
    for line in ["a\n", "b\n", "c\n", "d\n", "e\n"] {
        served.publish("news", line);
    }
    let lines = served.prints(&["log", "news"]);
    let times: Vec<_> = lines
        .lines()
        .map(|line| line.split(' ').nth(1).unwrap())
        .collect();
    for time in &times {
        let expected: String = lines
            .lines()
            .zip(&times)
            .filter(|(_, of_line)| *of_line >= time)
            .map(|(line, _)| format!("{line}\n"))
            .collect();
        assert_eq!(served.prints(&["log", "news", "--from", time]), expected);
        let count = expected.lines().count().to_string();
        let sub = ["sub", "news", "--from", time, "--count", &count];
        assert_eq!(served.prints(&sub), expected);
    }
    assert_eq!(
        served.prints(&["log", "news", "--from", "2999-01-01T00:00:00Z"]),
        ""
    );
}

#[test]
fn fewer_than_count_end_with_3() {
    let served = serve();
    served.publish("news", "a\n");
    let output = served.run(&["log", "news", "--raw", "--count", "2"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(printed(&output), "a\n");
    assert_eq!(
        said(&output),
        "infotainer: 1 of 2 publications: the log holds no more\n"
    );
}

#[test]
fn a_log_of_nothing_is_refused_and_not_made_by_looking() {
    let served = serve();
    for args in [&["log", "nothing"][..], &["log", "nothing", "--follow"]] {
        let said = sentence(&served.run(args), 4);
        assert!(said.starts_with("not-found: "), "{said}");
    }
    assert_eq!(served.prints(&["subscriptions", "--json"]), "");
}

#[test]
fn what_is_no_longer_kept_is_told() {
    let served = serve();
    let create = [
        "create",
        "news",
        "--max-publications",
        "1",
        "--durability",
        "Memory",
    ];
    assert_eq!(served.run(&create).status.code(), Some(0));
    served.publish("news", "a\nb\nc\n");
    let kept = &objects(&served.run(&["info", "news", "--json"]))[0]["first_sequence"];
    let output = served.run(&["log", "news", "--from", "1", "--json"]);
    let lines = objects(&output);
    assert_eq!(lines[0]["event"], "gap");
    assert_eq!(lines[0]["cause"], "retention");
    assert_eq!(&lines[1]["sequence"], kept);
    assert!(said(&output).ends_with("missing: no longer kept\n"));
}

#[test]
fn follow_goes_on_with_what_is_published() {
    let served = serve();
    served.publish("news", "a\nb\n");
    let mut log = served.start(&["log", "news", "--from", "2", "--follow", "--json"]);
    let mut sequence = || {
        let publication: Value = serde_json::from_str(&log.line()).unwrap();
        publication["sequence"].as_u64()
    };
    assert_eq!(sequence(), Some(2));
    served.publish("news", "c\n");
    assert_eq!(sequence(), Some(3));
    log.signal("-INT");
    assert_eq!(log.ended().0, Some(0));
}

#[test]
fn a_pipe_that_nobody_reads_any_more_is_no_failure() {
    let served = serve();
    served.publish("news", &"a long line\n".repeat(50_000));
    let mut log = served.start(&["log", "news", "--raw"]);
    assert_eq!(log.line(), "a long line");
    log.stop_reading();
    assert_eq!(log.ended(), (Some(0), String::new()));
}
