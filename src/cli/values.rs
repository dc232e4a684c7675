//! How settings are written: the values that variables and flags take.
//!
//! Each reader answers what does not fit with what it wants, worded to follow "must be". Ranges are judged by
//! [`Config`](infotainer::config::Config), not here.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytesize::ByteSize;
use infotainer::{
    client::Client,
    config::AllowedOrigins,
    domain::{BadPattern, Pattern},
    protocol::{
        Durability, Kind, PublicationId, Secret, SessionId, SubscriptionReference, Timestamp,
    },
};
use uuid::Uuid;

use super::logging::Format;

/// How sizes and durations are written.
pub(super) const UNITS: &str = "SIZE is a whole number with nothing (bytes), KiB, MiB or GiB; DURATION one with ms, s, m, h or d.";

/// What a server's URL must be.
pub(super) const SERVER: &str =
    "the URL of a server, such as ws://127.0.0.1:8949/ws or wss://example.com/ws";

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "an IP address and a port, such as 127.0.0.1:8949 or [::1]:8949".into())
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    match split(text) {
        Some((number, "")) => Ok(number),
        _ => Err("a whole number".into()),
    }
}

/// A [`count`] above 0.
pub(super) fn positive(text: &str) -> Result<u64, String> {
    count(text).and_then(|count| match count {
        0 => Err("a whole number above 0".to_owned()),
        count => Ok(count),
    })
}

/// A [`count`] of what is kept in memory.
pub(super) fn small_count(text: &str) -> Result<usize, String> {
    count(text).and_then(in_memory)
}

/// An integer with nothing, `KiB`, `MiB` or `GiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bytes = match split(text) {
        Some((_, "" | "KiB" | "MiB" | "GiB")) => {
            let parsed = text.parse().ok().map(|ByteSize(bytes)| bytes);
            // What is too large for a u64 ends as the largest.
            parsed.filter(|bytes| *bytes < u64::MAX)
        }
        _ => None,
    };
    bytes.ok_or_else(|| {
        "a size: a whole number with nothing (bytes), KiB, MiB or GiB, such as 256KiB".into()
    })
}

/// A [`size`] of what is kept in memory.
pub(super) fn small_size(text: &str) -> Result<usize, String> {
    size(text).and_then(in_memory)
}

/// An integer with `ms`, `s`, `m`, `h` or `d`. Forms of several units (`1h30m`) are none.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = match split(text) {
        Some((_, "ms" | "s" | "m" | "h" | "d")) => humantime::parse_duration(text).ok(),
        _ => None,
    };
    duration.ok_or_else(|| "a duration: a whole number with ms, s, m, h or d, such as 30s".into())
}

/// A time in UTC, as it is printed.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let since_1970 = humantime::parse_rfc3339(text)
        .ok()
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let millis = since_1970.and_then(|since| since.as_millis().try_into().ok());
    millis
        .map(Timestamp)
        .ok_or_else(|| "a time in UTC, such as 2026-01-31T12:00:00Z".into())
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false".into())
}

/// What a permission is for.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    text.parse().map_err(|error: BadPattern| error.to_string())
}

/// Any text is one: what is wrong with it is never said with its own words.
pub(super) fn secret(text: &str) -> Result<Secret, String> {
    Ok(text.into())
}

pub(super) fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "Synced" => Ok(Durability::Synced),
        "Written" => Ok(Durability::Written),
        "Memory" => Ok(Durability::Memory),
        _ => Err("Synced, Written or Memory".into()),
    }
}

/// As on the wire, or in lower case.
pub(super) fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "broadcast" | "Broadcast" => Ok(Kind::Broadcast),
        "queue" | "Queue" => Ok(Kind::Queue),
        _ => Err("broadcast or queue".into()),
    }
}

/// How many publications may be leased at once.
pub(super) fn prefetch(text: &str) -> Result<u16, String> {
    let number = count(text).ok().and_then(|number| number.try_into().ok());
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| "a whole number from 1 to 65535".into())
}

/// The URL of a server.
pub(super) fn server(text: &str) -> Result<String, String> {
    match Client::builder(text).check() {
        Ok(()) => Ok(text.to_owned()),
        Err(_) => Err(SERVER.to_owned()),
    }
}

/// A name, or the UUID of a subscription.
pub(super) fn subscription(text: &str) -> Result<SubscriptionReference, String> {
    text.parse()
        .map_err(|_| "a name of 1 to 255 bytes without control characters, or a UUID".to_owned())
}

/// The UUID of a publication.
pub(super) fn publication_id(text: &str) -> Result<PublicationId, String> {
    uuid(text).map(PublicationId)
}

/// The UUID of a durable session.
pub(super) fn session(text: &str) -> Result<SessionId, String> {
    uuid(text).and_then(|id| {
        if id.is_nil() || id.is_max() {
            Err("a UUID, neither the nil nor the max one".to_owned())
        } else {
            Ok(SessionId(id))
        }
    })
}

fn uuid(text: &str) -> Result<Uuid, String> {
    (text.len() == uuid::fmt::Hyphenated::LENGTH)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
        .ok_or_else(|| "a UUID of 36 characters, such as uuidgen makes".to_owned())
}

/// `bytes` as [`size`] reads it.
pub(super) fn spelled_size(bytes: u64) -> String {
    spelled(
        bytes,
        &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)],
        "",
    )
}

