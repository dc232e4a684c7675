//! `infotainer sub` of a Queue, by itself, by hand and with commands; `redrive`; and the settings of Queues.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    process::{self, Stdio},
    time::Instant,
};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

use crate::support::Process;
use crate::{
    PATIENCE, Running, Served, infotainer, objects, printed, said, sentence, serve, surroundings,
};

impl Served {
    fn publish_jobs(&self, lines: &str) {
        let publish = ["pub", "jobs", "--kind", "queue", "--quiet"];
        let output = self.run_with(lines.as_bytes(), &publish);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }

    /// `pending` and `in_flight`.
    fn counts(&self) -> (u64, u64) {
        let meta = &objects(&self.run(&["info", "jobs", "--json"]))[0];
        let count = |name: &str| meta[name].as_u64().unwrap();
        (count("pending"), count("in_flight"))
    }

    fn counts_are(&self, pending: u64, in_flight: u64) {
        until(|| self.counts() == (pending, in_flight));
    }
}

/// Waits for what has to come.
fn until(mut has_come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !has_come() {
        assert!(Instant::now() < deadline, "did not come in time");
    }
}

#[test]
fn a_queue_is_printed_acknowledged_and_then_empty() {
    let served = serve();
    served.publish_jobs("a\nb\nc\n");
    assert_eq!(
        served.prints(&["sub", "jobs", "--raw", "--count", "2"]),
        "a\nb\n"
    );
    served.counts_are(1, 0);
    let rest = &objects(&served.run(&["sub", "jobs", "--json", "--count", "1"]))[0];
    assert_eq!((&rest["data"], &rest["sequence"]), (&"c".into(), &3.into()));
    assert!(rest["delivery"].as_u64().unwrap() >= 1);
    served.counts_are(0, 0);
    let nothing = served.run(&["sub", "jobs", "--count", "1", "--wait", "50ms"]);
    assert_eq!(
        sentence(&nothing, 3),
        "0 of 1 publication: nothing came any more"
    );
}

#[test]
fn two_workers_share_a_queue() {
    let served = serve();
    let create = ["create", "jobs", "--kind", "queue"];
    assert_eq!(served.run(&create).status.code(), Some(0));
    let sub = ["sub", "jobs", "--raw", "--ack"];
    let mut workers = [served.start(&sub), served.start(&sub)];
    let has_both = || {
        let meta = &objects(&served.run(&["info", "jobs", "--json"]))[0];
        meta["connected"] == 2
    };
    until(has_both);
    served.publish_jobs("a\nb\n");
    let mut lines = workers.each_mut().map(Running::line);
    lines.sort();
    assert_eq!(lines, ["a", "b"]);
    served.counts_are(0, 0);
    for worker in workers {
        worker.signal("-INT");
        assert_eq!(worker.ended(), (Some(0), String::new()));
    }
}

