//! Which web pages may connect (protocol, section 1).

use crate::config::AllowedOrigins;

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
}
