//! A subscription's settings: what was set, what is in force.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::{
    Durability, ErrorCode, Kind, Patch, Retention, ServerError, SettingsPatch, ShownSettings,
    SubscriptionId, SubscriptionReference,
};

/// How long a lease lasts where a Queue's settings don't say. Milliseconds.
const ACK_TIMEOUT: u64 = 30_000;
/// How often a publication is delivered in vain where a Queue's settings don't say.
const MAX_DELIVERIES: u64 = 10;
/// What the dead letters of a Queue are named behind its own name or UUID.
const DEAD_LETTER_SUFFIX: &str = ".dead-letter";

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
    pub name: Option<Arc<str>>,
    /// `None`: the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Box<Retention>>,
    /// Decided when the subscription is made, so that a new default changes no promise.
    pub durability: Durability,
    /// Those that only a Queue has; `None`: all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Box<QueueSettings>>,
}

/// The settings that only a Queue has. `None` is the default.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are those of the protocol")]
pub struct QueueSettings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack_timeout: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_deliveries: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetterTarget>,
}

/// Where dead letters go, as it was given.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words are those of the protocol")]
pub struct DeadLetterTarget {
    pub id: SubscriptionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
}

impl QueueSettings {
    fn updated(self, patch: &SettingsPatch) -> Option<Box<Self>> {
        let updated = Self {
            ack_timeout: changed(patch.ack_timeout, self.ack_timeout),
            max_deliveries: changed(patch.max_deliveries, self.max_deliveries),
            dead_letter: match &patch.dead_letter {
                Patch::Absent => self.dead_letter,
                Patch::Default => None,
                Patch::Value(SubscriptionReference { id, name }) => Some(DeadLetterTarget {
                    id: *id,
                    name: name.clone(),
                }),
            },
        };
        (updated != Self::default()).then(|| Box::new(updated))
    }
}

fn changed<T>(patch: Patch<T>, current: Option<T>) -> Option<T> {
    match patch {
        Patch::Absent => current,
        Patch::Default => None,
        Patch::Value(value) => Some(value),
    }
}

impl Settings {
    /// Those of a subscription made with `patch`.
    ///
    /// # Errors
    /// `invalid-argument` for settings that its kind does not have.
    pub fn made(
        patch: &SettingsPatch,
        kind: Kind,
        name: Option<Arc<str>>,
        defaults: &Defaults,
    ) -> Result<Self, ServerError> {
        check_kind(patch, kind)?;
        Ok(Self {
            name,
            retention: value(patch.retention).map(Box::new),
            durability: value(patch.durability).unwrap_or(defaults.durability),
            queue: QueueSettings::default().updated(patch),
        })
    }

    /// How long a lease lasts, if it is a Queue. Milliseconds.
    pub fn ack_timeout(&self) -> u64 {
        let queue = self.queue.as_ref();
        queue
            .and_then(|queue| queue.ack_timeout)
            .unwrap_or(ACK_TIMEOUT)
    }

    /// How often a publication is delivered in vain, if it is a Queue; 0 is without limit.
    pub fn max_deliveries(&self) -> u64 {
        let queue = self.queue.as_ref();
        queue
            .and_then(|queue| queue.max_deliveries)
            .unwrap_or(MAX_DELIVERIES)
    }

    /// Where the dead letters of a Queue with these settings and this id go.
    pub fn dead_letter(&self, id: SubscriptionId) -> SubscriptionReference {
        let given = self
            .queue
            .as_ref()
            .and_then(|queue| queue.dead_letter.clone());
        match given {
            Some(DeadLetterTarget { id, name }) => SubscriptionReference { id, name },
            None => {
                let name = match &self.name {
                    Some(name) => format!("{name}{DEAD_LETTER_SUFFIX}"),
                    None => format!("{id}{DEAD_LETTER_SUFFIX}"),
                };
                SubscriptionReference::named(name)
            }
        }
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
        let queue = settings
            .queue
            .take()
            .map_or_else(Default::default, |queue| *queue);
        settings.queue = queue.updated(patch);
        Ok(settings)
    }

    /// The name of a setting that `patch` gives otherwise than it is.
    pub fn difference(
        &self,
        id: SubscriptionId,
        patch: &SettingsPatch,
        defaults: &Defaults,
    ) -> Option<&'static str> {
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
        if value(patch.durability).is_some_and(|given| given != self.durability) {
            return Some("durability");
        }
        if value(patch.ack_timeout).is_some_and(|given| given != self.ack_timeout()) {
            return Some("ack_timeout");
        }
        if value(patch.max_deliveries).is_some_and(|given| given != self.max_deliveries()) {
            return Some("max_deliveries");
        }
        match &patch.dead_letter {
            Patch::Value(given) if given.id != self.dead_letter(id).id => Some("dead_letter"),
            _ => None,
        }
    }

    /// As they are shown to clients.
    pub fn shown(&self, id: SubscriptionId, kind: Kind, defaults: &Defaults) -> ShownSettings {
        let is_queue = kind == Kind::Queue;
        ShownSettings {
            name: self.name.clone(),
            retention: self.retention(defaults),
            durability: self.durability,
            ack_timeout: is_queue.then(|| self.ack_timeout()),
            max_deliveries: is_queue.then(|| self.max_deliveries()),
            dead_letter: is_queue.then(|| self.dead_letter(id).id),
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
        return Ok(());
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
