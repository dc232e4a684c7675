//! Every seed, and everything that was found once, through the functions that the fuzzer calls.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::*;

type Target = fn(&[u8]);

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");

/// Files of a folder, by name; none of a folder that is not there.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        entries => entries.unwrap(),
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn bytes_of(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    let digits = (0..hex.len()).step_by(2);
    digits
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// The lines of a target's seeds.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(FUZZ).join("seeds").join(format!("{target}.hex"));
    let text = fs::read_to_string(path).unwrap();
    let lines = (1..).zip(text.lines());
    lines
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(number, line)| (format!("seed in line {number}"), bytes_of(line)))
        .collect()
}

fn vectors() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/vectors");
    let mut vectors = Vec::new();
    for (name, bytes) in files(&dir) {
        if !name.ends_with(".json") {
            continue;
        }
        let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        for vector in file["vectors"].as_array().unwrap() {
            let name = vector["name"].as_str().unwrap().to_owned();
            vectors.push((name, bytes_of(vector["hex"].as_str().unwrap())));
        }
    }
    assert!(!vectors.is_empty());
    vectors
}

fn run(name: &str, target: Target, inputs: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let findings = files(&Path::new(FUZZ).join("regressions").join(name));
    let inputs = inputs.into_iter().chain(findings);
    for (input, bytes) in inputs.chain([("nothing".to_owned(), Vec::new())]) {
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
        assert!(outcome.is_ok(), "target {name}: {input}");
    }
}

#[test]
fn codec_keeps_its_promises_for_every_seed_and_finding() {
    run("codec", codec, vectors().into_iter().chain(seeds("codec")));
}

#[test]
fn frame_reader_keeps_its_promises_for_every_seed_and_finding() {
    run("frames", frames, seeds("frames"));
}

#[test]
fn journals_keep_their_promises_for_every_seed_and_finding() {
    run("journal", journal, seeds("journal"));
}

#[test]
fn what_is_sealed_keeps_its_promises_for_every_seed_and_finding() {
    run("sealed", sealed, seeds("sealed"));
}

#[test]
fn data_directories_keep_their_promises_for_every_seed_and_finding() {
    run("directory", directory, seeds("directory"));
}

/// A finding in a folder that no test looks into would count for nothing.
#[test]
fn every_target_has_its_test() {
    let manifest = fs::read_to_string(Path::new(FUZZ).join("Cargo.toml")).unwrap();
    let bins = manifest.split("[[bin]]").skip(1);
    let mut targets: Vec<_> = bins
        .map(|bin| bin.split('"').nth(1).unwrap().to_owned())
        .collect();
    targets.sort();
    assert_eq!(
        targets,
        ["codec", "directory", "frames", "journal", "sealed"]
    );
    for folder in fs::read_dir(Path::new(FUZZ).join("regressions")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(targets.contains(&name), "{name}");
    }
}
