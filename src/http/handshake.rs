//! Judging a WebSocket handshake (RFC 6455, section 4.2; protocol, section 1).
//!
//! Owns the rules and the bytes of every answer. Does no I/O.

use std::fmt::Write;

use actix_http::{
    HttpMessage, Request,
    header::{self, HeaderMap, HeaderName},
    ws::hash_key,
};
use actix_web::http::{Method, StatusCode, Version};
use uuid::Uuid;

use super::{origin, token};
use crate::{
    access::{Admission, Authenticator},
    config::AllowedOrigins,
    domain::Identity,
    metrics::labels::Refused,
    protocol::{Form, SERVER, SessionId},
};

/// A handshake that may be accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    /// For whom the connection speaks.
    pub(super) identity: Identity,
    /// How it begins.
    pub(super) admission: Admission,
    /// In which form its messages are.
    pub(super) form: Form,
    /// The answer.
    pub(super) head: Vec<u8>,
}

/// Why a handshake is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Another path, or a session id that is none.
    NotFound,
    /// Another method than GET.
    Method,
    /// Headers that are no handshake.
    Malformed(&'static str),
    /// Another version of the WebSocket protocol.
    Version,
    /// Subprotocols are offered, but not ours.
    Subprotocol,
    /// A page that may not connect.
    Origin,
    /// A token that is not good here.
    Unauthorized,
    /// There are too many connections or durable sessions, or the server is stopping.
    Full,
    /// Its address has too many connections.
    Crowded,
}

/// Judges a handshake by all that the request says.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn judge(
    request: &Request,
    allowed: &AllowedOrigins,
    authenticator: &Authenticator,
) -> Result<Accepted, Refusal> {
    let identity = identity(request.path()).ok_or(Refusal::NotFound)?;
    if request.method() != Method::GET {
        return Err(Refusal::Method);
    }
    let headers = request.headers();
    if request.version() < Version::HTTP_11 {
        return Err(Refusal::Malformed("the handshake needs HTTP/1.1"));
    }
    if !elements(headers, &header::CONNECTION).any(|one| one.eq_ignore_ascii_case("upgrade")) {
        return Err(Refusal::Malformed("the Connection header lacks upgrade"));
    }
    if text(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refusal::Version);
    }
    let key = text(headers, &header::SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or(Refusal::Malformed(
            "Sec-WebSocket-Key is not 16 bytes in base64",
        ))?;
    let offers = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let form = match offered_form(headers) {
        Some(form) => form,
        None if offers => return Err(Refusal::Subprotocol),
        None => Form::default(),
    };
    if let Some(origin) = headers.get(header::ORIGIN) {
        let host = text(headers, &header::HOST);
        let is_allowed = origin
            .to_str()
            .is_ok_and(|origin| origin::is_allowed(origin, host, allowed));
        if !is_allowed {
            return Err(Refusal::Origin);
        }
    }
    Ok(Accepted {
        identity,
        admission: token::admission(headers, authenticator)?,
        form,
        head: accept(key, offers.then_some(form)),
    })
}

/// The form that the client offers, to the letter: a browser takes the answer for its offer only then. Who offers both gets CBOR.
fn offered_form(headers: &HeaderMap) -> Option<Form> {
    Form::ALL.into_iter().find(|form| {
        elements(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|one| one == form.subprotocol())
    })
}

