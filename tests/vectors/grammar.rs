//! Vectors against `docs/protocol.cddl`, and the rules that `docs/asyncapi.yaml` names.
//!
//! The validator knows no tags and takes a regular expression for one that may match anywhere, which RFC 8610 (section
//! 3.8.3) does not: so tags are taken off grammar and messages, and expressions are anchored.

use cddl_cat::cbor::validate_cbor;
use cddl_cat::context::BasicContext;
use cddl_cat::flatten::flatten_from_str;
use ciborium::Value;

use super::{COMMANDS, Direction, Item, RESPONSES, documents, vectors};

const TAGGED: [(&str, &str); 2] = [("#6.37(uuid)", "uuid"), ("#6(bstr)", "bstr")];

/// The grammar, ready to be asked.
pub(crate) struct Grammar(BasicContext);

impl Grammar {
    pub(crate) fn read() -> Self {
        let mut text = std::fs::read_to_string(documents().join("protocol.cddl")).unwrap();
        for (tagged, untagged) in TAGGED {
            assert!(text.contains(tagged));
            text = text.replace(tagged, untagged);
        }
        let mut pieces = text.split(".regexp \"");
        let mut anchored = pieces.next().unwrap().to_owned();
        for piece in pieces {
            let (expression, behind) = piece.split_once('"').unwrap();
            anchored.push_str(&format!(".regexp \"^({expression})$\"{behind}"));
        }
        Self(BasicContext::new(flatten_from_str(&anchored).unwrap()))
    }

    /// Why `item` is no `rule`.
    pub(crate) fn check(&self, rule: &str, item: &Item) -> Result<(), String> {
        self.check_value(rule, &item.untagged_value())
    }

    fn check_value(&self, rule: &str, value: &Value) -> Result<(), String> {
        validate_cbor(&self.0.rules[rule], value, &self.0).map_err(|error| error.to_string())
    }
}

fn check(direction: Direction, rule: &str) {
    let grammar = Grammar::read();
    let mut wrong = Vec::new();
    for vector in vectors(direction) {
        let expected = vector.error.is_none() || vector.grammar_cannot_tell;
        let outcome = match Item::read(&vector.bytes) {
            Some(item) => grammar.check(rule, &item),
            None => Err("not well-formed".to_owned()),
        };
        if outcome.is_ok() != expected {
            wrong.push(format!("{}: {outcome:?}", vector.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_match_the_grammar_and_what_is_refused_does_not() {
    check(Direction::ClientToServer, "client-message");
}

#[test]
fn responses_match_the_grammar() {
    check(Direction::ServerToClient, "server-message");
}

/// The map of the fields in `message`.
fn fields(message: &mut Value) -> &mut Vec<(Value, Value)> {
    let envelope = match message {
        Value::Array(pair) => &mut pair[1],
        bare => bare,
    };
    envelope.as_map_mut().unwrap()[0].1.as_map_mut().unwrap()
}

#[test]
fn grammar_knows_the_type_of_every_field() {
    let grammar = Grammar::read();
    for (direction, rule) in [
        (Direction::ClientToServer, "client-message"),
        (Direction::ServerToClient, "server-message"),
    ] {
        for vector in vectors(direction).iter().filter(|vector| vector.exact) {
            let message = Item::read(&vector.bytes).unwrap().untagged_value();
            for at in 0..fields(&mut message.clone()).len() {
                let mut wrong = message.clone();
                let (key, value) = &mut fields(&mut wrong)[at];
                let key = key.clone();
                *value = Value::Float(1.5);
                assert!(
                    grammar.check_value(rule, &wrong).is_err(),
                    "{}: {key:?}",
                    vector.name
                );
            }
        }
    }
}

#[test]
fn grammar_knows_every_field_of_a_response() {
    let grammar = Grammar::read();
    for vector in vectors(Direction::ServerToClient) {
        let mut message = Item::read(&vector.bytes).unwrap().untagged_value();
        fields(&mut message).push((Value::from("unknown"), Value::Null));
        assert!(
            grammar.check_value("server-message", &message).is_err(),
            "{}",
            vector.name
        );
    }
}

#[test]
fn socket_description_has_every_message_with_its_rule() {
    let grammar = Grammar::read();
    let description = std::fs::read_to_string(documents().join("asyncapi.yaml")).unwrap();
    let values = |key: &str| -> Vec<_> {
        let lines = description.lines().map(str::trim);
        lines.filter_map(|line| line.strip_prefix(key)).collect()
    };
    let rules = values("x-cddl-rule: ");
    for rule in &rules {
        assert!(grammar.0.rules.contains_key(*rule), "{rule}");
    }
    let names = values("name: ");
    for name in COMMANDS.iter().chain(&RESPONSES) {
        assert!(names.contains(name), "{name}");
    }
    assert_eq!(rules.len(), COMMANDS.len() + RESPONSES.len());
}
