//! `infotainer health`.

use std::net::TcpListener;

use crate::{
    infotainer, printed, said, sentence, serve,
    support::{Secured, TestServer},
};

#[test]
fn a_server_that_is_in_order_is_healthy() {
    let served = serve();
    let listen = served
        .url
        .trim_start_matches("ws://")
        .trim_end_matches("/ws");
    let output = infotainer(&["health"], &[("INFOTAINER_LISTEN", listen)]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(printed(&output).starts_with("ok\n"));
}

#[test]
fn a_server_with_tls_is_known_by_its_certificate_whatever_its_name() {
    let secured = Secured::new();
    let pair = secured.authority.issue(&["example.com"]);
    secured.put(&pair);
    let server = TestServer::with(|config| config.tls = Some(secured.files()));
    let listen = server.address().to_string();
    let certificate = secured.path("tls.crt");
    let variables = [
        ("INFOTAINER_LISTEN", &*listen),
        ("INFOTAINER_TLS_CERT", certificate.to_str().unwrap()),
    ];
    let output = infotainer(&["health"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    // It shows the one of before.
    secured.renew();
    let said = sentence(&infotainer(&["health"], &variables), 1);
    assert!(said.contains("can't be asked"), "{said}");
}

#[test]
fn nobody_who_listens_is_not_healthy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    drop(free);
    let said = sentence(
        &infotainer(&["health"], &[("INFOTAINER_LISTEN", &listen)]),
        1,
    );
    assert!(
        said.starts_with(&format!("{listen} can't be asked: ")),
        "{said}"
    );
}

#[test]
fn who_does_not_answer_in_time_is_not_healthy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = silent.local_addr().unwrap().to_string();
    let said = sentence(
        &infotainer(
            &["health", "--timeout=100ms"],
            &[("INFOTAINER_LISTEN", &listen)],
        ),
        3,
    );
    assert_eq!(said, format!("{listen} did not answer in time"));
}
