//! Who a connection speaks for, and what it may do.
//!
//! Owns the permissions and how they are matched. Does not own how somebody proves who they are ([`access`](crate::access)), nor which
//! command needs which permission (the broker's).
//!
//! Invariants: nothing is allowed that is not granted; a name is known by its UUID, so whoever names a subscription and whoever gives its
//! UUID are judged alike, as soon as the subscription knows its name.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};

use crate::protocol::{MAX_NAME, SubscriptionId, SubscriptionReference, Timestamp};

/// What can be granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Permission {
    /// Be served, from any position of the log.
    Subscribe,
    /// Submit publications.
    Publish,
    /// Look at the log, and at the subscription, without subscribing.
    Read,
    /// Acknowledge, reject and extend what was delivered.
    Acknowledge,
    /// Make, change, look at and delete the subscription.
    Manage,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Subscribe,
        Self::Publish,
        Self::Read,
        Self::Acknowledge,
        Self::Manage,
    ];

    /// As it stands in tokens and in the file of API keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Acknowledge => "acknowledge",
            Self::Manage => "manage",
        }
    }
}

/// Some of the permissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PermissionSet(u8);

impl PermissionSet {
    /// Whether they have any of `others`.
    pub fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

impl From<Permission> for PermissionSet {
    fn from(permission: Permission) -> Self {
        Self(1 << permission as u8)
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let bits = permissions.into_iter().map(|one| Self::from(one).0);
        Self(bits.fold(0, |all, one| all | one))
    }
}

/// Which subscriptions a permission is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// `*`: every one.
    Every,
    /// `orders.*`: those whose name begins so.
    Prefix(Box<str>),
    /// This one: by its UUID, or by the name that stands for it.
    One(SubscriptionReference),
}

/// Why a text is no pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a permission is for a name of 1 to 255 bytes without control characters, for names that begin alike (orders.*), for a UUID, or for all (*)"
)]
pub struct BadPattern;

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let Some(prefix) = text.strip_suffix('*') else {
            return text.parse().map(Self::One).map_err(|_| BadPattern);
        };
        if prefix.is_empty() {
            return Ok(Self::Every);
        }
        if prefix.len() > MAX_NAME || prefix.contains(char::is_control) {
            return Err(BadPattern);
        }
        Ok(Self::Prefix(prefix.into()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Self, BadPattern> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::One(reference) => reference.fmt(f),
        }
    }
}

impl Pattern {
    fn matches(&self, id: SubscriptionId, name: Option<&str>) -> bool {
        match self {
            Self::Every => true,
            Self::Prefix(prefix) => name.is_some_and(|name| name.starts_with(&**prefix)),
            Self::One(reference) => reference.id == id,
        }
    }
}

/// For each permission, the subscriptions that it is granted for. By default nothing is granted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Vec<Pattern>>")]
#[allow(missing_docs, reason = "the fields are the permissions")]
pub struct Permissions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<Pattern>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Pattern>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<Pattern>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acknowledge: Vec<Pattern>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manage: Vec<Pattern>,
}

/// What is not known is not granted: a later version may have more permissions.
impl From<BTreeMap<String, Vec<Pattern>>> for Permissions {
    fn from(mut granted: BTreeMap<String, Vec<Pattern>>) -> Self {
        let mut permissions = Self::default();
        for permission in Permission::ALL {
            if let Some(patterns) = granted.remove(permission.name()) {
                *permissions.of_mut(permission) = patterns;
            }
        }
        permissions
    }
}

impl Permissions {
    /// Everything.
    pub fn all() -> Self {
        let every = || vec![Pattern::Every];
        Self {
            subscribe: every(),
            publish: every(),
            read: every(),
            acknowledge: every(),
            manage: every(),
        }
    }

    /// The subscriptions that `permission` is granted for.
    pub fn of(&self, permission: Permission) -> &[Pattern] {
        match permission {
            Permission::Subscribe => &self.subscribe,
            Permission::Publish => &self.publish,
            Permission::Read => &self.read,
            Permission::Acknowledge => &self.acknowledge,
            Permission::Manage => &self.manage,
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, permission: Permission) -> &mut Vec<Pattern> {
        match permission {
            Permission::Subscribe => &mut self.subscribe,
            Permission::Publish => &mut self.publish,
            Permission::Read => &mut self.read,
            Permission::Acknowledge => &mut self.acknowledge,
            Permission::Manage => &mut self.manage,
        }
    }

    /// What is granted for the subscription `id`, whose name is `name` if it is known.
    pub fn granted(&self, id: SubscriptionId, name: Option<&str>) -> PermissionSet {
        Permission::ALL
            .into_iter()
            .filter(|permission| {
                let patterns = self.of(*permission).iter();
                patterns.into_iter().any(|one| one.matches(id, name))
            })
            .collect()
    }

    /// Whether what is granted for a subscription can depend on its name.
    pub fn depend_on_names(&self) -> bool {
        let mut patterns = Permission::ALL.into_iter().flat_map(|one| self.of(one));
        patterns.any(|pattern| matches!(pattern, Pattern::Prefix(_)))
    }
}

/// What became of the credential behind a [`Principal`] since it was judged.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<AtomicU8>);

/// See [`Standing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stands {
    /// Nothing.
    AsItWas,
    /// It was given other permissions: whoever comes back has these.
    Changed,
    /// It is none any more.
    Revoked,
}

