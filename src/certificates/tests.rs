use std::{fs, os::unix::fs::symlink};

use rcgen::KeyPair;
use tempfile::TempDir;

use super::*;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the tests over real sockets use the rest"
)]
#[path = "authority.rs"]
mod authority;

use authority::{Authority, Pair};

/// A folder with the files of a server.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn with(pair: &Pair) -> Self {
        let folder = Self::new();
        folder.put(pair);
        folder
    }

    fn put(&self, pair: &Pair) {
        self.write("tls.crt", &pair.certificate);
        self.write("tls.key", &pair.key);
    }

    /// A new file takes the place of the old one, as tools that renew certificates do it.
    fn write(&self, name: &str, content: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, self.0.path().join(name)).unwrap();
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.0.path().join("tls.crt"),
            key: self.0.path().join("tls.key"),
            client_ca: None,
        }
    }

    fn check(&self) -> Result<Option<String>, String> {
        self.files().check().map_err(|error| {
            let folder = format!("{}/", self.0.path().display());
            error.to_string().replace(&folder, "")
        })
    }
}

fn authority() -> Authority {
    Authority::new("an authority")
}

#[test]
fn a_whole_pair_that_is_valid_is_used_without_a_word() {
    let folder = Folder::with(&authority().issue(&["localhost"]));
    assert_eq!(folder.check(), Ok(None));
    let certificates = Certificates::load(folder.files()).unwrap();
    assert_eq!(certificates.current().alpn_protocols, [b"http/1.1"]);
}

#[test]
fn who_can_not_show_a_certificate_that_clients_take_is_warned() {
    let warning = |pair: Pair, at: SystemTime| {
        let folder = Folder::with(&pair);
        let files = folder.files();
        let warning = Read::from(&files).unwrap().warning(&files, at);
        warning.map(|warning| {
            let folder = format!("{}/", folder.0.path().display());
            warning.replace(&folder, "")
        })
    };
    let at = |text| humantime::parse_rfc3339(text).unwrap();
    let now = SystemTime::now();
    let authority = authority();
    assert_eq!(
        warning(authority.issue_until(&["a"], 2001), now).unwrap(),
        "the certificate tls.crt ran out at 2001-01-01T00:00:00Z: clients refuse it"
    );
    assert_eq!(
        warning(authority.issue_between(&["a"], 3000, 3001), now).unwrap(),
        "the certificate tls.crt is not valid before 3000-01-01T00:00:00Z: clients refuse it"
    );
    let pair = || authority.issue_until(&["a"], 2100);
    assert_eq!(
        warning(pair(), at("2099-12-28T00:00:00Z")).unwrap(),
        "the certificate tls.crt runs out at 2100-01-01T00:00:00Z"
    );
    assert_eq!(warning(pair(), at("2099-12-20T00:00:00Z")), None);
}

#[test]
fn what_can_not_be_used_is_told_with_the_file_that_it_lies_in() {
    let authority = authority();
    let pair = authority.issue(&["localhost"]);
    let said = |certificate: &str, key: &str| {
        let folder = Folder::new();
        folder.write("tls.crt", certificate);
        folder.write("tls.key", key);
        folder.check().unwrap_err()
    };
    let (certificate, key) = (&*pair.certificate, &*pair.key);
    assert_eq!(
        said(certificate, &KeyPair::generate().unwrap().serialize_pem()),
        "the private key tls.key is not that of the certificate tls.crt"
    );
    assert_eq!(
        said(key, certificate),
        "tls.crt holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
    );
    assert_eq!(
        said(certificate, &key.replace("PRIVATE", "ENCRYPTED PRIVATE")),
        "tls.key holds no private key in PEM (-----BEGIN PRIVATE KEY-----); one that is encrypted can't be used"
    );
    assert_eq!(
        said(&certificate[..certificate.len() / 2], key),
        "the certificate tls.crt can't be used: it is damaged, or not in PEM"
    );
    let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(
        said(certificate, nonsense).starts_with("the private key tls.key can't be used: "),
        "{}",
        said(certificate, nonsense)
    );
    assert_eq!(
        Folder::new().check().unwrap_err(),
        "the certificate tls.crt can't be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_client_ca_has_to_be_one() {
    let folder = Folder::with(&authority().issue(&["localhost"]));
    let with_ca = |content: &str| {
        folder.write("ca.crt", content);
        let files = TlsFiles {
            client_ca: Some(folder.0.path().join("ca.crt")),
            ..folder.files()
        };
        files.check().map_err(|error| error.to_string())
    };
    assert_eq!(with_ca(&authority().certificate), Ok(None));
    assert!(with_ca("").unwrap_err().contains("holds no client CA"));
}

#[test]
fn a_pair_that_is_changed_is_taken_up_when_both_files_are_there() {
    let authority = authority();
    let folder = Folder::with(&authority.issue(&["localhost"]));
    let certificates = Certificates::load(folder.files()).unwrap();
    let look = || {
        let before = certificates.current();
        certificates.look(SystemTime::now());
        !Arc::ptr_eq(&before, &certificates.current())
    };
    assert!(!look() && !look());

    let new = authority.issue(&["localhost"]);
    folder.write("tls.crt", &new.certificate);
    assert!(!look());
    folder.write("tls.key", &new.key);
    assert!(!look());
    assert!(look());
    assert!(!look());
}

#[test]
fn a_pair_that_is_broken_leaves_the_old_one_until_it_is_mended() {
    let authority = authority();
    let folder = Folder::with(&authority.issue(&["localhost"]));
    let certificates = Certificates::load(folder.files()).unwrap();
    let first = certificates.current();

    let new = authority.issue(&["localhost"]);
    folder.write("tls.crt", &new.certificate);
    assert!(certificates.reload().is_err());
    fs::remove_file(folder.files().certificate).unwrap();
    for _ in 0..3 {
        certificates.look(SystemTime::now());
    }
    assert!(Arc::ptr_eq(&first, &certificates.current()));

    folder.put(&new);
    assert!(
        certificates
            .reload()
            .unwrap()
            .ends_with("tls.crt, valid until 4000-01-01T00:00:00Z")
    );
    assert!(!Arc::ptr_eq(&first, &certificates.current()));
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change() {
    let authority = authority();
    let old = Folder::with(&authority.issue(&["localhost"]));
    let new = Folder::with(&authority.issue(&["localhost"]));
    // As Kubernetes mounts secrets.
    let mount = Folder::new();
    let data = mount.0.path().join("..data");
    symlink(old.0.path(), &data).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), mount.0.path().join(name)).unwrap();
    }
    let certificates = Certificates::load(mount.files()).unwrap();
    let first = certificates.current();

    let swapped = mount.0.path().join("..swapped");
    symlink(new.0.path(), &swapped).unwrap();
    fs::rename(swapped, data).unwrap();
    for _ in 0..2 {
        certificates.look(SystemTime::now());
    }
    assert!(!Arc::ptr_eq(&first, &certificates.current()));
}
