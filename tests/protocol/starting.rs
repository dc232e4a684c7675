//! Starts that can't be: each ends with 1 and a sentence, and touches nothing.

use std::fs;

use tempfile::TempDir;

use crate::support::{Process, TestServer};

#[tokio::test]
async fn a_folder_in_use_by_another_server_is_refused_and_that_one_goes_on() {
    let server = Process::start(&[]);
    let mut client = server.client().await;
    client.publish("orders", b"x").await;
    let (code, said) = Process::refused(&server.data_dir(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("infotainer-data"), "{said}");
    client.publish("orders", b"y").await;
    assert_eq!(client.log("orders").await.len(), 2);
}

#[tokio::test]
async fn a_folder_of_a_newer_format_is_refused_and_left_as_it_is() {
    let mut server = TestServer::start();
    server.stop().await;
    let format = server.data_dir().join("format");
    let written = fs::read_to_string(&format).unwrap();
    let newer = written.replacen('1', "2", 1);
    assert_ne!(newer, written);
    fs::write(&format, &newer).unwrap();
    let (code, said) = Process::refused(server.data_dir(), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("format"), "{said}");
    assert_eq!(fs::read_to_string(&format).unwrap(), newer);
    // With the right format, everything is as it was.
    fs::write(&format, &written).unwrap();
    server.start_again().await;
}

#[tokio::test]
async fn what_is_no_folder_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let (code, said) = Process::refused(&file, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("file"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a folder");
}

#[tokio::test]
async fn an_address_in_use_is_refused_and_named() {
    let server = TestServer::start();
    let dir = TempDir::new().unwrap();
    let address = server.address().to_string();
    let (code, said) = Process::refused(dir.path(), &[("LISTEN", &address)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&address), "{said}");
}

#[tokio::test]
async fn a_bad_setting_is_refused_by_the_library_too() {
    let config = infotainer::Config {
        workers: 0,
        ..Default::default()
    };
    let error = infotainer::Server::start(config).unwrap_err();
    assert!(error.to_string().contains("workers"), "{error}");
}
