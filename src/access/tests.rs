//! Tokens, good and forged, against every kind of key.

use std::{path::PathBuf, sync::LazyLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{api_keys::KeyFile, *};
use crate::domain::{Permission, Stands};

const SECRET: &str = "a secret of more than thirty-two bytes";

/// One of each kind: an RSA key takes its time.
static RSA: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap());

/// A public key that is too short to verify anything with.
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCgdlNupTyoPEH5nOQuHQuvMaJE
ZK3saDFQ0GV53597tO+jx/A/sC+JpgTFzMCFCNKK1HZpgWwDeSsdiyrqLV/sUMNh
bcAZZGPFHI3ZGC3kCCE6KorysfSi3sREAkQkIRCM4i2ordwYmdxGKbKXNlLpjXjA
K5uGpKevFx/vPSRptwIDAQAB
-----END PUBLIC KEY-----
";

fn credentials() -> Credentials {
    Credentials {
        jwt_secret: Some(Given::Value(SECRET.into())),
        ..Credentials::default()
    }
}

fn with_public_key(pem: String) -> Credentials {
    Credentials {
        jwt_public_key: Some(Given::Value(pem.into())),
        ..Credentials::default()
    }
}

fn with_key_file(path: &Path) -> Credentials {
    Credentials {
        api_keys_file: Some(path.to_owned()),
        ..Credentials::default()
    }
}

fn seconds() -> u64 {
    now().0 / 1000
}

