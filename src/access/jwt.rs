//! JSON Web Tokens (RFC 7519): what a signature proves, and what the claims say.
//!
//! Owns which algorithm goes with which key: one, fixed when the key is read (RFC 8725, section 3.1). The token's own word about that only
//! chooses among the keys.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::RsaParameters,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    dangerous::insecure_decode_claims,
    decode, decode_header, encode,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde::{Deserialize, Serialize};

use super::{Credential, CredentialsError, Refused, read_file};
use crate::{
    config::Credentials,
    domain::{Permissions, Principal, Standing},
    protocol::{Timestamp, is_name},
};

/// The shortest secret, in bytes: that of the hash (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;

/// How far the clock of whoever made a token may be ahead. Milliseconds.
const CLOCK_SKEW: u64 = 60_000;

/// Keys that one token is tried with.
const MAX_TRIED: usize = 4;

/// An uncompressed point of P-256.
const P256_POINT: usize = 65;
const ED25519_POINT: usize = 32;

/// Bits of an RSA key that can be verified with (RFC 7518, section 3.3, and what the library does).
const RSA_BITS: RangeInclusive<u32> = 2048..=8192;

/// The keys that tokens are judged with.
#[derive(Debug, Default)]
pub(super) struct TokenKeys(Vec<TokenKey>);

#[derive(Debug)]
struct TokenKey {
    /// `kid`.
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
    /// Of what it was made of, to find it again.
    fingerprint: [u8; 32],
    standing: Standing,
}

/// What a token says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it speaks for.
    pub sub: String,
    /// When it ends: seconds since 1970.
    pub exp: f64,
    /// When it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<f64>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<f64>,
    /// For whom it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<serde_json::Value>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<serde_json::Value>,
    /// What it grants.
    #[serde(default)]
    pub infotainer: Permissions,
}

impl TokenKeys {
    pub(super) fn read(credentials: &Credentials) -> Result<Self, CredentialsError> {
        let mut keys = Vec::new();
        let validation = |algorithm| validation(algorithm, credentials);
        if let Some(secret) = &credentials.jwt_secret {
            let secret = secret.read()?;
            let secret = secret.reveal().as_bytes();
            if secret.len() < MIN_SECRET {
                let problem = format!(
                    "has {} bytes, but must have at least {MIN_SECRET} random ones",
                    secret.len()
                );
                return Err(CredentialsError::bad("the JWT secret", problem));
            }
            keys.push(TokenKey {
                id: None,
                algorithm: Algorithm::HS256,
                key: DecodingKey::from_secret(secret),
                validation: validation(Algorithm::HS256),
                fingerprint: fingerprint(secret),
                standing: Standing::default(),
            });
        }
        if let Some(pem) = &credentials.jwt_public_key {
            let pem = pem.read()?;
            let (algorithm, key) = public_key(pem.reveal())?;
            keys.push(TokenKey {
                id: None,
                algorithm,
                key,
                validation: validation(algorithm),
                fingerprint: fingerprint(pem.reveal().as_bytes()),
                standing: Standing::default(),
            });
        }
        if let Some(path) = &credentials.jwks_file {
            let text = read_file(path)?;
            let what = path.display();
            let set: JwkSet = serde_json::from_str(&text)
                .map_err(|error| CredentialsError::bad(&what, format!("is no JWK set: {error}")))?;
            let before = keys.len();
            let mut seen = HashSet::new();
            for jwk in &set.keys {
                let fingerprint = fingerprint(&serde_json::to_vec(jwk).unwrap_or_default());
                if !seen.insert(fingerprint) {
                    // The same twice, of which only one could be revoked.
                    continue;
                }
                if let Some((algorithm, key)) = key_of(jwk) {
                    keys.push(TokenKey {
                        id: jwk.common.key_id.clone(),
                        algorithm,
                        key,
                        validation: validation(algorithm),
                        fingerprint,
                        standing: Standing::default(),
                    });
                } else {
                    log::warn!(
                        "a key of {what} is left out: RS256 (2048 to 8192 bits), ES256 and EdDSA are known"
                    );
                }
            }
            if keys.len() == before {
                let problem = "has no key for RS256, ES256 or EdDSA";
                return Err(CredentialsError::bad(what, problem));
            }
        }
        Ok(Self(keys))
    }

