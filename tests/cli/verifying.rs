//! `infotainer verify`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    infotainer, objects, printed, said, sentence,
    support::{Process, eventually},
};

/// A directory with a segment, after an orderly end.
async fn stored() -> (Process, PathBuf) {
    let mut server = Process::start(&[("MAX_MESSAGE_SIZE", "1MiB")]);
    let mut client = server.client().await;
    client.publish_many("news", 20).await;
    for number in 0..200_u8 {
        client.publish("orders", vec![number; 200_000]).await;
    }
    client.close().await;
    let dir = server.data_dir();
    eventually("a journal is sealed", async || {
        let mut segments = fs::read_dir(dir.join("segments")).unwrap();
        segments.any(|entry| entry.unwrap().path().extension() == Some("segment".as_ref()))
    })
    .await;
    server.signal("-TERM");
    assert!(server.exited().await.success());
    (server, dir)
}

fn verify(dir: &Path, args: &[&str]) -> std::process::Output {
    let mut all = vec!["verify", dir.to_str().unwrap()];
    all.extend(args);
    infotainer(&all, &[])
}

#[tokio::test]
async fn verify_tells_whether_a_data_directory_is_whole() {
    let (mut server, dir) = stored().await;
    let output = verify(&dir, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output), "");
    let whole = "whole: 2 subscriptions with 220 publications, 0 of them missing; ";
    assert!(printed(&output).starts_with(whole), "{}", printed(&output));
    let report = &objects(&verify(&dir, &["--json"]))[0];
    assert_eq!(
        (&report["is_whole"], &report["missing"]),
        (&true.into(), &0.into())
    );
    // The folder is the server's own, if none is named.
    let variable = [("INFOTAINER_DATA_DIR", dir.to_str().unwrap())];
    assert_eq!(infotainer(&["verify"], &variable).status.code(), Some(0));

    let segments = fs::read_dir(dir.join("segments")).unwrap();
    let segment = segments.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&segment, &bytes).unwrap();
    let output = verify(&dir, &[]);
    assert_eq!(output.status.code(), Some(1));
    let sentence = format!("infotainer: data directory {} is damaged\n", dir.display());
    assert_eq!(said(&output), sentence);
    let lines = printed(&output);
    let damage = format!("damage: {}", segment.display());
    assert!(lines.starts_with(&damage), "{lines}");
    assert!(lines.contains("\norders      1   200  there  "), "{lines}");
    assert!(
        lines.contains("\ndamaged: 2 subscriptions with 220 publications, 1 of them missing; "),
        "{lines}"
    );
    assert!(!lines.contains("\nnews"), "{lines}");
    let output = verify(&dir, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["damaged_subscriptions"][0]["name"], "orders");

    // What is missing there is missing for subscribers.
    let missing = &report["damaged_subscriptions"][0]["missing"][0];
    server.start_again();
    let mut client = server.client().await;
    client.subscribe("orders", "First").await;
    let mut next = client.next().await;
    while next.name == "Publication" {
        next = client.next().await;
    }
    let gap = next.expect("Gap");
    assert_eq!(missing["from"], gap.number("from"));
    assert_eq!(missing["to"], gap.number("to"));
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}

#[tokio::test]
async fn verify_refuses_a_directory_that_a_server_has_open() {
    let server = Process::start(&[]);
    let dir = server.data_dir();
    let dir = dir.display();
    let said = sentence(&verify(&server.data_dir(), &[]), 1);
    let expected =
        format!("data directory {dir} is in use, and what is being written can't be judged");
    assert_eq!(said, expected);
}

#[test]
fn verify_of_what_is_no_data_directory_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let said = sentence(&verify(&none, &[]), 1);
    assert_eq!(said, format!("{} is no data directory", none.display()));
    let said = sentence(&verify(dir.path(), &[]), 1);
    assert_eq!(
        said,
        format!("{} is no data directory", dir.path().display())
    );
    fs::create_dir(dir.path().join("journal")).unwrap();
    let said = sentence(&verify(dir.path(), &[]), 1);
    assert!(said.ends_with("has data but no format file"), "{said}");
    assert_eq!(
        infotainer(&["verify", "--jason"], &[]).status.code(),
        Some(2)
    );
}
