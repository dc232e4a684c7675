//! The commands of the client over `wss://`, and what they say of certificates.

use std::{fs, path::Path};

use crate::{
    infotainer, printed, said, sentence, serve,
    support::{Authority, Pair, Secured, TestServer},
};

/// A server with TLS, and how its clients find it.
struct Encrypted {
    secured: Secured,
    server: TestServer,
}

impl Encrypted {
    fn serve() -> Self {
        let secured = Secured::new();
        let server = TestServer::with(|config| config.tls = Some(secured.files()));
        Self { secured, server }
    }

    /// As it is called in its certificate.
    fn url(&self) -> String {
        self.url_of("localhost")
    }

    fn url_of(&self, host: &str) -> String {
        format!("wss://{host}:{}/ws", self.server.address().port())
    }

    /// What `infotainer info` says that fails to connect, behind the URL.
    fn refused(&self, url: &str, variables: &[(&str, &str)]) -> String {
        refused(url, variables)
    }

    fn ca(&self) -> String {
        text(&self.secured.path("ca.crt"))
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn refused(url: &str, variables: &[(&str, &str)]) -> String {
    let variables = [&[("INFOTAINER_URL", url)], variables].concat();
    let said = sentence(&infotainer(&["info", "orders"], &variables), 1);
    let behind = said.strip_prefix(&format!("can't connect to {url}: TLS: "));
    behind.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn commands_speak_wss_to_a_server_whose_authority_they_are_told() {
    let server = Encrypted::serve();
    let (url, ca) = (server.url(), server.ca());
    for url in [&url, &server.url_of("127.0.0.1")] {
        let published = infotainer(
            &["pub", "orders", "hello", "--ca", &ca],
            &[("INFOTAINER_URL", url)],
        );
        assert_eq!(published.status.code(), Some(0), "{}", said(&published));
    }
    let log = infotainer(
        &["log", "orders", "--raw"],
        &[("INFOTAINER_URL", &url), ("INFOTAINER_CA", &ca)],
    );
    assert_eq!(printed(&log), "hello\nhello\n");
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_in_words() {
    let server = Encrypted::serve();
    let (url, ca) = (server.url(), server.ca());
    let another = server.secured.path("another.crt");
    fs::write(&another, Authority::new("another").certificate).unwrap();
    assert_eq!(
        server.refused(&url, &[("INFOTAINER_CA", &text(&another))]),
        "the server's certificate was issued by nobody who is trusted here; an authority of one's own is given with --ca \
         (in a program, with Builder::certificate_authority)"
    );

    let pair = server.secured.authority.issue(&["example.com"]);
    server.secured.put(&pair);
    assert!(server.server.reload());
    let trusted = [("INFOTAINER_CA", &*ca)];
    assert_eq!(
        server.refused(&url, &trusted),
        "the server's certificate is not for localhost but for example.com"
    );

    let authority = &server.secured.authority;
    let times = [
        (authority.issue_until(&["localhost"], 2001), "has run out"),
        (
            authority.issue_between(&["localhost"], 3000, 3001),
            "is not valid yet",
        ),
    ];
    for (pair, expected) in times {
        server.secured.put(&pair);
        assert!(server.server.reload());
        assert_eq!(
            server.refused(&url, &trusted),
            format!("the server's certificate {expected}")
        );
    }
}

#[test]
fn a_server_without_tls_is_told_from_one_with_a_bad_certificate() {
    let plain = serve();
    let url = plain.url.replace("ws://", "wss://");
    let secured = Secured::new();
    let ca = text(&secured.path("ca.crt"));
    assert_eq!(
        refused(&url, &[("INFOTAINER_CA", &ca)]),
        "the server does not speak TLS there: is its URL ws:// and not wss://?"
    );
}

#[test]
fn a_client_shows_its_certificate_where_a_server_wants_to_see_one() {
    let secured = Secured::new();
    let clients = Authority::new("who may come");
    let put = |name: &str, pem: &str| {
        let path = secured.path(name);
        fs::write(&path, pem).unwrap();
        text(&path)
    };
    let mut files = secured.files();
    files.client_ca = Some(put("clients.crt", &clients.certificate).into());
    let server = Encrypted {
        server: TestServer::with(|config| config.tls = Some(files)),
        secured,
    };
    let (url, ca) = (server.url(), server.ca());
    let put = |name: &str, pem: &str| {
        let path = server.secured.path(name);
        fs::write(&path, pem).unwrap();
        text(&path)
    };
    let shows = |Pair { certificate, key }: Pair| {
        [put("client.crt", &certificate), put("client.key", &key)]
    };

    assert_eq!(
        server.refused(&url, &[("INFOTAINER_CA", &ca)]),
        "the server lets in only clients with a certificate"
    );
    let [certificate, key] = shows(Authority::new("another").issue_to_client("stranger"));
    let variables = [
        ("INFOTAINER_CA", &*ca),
        ("INFOTAINER_CLIENT_CERT", &*certificate),
        ("INFOTAINER_CLIENT_KEY", &*key),
    ];
    assert_eq!(
        server.refused(&url, &variables),
        "the server does not accept the client's certificate"
    );
    let [_, _] = shows(clients.issue_to_client("known"));
    let variables = [&[("INFOTAINER_URL", &*url)], &variables[..]].concat();
    let published = infotainer(&["pub", "orders", "hello"], &variables);
    assert_eq!(published.status.code(), Some(0), "{}", said(&published));
}

#[test]
fn a_file_that_can_not_be_used_ends_with_a_sentence() {
    let server = Encrypted::serve();
    let url = server.url();
    let none = [("INFOTAINER_URL", &*url), ("INFOTAINER_CA", "/nowhere")];
    let said = sentence(&infotainer(&["info", "orders"], &none), 2);
    assert_eq!(
        said,
        "/nowhere can't be read: No such file or directory (os error 2)"
    );
    let key = text(&server.secured.path("tls.key"));
    assert_eq!(
        server.refused(&url, &[("INFOTAINER_CA", &key)]),
        "the certificate that is to be trusted is not in PEM"
    );
}

#[test]
fn loads_are_put_on_a_server_with_tls() {
    let server = Encrypted::serve();
    let (url, ca) = (server.url(), server.ca());
    let variables = [("INFOTAINER_URL", &*url), ("INFOTAINER_CA", &*ca)];
    for load in [
        &["fanout", "--subscribers=3", "--count=2000"][..],
        &["pub", "--publishers=3", "--count=2000", "--size=4KiB"],
        &["idle", "--connections=3", "--duration=100ms"],
    ] {
        let output = infotainer(&[&["bench"], load].concat(), &variables);
        assert_eq!(output.status.code(), Some(0), "{load:?}: {}", said(&output));
    }
}
