//! A certificate authority for tests, and what it issues. The tests over real sockets use it, too.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// One that exists for a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub certificate: String,
}

/// A certificate and its key, in PEM.
pub struct Pair {
    /// The certificate, and behind it nothing: the authority's is known to whoever trusts it.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// One more.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// For a server with these names or addresses, valid for a long time.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 4000)
    }

    /// The same, valid up to the beginning of this year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        self.issue_between(names, 1975, year)
    }

    /// The same, valid between the beginnings of these years.
    pub fn issue_between(&self, names: &[&str], from: i32, until: i32) -> Pair {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth, from, until)
    }

    /// For a client.
    pub fn issue_to_client(&self, name: &str) -> Pair {
        self.sign(&[name], ExtendedKeyUsagePurpose::ClientAuth, 1975, 4000)
    }

    fn sign(&self, names: &[&str], usage: ExtendedKeyUsagePurpose, from: i32, until: i32) -> Pair {
        let names: Vec<_> = names.iter().map(|name| String::from(*name)).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}