/// `millis` as [`duration`] reads it.
pub(super) fn spelled_duration(millis: u64) -> String {
    const S: u64 = 1000;
    const UNITS: [(&str, u64); 4] = [("d", 86_400 * S), ("h", 3600 * S), ("m", 60 * S), ("s", S)];
    spelled(millis, &UNITS, "ms")
}

/// `number` in the first of `units` of which it is a whole number.
fn spelled(number: u64, units: &[(&str, u64)], smallest: &str) -> String {
    let fits = |(_, unit): &&(&str, u64)| number > 0 && number.is_multiple_of(*unit);
    match units.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", number / unit),
        None => format!("{number}{smallest}"),
    }
}

/// `*`, or a comma list of origins.
pub(super) fn origins(text: &str) -> Result<AllowedOrigins, String> {
    if text.trim() == "*" {
        return Ok(AllowedOrigins::Any);
    }
    let origins: Option<Vec<_>> = text
        .split(',')
        .map(|origin| self::origin(origin.trim()))
        .collect();
    origins.map(AllowedOrigins::List).ok_or_else(|| {
        "*, or a comma list of origins, such as https://example.com,http://localhost:3000".into()
    })
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match env_filter::Builder::new().try_parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => {
            Err("a log filter in env_logger's syntax, such as info or warn,infotainer=debug".into())
        }
    }
}

pub(super) fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("text or json".into()),
    }
}

/// The number in front, and what follows it. `None` without one, or if it is too large for any setting.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    number.parse().ok().map(|number| (number, unit))
}

fn in_memory(number: u64) -> Result<usize, String> {
    number
        .try_into()
        .map_err(|_| "a number that this machine can address".into())
}

/// `origin` in lower case if it is a scheme and a host, or `null`, which pages without an origin send.
fn origin(origin: &str) -> Option<String> {
    if origin == "null" {
        return Some(origin.into());
    }
    let (scheme, host) = origin.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    let is_host =
        !host.is_empty() && !host.contains(|c: char| "/?#@*\\".contains(c) || c.is_whitespace());
    (is_scheme && is_host).then(|| origin.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_integers_with_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("256KiB", 256 << 10),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "1 KiB",
            "1KB",
            "1kib",
            "1.5MiB",
            "-1",
            "+1",
            "1TiB",
            "0x10",
            "99999999999GiB",
            " 1",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_one_integer_with_one_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("2m", 120_000),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "s",
            "30",
            "1h30m",
            "1h 30m",
            "1 s",
            "1.5s",
            "1min",
            "1S",
            "-1s",
            "+1s",
            "1w",
            "999999999999999999d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn counts_have_no_unit() {
        assert_eq!(count("10000"), Ok(10_000));
        for text in [
            "",
            "10k",
            "10,000",
            "10_000",
            "+1",
            "-1",
            "1e3",
            "99999999999999999999",
        ] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_spelled_can_be_read() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (1 << 18, "256KiB"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(spelled_size(bytes), text);
            assert_eq!(size(text), Ok(bytes));
        }
        for (millis, text) in [
            (0, "0ms"),
            (250, "250ms"),
            (90_000, "90s"),
            (172_800_000, "2d"),
        ] {
            assert_eq!(spelled_duration(millis), text);
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
    }

    #[test]
    fn uuids_have_36_characters() {
        let text = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert_eq!(
            publication_id(text).map(|id| id.to_string()),
            Ok(text.into())
        );
        for text in [
            "",
            "67e5504410b1426f9247bb680e5fe0c8",
            "x7e55044-10b1-426f-9247-bb680e5fe0c8",
        ] {
            assert!(publication_id(text).is_err(), "{text}");
        }
        assert!(session("00000000-0000-0000-0000-000000000000").is_err());
        assert!(session("ffffffff-ffff-ffff-ffff-ffffffffffff").is_err());
    }

    #[test]
    fn subscriptions_are_named_or_numbered() {
        assert!(subscription("a name, with \u{e4}").is_ok_and(|named| named.name.is_some()));
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert!(subscription(id).is_ok_and(|numbered| numbered.name.is_none()));
        for text in ["", "a\nb", "\u{9b}", &"x".repeat(256)] {
            assert!(subscription(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durabilities_are_spelt_as_on_the_wire() {
        assert_eq!(durability("Written"), Ok(Durability::Written));
        assert!(durability("synced").is_err());
    }

    #[test]
    fn origins_are_a_comma_list_or_a_star() {
        assert_eq!(origins("*"), Ok(AllowedOrigins::Any));
        assert_eq!(
            origins("https://Example.com, http://localhost:3000"),
            Ok(AllowedOrigins::List(vec![
                "https://example.com".into(),
                "http://localhost:3000".into()
            ]))
        );
        for text in [
            "",
            "example.com",
            "https://example.com/",
            "https://example.com,",
            "https://*.example.com",
            "://x",
        ] {
            assert!(origins(text).is_err(), "{text}");
        }
    }

    #[test]
    fn log_filters_are_those_of_env_logger() {
        assert_eq!(
            log_filter("warn,infotainer=debug"),
            Ok("warn,infotainer=debug".into())
        );
        for text in ["", "infotainer=loud", "a=b=c"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }
}
