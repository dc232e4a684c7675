//! `infotainer create` and `update`: the settings of a subscription.

use std::time::Duration;

use clap::Args;
use infotainer::protocol::{
    Durability, Kind, Patch, Retention, SettingsPatch, SubscriptionReference,
};

use super::{
    Failure,
    connect::{self, ServerArgs},
    meta,
    progress::Notes,
    values,
};

/// What stands for the server's default.
const DEFAULT: &str = "default";

/// Makes a subscription, and prints it; the same again changes nothing
#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// What to make: broadcast (by default) or queue. A setting of queues makes one, too
    #[arg(long, value_parser = values::kind)]
    kind: Option<Kind>,

    #[command(flatten)]
    subscription: SettingsArgs,
}

/// Changes settings, and prints the subscription; what is not given stays
#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    subscription: SettingsArgs,
}

#[derive(Args, Debug)]
#[command(after_help = format!("A setting may be the word default: what the server says.\n{}", values::UNITS))]
struct SettingsArgs {
    /// The subscription: a name or a UUID
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    /// When a publication counts as accepted: Synced (on disk), Written (handed to the operating system) or Memory (never
    /// written). Once made, Synced and Written can be changed into each other
    #[arg(long, value_name = "LEVEL", value_parser = durability)]
    durability: Option<Setting<Durability>>,

    /// Keep the newest so many publications
    #[arg(long, value_name = "COUNT", value_parser = max_publications)]
    max_publications: Option<Setting<u64>>,

    /// Keep the newest publications with at most so much data
    #[arg(long, value_name = "SIZE", value_parser = max_bytes)]
    max_bytes: Option<Setting<u64>>,

    /// Keep publications for so long
    #[arg(long, value_name = "DURATION", value_parser = max_age)]
    max_age: Option<Setting<Duration>>,

    /// Of a queue: deliver again what was not acknowledged for so long
    #[arg(long, value_name = "DURATION", value_parser = ack_timeout)]
    ack_timeout: Option<Setting<Duration>>,

    /// Of a queue: give up what was delivered so often and never acknowledged; 0 is never
    #[arg(long, value_name = "COUNT", value_parser = max_deliveries)]
    max_deliveries: Option<Setting<u64>>,

    /// Of a queue: the subscription to which what was given up goes
    #[arg(long, value_name = "NAME", value_parser = dead_letter)]
    dead_letter: Option<Setting<SubscriptionReference>>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// A setting as it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Setting<T> {
    /// What the server says.
    Default,
    Value(T),
}

fn setting<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Setting<T>, String> {
    if text == DEFAULT {
        return Ok(Setting::Default);
    }
    read(text)
        .map(Setting::Value)
        .map_err(|wants| format!("{wants}; or {DEFAULT}"))
}

fn durability(text: &str) -> Result<Setting<Durability>, String> {
    setting(text, values::durability)
}

fn max_publications(text: &str) -> Result<Setting<u64>, String> {
    setting(text, values::positive)
}

fn max_bytes(text: &str) -> Result<Setting<u64>, String> {
    setting(text, values::size)
}

fn max_age(text: &str) -> Result<Setting<Duration>, String> {
    setting(text, values::duration)
}

fn ack_timeout(text: &str) -> Result<Setting<Duration>, String> {
    setting(text, values::duration)
}

fn max_deliveries(text: &str) -> Result<Setting<u64>, String> {
    setting(text, values::count)
}

fn dead_letter(text: &str) -> Result<Setting<SubscriptionReference>, String> {
    setting(text, values::subscription)
}

/// Milliseconds.
fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl<T> Setting<T> {
    fn map<U>(self, read: impl FnOnce(T) -> U) -> Setting<U> {
        match self {
            Self::Default => Setting::Default,
            Self::Value(value) => Setting::Value(read(value)),
        }
    }

    fn patch(given: Option<Self>) -> Patch<T> {
        match given {
            None => Patch::Absent,
            Some(Self::Default) => Patch::Default,
            Some(Self::Value(value)) => Patch::Value(value),
        }
    }

    fn value(self) -> Option<T> {
        match self {
            Self::Default => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl SettingsArgs {
    /// What is to be set, where `before` holds now. Limits are set together: those that are not given stay as they are.
    fn patch(&self, before: Retention) -> SettingsPatch {
        SettingsPatch {
            durability: Setting::patch(self.durability),
            retention: if self.limits() {
                self.retention(before).into()
            } else {
                Patch::Absent
            },
            ack_timeout: Setting::patch(self.ack_timeout.map(|setting| setting.map(millis))),
            max_deliveries: Setting::patch(self.max_deliveries),
            dead_letter: Setting::patch(self.dead_letter.clone()),
        }
    }

    /// Whether there are settings that only a Queue has.
    fn is_of_queue(&self) -> bool {
        self.ack_timeout.is_some() || self.max_deliveries.is_some() || self.dead_letter.is_some()
    }

    /// Whether limits of retention are given.
    fn limits(&self) -> bool {
        self.max_publications.is_some() || self.max_bytes.is_some() || self.max_age.is_some()
    }

    fn retention(&self, before: Retention) -> Retention {
        fn limit(given: Option<Setting<u64>>, before: Option<u64>) -> Option<u64> {
            given.map_or(before, Setting::value)
        }
        let max_age = self.max_age.map(|setting| setting.map(millis));
        Retention {
            max_publications: limit(self.max_publications, before.max_publications),
            max_bytes: limit(self.max_bytes, before.max_bytes),
            max_age: limit(max_age, before.max_age),
        }
    }
}

pub(super) fn create(args: CreateArgs) -> Result<(), Failure> {
    let (kind, args) = (args.kind, args.subscription);
    let kind = kind.or_else(|| args.is_of_queue().then_some(Kind::Queue));
    connect::run(async {
        let client = args.server.connect(None, &Notes::alone()).await?;
        let settings = args.patch(Retention::default());
        let meta = client.create(&args.name, kind, settings).await?;
        client.close().await;
        meta::print(&meta, args.json)
    })
}

pub(super) fn update(args: UpdateArgs) -> Result<(), Failure> {
    let args = args.subscription;
    connect::run(async {
        let client = args.server.connect(None, &Notes::alone()).await?;
        let before = client.get(&args.name).await?.settings.retention;
        let meta = client.update(&args.name, args.patch(before)).await?;
        client.close().await;
        meta::print(&meta, args.json)
    })
}
