//! CBOR values as tests write and read them.

use std::{collections::BTreeMap, fmt, ops::Deref};

use serde_cbor::Value;
use uuid::Uuid;

/// A map with these pairs: `fields! { "subscription_id": "orders", "from": "First" }`.
macro_rules! fields {
    ($($name:literal: $value:expr),* $(,)?) => {{
        #[allow(unused_mut, reason = "a command can have no fields")]
        let mut map = std::collections::BTreeMap::new();
        $(map.insert(serde_cbor::Value::Text($name.into()), $crate::support::Cbor::cbor($value));)*
        serde_cbor::Value::Map(map)
    }};
}

/// What stands in a command's field.
pub trait Cbor {
    /// As a value.
    fn cbor(self) -> Value;
}

macro_rules! as_value {
    ($($from:ty => $variant:ident),*) => {
        $(impl Cbor for $from {
            fn cbor(self) -> Value {
                Value::$variant(self.into())
            }
        })*
    };
}

as_value!(bool => Bool, i32 => Integer, i64 => Integer, u32 => Integer, u64 => Integer, f64 => Float);
as_value!(&str => Text, String => Text, Vec<u8> => Bytes, &[u8] => Bytes);

impl Cbor for Value {
    fn cbor(self) -> Value {
        self
    }
}

impl Cbor for &Value {
    fn cbor(self) -> Value {
        self.clone()
    }
}

impl Cbor for usize {
    fn cbor(self) -> Value {
        Value::Integer(self as i128)
    }
}

impl Cbor for Uuid {
    fn cbor(self) -> Value {
        Value::Bytes(self.as_bytes().to_vec())
    }
}

impl<const N: usize> Cbor for &[u8; N] {
    fn cbor(self) -> Value {
        Value::Bytes(self.to_vec())
    }
}

impl<const N: usize> Cbor for [Uuid; N] {
    fn cbor(self) -> Value {
        self.to_vec().cbor()
    }
}

impl Cbor for Vec<Uuid> {
    fn cbor(self) -> Value {
        Value::Array(self.into_iter().map(Cbor::cbor).collect())
    }
}

impl Cbor for Vec<Value> {
    fn cbor(self) -> Value {
        Value::Array(self)
    }
}

impl Cbor for () {
    fn cbor(self) -> Value {
        Value::Null
    }
}

impl<T: Cbor> Cbor for Option<T> {
    fn cbor(self) -> Value {
        self.map_or(Value::Null, Cbor::cbor)
    }
}

/// A map of one pair, as commands and responses are.
pub fn named(name: &str, fields: Value) -> Value {
    Value::Map(BTreeMap::from([(Value::Text(name.into()), fields)]))
}

/// The bytes of a value.
pub fn encode(value: &Value) -> Vec<u8> {
    serde_cbor::to_vec(value).unwrap()
}

/// A map whose keys are text.
#[derive(Clone, PartialEq)]
pub struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// The pairs of a value that has to be such a map.
    pub fn of(value: &Value) -> Self {
        let Value::Map(map) = value else {
            panic!("no map: {value:?}")
        };
        let text = |key: &Value| match key {
            Value::Text(key) => key.clone(),
            other => panic!("a key that is no text: {other:?}"),
        };
        Self(
            map.iter()
                .map(|(key, value)| (text(key), value.clone()))
                .collect(),
        )
    }

    /// The names of the fields, in order.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A field that has to be there.
    pub fn value(&self, name: &str) -> &Value {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no field {name} in {self:?}"))
    }

    /// A field that is an unsigned integer.
    pub fn number(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Integer(number) => u64::try_from(*number).unwrap(),
            other => panic!("{name} is no integer: {other:?}"),
        }
    }

    /// A field that is true or false.
    pub fn truth(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(truth) => *truth,
            other => panic!("{name} is neither true nor false: {other:?}"),
        }
    }

    /// A field that is text.
    pub fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => panic!("{name} is no text: {other:?}"),
        }
    }

    /// A field that is a byte string.
    pub fn bytes(&self, name: &str) -> &[u8] {
        match self.value(name) {
            Value::Bytes(bytes) => bytes,
            other => panic!("{name} is no byte string: {other:?}"),
        }
    }

    /// A field that is a byte string of 16.
    pub fn uuid(&self, name: &str) -> Uuid {
        Uuid::from_slice(self.bytes(name)).unwrap()
    }

    /// A field that is an array.
    pub fn array(&self, name: &str) -> &[Value] {
        match self.value(name) {
            Value::Array(array) => array,
            other => panic!("{name} is no array: {other:?}"),
        }
    }

    /// A field that is an array of UUIDs.
    pub fn uuids(&self, name: &str) -> Vec<Uuid> {
        let uuid = |value: &Value| match value {
            Value::Bytes(bytes) => Uuid::from_slice(bytes).unwrap(),
            other => panic!("no UUID in {name}: {other:?}"),
        };
        self.array(name).iter().map(uuid).collect()
    }

    /// A field that is an array of maps.
    pub fn maps(&self, name: &str) -> Vec<Self> {
        self.array(name).iter().map(Self::of).collect()
    }

    /// A field that is a map.
    pub fn map(&self, name: &str) -> Self {
        Self::of(self.value(name))
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the server said.
#[derive(Clone, PartialEq, Debug)]
pub struct Response {
    /// The request that it answers; `None` for a bare one.
    pub id: Option<u64>,
    /// The variant.
    pub name: String,
    /// Its fields.
    pub fields: Fields,
}

impl Response {
    /// What one binary message says.
    pub fn decode(message: &[u8]) -> Self {
        let value: Value = serde_cbor::from_slice(message).unwrap();
        let (id, response) = match &value {
            Value::Array(array) => match &array[..] {
                [Value::Integer(id), response] => (Some(u64::try_from(*id).unwrap()), response),
                _ => panic!("neither a response nor an id with one: {value:?}"),
            },
            response => (None, response),
        };
        let Value::Map(map) = response else {
            panic!("no response: {value:?}")
        };
        assert_eq!(map.len(), 1, "more than one variant: {value:?}");
        let Some((Value::Text(name), fields)) = map.iter().next() else {
            panic!("no name: {value:?}")
        };
        Self {
            id,
            name: name.clone(),
            fields: Fields::of(fields),
        }
    }

    /// The same, if it has this name.
    #[track_caller]
    pub fn expect(self, name: &str) -> Self {
        assert_eq!(self.name, name, "{self:?}");
        self
    }

    /// The same, if it is an error with this code.
    #[track_caller]
    pub fn expect_error(self, code: &str) -> Self {
        assert_eq!(self.name, "Error", "{self:?}");
        assert_eq!(self.text("code"), code, "{self:?}");
        assert!(!self.text("message").is_empty(), "{self:?}");
        _ = self.truth("temporary");
        self
    }
}

impl Deref for Response {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.fields
    }
}
