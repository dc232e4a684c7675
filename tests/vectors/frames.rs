//! The messages that the tests of the clients in other languages sent and received, against `docs/protocol.cddl`.
//!
//! Those tests write them into the folder that `INFOTAINER_TEST_FRAMES` names; the form is in `docs/vectors/README.md`. Without the
//! variable the test says so and is left out. `.github/check.sh` runs it behind the clients' tests.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use super::grammar::Grammar;
use super::{Item, bytes_of};

/// Wrong messages that are told at the most.
const TOLD: usize = 20;

#[test]
fn frames_of_the_clients_tests_match_the_grammar() {
    let Some(folder) = std::env::var_os("INFOTAINER_TEST_FRAMES") else {
        // Not through `eprintln!`, which the harness keeps to itself.
        _ = writeln!(
            io::stderr(),
            "left out: INFOTAINER_TEST_FRAMES names no folder with frames of the clients' tests"
        );
        return;
    };
    let grammar = Grammar::read();
    let mut files = 0;
    for entry in Path::new(&folder).read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        files += 1;
        let (counts, wrong) = check(&grammar, &path);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // A file that holds one direction alone was not written as it should be.
        let [sent, received] = counts;
        assert!(sent > 0 && received > 0, "{path:?}: {counts:?}");
        _ = writeln!(
            io::stderr(),
            "{}: {sent} sent, {received} received",
            path.display()
        );
    }
    assert!(files > 0, "{folder:?} holds no frames");
}

/// How many messages of `path` were sent and received, and what is wrong with some of them.
fn check(grammar: &Grammar, path: &Path) -> ([usize; 2], Vec<String>) {
    let mut seen = HashSet::new();
    let mut counts = [0; 2];
    let mut wrong = Vec::new();
    for (line, number) in BufReader::new(File::open(path).unwrap()).lines().zip(1..) {
        let line = line.unwrap();
        let (direction, rule, hex) = match line.split_at_checked(2) {
            Some(("> ", hex)) => (0, "client-message", hex),
            Some(("< ", hex)) => (1, "server-message", hex),
            _ => panic!("{path:?}, line {number}: no direction"),
        };
        counts[direction] += 1;
        // The same is said often.
        if wrong.len() == TOLD || !seen.insert(line.clone()) {
            continue;
        }
        let outcome = match Item::read(&bytes_of(hex)) {
            Some(item) => grammar.check(rule, &item),
            None => Err("not well-formed".to_owned()),
        };
        if let Err(error) = outcome {
            let start: String = line.chars().take(200).collect();
            wrong.push(format!("{path:?}, line {number}: {error}: {start}"));
        }
    }
    (counts, wrong)
}
