//! The token of a handshake: where it stands, and what it proves.
//!
//! Owns the two places: `Authorization: Bearer`, and, for browsers, which can set no header, the subprotocol `infotainer.bearer.` with the token
//! in base64url. Neither is ever said back or logged.

use actix_http::header::{self, HeaderMap, HeaderValue};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::handshake::{Refusal, elements};
use crate::{
    access::{Admission, Authenticator},
    domain::Principal,
    protocol::BEARER_SUBPROTOCOL,
};

/// How a connection with these headers begins.
///
/// # Errors
/// If it gives more than one token, or one in a header that is not good.
pub(super) fn admission(
    headers: &HeaderMap,
    authenticator: &Authenticator,
) -> Result<Admission, Refusal> {
    if authenticator.is_open() {
        // Whoever has a token for another server may come in here, too.
        return Ok(Admission::Granted(Principal::anonymous()));
    }
    let mut headers_with_one = headers.get_all(header::AUTHORIZATION);
    let mut offered = elements(headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|one| one.strip_prefix(BEARER_SUBPROTOCOL));
    let given = (headers_with_one.next(), offered.next());
    if headers_with_one.next().is_some() || offered.next().is_some() {
        return Err(Refusal::Malformed("more than one token is given"));
    }
    match given {
        (None, None) => Ok(Admission::Awaited),
        (Some(value), None) => authenticator
            .authenticate(bearer(value))
            .map(Admission::Granted)
            .map_err(|_| Refusal::Unauthorized),
        (None, Some(encoded)) => {
            let token = URL_SAFE_NO_PAD.decode(encoded).ok();
            let token = token.and_then(|token| String::from_utf8(token).ok());
            let principal = authenticator.authenticate(&token.unwrap_or_default());
            // A page can't see why a handshake failed, only with which code a connection is closed.
            Ok(principal.map_or(Admission::Refused, Admission::Granted))
        }
        (Some(_), Some(_)) => Err(Refusal::Malformed("more than one token is given")),
    }
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1). Of what is something else, an empty one: it is judged, and counted, as a token
/// that is not good.
pub(super) fn bearer(value: &HeaderValue) -> &str {
    let told = value.to_str().ok().and_then(|value| value.split_once(' '));
    match told {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_matches(' '),
        Some(_) | None => "",
    }
}
