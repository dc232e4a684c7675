//! Which web pages may connect (protocol, section 1).

use std::net::IpAddr;

use actix_http::header::{self, HeaderMap};

use crate::config::{AllowedOrigins, Config};

/// Whether the page that the headers of an HTTP request come from may speak to the server of this configuration, if they come from one.
/// `is_open`: the server asks nobody who they are. Stricter than a handshake, for which the protocol says what counts.
pub(super) fn may_ask(headers: &HeaderMap, config: &Config, is_open: bool) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &header::HeaderValue| value.to_str().ok())
    };
    let host = text(header::HOST).flatten();
    let allowed = &config.allowed_origins;
    match text(header::ORIGIN) {
        Some(Some(origin)) if allowed.allows(origin) => return true,
        Some(origin) => {
            if !origin.is_some_and(|origin| is_allowed(origin, host, allowed)) {
                return false;
            }
        }
        // What a page loads as a picture has none; browsers say so otherwise, and other programs say nothing.
        None if *allowed == AllowedOrigins::Any => return true,
        None => {
            let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
            if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
                return false;
            }
        }
    }
    // A stranger's name may be made to lead here after its page was loaded: where all that protects is that the server listens on its
    // own machine, only names that nobody else can give it are good.
    !is_open || config.allow_anonymous || host.is_none_or(is_unforgeable)
}

/// Whether nobody's DNS can make this name, with or without a port, lead to another machine.
pub(super) fn is_unforgeable(host: &str) -> bool {
    let (name, _) = split_port(host);
    let name = name.to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

/// Whether a page of `origin` may connect to a server that the request names `host`: pages of the server itself may, and those of
/// `allowed`.
pub(super) fn is_allowed(origin: &str, host: Option<&str>, allowed: &AllowedOrigins) -> bool {
    allowed.allows(origin) || host.is_some_and(|host| is_own(origin, host))
}

/// Whether host and port of `origin` are those of `host`. Which scheme the page came by is not seen behind a proxy that ends TLS: a `host`
/// without port has the port that the origin's scheme has.
fn is_own(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    let (origin_name, origin_port) = split_port(authority);
    let (name, port) = split_port(host);
    !name.is_empty()
        && name.eq_ignore_ascii_case(origin_name)
        && port.unwrap_or(default_port) == origin_port.unwrap_or(default_port)
}

/// Host and port; an IPv6 address keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(origin: &str, host: &str) -> bool {
        is_allowed(origin, Some(host), &AllowedOrigins::default())
    }

    #[test]
    fn pages_of_the_server_itself_may_connect() {
        assert!(own("http://example.com", "example.com"));
        assert!(own("https://example.com", "example.com"));
        assert!(own("HTTP://Example.com", "example.COM"));
        assert!(own("http://example.com:8949", "example.com:8949"));
        assert!(own("http://example.com", "example.com:80"));
        assert!(own("https://example.com:443", "example.com"));
        assert!(own("http://[::1]:8949", "[::1]:8949"));
        assert!(own("http://[::1]", "[::1]:80"));
    }

    #[test]
    fn other_pages_may_not() {
        assert!(!own("http://example.com:8949", "example.com"));
        assert!(!own("http://example.com", "example.com:443"));
        assert!(!own("https://example.com", "example.com:80"));
        assert!(!own("http://evil.com", "example.com"));
        assert!(!own("http://example.com.evil.com", "example.com"));
        assert!(!own("null", "example.com"));
        assert!(!own("http://", ""));
        assert!(!own("file://example.com", "example.com"));
        assert!(!is_allowed(
            "http://a.com",
            None,
            &AllowedOrigins::default()
        ));
    }

    #[test]
    fn listed_pages_may_connect_to_any_name() {
        let allowed = AllowedOrigins::List(vec!["https://a.com".into()]);
        assert!(is_allowed("https://a.com", Some("b.com"), &allowed));
        assert!(is_allowed("https://a.com", None, &allowed));
        assert!(!is_allowed("http://a.com", Some("b.com"), &allowed));
        assert!(is_allowed("null", Some("b.com"), &AllowedOrigins::Any));
    }

    fn asks(headers: &[(&'static str, &str)], config: &Config) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = header::HeaderName::from_static(name);
            map.append(name, header::HeaderValue::from_str(value).unwrap());
        }
        may_ask(&map, config, true)
    }

    #[test]
    fn name_that_a_stranger_can_point_here_does_not_reach_a_server_that_asks_nobody() {
        let config = Config::default();
        let evil = ("host", "evil.com:8949");
        let page = ("origin", "http://evil.com:8949");
        assert!(!asks(&[evil], &config));
        assert!(!asks(&[evil, page], &config));
        for host in [
            "127.0.0.1:8949",
            "[::1]:8949",
            "localhost:8949",
            "a.LOCALHOST",
        ] {
            assert!(asks(&[("host", host)], &config), "{host}");
        }
        assert!(asks(&[], &config));
        let listed = Config {
            allowed_origins: AllowedOrigins::List(vec!["http://evil.com:8949".into()]),
            ..Config::default()
        };
        assert!(asks(&[evil, page], &listed));
        let meant = Config {
            allow_anonymous: true,
            ..Config::default()
        };
        assert!(asks(&[evil], &meant) && asks(&[evil, page], &meant));
    }

    #[test]
    fn what_a_page_loads_without_saying_whose_it_is_does_not_reach_the_server() {
        let config = Config::default();
        let site = |site| asks(&[("host", "localhost"), ("sec-fetch-site", site)], &config);
        assert!(site("same-origin") && site("none"));
        assert!(!site("cross-site") && !site("same-site"));
        let any = Config {
            allowed_origins: AllowedOrigins::Any,
            ..Config::default()
        };
        assert!(asks(&[("sec-fetch-site", "cross-site")], &any));
    }
}
