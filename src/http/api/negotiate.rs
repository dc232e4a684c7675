//! Which format a body has, and which one an answer gets.

use actix_web::http::header::{self, HeaderMap};

use super::problem::Problem;

/// A format of bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// `application/json`.
    Json,
    /// `application/cbor`.
    Cbor,
}

impl Format {
    const ALL: [Self; 2] = [Self::Json, Self::Cbor];

    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }
}

/// What a body is said to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ContentType {
    /// Fields.
    Fields(Format),
    /// The payload itself: `application/octet-stream`.
    Payload,
    /// Nothing is said.
    Unsaid,
    /// Something that is not read here, or compressed.
    Other,
}

impl ContentType {
    /// By the headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let encoding = headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Self::Other;
        }
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Self::Unsaid;
        };
        let Ok(value) = value.to_str() else {
            return Self::Other;
        };
        let essence = value.split(';').next().unwrap_or_default().trim();
        match Format::ALL
            .into_iter()
            .find(|format| essence.eq_ignore_ascii_case(format.media_type()))
        {
            Some(format) => Self::Fields(format),
            None if essence.eq_ignore_ascii_case("application/octet-stream") => Self::Payload,
            None => Self::Other,
        }
    }
}

/// The format of the answer: what `Accept` likes most (RFC 9110, section 12.5.1), and where it likes both the same, that of the body, or JSON.
///
/// # Errors
/// If it allows neither.
pub(super) fn answer_format(headers: &HeaderMap) -> Result<Format, Problem> {
    let preferred = match ContentType::of(headers) {
        ContentType::Fields(format) => format,
        ContentType::Payload | ContentType::Unsaid | ContentType::Other => Format::Json,
    };
    let other = match preferred {
        Format::Json => Format::Cbor,
        Format::Cbor => Format::Json,
    };
    let weights = [preferred, other].map(|format| weight(headers, format.media_type()));
    match weights {
        [0, 0] => Err(Problem::not_acceptable(
            "application/json or application/cbor",
        )),
        [first, second] if first >= second => Ok(preferred),
        _ => Ok(other),
    }
}

/// How much `Accept` likes `media_type`, in thousandths; everything, without one.
pub(super) fn weight(headers: &HeaderMap, media_type: &str) -> u16 {
    let mut best = None;
    let mut is_said = false;
    let values = headers.get_all(header::ACCEPT);
    for range in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        if name.is_empty() {
            continue;
        }
        is_said = true;
        // The most specific range that matches counts.
        let Some(precision) = precision(name, media_type) else {
            continue;
        };
        let weight = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1000, thousandths);
        if best.is_none_or(|(known, _)| precision > known) {
            best = Some((precision, weight));
        }
    }
    match best {
        Some((_, weight)) => weight,
        None if is_said => 0,
        None => 1000,
    }
}

fn precision(range: &str, media_type: &str) -> Option<u8> {
    if range.eq_ignore_ascii_case(media_type) {
        return Some(2);
    }
    let (kind, _) = media_type.split_once('/')?;
    match range.split_once('/')? {
        ("*", "*") => Some(0),
        (of, "*") if of.eq_ignore_ascii_case(kind) => Some(1),
        _ => None,
    }
}

/// A quality value: what is none counts as nothing.
fn thousandths(text: &str) -> u16 {
    let text = text.trim();
    let value = text.parse::<f32>().unwrap_or(0.0);
    if text.len() <= 5 && (0.0..=1.0).contains(&value) {
        (value * 1000.0) as u16
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn chosen(content_type: &str, accept: &str) -> Option<Format> {
        let mut pairs = vec![(header::CONTENT_TYPE, content_type)];
        if accept != "-" {
            pairs.push((header::ACCEPT, accept));
        }
        answer_format(&headers(&pairs)).ok()
    }

    #[test]
    fn the_answer_is_what_accept_likes_most() {
        use Format::{Cbor, Json};
        for (content_type, accept, format) in [
            ("application/json", "-", Some(Json)),
            ("application/cbor", "-", Some(Cbor)),
            ("application/octet-stream", "*/*", Some(Json)),
            ("application/cbor", "*/*", Some(Cbor)),
            ("application/cbor", "application/json", Some(Json)),
            (
                "application/json",
                "application/cbor;q=0.5, application/json;q=0.4",
                Some(Cbor),
            ),
            ("application/json", "application/*;q=0.1", Some(Json)),
            ("application/json", "application/json;q=0, */*", Some(Cbor)),
            (
                "application/json",
                "text/html, Application/CBOR; Q=0.3",
                Some(Cbor),
            ),
            ("application/json", "text/html", None),
            ("application/json", "*/*;q=0", None),
            ("application/json", "*/*;q=2", None),
            ("application/json", "*/*;q=nan", None),
            ("application/json", "json", None),
            ("application/json", "", Some(Json)),
        ] {
            assert_eq!(
                chosen(content_type, accept),
                format,
                "{content_type} {accept}"
            );
        }
    }

    #[test]
    fn the_content_type_says_what_a_body_is() {
        let of = |value: &str| ContentType::of(&headers(&[(header::CONTENT_TYPE, value)]));
        assert_eq!(
            of("Application/JSON; charset=utf-8"),
            ContentType::Fields(Format::Json)
        );
        assert_eq!(of("application/octet-stream"), ContentType::Payload);
        assert_eq!(of("text/plain"), ContentType::Other);
        assert_eq!(ContentType::of(&HeaderMap::new()), ContentType::Unsaid);
        let compressed = headers(&[
            (header::CONTENT_TYPE, "application/json"),
            (header::CONTENT_ENCODING, "gzip"),
        ]);
        assert_eq!(ContentType::of(&compressed), ContentType::Other);
    }
}