/// Claims that are good for an hour, with these in their place.
fn claims(change: Value) -> Value {
    let mut claims = json!({
        "sub": "alice",
        "exp": seconds() + 3600,
        "infotainer": { "publish": ["orders.*"] },
    });
    for (name, value) in change.as_object().unwrap() {
        let claims = claims.as_object_mut().unwrap();
        match value {
            Value::Null => _ = claims.remove(name),
            value => _ = claims.insert(name.clone(), value.clone()),
        }
    }
    claims
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn by_secret(claims: &Value) -> String {
    signed(
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        claims,
    )
}

fn judged(credentials: Credentials, token: &str) -> Result<Principal, Refused> {
    Store::read(&credentials).unwrap().judge(token, now())
}

fn refused(credentials: Credentials, token: &str) -> Refused {
    judged(credentials, token).unwrap_err()
}

#[test]
fn without_credentials_everybody_is_anybody() {
    let open = Authenticator::default();
    assert!(open.is_open());
    assert!(open.authenticate("anything").unwrap().is_anonymous());
    assert!(open.failures().iter().all(|(_, count)| count.get() == 0));
}

#[test]
fn a_token_says_who_may_do_what_until_when() {
    let expires = seconds() + 100;
    let token = by_secret(&claims(json!({ "exp": expires })));
    let principal = judged(credentials(), &token).unwrap();
    assert_eq!(principal.name.as_deref(), Some("alice"));
    assert_eq!(principal.expires, Some(Timestamp(expires * 1000)));
    let orders = crate::protocol::SubscriptionId::of_name("orders.eu");
    let granted = principal.permissions.granted(orders, Some("orders.eu"));
    assert!(granted.has_any(Permission::Publish.into()));
    assert!(!granted.has_any(Permission::Subscribe.into()));
}

#[test]
fn what_a_token_does_not_grant_is_not_granted() {
    let token = by_secret(&claims(json!({ "infotainer": null })));
    let principal = judged(credentials(), &token).unwrap();
    assert_eq!(*principal.permissions, Permissions::default());
}

#[test]
fn forged_tokens_prove_nothing() {
    let good = by_secret(&claims(json!({})));
    assert!(judged(credentials(), &good).is_ok());
    let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("a token has three parts");
    };
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let other = encoded(&claims(json!({ "sub": "root" })));
    let none = encoded(&json!({ "alg": "none", "typ": "JWT" }));
    let critical = encoded(&json!({ "alg": "HS256", "crit": ["exp"] }));
    let other_secret = EncodingKey::from_secret(b"another secret of thirty-two bytes");
    let by_another = signed(Algorithm::HS256, &other_secret, &claims(json!({})));
    let stronger = EncodingKey::from_secret(SECRET.as_bytes());
    let stronger = signed(Algorithm::HS512, &stronger, &claims(json!({})));
    for (token, why) in [
        (format!("{header}.{other}.{signature}"), Refused::Signature),
        (format!("{header}.{body}."), Refused::Signature),
        (format!("{header}.{body}.{signature}x"), Refused::Malformed),
        (by_another, Refused::Signature),
        (format!("{none}.{body}."), Refused::Malformed),
        (format!("{none}.{body}.{signature}"), Refused::Malformed),
        (format!("{critical}.{body}.{signature}"), Refused::Malformed),
        // Another algorithm than the one that goes with the key, although the key would do for it.
        (stronger, Refused::Algorithm),
        (format!("{body}.{signature}"), Refused::Malformed),
        (String::new(), Refused::Malformed),
        ("x".repeat(MAX_TOKEN + 1), Refused::Malformed),
    ] {
        let refused = refused(credentials(), &token);
        // A tail that is no base64 is found before or behind the signature.
        let is_tail = token.ends_with('x') && refused == Refused::Signature;
        assert!(
            refused == why || is_tail,
            "{refused:?}, not {why:?}: {token}"
        );
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let public = RSA.public_key_pem();
    let as_secret = EncodingKey::from_secret(public.as_bytes());
    let forged = signed(Algorithm::HS256, &as_secret, &claims(json!({})));
    assert_eq!(
        refused(with_public_key(public), &forged),
        Refused::Algorithm
    );
}

#[test]
fn a_token_is_good_from_nbf_to_exp() {
    let now = seconds();
    let refused = |change| refused(credentials(), &by_secret(&claims(change)));
    assert_eq!(refused(json!({ "exp": now - 1 })), Refused::Expired);
    assert_eq!(refused(json!({ "exp": now })), Refused::Expired);
    assert_eq!(refused(json!({ "exp": null })), Refused::Claims);
    assert_eq!(refused(json!({ "exp": "soon" })), Refused::Claims);
    assert_eq!(refused(json!({ "nbf": now + 3000 })), Refused::Early);
    // Two clocks are never quite the same.
    let token = by_secret(&claims(json!({ "nbf": now + 30 })));
    assert!(judged(credentials(), &token).is_ok());
}

#[test]
fn a_token_has_to_say_whom_it_speaks_for() {
    let refused = |change| refused(credentials(), &by_secret(&claims(change)));
    for sub in [
        Value::Null,
        json!(""),
        json!(7),
        json!("a\nb"),
        json!("x".repeat(256)),
    ] {
        assert_eq!(refused(json!({ "sub": sub })), Refused::Claims);
    }
    for grants in [
        json!({ "publish": [""] }),
        json!({ "publish": "orders" }),
        json!([]),
    ] {
        assert_eq!(refused(json!({ "infotainer": grants })), Refused::Claims);
    }
}

#[test]
fn audience_and_issuer_are_those_of_the_settings() {
    let strict = || Credentials {
        jwt_audience: Some("here".into()),
        jwt_issuer: Some("us".into()),
        ..credentials()
    };
    let token = |aud: Value, iss: Value| by_secret(&claims(json!({ "aud": aud, "iss": iss })));
    assert!(judged(strict(), &token(json!("here"), json!("us"))).is_ok());
    assert!(judged(strict(), &token(json!(["there", "here"]), json!("us"))).is_ok());
    for (aud, iss, why) in [
        (json!("there"), json!("us"), Refused::Audience),
        (Value::Null, json!("us"), Refused::Claims),
        (json!("here"), json!("them"), Refused::Issuer),
        (json!("here"), Value::Null, Refused::Claims),
    ] {
        assert_eq!(refused(strict(), &token(aud, iss)), why);
    }
    // What is for another is not for a server that has no audience.
    let for_another = token(json!("there"), Value::Null);
    assert_eq!(refused(credentials(), &for_another), Refused::Audience);
}

#[test]
fn each_kind_of_public_key_has_one_algorithm() {
    let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    type Read = fn(&[u8]) -> EncodingKey;
    let keys: [(Algorithm, &KeyPair, Read); 3] = [
        (Algorithm::RS256, &RSA, |pem| {
            EncodingKey::from_rsa_pem(pem).unwrap()
        }),
        (Algorithm::ES256, &ec, |pem| {
            EncodingKey::from_ec_pem(pem).unwrap()
        }),
        (Algorithm::EdDSA, &ed, |pem| {
            EncodingKey::from_ed_pem(pem).unwrap()
        }),
    ];
    for (algorithm, key, encoding_key) in keys {
        let token = signed(
            algorithm,
            &encoding_key(key.serialize_pem().as_bytes()),
            &claims(json!({})),
        );
        for (other, public, _) in keys {
            let judged = judged(with_public_key(public.public_key_pem()), &token);
            match judged {
                Ok(_) => assert_eq!(algorithm, other),
                Err(refused) => {
                    assert_ne!(algorithm, other);
                    assert_eq!(refused, Refused::Algorithm);
                }
            }
        }
    }
    let rsa = EncodingKey::from_rsa_pem(RSA.serialize_pem().as_bytes()).unwrap();
    let longer = signed(Algorithm::RS512, &rsa, &claims(json!({})));
    assert_eq!(
        refused(with_public_key(RSA.public_key_pem()), &longer),
        Refused::Algorithm
    );
}

#[test]
fn keys_that_would_never_verify_anything_end_the_start() {
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let short = Credentials {
        jwt_secret: Some(Given::Value("short".into())),
        ..Credentials::default()
    };
    for (credentials, why) in [
        (
            with_public_key(p384.public_key_pem()),
            "another curve than P-256",
        ),
        (with_public_key(RSA_1024.to_owned()), "2048 to 8192 bits"),
        (with_public_key(p384.serialize_pem()), "is a private one"),
        (with_public_key("nonsense".to_owned()), "in PEM"),
        (short, "has 5 bytes"),
    ] {
        let error = Authenticator::new(credentials).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(
            !error.contains("nonsense") && !error.contains("short"),
            "{error}"
        );
    }
}

fn jwk(key: &KeyPair, kid: &str, change: Value) -> Value {
    // The x coordinate of an Ed25519 key is its raw public key.
    let mut jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid,
        "x": URL_SAFE_NO_PAD.encode(key.public_key_raw()),
    });
    let change = change.as_object().unwrap().clone();
    jwk.as_object_mut().unwrap().extend(change);
    jwk
}

