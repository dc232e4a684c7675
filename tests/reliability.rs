//! What `docs/reliability.md` names is there: every file, and every test where it says.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Names of tests are sentences; those of fields and settings are shorter.
const FEWEST_WORDS: usize = 4;

fn document() -> String {
    fs::read_to_string(Path::new(ROOT).join("docs/reliability.md")).unwrap()
}

/// What stands between backticks.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

fn is_place(word: &str) -> bool {
    word == "fuzz"
        || ["tests/", "src/", "fuzz/", "docs/"]
            .iter()
            .any(|begin| word.starts_with(begin))
}

fn is_test(word: &str) -> bool {
    let is_name =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    word.chars().all(is_name) && word.split('_').count() >= FEWEST_WORDS
}

/// The Rust files in a place, which may be one.
fn sources(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_source = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|it| it == "rs");
    entries
        .filter(is_source)
        .flat_map(|path| sources(&path))
        .collect()
}

/// Whether a file has a test of this name.
fn has_test(path: &Path, name: &str) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let begin = format!("fn {name}(");
    let Some((before, _)) = text.split_once(&begin) else {
        return false;
    };
    // The attribute stands in the lines in front of it.
    let attributes = before
        .lines()
        .rev()
        .take_while(|line| !line.trim_end().ends_with('}'));
    attributes.take(6).any(|line| {
        let line = line.trim();
        line.starts_with("#[test]") || line.starts_with("#[tokio::test")
    })
}

#[test]
fn every_file_and_every_test_that_the_document_names_is_there() {
    let mut names = 0;
    for line in document().lines() {
        let words = quoted(line);
        let places: Vec<_> = words.iter().filter(|word| is_place(word)).collect();
        let paths: Vec<_> = places
            .iter()
            .map(|place| Path::new(ROOT).join(place))
            .collect();
        for path in &paths {
            assert!(path.exists(), "{} is not there", path.display());
        }
        for name in words.iter().filter(|word| is_test(word)) {
            let mut files = paths.iter().flat_map(|path| sources(path));
            assert!(
                files.any(|path| has_test(&path, name)),
                "no test {name} in {places:?}"
            );
            names += 1;
        }
    }
    assert!(names > 40, "only {names} tests are named");
}

/// What each guarantee of the README is called has a promise here.
#[test]
fn every_promise_has_a_test() {
    let mut promises = 0;
    for line in document().lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").collect();
        let is_promise = cells.len() == 3 && !cells[0].contains("---") && cells[2].contains('`');
        if is_promise {
            assert!(quoted(cells[2]).iter().any(|word| is_test(word)), "{line}");
            promises += 1;
        }
    }
    assert!(promises > 20, "only {promises} promises");
}
