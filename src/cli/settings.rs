//! `infotainer create` and `update`: the settings of a subscription.

use std::time::Duration;

use clap::Args;
use infotainer::protocol::{Durability, Patch, Retention, SettingsPatch, SubscriptionReference};

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

impl<T> Setting<T> {
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
            durability: match self.durability {
                None => Patch::Absent,
                Some(Setting::Default) => Patch::Default,
                Some(Setting::Value(level)) => level.into(),
            },
            retention: if self.limits() {
                self.retention(before).into()
            } else {
                Patch::Absent
            },
            ..SettingsPatch::default()
        }
    }

    /// Whether limits of retention are given.
    fn limits(&self) -> bool {
        self.max_publications.is_some() || self.max_bytes.is_some() || self.max_age.is_some()
    }

    fn retention(&self, before: Retention) -> Retention {
        fn limit(given: Option<Setting<u64>>, before: Option<u64>) -> Option<u64> {
            given.map_or(before, Setting::value)
        }
        let max_age = self.max_age.map(|setting| match setting {
            Setting::Default => Setting::Default,
            Setting::Value(age) => Setting::Value(age.as_millis().try_into().unwrap_or(u64::MAX)),
        });
        Retention {
            max_publications: limit(self.max_publications, before.max_publications),
            max_bytes: limit(self.max_bytes, before.max_bytes),
            max_age: limit(max_age, before.max_age),
        }
    }
}

pub(super) fn create(args: CreateArgs) -> Result<(), Failure> {
    let args = args.subscription;
    connect::run(async {
        let client = args.server.connect(None, &Notes::alone()).await?;
        let settings = args.patch(Retention::default());
        let meta = client.create(&args.name, None, settings).await?;
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
