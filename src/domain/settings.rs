//! A subscription's settings: what was set, what is in force.

use serde::{Deserialize, Serialize};

use crate::protocol::{
    Durability, ErrorCode, Kind, Patch, Retention, ServerError, SettingsPatch, ShownSettings,
};

/// What the server's configuration says where a subscription's settings don't.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Defaults {
    /// Of a subscription that is made.
    pub durability: Durability,
    /// Of every subscription, limit by limit.
    pub retention: Retention,
}

/// A subscription's own settings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The name by which it was first called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// `None`: the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Box<Retention>>,
    /// Decided when the subscription is made, so that a new default changes no promise.
    pub durability: Durability,
}

impl Settings {
    /// Those of a subscription made with `patch`.
    ///
    /// # Errors
    /// `invalid-argument` for settings that its kind does not have.
    pub fn made(
        patch: &SettingsPatch,
        kind: Kind,
        name: Option<Box<str>>,
        defaults: &Defaults,
    ) -> Result<Self, ServerError> {
        check_kind(patch, kind)?;
        Ok(Self {
            name,
            retention: value(patch.retention).map(Box::new),
            durability: value(patch.durability).unwrap_or(defaults.durability),
        })
    }

    /// The limits in force.
    pub fn retention(&self, defaults: &Defaults) -> Retention {
        let own = self.retention.as_deref().copied().unwrap_or_default();
        Retention {
            max_publications: own.max_publications.or(defaults.retention.max_publications),
            max_bytes: own.max_bytes.or(defaults.retention.max_bytes),
            max_age: own.max_age.or(defaults.retention.max_age),
        }
    }

    /// These, changed by `patch`.
    ///
    /// # Errors
    /// `invalid-argument` for settings that its kind does not have, and for a change to or from `Memory`.
    pub fn updated(
        &self,
        patch: &SettingsPatch,
        kind: Kind,
        defaults: &Defaults,
    ) -> Result<Self, ServerError> {
        check_kind(patch, kind)?;
        let mut settings = self.clone();
        match patch.retention {
            Patch::Absent => {}
            Patch::Default => settings.retention = None,
            Patch::Value(retention) => settings.retention = Some(Box::new(retention)),
        }
        let durability = match patch.durability {
            Patch::Absent => self.durability,
            Patch::Default => defaults.durability,
            Patch::Value(durability) => durability,
        };
        if durability != self.durability
            && (durability == Durability::Memory || self.durability == Durability::Memory)
        {
            return Err(ServerError::new(
                ErrorCode::InvalidArgument,
                "durability is fixed when a subscription is made, but for Synced and Written, which can be changed into each other",
            ));
        }
        settings.durability = durability;
        Ok(settings)
    }

    /// The name of a setting that `patch` gives otherwise than it is.
    pub fn difference(&self, patch: &SettingsPatch, defaults: &Defaults) -> Option<&'static str> {
        let differs = |given: Option<Retention>| {
            given.is_some_and(|given| {
                let given = Self {
                    retention: Some(Box::new(given)),
                    ..self.clone()
                };
                given.retention(defaults) != self.retention(defaults)
            })
        };
        if differs(value(patch.retention)) {
            return Some("retention");
        }
        (value(patch.durability).is_some_and(|given| given != self.durability))
            .then_some("durability")
    }

    /// As they are shown to clients.
    pub fn shown(&self, defaults: &Defaults) -> ShownSettings {
        ShownSettings {
            name: self.name.clone(),
            retention: self.retention(defaults),
            durability: self.durability,
            ack_timeout: None,
            max_deliveries: None,
            dead_letter: None,
        }
    }
}

fn value<T: Copy>(patch: Patch<T>) -> Option<T> {
    match patch {
        Patch::Value(value) => Some(value),
        Patch::Absent | Patch::Default => None,
    }
}

/// `null` is absence, so only a value is a setting of the wrong kind.
fn check_kind(patch: &SettingsPatch, kind: Kind) -> Result<(), ServerError> {
    if kind == Kind::Queue {
        return Err(queue_is_not_served());
    }
    let queue_setting = match patch {
        SettingsPatch {
            ack_timeout: Patch::Value(_),
            ..
        } => Some("ack_timeout"),
        SettingsPatch {
            max_deliveries: Patch::Value(_),
            ..
        } => Some("max_deliveries"),
        SettingsPatch {
            dead_letter: Patch::Value(_),
            ..
        } => Some("dead_letter"),
        _ => None,
    };
    match queue_setting {
        Some(name) => Err(ServerError::new(
            ErrorCode::InvalidArgument,
            format!("{name} is a setting of a Queue, and the subscription is a Broadcast"),
        )),
        None => Ok(()),
    }
}

/// The answer to everything that would make or use a Queue.
pub(super) fn queue_is_not_served() -> ServerError {
    ServerError::new(
        ErrorCode::InvalidArgument,
        "this version of the server has no Queue subscriptions",
    )
}