fn with_jwks(dir: &TempDir, keys: &[Value]) -> Credentials {
    let path = dir.path().join("jwks.json");
    fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
    Credentials {
        jwks_file: Some(path),
        ..Credentials::default()
    }
}

#[test]
fn a_key_set_has_its_keys_by_id_and_only_those_that_sign() {
    let dir = TempDir::new().unwrap();
    let [one, two] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let signed = |key: &KeyPair, kid: Option<&str>| {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(Algorithm::EdDSA)
        };
        let key = EncodingKey::from_ed_pem(key.serialize_pem().as_bytes()).unwrap();
        encode(&header, &claims(json!({})), &key).unwrap()
    };
    let rsa = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RSA-OAEP", "use": "enc" });
    let set = [
        jwk(&one, "1", json!({})),
        jwk(&two, "2", json!({})),
        rsa.clone(),
    ];
    let set = || with_jwks(&dir, &set);
    assert!(judged(set(), &signed(&two, Some("2"))).is_ok());
    assert!(judged(set(), &signed(&two, None)).is_ok());
    assert_eq!(refused(set(), &signed(&two, Some("1"))), Refused::Signature);
    assert_eq!(refused(set(), &signed(&two, Some("3"))), Refused::Algorithm);
    let short = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 255]), "e": "AQAB" });
    let enough = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 256]), "e": "AQAB" });
    assert!(Authenticator::new(with_jwks(&dir, &[enough])).is_ok());
    for none in [
        vec![],
        vec![rsa],
        vec![short],
        vec![jwk(&one, "1", json!({ "alg": "RS256" }))],
    ] {
        let error = Authenticator::new(with_jwks(&dir, &none))
            .unwrap_err()
            .to_string();
        assert!(error.contains("has no key for RS256"), "{error}");
    }
}

#[test]
fn a_key_that_stands_in_a_set_twice_is_revoked_when_it_is_gone() {
    let dir = TempDir::new().unwrap();
    let [one, other] = [(); 2].map(|()| KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let key = EncodingKey::from_ed_pem(one.serialize_pem().as_bytes()).unwrap();
    let token = signed(Algorithm::EdDSA, &key, &claims(json!({})));
    let [one, other] = [&one, &other].map(|key| jwk(key, "1", json!({})));
    let authenticator =
        Authenticator::new(with_jwks(&dir, &[one.clone(), one.clone(), other.clone()])).unwrap();
    let before = authenticator.authenticate(&token).unwrap();
    with_jwks(&dir, &[one.clone(), other.clone(), one]);
    authenticator.reload().unwrap();
    let between = authenticator.authenticate(&token).unwrap();
    assert_eq!(before.standing.stands(), Stands::AsItWas);
    with_jwks(&dir, &[other]);
    authenticator.reload().unwrap();
    for principal in [before, between] {
        assert_eq!(principal.standing.stands(), Stands::Revoked);
    }
}

fn key_file() -> (TempDir, PathBuf, KeyFile) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys.json");
    (dir, path, KeyFile::default())
}

fn added(file: &mut KeyFile, name: &str, expires: Option<Timestamp>) -> Secret {
    let permissions = Permissions::all();
    file.add(name.to_owned(), permissions, now(), expires)
        .unwrap()
}