impl Standing {
    /// What became of it.
    pub fn stands(&self) -> Stands {
        match self.0.load(Relaxed) {
            0 => Stands::AsItWas,
            1 => Stands::Changed,
            _ => Stands::Revoked,
        }
    }

    /// It was given other permissions.
    pub fn change(&self) {
        self.0.fetch_max(1, Relaxed);
    }

    /// It is none any more.
    pub fn revoke(&self) {
        self.0.fetch_max(2, Relaxed);
    }
}

/// Who a connection speaks for, and what it may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Who was authenticated: at most [`MAX_NAME`] bytes. It is the `publisher` of what is published, and owns durable sessions. `None` is
    /// anybody, where the server asks nobody.
    pub name: Option<Arc<str>>,
    /// What is granted.
    pub permissions: Arc<Permissions>,
    /// When this ends.
    pub expires: Option<Timestamp>,
    /// What became of the credential.
    pub standing: Standing,
}

/// One for all connections.
static ANYBODY: LazyLock<Principal> = LazyLock::new(|| Principal {
    name: None,
    permissions: Arc::new(Permissions::all()),
    expires: None,
    standing: Standing::default(),
});

impl Principal {
    /// Anybody, who may do everything.
    pub fn anonymous() -> Self {
        ANYBODY.clone()
    }

    /// Whether it is anybody.
    pub fn is_anonymous(&self) -> bool {
        self.name.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(pattern: &str, to: &str, name: Option<&str>) -> bool {
        let permissions = Permissions {
            publish: vec![pattern.parse().unwrap()],
            ..Permissions::default()
        };
        let id = SubscriptionReference::from(to).id;
        let granted = permissions.granted(id, name);
        assert!(!granted.has_any([Permission::Read, Permission::Manage].into_iter().collect()));
        granted.has_any(Permission::Publish.into())
    }

    #[test]
    fn a_permission_is_for_a_name_a_prefix_a_uuid_or_everything() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert!(granted("orders", "orders", Some("orders")));
        assert!(!granted("orders", "orders.eu", Some("orders.eu")));
        assert!(granted("orders.*", "orders.eu", Some("orders.eu")));
        assert!(!granted("orders.*", "orders", Some("orders")));
        assert!(!granted("orders.*", "order", Some("order")));
        assert!(granted("*", id, None));
        assert!(granted(id, id, None));
        assert!(!granted(id, "orders", Some("orders")));
    }

    #[test]
    fn a_uuid_is_judged_by_the_name_that_stands_for_it() {
        let id = SubscriptionId::of_name("orders").to_string();
        assert!(granted("orders", &id, None));
        assert!(granted(&id, "orders", Some("orders")));
        assert!(granted("ord*", &id, Some("orders")));
        assert!(!granted("ord*", &id, None));
    }

    #[test]
    fn patterns_are_shown_as_they_were_given_and_judged_as_names() {
        for text in [
            "*",
            "orders.*",
            "a*b",
            "67e55044-10b1-426f-9247-bb680e5fe0c8",
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().to_string(), text);
        }
        let too_long = format!("{}*", "x".repeat(256));
        for text in ["", "a\0", "\u{85}*", &too_long] {
            assert_eq!(text.parse::<Pattern>(), Err(BadPattern), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_granted_by_default_and_everything_to_anybody() {
        let all = Permission::ALL.into_iter().collect();
        let id = SubscriptionId::of_name("orders");
        assert!(!Permissions::default().granted(id, None).has_any(all));
        assert_eq!(Principal::anonymous().permissions.granted(id, None), all);
    }

    #[test]
    fn what_was_revoked_is_not_merely_changed() {
        let standing = Standing::default();
        assert_eq!(standing.stands(), Stands::AsItWas);
        standing.revoke();
        standing.clone().change();
        assert_eq!(standing.stands(), Stands::Revoked);
    }
}
