//! What goes wrong, as problem details (RFC 9457): the one place that turns error codes into HTTP statuses.
//!
//! `type` is left out, which means `about:blank`: a program looks at `code`, a code of the protocol, or one of the few that only HTTP
//! has.

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;

use crate::protocol::{ErrorCode, ServerError, SubscriptionId};

/// Seconds after which to come back to a server that has no room or stops.
pub(super) const COME_BACK: u64 = 5;

/// The media type.
const MEDIA_TYPE: &str = "application/problem+json";

/// An answer that tells what went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Box<str>,
    command: Option<&'static str>,
    temporary: bool,
    /// Milliseconds.
    retry_after: Option<u64>,
    subscription_id: Option<SubscriptionId>,
    header: Header,
    closes: bool,
}

/// A header that belongs to the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Header {
    No,
    Allow(&'static str),
    Challenge(&'static str),
}

/// The status of a code. `docs/openapi.json` and `docs/http.md` follow this table, which a test compares with them.
pub(super) fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Malformed | ErrorCode::UnknownCommand | ErrorCode::InvalidArgument => {
            StatusCode::BAD_REQUEST
        }
        ErrorCode::NotAuthorized => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::KindMismatch | ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedFormat => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::LimitReached | ErrorCode::LogUnavailable | ErrorCode::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::LogFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl From<ServerError> for Problem {
    fn from(error: ServerError) -> Self {
        let retry_after = match error.code {
            ErrorCode::ShuttingDown => error.retry_after.or(Some(COME_BACK * 1000)),
            _ => error.retry_after,
        };
        Self {
            status: status(error.code),
            code: error.code.as_str(),
            detail: error.message.into(),
            command: error.command,
            temporary: error.temporary,
            retry_after,
            subscription_id: error.subscription_id,
            header: Header::No,
            closes: false,
        }
    }
}

impl Problem {
    /// One that only HTTP has.
    fn of_http(status: StatusCode, code: &'static str, detail: impl Into<Box<str>>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            command: None,
            temporary: false,
            retry_after: None,
            subscription_id: None,
            header: Header::No,
            closes: false,
        }
    }

    /// A parameter or header that is not what it has to be.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        ServerError::new(ErrorCode::InvalidArgument, detail).into()
    }

    /// A body that is not what it says it is.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        ServerError::new(ErrorCode::Malformed, detail).into()
    }

    /// Nothing has this path.
    pub(super) fn no_such_path() -> Self {
        ServerError::new(
            ErrorCode::NotFound,
            "there is nothing here: see /v1/openapi.json",
        )
        .into()
    }

    /// The log does not hold the publication.
    pub(super) fn no_such_publication() -> Self {
        ServerError::new(
            ErrorCode::NotFound,
            "the log holds no publication of this id",
        )
        .into()
    }

    /// Not with this method; but with those of `allow`.
    pub(super) fn method(allow: &'static str) -> Self {
        Self {
            header: Header::Allow(allow),
            ..Self::of_http(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                format!("only {allow} can be done with it"),
            )
        }
    }

    /// Nothing that the client accepts can be made.
    pub(super) fn not_acceptable(offered: &str) -> Self {
        Self::of_http(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            format!("the answer can be {offered}, and Accept allows none of that"),
        )
    }

    /// A body in a format that is not read here.
    pub(super) fn unsupported(read: &str) -> Self {
        ServerError::new(
            ErrorCode::UnsupportedFormat,
            format!("the body has to be {read}, not compressed, and Content-Type has to say which"),
        )
        .into()
    }

    /// A body over the limit.
    pub(super) fn too_large(limit: usize) -> Self {
        let error = ServerError::new(
            ErrorCode::TooLarge,
            format!("the body is over {limit} bytes"),
        );
        Self {
            closes: true,
            ..error.into()
        }
    }

    /// A body that does not come.
    pub(super) fn too_slow() -> Self {
        Self {
            temporary: true,
            closes: true,
            ..Self::of_http(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the body did not come in time",
            )
        }
    }

    /// A page that may not ask.
    pub(super) fn origin() -> Self {
        ServerError::new(
            ErrorCode::NotAuthorized,
            "pages of this origin may not ask: see INFOTAINER_ALLOWED_ORIGINS",
        )
        .into()
    }

    /// The server wants to know who asks; whether a token was given, which was not good.
    pub(super) fn unauthorized(was_given: bool) -> Self {
        let (detail, challenge) = if was_given {
            (
                "the token is not good here",
                "Bearer error=\"invalid_token\"",
            )
        } else {
            ("one token has to be given: Authorization: Bearer", "Bearer")
        };
        Self {
            header: Header::Challenge(challenge),
            closes: true,
            ..Self::of_http(
                StatusCode::UNAUTHORIZED,
                ErrorCode::NotAuthorized.as_str(),
                detail,
            )
        }
    }

    /// There are too many connections, or the server stops.
    pub(super) fn no_room() -> Self {
        Self {
            temporary: true,
            retry_after: Some(COME_BACK * 1000),
            closes: true,
            ..Self::of_http(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorCode::LimitReached.as_str(),
                "there are too many connections, or the server stops",
            )
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> HttpResponse {
        #[derive(Serialize)]
        struct Body<'a> {
            title: &'a str,
            status: u16,
            detail: &'a str,
            code: &'a str,
            temporary: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            command: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after: Option<u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            subscription_id: Option<SubscriptionId>,
        }
        let body = Body {
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            temporary: self.temporary,
            command: self.command,
            retry_after: self.retry_after,
            subscription_id: self.subscription_id,
        };
        let mut response = HttpResponse::build(self.status);
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)));
        let header = match self.header {
            Header::No => None,
            Header::Allow(allow) => Some((header::ALLOW, allow)),
            Header::Challenge(challenge) => Some((header::WWW_AUTHENTICATE, challenge)),
        };
        if let Some((name, value)) = header {
            response.insert_header((name, HeaderValue::from_static(value)));
        }
        if let Some(millis) = self.retry_after {
            let seconds = HeaderValue::from(millis.div_ceil(1000).max(1));
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.closes {
            response.force_close();
        }
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in the rows of the table in `docs/http.md` that begins behind `heading`, cell by cell.
    fn rows(heading: &str) -> Vec<Vec<String>> {
        let document = include_str!("../../../docs/http.md");
        let (_, behind) = document.split_once(heading).expect("the heading is there");
        let rows = behind.lines().skip_while(|line| !line.starts_with('|'));
        rows.take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|row| {
                let cells = row.trim_matches('|').split('|');
                cells.map(|cell| cell.trim().replace('`', "")).collect()
            })
            .collect()
    }

    #[test]
    fn the_document_has_the_status_of_every_code() {
        let documented = rows("## Errors");
        for code in ErrorCode::ALL {
            let status = status(code).as_u16().to_string();
            let is_told = |row: &Vec<String>| {
                row[0] == status && row[1].split(", ").any(|one| one == code.as_str())
            };
            assert!(documented.iter().any(is_told), "{code} is {status}");
        }
    }

    #[test]
    fn when_to_come_back_is_told_in_whole_seconds() {
        let mut error = ServerError::new(ErrorCode::RateLimited, "too fast");
        error.retry_after = Some(1_001);
        let answer = Problem::from(error).answer();
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers().get("retry-after").unwrap(), "2");
    }
}