#[test]
fn an_api_key_is_good_and_nothing_else_is() {
    let (_dir, path, mut file) = key_file();
    let (alice, bob) = (
        added(&mut file, "alice", None),
        added(&mut file, "bob", None),
    );
    let over = added(&mut file, "carol", Some(Timestamp(1)));
    file.write(&path).unwrap();
    let judged = |token: &str| judged(with_key_file(&path), token);
    let principal = judged(alice.reveal()).unwrap();
    assert_eq!(principal.name.as_deref(), Some("alice"));
    assert_eq!(*principal.permissions, Permissions::all());
    assert_eq!(judged(over.reveal()).unwrap_err(), Refused::Expired);
    let (of_alice, of_bob) = (alice.reveal(), bob.reveal());
    let id = of_alice.len() - 44;
    let mixed = format!("{}{}", &of_alice[..id], &of_bob[id..]);
    for wrong in [
        mixed.as_str(),
        "ifk_0000000000000000_x",
        &of_alice[..of_alice.len() - 1],
    ] {
        assert_eq!(judged(wrong).unwrap_err(), Refused::Unknown, "{wrong}");
    }
    assert_eq!(judged("ifk_").unwrap_err(), Refused::Malformed);
}

#[test]
fn the_file_of_keys_holds_no_key_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path, mut file) = key_file();
    let token = added(&mut file, "alice", None);
    file.write(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let secret = token.reveal().rsplit('_').next().unwrap();
    assert!(token.reveal().len() > 60 && !text.contains(secret));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn hashes_are_compared_in_constant_time_and_in_no_other_way() {
    let code = include_str!("api_keys.rs");
    assert!(code.contains("verify_slices_are_equal(&self.0, &other.0)"));
    // Without `PartialEq`, an `==` of hashes does not compile.
    let declared = code.split("pub struct Hash").next().unwrap();
    let derived = declared.rsplit("#[derive(").next().unwrap();
    assert!(!derived.contains("PartialEq"), "{derived}");
    assert!(!code.contains("PartialEq for Hash"));
}

#[test]
fn what_is_read_again_takes_effect_and_what_is_gone_is_revoked() {
    let (_dir, path, mut file) = key_file();
    let [stays, goes, changes] = ["a", "b", "c"].map(|name| added(&mut file, name, None));
    file.write(&path).unwrap();
    let authenticator = Authenticator::new(with_key_file(&path)).unwrap();
    let principal = |token: &Secret| authenticator.authenticate(token.reveal());
    let [of_a, of_b, of_c] = [&stays, &goes, &changes].map(|token| principal(token).unwrap());

    file.keys.remove(1);
    file.keys[1].permissions = Permissions::default();
    let added = added(&mut file, "d", None);
    file.write(&path).unwrap();
    authenticator.reload().unwrap();
    assert!(principal(&added).is_ok());
    assert_eq!(principal(&goes).unwrap_err(), Unauthorized);
    assert_eq!(
        *principal(&changes).unwrap().permissions,
        Permissions::default()
    );
    let stand = [&of_a, &of_b, &of_c].map(|one| one.standing.stands());
    assert_eq!(stand, [Stands::AsItWas, Stands::Revoked, Stands::Changed]);

    // What can't be read changes nothing.
    for text in ["{", "{\"keys\": [{\"id\": \"x\"}]}"] {
        fs::write(&path, text).unwrap();
        authenticator.reload().unwrap_err();
        assert!(principal(&stays).is_ok());
        assert_eq!(of_a.standing.stands(), Stands::AsItWas);
    }
}

#[test]
fn another_secret_revokes_what_the_old_one_signed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, format!("{SECRET}\n")).unwrap();
    let authenticator = Authenticator::new(Credentials {
        jwt_secret: Some(Given::File(path.clone())),
        ..Credentials::default()
    })
    .unwrap();
    let token = by_secret(&claims(json!({})));
    let principal = authenticator.authenticate(&token).unwrap();
    authenticator.reload().unwrap();
    assert_eq!(principal.standing.stands(), Stands::AsItWas);
    fs::write(&path, "another secret of more than thirty-two bytes").unwrap();
    authenticator.reload().unwrap();
    assert_eq!(principal.standing.stands(), Stands::Revoked);
    assert_eq!(
        authenticator.authenticate(&token).unwrap_err(),
        Unauthorized
    );
    let failures = authenticator.failures().iter();
    assert_eq!(failures.map(|(_, count)| count.get()).sum::<u64>(), 1);
}