/// For whom a connection to `path` speaks: `/ws`, or `/ws/{session_id}`.
fn identity(path: &str) -> Option<Identity> {
    const HYPHENATED: usize = 36;
    let rest = path.strip_prefix("/ws")?;
    if rest.is_empty() {
        return Some(Identity::Transient);
    }
    let id = rest.strip_prefix('/').filter(|id| id.len() == HYPHENATED)?;
    let id = Uuid::try_parse(id).ok()?;
    (!id.is_nil() && !id.is_max()).then_some(Identity::Durable(SessionId(id)))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// What the comma lists of all headers `name` have.
pub(super) fn elements<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether `key` is 16 bytes in base64 (22 characters and two for padding).
fn is_key(key: &str) -> bool {
    key.len() == 24
        && key.ends_with("==")
        && key.as_bytes()[..22]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

fn accept(key: &str, answered: Option<Form>) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
    );
    head.extend_from_slice(&hash_key(key.as_bytes()));
    if let Some(form) = answered {
        head.extend_from_slice(b"\r\nsec-websocket-protocol: ");
        head.extend_from_slice(form.subprotocol().as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}

impl Refusal {
    /// What it is counted as.
    pub(super) fn counted(self) -> Refused {
        match self {
            Self::NotFound => Refused::NotFound,
            Self::Method | Self::Malformed(_) | Self::Version => Refused::Malformed,
            Self::Subprotocol => Refused::Subprotocol,
            Self::Origin => Refused::Origin,
            Self::Unauthorized => Refused::NotAuthorized,
            Self::Full | Self::Crowded => Refused::Full,
        }
    }

    /// The whole answer, after which the connection is closed.
    pub(super) fn answer(self) -> Vec<u8> {
        let (status, header, text) = match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "",
                "connect to /ws, or to /ws/{session_id} with a UUID that you made",
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "allow: GET\r\n",
                "a WebSocket handshake is a GET request",
            ),
            Self::Malformed(text) => (StatusCode::BAD_REQUEST, "", text),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "upgrade: websocket\r\nsec-websocket-version: 13\r\n",
                "only version 13 of the WebSocket protocol is spoken here",
            ),
            Self::Subprotocol => (
                StatusCode::BAD_REQUEST,
                "",
                "the subprotocols spoken here are infotainer.v1.cbor and infotainer.v1.json",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "",
                "pages of this origin may not connect: see INFOTAINER_ALLOWED_ORIGINS",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "www-authenticate: Bearer error=\"invalid_token\"\r\n",
                "the token is not good here",
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "retry-after: 5\r\n",
                "there are too many connections or sessions, or the server stops",
            ),
            Self::Crowded => (
                StatusCode::TOO_MANY_REQUESTS,
                "retry-after: 5\r\n",
                "there are too many connections from this address",
            ),
        };
        let mut answer = String::with_capacity(256);
        // Writing to a string never fails.
        let _ = write!(
            answer,
            "HTTP/1.1 {status}\r\nserver: {SERVER}\r\n{header}content-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{text}\n",
            text.len() + 1
        );
        answer.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use actix_http::test::TestRequest;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ID: &str = "5f2b6c1e-8d3a-4b7f-9c0d-1e2f3a4b5c6d";

    fn request(path: &str, change: impl FnOnce(&mut Vec<(&'static str, String)>)) -> Request {
        let mut headers = vec![
            ("host", "example.com".to_owned()),
            ("connection", "keep-alive, Upgrade".to_owned()),
            ("upgrade", "websocket".to_owned()),
            ("sec-websocket-version", "13".to_owned()),
            ("sec-websocket-key", KEY.to_owned()),
        ];
        change(&mut headers);
        let mut request = TestRequest::default();
        request.uri(path);
        for (name, value) in headers {
            request.append_header((name, value));
        }
        request.finish()
    }

    fn judged(
        path: &str,
        change: impl FnOnce(&mut Vec<(&'static str, String)>),
    ) -> Result<Accepted, Refusal> {
        judge(
            &request(path, change),
            &AllowedOrigins::default(),
            &Authenticator::default(),
        )
    }

    fn with(name: &'static str, value: &str) -> Result<Accepted, Refusal> {
        judged("/ws", |headers| {
            headers.retain(|(one, _)| *one != name);
            headers.push((name, value.to_owned()));
        })
    }

    fn without(name: &'static str) -> Result<Accepted, Refusal> {
        judged("/ws", |headers| headers.retain(|(one, _)| *one != name))
    }

    #[test]
    fn the_path_tells_for_whom_a_connection_speaks() {
        let identity_of = |path: &str| judged(path, |_| {}).map(|accepted| accepted.identity);
        assert_eq!(identity_of("/ws"), Ok(Identity::Transient));
        assert_eq!(identity_of("/ws?a=b"), Ok(Identity::Transient));
        let id = SessionId(Uuid::try_parse(ID).unwrap());
        assert_eq!(identity_of(&format!("/ws/{ID}")), Ok(Identity::Durable(id)));
        let upper = format!("/ws/{}", ID.to_uppercase());
        assert_eq!(identity_of(&upper), Ok(Identity::Durable(id)));
        for path in [
            "/",
            "/wss",
            "/ws/",
            "/other",
            "/ws/00000000-0000-0000-0000-000000000000",
            "/ws/ffffffff-ffff-ffff-ffff-ffffffffffff",
            "/ws/5f2b6c1e8d3a4b7f9c0d1e2f3a4b5c6d",
            "/ws/{5f2b6c1e-8d3a-4b7f-9c0d-1e2f3a4b5c6d}",
            "/ws/urn:uuid:5f2b6c1e-8d3a-4b7f-9c0d-1e2f3a4b5c6d",
            "/ws/5f2b6c1e-8d3a-4b7f-9c0d-1e2f3a4b5c6d/",
        ] {
            assert_eq!(identity_of(path), Err(Refusal::NotFound), "{path}");
        }
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let head = judged("/ws", |_| {}).unwrap().head;
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "));
        assert!(head.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!head.contains("sec-websocket-protocol"));
        assert!(head.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_subprotocol_is_ours_or_none() {
        let offered = |value| with("sec-websocket-protocol", value);
        let head = offered("other, infotainer.v1.cbor").unwrap().head;
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("\r\nsec-websocket-protocol: infotainer.v1.cbor\r\n"));
        for others in ["other", "infotainer.v1", "Infotainer.v1.CBOR", ""] {
            assert_eq!(offered(others).unwrap_err(), Refusal::Subprotocol);
        }
    }

    #[test]
    fn json_is_spoken_with_who_offers_nothing_else_of_ours() {
        for (offer, form) in [
            ("infotainer.v1.json", Form::Json),
            ("other, infotainer.v1.json", Form::Json),
            ("infotainer.v1.json, infotainer.v1.cbor", Form::Cbor),
        ] {
            let accepted = with("sec-websocket-protocol", offer).unwrap();
            assert_eq!(accepted.form, form);
            let head = String::from_utf8(accepted.head).unwrap();
            let answer = format!("\r\nsec-websocket-protocol: {}\r\n", form.subprotocol());
            assert!(head.contains(&answer), "{head}");
        }
        assert_eq!(judged("/ws", |_| {}).unwrap().form, Form::Cbor);
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        let refused = |result: Result<Accepted, Refusal>| match result.unwrap_err() {
            Refusal::Malformed(_) => {}
            other => panic!("malformed was expected, not {other:?}"),
        };
        refused(without("connection"));
        refused(with("connection", "keep-alive"));
        refused(without("sec-websocket-key"));
        refused(with("sec-websocket-key", "dGhlIHNhbXBsZQ=="));
        refused(with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZ!=="));
        assert_eq!(
            without("sec-websocket-version").unwrap_err(),
            Refusal::Version
        );
        assert_eq!(
            with("sec-websocket-version", "8").unwrap_err(),
            Refusal::Version
        );
        let mut post = TestRequest::default();
        let post = post.uri("/ws").method(Method::POST).finish();
        let judged = judge(&post, &AllowedOrigins::Any, &Authenticator::default());
        assert_eq!(judged.unwrap_err(), Refusal::Method);
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        assert!(with("origin", "http://example.com").is_ok());
        assert_eq!(
            with("origin", "http://evil.com").unwrap_err(),
            Refusal::Origin
        );
    }

    #[test]
    fn refusals_are_whole_answers() {
        let answer = |refusal: Refusal| String::from_utf8(refusal.answer()).unwrap();
        let version = answer(Refusal::Version);
        assert!(version.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(version.contains("\r\nsec-websocket-version: 13\r\n"));
        let full = answer(Refusal::Full);
        assert!(full.starts_with("HTTP/1.1 503 ") && full.contains("\r\nretry-after: 5\r\n"));
        let (head, body) = full.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
    }
}