    /// These take the place of `before`: what is the same stands as it did, what is gone is revoked.
    pub(super) fn instead_of(mut self, before: &Self) -> Self {
        let mut known: HashMap<_, _> = before
            .0
            .iter()
            .map(|key| (key.fingerprint, &key.standing))
            .collect();
        for key in &mut self.0 {
            if let Some(standing) = known.remove(&key.fingerprint) {
                key.standing = standing.clone();
            }
        }
        for standing in known.into_values() {
            standing.revoke();
        }
        self
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn judge(&self, token: &str, now: Timestamp) -> Result<Principal, Refused> {
        let header = decode_header(token).map_err(|_| Refused::Malformed)?;
        if header.crit.is_some() {
            // What has to be understood is not (RFC 7515, section 4.1.11).
            return Err(Refused::Malformed);
        }
        let kid = header.kid.as_ref();
        let fits = |key: &&TokenKey| {
            key.algorithm == header.alg
                && (kid.is_none() || key.id.is_none() || key.id.as_ref() == kid)
        };
        let mut refused = Refused::Algorithm;
        for key in self.0.iter().filter(fits).take(MAX_TRIED) {
            match decode::<Claims>(token, &key.key, &key.validation) {
                Ok(token) => return principal(token.claims, key.standing.clone(), now),
                Err(error) => refused = reason(error.kind()),
            }
            if refused != Refused::Signature {
                break;
            }
        }
        Err(refused)
    }
}

fn principal(claims: Claims, standing: Standing, now: Timestamp) -> Result<Principal, Refused> {
    if !is_name(&claims.sub) {
        return Err(Refused::Claims);
    }
    let expires = millis(claims.exp).ok_or(Refused::Claims)?;
    if expires <= now.0 {
        return Err(Refused::Expired);
    }
    if let Some(begins) = claims.nbf
        && millis(begins).ok_or(Refused::Claims)? > now.0.saturating_add(CLOCK_SKEW)
    {
        return Err(Refused::Early);
    }
    Ok(Principal {
        name: Some(claims.sub.into()),
        permissions: Arc::new(claims.infotainer),
        expires: Some(Timestamp(expires)),
        standing,
    })
}

/// Milliseconds of a `NumericDate`, which may have a fraction.
fn millis(seconds: f64) -> Option<u64> {
    /// The year 9999.
    const LATEST: f64 = 253_402_300_799.0;
    (seconds.is_finite() && seconds >= 0.0).then(|| (seconds.min(LATEST) * 1000.0) as u64)
}

fn reason(kind: &ErrorKind) -> Refused {
    match kind {
        ErrorKind::InvalidSignature => Refused::Signature,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::InvalidIssuer => Refused::Issuer,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => Refused::Claims,
        _ => Refused::Malformed,
    }
}

/// The times are judged by ourselves: to the millisecond, and by a clock that tests make.
fn validation(algorithm: Algorithm, credentials: &Credentials) -> Validation {
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp", "sub"];
    validation.validate_exp = false;
    if let Some(audience) = &credentials.jwt_audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    if let Some(issuer) = &credentials.jwt_issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, bytes).as_ref());
    fingerprint
}

/// The algorithm that goes with a public key.
fn public_key(pem: &str) -> Result<(Algorithm, DecodingKey), CredentialsError> {
    let bad = |problem: &str| Err(CredentialsError::bad("the public key for JWT", problem));
    if pem.contains("PRIVATE KEY") {
        return bad("is a private one: the server needs the public one, and no other");
    }
    let bytes = pem.as_bytes();
    let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        return match length(&key) {
            P256_POINT => Ok((Algorithm::ES256, key)),
            _ => bad("is on another curve than P-256, which ES256 has"),
        };
    }
    if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
        return Ok((Algorithm::EdDSA, key));
    }
    match DecodingKey::from_rsa_pem(bytes) {
        Ok(key) => {
            let der = key.try_get_as_bytes().unwrap_or_default();
            match RsaParameters::public_modulus_len(der) {
                Ok(bits) if RSA_BITS.contains(&bits) => Ok((Algorithm::RS256, key)),
                _ => bad("is an RSA key that has not 2048 to 8192 bits"),
            }
        }
        Err(_) => bad("is no RSA, P-256 or Ed25519 key in PEM (-----BEGIN PUBLIC KEY-----)"),
    }
}

