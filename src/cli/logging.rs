//! The log on stderr: what passes, and in which form.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use env_logger::fmt::Formatter;
use log::{
    Level, LevelFilter, Log, Metadata, Record,
    kv::{self, VisitSource},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON object a line: `time`, `level`, `target`, `message`, and `kv` where the record has pairs of its own.
    Json,
}

/// Begins to log what passes `filter` (env_logger's syntax, checked already). Once in a process.
pub(super) fn start(filter: &str, format: Format) {
    let mut builder = env_logger::Builder::new();
    // What these say at info is about themselves; whoever wants it names them.
    builder.filter_module("actix_server", LevelFilter::Warn);
    // And this calls it an error when a stranger sends what is no HTTP.
    builder.filter_module("actix_http", LevelFilter::Off);
    builder.parse_filters(filter);
    match format {
        Format::Text => builder.format_timestamp_millis(),
        Format::Json => builder.format(write_json),
    };
    let logger = builder.build();
    log::set_max_level(logger.filter());
    log::set_boxed_logger(Box::new(Discreet(logger)))
        .expect("invariant: a process begins to log once");
}

/// A logger that keeps secrets, whatever the filter asks for.
struct Discreet(env_logger::Logger);

impl Log for Discreet {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !tells_secrets(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !tells_secrets(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// The WebSocket library of the client writes handshakes and messages as they are, and tokens with them.
fn tells_secrets(metadata: &Metadata<'_>) -> bool {
    metadata.level() == Level::Trace && metadata.target().starts_with("tungstenite::")
}

/// A line of [`Format::Json`].
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: &'static str,
    target: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    kv: Map<String, Value>,
}

fn write_json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &line(record, SystemTime::now()))?;
    writeln!(out)
}

fn line<'a>(record: &Record<'a>, time: SystemTime) -> Line<'a> {
    let mut pairs = Pairs(Map::new());
    // `Pairs` never fails, and a source that does has nothing more to tell.
    let _ = record.key_values().visit(&mut pairs);
    Line {
        time: humantime::format_rfc3339_millis(time).to_string(),
        level: record.level().as_str(),
        target: record.metadata().target(),
        message: record.args().to_string(),
        kv: pairs.0,
    }
}

struct Pairs(Map<String, Value>);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let value = match (
            value.to_bool(),
            value.to_u64(),
            value.to_i64(),
            value.to_f64(),
        ) {
            (Some(value), ..) => value.into(),
            (_, Some(value), ..) => value.into(),
            (_, _, Some(value), _) => value.into(),
            (_, _, _, Some(value)) => value.into(),
            _ => value.to_string().into(),
        };
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_json_line_has_the_record_and_its_pairs() {
        let pairs: &[(&str, kv::Value<'_>)] =
            &[("sessions", 3.into()), ("file", "a\n\"b\"".into())];
        let record = Record::builder()
            .level(Level::Warn)
            .target("infotainer::datalog")
            .args(format_args!("a line\nof two"))
            .key_values(&pairs)
            .build();
        let time = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(
            serde_json::to_string(&line(&record, time)).unwrap(),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.123Z","level":"WARN","target":"infotainer::datalog","#,
                r#""message":"a line\nof two","kv":{"file":"a\n\"b\"","sessions":3}}"#
            )
        );
    }
}
