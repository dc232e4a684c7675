//! How publications, and what happens to a subscription, are printed: for people, as payloads, or as JSON.
//!
//! Owns the count of what was printed. For people every publication is one line, and nothing in a payload can do anything to a
//! terminal.

use std::{
    fmt::{self, Write},
    time::{Duration, SystemTime},
};

use clap::{
    Args,
    builder::styling::{AnsiColor, Style},
};
use infotainer::{
    client::{Event, Gap, GapCause, NotRecovered},
    protocol::{
        Epoch, ReceivedPublication, Sequence, SubscriptionId, Timestamp,
        shown::{DataForm, ShownPublication},
    },
};
use serde::Serialize;

use super::{Failure, output::Output, progress::Notes, values};

const SEQUENCE: Style = AnsiColor::Cyan.on_default();
const ASIDE: Style = Style::new().dimmed();

/// The form in which publications are printed, and how many.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct PrintArgs {
    /// End after so many publications
    #[arg(long, value_name = "N", value_parser = values::positive)]
    count: Option<u64>,

    /// Print one JSON object a line; data that is no UTF-8 is data_base64
    #[arg(long, conflicts_with = "raw")]
    json: bool,

    /// Print the data alone, as it is, each followed by a line's end
    #[arg(long)]
    raw: bool,
}

/// Prints publications.
pub(super) struct Printer {
    args: PrintArgs,
    out: Output,
    shows_ids: bool,
    printed: u64,
}

impl PrintArgs {
    /// How many are to be printed, if that was said.
    pub(super) fn count(&self) -> Option<u64> {
        self.count
    }

    pub(super) fn printer(&self) -> Printer {
        Printer {
            args: *self,
            out: Output::new(),
            shows_ids: false,
            printed: 0,
        }
    }
}

impl Printer {
    /// Prints ids too, in front of everything else, where people read it.
    pub(super) fn with_ids(self) -> Self {
        Self {
            shows_ids: true,
            ..self
        }
    }

    /// Whether as many are printed as were asked for.
    pub(super) fn is_done(&self) -> bool {
        self.args.count.is_some_and(|count| self.printed >= count)
    }

    pub(super) fn publication(&mut self, publication: &ReceivedPublication) -> Result<(), Failure> {
        self.printed += 1;
        if self.args.raw {
            self.out.write(&publication.data)?;
            return self.out.write(b"\n");
        }
        if self.args.json {
            return self
                .out
                .json(&ShownPublication::new(publication, DataForm::Text));
        }
        if self.shows_ids {
            self.out.styled(ASIDE, publication.publication_id)?;
            self.out.write(b" ")?;
        }
        self.out.styled(SEQUENCE, publication.sequence)?;
        self.out.write(b" ")?;
        self.out.styled(ASIDE, Utc(publication.time))?;
        if let Some(publisher) = &publication.publisher {
            self.out.write(b" ")?;
            self.out.styled(ASIDE, Escaped(publisher.as_bytes()))?;
        }
        if let Some(delivery) = publication.delivery.filter(|delivery| *delivery > 1) {
            self.out
                .styled(ASIDE, format_args!(" (delivery {delivery})"))?;
        }
        self.out.write(b" ")?;
        self.out
            .write(Escaped(&publication.data).to_string().as_bytes())?;
        self.out.write(b"\n")
    }

    /// Whatever comes of the subscription `id`. What is no publication is said to `notes`, and printed where objects are.
    pub(super) fn event(
        &mut self,
        id: SubscriptionId,
        event: &Event,
        notes: &Notes,
    ) -> Result<(), Failure> {
        let (sentence, fields) = match event {
            Event::Publication(publication) => return self.publication(publication),
            Event::Gap(gap) => (missing(*gap), EventFields::Gap(GapFields::of(*gap))),
            Event::NotRecovered(NotRecovered { epoch, cursor, .. }) => (
                format!(
                    "delivery can't go on where it was: the log began anew, and goes on behind {cursor}"
                ),
                EventFields::NotRecovered {
                    epoch: *epoch,
                    cursor: *cursor,
                },
            ),
            Event::Deleted => (
                "the subscription was deleted".to_owned(),
                EventFields::Deleted,
            ),
        };
        if self.args.json {
            self.out.json(&EventLine {
                subscription_id: id,
                event: fields,
            })?;
        }
        notes.say(sentence);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush()
    }

    /// Ends: too few, for this reason, is a failure.
    pub(super) fn end(mut self, why_fewer: &str) -> Result<(), Failure> {
        self.flush()?;
        match self.args.count {
            Some(count) if self.printed < count => {
                Err(Failure::too_few(self.printed, count, why_fewer))
            }
            _ => Ok(()),
        }
    }
}

/// That some publications do not come.
fn missing(Gap { from, to, cause }: Gap) -> String {
    let why = match cause {
        GapCause::Retention => "no longer kept",
        GapCause::Damage => "unreadable on the server's disk",
        GapCause::Unexplained => "left out by the server",
    };
    if from == to {
        format!("publication {from} is missing: {why}")
    } else {
        format!("publications {from} to {to} are missing: {why}")
    }
}

/// A time as people and programs read it.
pub(super) struct Utc(pub(super) Timestamp);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last millisecond that can be written as a date.
        const LAST: u64 = 253_402_300_799_999;
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.0.min(LAST));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

/// Data as text: control characters, backslashes, and what is no UTF-8, as escapes, so that nothing is lost.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' | '\r' | '\t' | '\\' => write!(f, "{}", c.escape_default())?,
                    c if c.is_control() => write!(f, "{}", c.escape_unicode())?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// An event that is no publication as an object; publications have no `event`.
#[derive(Serialize)]
struct EventLine {
    subscription_id: SubscriptionId,
    #[serde(flatten)]
    event: EventFields,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum EventFields {
    Gap(GapFields),
    NotRecovered { epoch: Epoch, cursor: Sequence },
    Deleted,
}

#[derive(Serialize)]
struct GapFields {
    from: Sequence,
    to: Sequence,
    cause: &'static str,
}

impl GapFields {
    fn of(Gap { from, to, cause }: Gap) -> Self {
        let cause = match cause {
            GapCause::Retention => "retention",
            GapCause::Damage => "damage",
            GapCause::Unexplained => "unexplained",
        };
        Self { from, to, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_payload_reaches_a_terminal_unescaped_or_gets_lost() {
        for (data, text) in [
            (&b"plain, \xc3\xbc and \xe2\x82\xac"[..], "plain, ü and €"),
            (b"two\nlines\r\t", r"two\nlines\r\t"),
            (br"C:\new", r"C:\\new"),
            (b"\x1b[31mred\x07\x7f", r"\u{1b}[31mred\u{7}\u{7f}"),
            (b"\xc2\x9b", r"\u{9b}"),
            (b"\xff\x00", r"\xff\u{0}"),
            (br#"{"a":"b"}"#, r#"{"a":"b"}"#),
        ] {
            assert_eq!(Escaped(data).to_string(), text);
        }
    }

    #[test]
    fn time_is_utc_to_the_millisecond() {
        assert_eq!(
            Utc(Timestamp(1_700_000_000_123)).to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(
            Utc(Timestamp(u64::MAX)).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
    }
}