/// The algorithm that goes with a key of a set, where it is one that is known here.
fn key_of(jwk: &Jwk) -> Option<(Algorithm, DecodingKey)> {
    let common = &jwk.common;
    if common
        .public_key_use
        .as_ref()
        .is_some_and(|one| *one != PublicKeyUse::Signature)
    {
        return None;
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(key)
            if bits_of(&key.n).is_some_and(|bits| RSA_BITS.contains(&bits)) =>
        {
            (Algorithm::RS256, KeyAlgorithm::RS256)
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    if common.key_algorithm.is_some_and(|one| one != name) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let length = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    let fits = match algorithm {
        Algorithm::ES256 => length == P256_POINT,
        Algorithm::EdDSA => length == ED25519_POINT,
        _ => true,
    };
    fits.then_some((algorithm, key))
}

/// How long a number is, in the base64url of a JWK.
fn bits_of(number: &str) -> Option<u32> {
    let bytes = URL_SAFE_NO_PAD.decode(number).ok()?;
    let leading = bytes.iter().position(|byte| *byte != 0)?;
    let significant = &bytes[leading..];
    let bits = u32::try_from(significant.len()).ok()?.checked_mul(8)?;
    Some(bits - significant[0].leading_zeros())
}

/// What a token says, whether it is true or not.
pub(super) fn told(token: &str) -> Option<Credential> {
    let header = decode_header(token).ok()?;
    let claims: Claims = insecure_decode_claims(token).ok()?;
    Some(Credential {
        kind: format!("JWT, {:?}", header.alg),
        expires: millis(claims.exp).map(Timestamp),
        name: Some(claims.sub),
        permissions: Some(claims.infotainer),
        is_good: None,
        refused: None,
    })
}

/// A key that signs tokens. The server never needs one.
pub struct SigningKey(Algorithm, EncodingKey);

impl SigningKey {
    /// HS256 with `secret`.
    ///
    /// # Errors
    /// If it is too short.
    pub fn of_secret(secret: &str) -> Result<Self, CredentialsError> {
        if secret.len() < MIN_SECRET {
            let problem = format!("has {} bytes, but must have {MIN_SECRET}", secret.len());
            return Err(CredentialsError::bad("the JWT secret", problem));
        }
        let key = EncodingKey::from_secret(secret.as_bytes());
        Ok(Self(Algorithm::HS256, key))
    }

    /// RS256, ES256 or EdDSA with a private key in PEM (PKCS#8).
    ///
    /// # Errors
    /// If it is none.
    pub fn of_pem(pem: &str) -> Result<Self, CredentialsError> {
        let bytes = pem.as_bytes();
        let problem = "is no private key in PEM (-----BEGIN PRIVATE KEY-----)";
        if !pem.contains("PRIVATE KEY") {
            return Err(CredentialsError::bad("the private key", problem));
        }
        EncodingKey::from_ec_pem(bytes)
            .map(|key| Self(Algorithm::ES256, key))
            .or_else(|_| EncodingKey::from_ed_pem(bytes).map(|key| Self(Algorithm::EdDSA, key)))
            .or_else(|_| EncodingKey::from_rsa_pem(bytes).map(|key| Self(Algorithm::RS256, key)))
            .map_err(|_| CredentialsError::bad("the private key", problem))
    }

    /// A token that says `claims`.
    ///
    /// # Errors
    /// If the key can't sign.
    pub fn sign(&self, claims: &Claims, kid: Option<String>) -> Result<String, CredentialsError> {
        let header = Header {
            kid,
            ..Header::new(self.0)
        };
        encode(&header, claims, &self.1)
            .map_err(|_| CredentialsError::bad("the private key", "can't sign"))
    }
}
