//! What a subscription is like, for people: a row of a table, or everything there is to know.

use bytesize::ByteSize;
use clap::builder::styling::Style;
use infotainer::{
    counted,
    protocol::{Retention, ShownSettings, SubscriptionId, SubscriptionMeta},
};

use super::{
    Failure,
    output::Output,
    print::Utc,
    table::Column,
    values::{spelled_duration, spelled_size},
};

const LABEL: Style = Style::new().bold();

/// The columns of [`row`].
pub(super) fn columns() -> [Column; 8] {
    let text = |head| Column {
        head,
        is_number: false,
    };
    let number = |head| Column {
        head,
        is_number: true,
    };
    [
        text("NAME"),
        text("KIND"),
        text("DURABILITY"),
        number("FIRST"),
        number("LAST"),
        number("SIZE"),
        number("SUBSCRIBERS"),
        number("CONNECTED"),
    ]
}

pub(super) fn row(meta: &SubscriptionMeta) -> [String; 8] {
    [
        name(meta),
        format!("{:?}", meta.kind),
        format!("{:?}", meta.settings.durability),
        meta.first_sequence.to_string(),
        meta.last_sequence.to_string(),
        bytes(meta.bytes),
        meta.subscribers.to_string(),
        meta.connected.to_string(),
    ]
}

/// The name, or else the id.
pub(super) fn name(meta: &SubscriptionMeta) -> String {
    match &meta.settings.name {
        Some(name) => name.to_string(),
        None => meta.subscription_id.to_string(),
    }
}

/// Prints `meta` as one JSON object, or else as lines for people.
pub(super) fn print(meta: &SubscriptionMeta, as_json: bool) -> Result<(), Failure> {
    let mut out = Output::new();
    if as_json {
        out.json(meta)?;
    } else {
        for (label, value) in lines(meta) {
            out.styled(LABEL, format_args!("{label:14}"))?;
            out.write(value.as_bytes())?;
            out.write(b"\n")?;
        }
    }
    out.flush()
}

fn lines(meta: &SubscriptionMeta) -> Vec<(&'static str, String)> {
    let (first, last) = (meta.first_sequence, meta.last_sequence);
    let publications = if last < first {
        "none".to_owned()
    } else {
        let count = last.0 - first.0 + 1;
        format!(
            "{count}, sequences {first} to {last}, {}",
            bytes(meta.bytes)
        )
    };
    let mut lines = vec![
        ("name", name(meta)),
        ("id", meta.subscription_id.to_string()),
        ("kind", format!("{:?}", meta.kind)),
        ("durability", format!("{:?}", meta.settings.durability)),
        ("retention", retention(&meta.settings.retention)),
        ("created", Utc(meta.created).to_string()),
        ("epoch", meta.epoch.to_string()),
        ("publications", publications),
        (
            "subscribers",
            format!("{}, {} of them connected", meta.subscribers, meta.connected),
        ),
    ];
    let settings = &meta.settings;
    let of_queues = [
        ("ack timeout", settings.ack_timeout.map(spelled_duration)),
        ("deliveries", settings.max_deliveries.map(deliveries)),
        ("dead letters", dead_letter(settings)),
    ];
    for (label, value) in of_queues {
        lines.extend(value.map(|value| (label, value)));
    }
    let of_queues = [("pending", meta.pending), ("in flight", meta.in_flight)];
    for (label, count) in of_queues {
        lines.extend(count.map(|count| (label, count.to_string())));
    }
    lines
}

fn retention(retention: &Retention) -> String {
    let limits = [
        retention
            .max_publications
            .map(|count| counted(count, "publication", "publications")),
        retention
            .max_bytes
            .map(|bytes| format!("{} of data", spelled_size(bytes))),
        retention.max_age.map(spelled_duration),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    if limits.is_empty() {
        "everything is kept".to_owned()
    } else {
        format!("at most {}", limits.join(", "))
    }
}

fn deliveries(max: u64) -> String {
    match max {
        0 => "without limit".to_owned(),
        max => format!("at most {max}"),
    }
}

/// Where dead letters go: the name that it has by default, or else the id.
fn dead_letter(settings: &ShownSettings) -> Option<String> {
    let id = settings.dead_letter?;
    let by_default = settings
        .name
        .as_ref()
        .map(|name| format!("{name}.dead-letter"))
        .filter(|name| SubscriptionId::of_name(name) == id);
    Some(by_default.unwrap_or_else(|| id.to_string()))
}

fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}
