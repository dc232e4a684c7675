//! `infotainer pub`.

use crate::{objects, printed, said, sentence, serve};

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

#[test]
fn data_is_published_once_or_as_often_as_one_wants() {
    let served = serve();
    let said = sentence(&served.run(&["pub", "news", "hello"]), 0);
    assert_eq!(said, "published to news: sequence 1");
    let said = sentence(&served.run(&["pub", "news", "-5", "--count", "3"]), 0);
    assert!(
        said.starts_with("3 published to news: sequences 2 to 4, in "),
        "{said}"
    );
    assert_eq!(
        served.prints(&["log", "news", "--raw"]),
        "hello\n-5\n-5\n-5\n"
    );
}

#[test]
fn each_line_of_stdin_is_a_publication_whatever_is_in_it() {
    let served = serve();
    let input = b"one\n\n\xff\x00\r\nlast";
    for args in [&["pub", "a"][..], &["pub", "b", "-"]] {
        let output = served.run_with(input, args);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let stored = served.run(&["log", args[1], "--raw"]);
        assert_eq!(stored.stdout, b"one\n\n\xff\x00\r\nlast\n");
    }
}

#[test]
fn a_long_stdin_is_published_in_order_and_without_a_bar_off_a_terminal() {
    let served = serve();
    let lines: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    let said = sentence(&served.run_with(lines.as_bytes(), &["pub", "many"]), 0);
    assert!(
        said.starts_with("20000 published to many: sequences 1 to 20000"),
        "{said}"
    );
    assert_eq!(served.prints(&["log", "many", "--raw"]), lines);
}

#[test]
fn count_takes_so_many_lines_and_fewer_end_with_3() {
    let served = serve();
    let taken = served.run_with(b"a\nb\nc\n", &["pub", "news", "--count", "2", "--quiet"]);
    assert_eq!(taken.status.code(), Some(0));
    let fewer = served.run_with(b"c\n", &["pub", "news", "--count", "2", "--quiet"]);
    assert_eq!(
        sentence(&fewer, 3),
        "1 of 2 publications: stdin has no more lines"
    );
    assert_eq!(served.prints(&["log", "news", "--raw"]), "a\nb\nc\n");
}

#[test]
fn a_publication_with_an_id_is_added_once() {
    let served = serve();
    let publish = ["pub", "news", "hello", "--id", ID];
    assert_eq!(
        sentence(&served.run(&publish), 0),
        "published to news: sequence 1"
    );
    assert_eq!(
        sentence(&served.run(&publish), 0),
        "news holds it already: sequence 1"
    );
    assert_eq!(served.prints(&["log", "news", "--raw"]), "hello\n");
}

#[test]
fn an_id_is_for_one_publication() {
    let served = serve();
    for args in [
        &["pub", "news"][..],
        &["pub", "news", "-"],
        &["pub", "news", "x", "--count", "2"],
    ] {
        let output = served.run(&[args, &["--id", ID]].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn answers_are_objects_if_one_wants() {
    let served = serve();
    let output = served.run_with(b"a\nb\n", &["pub", "news", "--json", "--quiet"]);
    assert_eq!(said(&output), "");
    let answers = objects(&output);
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[1]["sequence"], 2);
    assert_eq!(answers[1]["duplicate"], false);
    assert_eq!(answers[1]["durability"], "Synced");
}

#[test]
fn a_refused_line_ends_it_with_4_the_line_and_what_was_published() {
    let served = serve();
    let limited = ["create", "small", "--max-bytes", "10"];
    assert_eq!(served.run(&limited).status.code(), Some(0));
    let output = served.run_with(b"fits\nis much too long\n", &["pub", "small"]);
    let said = sentence(&output, 4);
    assert!(said.starts_with("publication 2: too-large: "), "{said}");
    assert!(said.ends_with("(published before: 1)"), "{said}");
    assert_eq!(served.prints(&["log", "small", "--raw"]), "fits\n");
}

#[test]
fn what_is_over_the_limit_of_the_server_is_refused_without_being_sent() {
    let served = serve();
    let output = served.run_with(&vec![b'x'; 300 << 10], &["pub", "news"]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!(printed(&output), "");
}