#[test]
fn by_hand_nothing_is_acknowledged_but_what_stdin_says() {
    let served = serve();
    served.publish_jobs("a\nb\n");
    // Without stdin it is a look at what comes next.
    let look = served.run(&["sub", "jobs", "--ack", "manual", "--count", "1"]);
    assert_eq!(look.status.code(), Some(0));
    let line = printed(&look);
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        (words[0].len(), words[1], words[3]),
        (36, "1", "a"),
        "{line}"
    );
    assert!(
        said(&look).contains("1 not acknowledged"),
        "{}",
        said(&look)
    );
    served.counts_are(2, 0);

    let mut command = process::Command::new(cargo_bin("infotainer"));
    for (name, _) in surroundings() {
        command.env_remove(name);
    }
    let mut child = command
        .args(["sub", "jobs", "--ack=manual", "--json", "--count", "4"])
        .env("INFOTAINER_URL", &served.url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut next = |data: &str| {
        let line: Value = serde_json::from_str(&crate::next_line(&mut stdout)).unwrap();
        assert_eq!(line["data"], data);
        line["publication_id"].as_str().unwrap().to_owned()
    };
    let (a, b) = (next("a"), next("b"));
    writeln!(stdin, "what is this\nextend {a} {b}\nreject {b}").unwrap();
    assert_eq!(next("b"), b);
    writeln!(stdin, "ack {a}\ndead-letter {b}").unwrap();
    served.publish_jobs("c\n");
    let c = next("c");
    writeln!(stdin, "ack {a}\nack {c}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let notes = said(&output);
    assert!(notes.contains("a line of stdin must be ack"), "{notes}");
    assert!(notes.contains(&format!("{a} is not held")), "{notes}");
    served.counts_are(0, 0);
    assert_eq!(served.prints(&["log", "jobs.dead-letter", "--raw"]), "b\n");
}

#[test]
fn a_command_gets_each_publication_and_its_end_decides() {
    let served = serve();
    let create = ["create", "jobs", "--max-deliveries", "2"];
    assert_eq!(served.run(&create).status.code(), Some(0));
    served.publish_jobs("good\nbad\n");
    let script = "read -r data; echo \"$PUBLICATION_SEQUENCE $PUBLICATION_DELIVERY ${#PUBLICATION_ID} $data\"; test \"$data\" = good";
    let sub = [
        "sub",
        "jobs",
        "--exec",
        script,
        "--reject-delay",
        "10ms",
        "--count",
        "3",
    ];
    let output = served.run(&sub);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(printed(&output), "1 1 36 good\n2 1 36 bad\n2 2 36 bad\n");
    let note = "publication 2, delivery 1, is rejected: the command ended with exit status: 1";
    assert!(said(&output).contains(note), "{}", said(&output));
    served.counts_are(0, 0);
    assert_eq!(
        served.prints(&["log", "jobs.dead-letter", "--raw"]),
        "bad\n"
    );
}

#[test]
fn a_lease_is_kept_while_its_command_runs_and_commands_run_side_by_side() {
    let served = serve();
    let create = ["create", "jobs", "--ack-timeout", "2s"];
    assert_eq!(served.run(&create).status.code(), Some(0));
    served.publish_jobs("a\nb\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("go");
    // Both wait for the file, so both have to run before either ends.
    let script = format!(
        "echo \"$(cat) $PUBLICATION_DELIVERY\"; while ! test -e '{}'; do sleep 0.05; done",
        path.display()
    );
    let sub = [
        "sub",
        "jobs",
        "--exec",
        &script,
        "--prefetch",
        "2",
        "--count",
        "2",
    ];
    let mut worker = served.start(&sub);
    let mut begun = [worker.line(), worker.line()];
    begun.sort();
    assert_eq!(begun, ["a 1", "b 1"]);
    // Longer than the ack time-out, in which nobody else gets them.
    let other = ["sub", "jobs", "--raw", "--count", "1", "--wait", "3s"];
    assert_eq!(served.run(&other).status.code(), Some(3));
    assert_eq!(served.counts(), (0, 2));
    fs::write(&path, "").unwrap();
    assert_eq!(worker.ended(), (Some(0), String::new()));
    served.counts_are(0, 0);
}

#[test]
fn a_stop_waits_for_the_command_and_settles_it() {
    let served = serve();
    served.publish_jobs("a\nb\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("go");
    let script = format!(
        "cat; echo; while ! test -e '{}'; do sleep 0.05; done",
        path.display()
    );
    let mut worker = served.start(&["sub", "jobs", "--exec", &script]);
    assert_eq!(worker.line(), "a");
    worker.signal("-TERM");
    assert!(worker.note().contains("waiting for 1 to end"));
    fs::write(&path, "").unwrap();
    assert_eq!(worker.ended(), (Some(0), String::new()));
    served.counts_are(1, 0);
}

#[test]
fn a_command_goes_on_under_a_new_lease_when_the_connection_was_lost() {
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let mut server = Process::start(&[("LISTEN", &address)]);
    let url = format!("ws://{address}/ws");
    let run = |args: &[&str]| infotainer(args, &[("INFOTAINER_URL", &url)]);
    let publish = ["pub", "jobs", "a", "--kind", "queue", "-q"];
    assert_eq!(said(&run(&publish)), "");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("go");
    let runs = directory.path().join("runs");
    let script = format!(
        "cat; echo | tee -a '{}'; while ! test -e '{}'; do sleep 0.05; done",
        runs.display(),
        path.display()
    );
    let sub = ["sub", "jobs", "--exec", &script, "--count", "1"];
    let mut worker = Running::start(&url, &sub);
    assert_eq!(worker.line(), "a");
    server.kill();
    assert!(worker.note().ends_with("; connecting again"));
    server.start_again();
    assert_eq!(worker.note(), "infotainer: connected again");
    let counts = || {
        let meta = &objects(&run(&["info", "jobs", "--json"]))[0];
        (meta["pending"].as_u64(), meta["in_flight"].as_u64())
    };
    // It is leased once more, and not run once more.
    until(|| counts() == (Some(0), Some(1)));
    fs::write(&path, "").unwrap();
    let (code, said) = worker.ended();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read(&runs).unwrap(), b"\n");
    // If the new lease was not heard of when the command ended, that is told.
    let was_late = said.contains("may come again");
    assert_eq!(counts(), (Some(u64::from(was_late)), Some(0)), "{said}");
}

#[test]
fn a_command_that_is_a_client_finds_the_same_server() {
    let served = serve();
    served.publish_jobs("a\n");
    let script = format!("'{}' pub results -", cargo_bin("infotainer").display());
    let sub = [
        "sub",
        "jobs",
        "--server",
        &served.url,
        "--exec",
        &script,
        "--count",
        "1",
    ];
    // Not from the environment.
    let output = infotainer(&sub, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(
        said(&output),
        "infotainer: published to results: sequence 1\n"
    );
    assert_eq!(served.prints(&["log", "results", "--raw"]), "a\n");
}

#[test]
fn dead_letters_are_put_back_once() {
    let served = serve();
    served.publish_jobs("a\nb\nc\n");
    let empty = served.run(&["redrive", "jobs"]);
    assert_eq!(sentence(&empty, 0), "0 put back, 0 were back already");
    let create = ["update", "jobs", "--max-deliveries", "1"];
    assert_eq!(served.run(&create).status.code(), Some(0));
    let fail = ["sub", "jobs", "--exec", "false", "--count", "3"];
    assert_eq!(served.run(&fail).status.code(), Some(0));
    served.counts_are(0, 0);

    let one = served.run(&["redrive", "jobs", "--count", "1"]);
    assert_eq!(sentence(&one, 0), "1 put back, 0 were back already");
    served.counts_are(1, 0);
    let all = objects(&served.run(&["redrive", "jobs.dead-letter", "--json", "-q"]));
    assert_eq!(all.len(), 3);
    assert_eq!(
        (&all[0]["duplicate"], &all[2]["sequence"]),
        (&true.into(), &6.into())
    );
    let again = served.run(&["redrive", "jobs"]);
    assert_eq!(sentence(&again, 0), "0 put back, 3 were back already");
    assert_eq!(
        sentence(&served.run(&["redrive", "jobs", "--count", "1", "-q"]), 3),
        "0 of 1 publication: there are no more dead letters"
    );

    // They are worked; and what is given up once more can be put back once more.
    let script = "test \"$(cat)\" != c";
    let work = ["sub", "jobs", "--exec", script, "--count", "3"];
    assert_eq!(served.run(&work).status.code(), Some(0));
    served.counts_are(0, 0);
    let again = served.run(&["redrive", "jobs", "--from", "4"]);
    assert_eq!(sentence(&again, 0), "1 put back, 0 were back already");
    let dead = &objects(&served.run(&["log", "jobs.dead-letter", "--json"]))[0];
    assert_eq!(dead["dead_letter"]["reason"], "max-deliveries");
}

#[test]
fn redrive_says_what_it_can_not_put_back() {
    let served = serve();
    let said = sentence(&served.run(&["redrive", "nothing"]), 4);
    assert!(said.starts_with("not-found: "), "{said}");

    let create = [
        "create",
        "jobs",
        "--max-deliveries",
        "1",
        "--dead-letter",
        "dead",
    ];
    assert_eq!(served.run(&create).status.code(), Some(0));
    served.publish_jobs("a\n");
    let fail = ["sub", "jobs", "--exec", "false", "--count", "1"];
    assert_eq!(served.run(&fail).status.code(), Some(0));
    served.counts_are(0, 0);
    assert_eq!(served.run(&["delete", "jobs"]).status.code(), Some(0));
    let gone = served.run(&["redrive", "dead", "-q"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        crate::said(&gone).contains("does not exist any more"),
        "{}",
        crate::said(&gone)
    );

    for create in [
        &["create", "second", "--kind", "queue"][..],
        &["create", "first", "--dead-letter", "second"],
    ] {
        assert_eq!(served.run(create).status.code(), Some(0));
    }
    let said = sentence(&served.run(&["redrive", "first"]), 2);
    assert!(said.contains("work them there with sub"), "{said}");
}

#[test]
fn settings_of_queues_are_made_changed_and_shown() {
    let served = serve();
    let create = [
        "create",
        "jobs",
        "--ack-timeout",
        "2m",
        "--max-deliveries",
        "0",
    ];
    let lines = served.prints(&create);
    for line in [
        "kind          Queue",
        "ack timeout   2m",
        "deliveries    without limit",
        "dead letters  jobs.dead-letter",
        "pending       0",
        "in flight     0",
    ] {
        assert!(
            lines.lines().any(|printed| printed == line),
            "{line}: {lines}"
        );
    }
    let update = [
        "update",
        "jobs",
        "--max-deliveries",
        "3",
        "--ack-timeout",
        "default",
    ];
    let lines = served.prints(&update);
    assert!(
        lines.contains("\nack timeout   30s\ndeliveries    at most 3\n"),
        "{lines}"
    );
    let said = sentence(&served.run(&["create", "jobs", "--kind", "broadcast"]), 4);
    assert!(said.starts_with("conflict: "), "{said}");
    served.publish("news", "a\n");
    let said = sentence(&served.run(&["update", "news", "--ack-timeout", "1s"]), 4);
    assert!(said.starts_with("invalid-argument: "), "{said}");
}

#[test]
fn what_is_for_the_other_kind_ends_with_a_sentence() {
    let served = serve();
    served.publish("news", "a\n");
    served.publish_jobs("a\n");
    for args in [
        &["sub", "news", "--exec", "true"][..],
        &["sub", "news", "--prefetch", "1"],
        &["sub", "news", "--ack", "manual"],
    ] {
        let said = sentence(&served.run(args), 2);
        assert!(
            said.ends_with("are for a queue, and this is a broadcast"),
            "{said}"
        );
    }
    let said = sentence(&served.run(&["sub", "jobs", "--from", "first"]), 2);
    assert!(said.starts_with("--from is for a broadcast"), "{said}");
    for (args, code) in [
        (&["sub", "news", "--kind", "queue"][..], "kind-mismatch: "),
        (&["sub", "jobs", "--kind", "broadcast"], "kind-mismatch: "),
        (&["pub", "news", "x", "--kind", "queue"], "kind-mismatch: "),
    ] {
        let said = sentence(&served.run(args), 4);
        assert!(said.starts_with(code), "{args:?}: {said}");
    }
    let said = sentence(&served.run(&["sub", "jobs", "--ack", "news"]), 2);
    assert_eq!(said, r#"--ack is "news", but must be auto or manual"#);
    let said = sentence(&served.run(&["sub", "jobs", "--prefetch", "0"]), 2);
    assert_eq!(
        said,
        r#"--prefetch is "0", but must be a whole number from 1 to 65535"#
    );
    served.counts_are(1, 0);
}

#[test]
fn a_deleted_queue_ends_the_work() {
    let served = serve();
    served.publish_jobs("a\n");
    let mut worker = served.start(&["sub", "jobs", "--raw"]);
    assert_eq!(worker.line(), "a");
    assert_eq!(served.run(&["delete", "jobs"]).status.code(), Some(0));
    let told = "infotainer: the subscription was deleted\n".to_owned();
    assert_eq!(worker.ended(), (Some(0), told));
}
