//! Every command: its fields, their defaults, and what can't stand beside what.

use super::*;

#[test]
fn submit_publication_is_decoded_from_its_documented_bytes() {
    let mut bytes = b"\x82\x18\x2a\xa1\x71SubmitPublication\xa5\x6fsubscription_id\x50".to_vec();
    bytes.extend([0x0a; 16]);
    bytes.extend(b"\x6asubmission\x45hello\x64kind\x69Broadcast\x6epublication_id\x50");
    bytes.extend([0x0b; 16]);
    bytes.extend(b"\x71expected_sequence\x19\x01\x00");
    let message = Bytes::from(bytes);
    let request = decode_request(&message).unwrap();
    assert_eq!(request.id, Some(RequestId(42)));
    let ClientCommand::SubmitPublication(submit) = request.command else {
        panic!("another command")
    };
    assert_eq!(submit.subscription, by_id(0x0a));
    assert_eq!(submit.submission, "hello");
    assert_eq!(submit.kind, Some(Kind::Broadcast));
    assert_eq!(submit.publication_id, Some(publication_id(0x0b)));
    assert_eq!(submit.expected_sequence, Some(Sequence(256)));
    assert!(
        message.as_ptr_range().contains(&submit.submission.as_ptr()),
        "the submission was copied"
    );
}

#[test]
fn ping_is_taken_with_and_without_fields() {
    for bytes in [
        &b"\x82\x07\x64Ping"[..],
        b"\x82\x07\xa1\x64Ping\xa0",
        b"\x82\x07\xbf\x64Ping\xbf\xff\xff",
    ] {
        assert_eq!(decode(bytes), Ok(ClientCommand::Ping));
    }
}

#[test]
fn subscribe_takes_all_its_fields() {
    let fields = [
        ("subscription_id", text("orders")),
        ("kind", text("Queue")),
        ("from", text("First")),
        ("epoch", id(8)),
        ("prefetch", number(32)),
    ];
    let expected = Subscribe {
        subscription: SubscriptionReference {
            id: SubscriptionId::of_name("orders"),
            name: Some("orders".into()),
        },
        kind: Some(Kind::Queue),
        from: Some(SubscribeFrom::First),
        epoch: Some(Epoch(Uuid::from_bytes([8; 16]))),
        prefetch: Some(32),
    };
    assert_eq!(
        taken("Subscribe", &fields),
        ClientCommand::Subscribe(expected)
    );
}

#[test]
fn commands_about_one_subscription_differ_by_name_alone() {
    assert_eq!(
        taken("Unsubscribe", &subscription()),
        ClientCommand::Unsubscribe(by_id(1))
    );
    assert_eq!(
        taken("GetSubscription", &subscription()),
        ClientCommand::GetSubscription(by_id(1))
    );
    assert_eq!(
        taken("DeleteSubscription", &subscription()),
        ClientCommand::DeleteSubscription(by_id(1))
    );
}

#[test]
fn acknowledge_takes_either_a_sequence_or_ids() {
    let acknowledge = |what| {
        ClientCommand::Acknowledge(Acknowledge {
            subscription: by_id(1),
            what,
        })
    };
    let sequence = with(&subscription(), "sequence", number(4));
    let ids = with(&subscription(), "publication_ids", array(&[id(2)]));
    assert_eq!(
        taken("Acknowledge", &sequence),
        acknowledge(Acknowledged::UpTo(Sequence(4)))
    );
    assert_eq!(
        taken("Acknowledge", &ids),
        acknowledge(Acknowledged::Ids(vec![publication_id(2)]))
    );
    refused(
        "Acknowledge",
        &with(&sequence, "publication_ids", array(&[])),
    );
    refused("Acknowledge", &subscription());
    refused("Acknowledge", &with(&subscription(), "sequence", null()));
}

#[test]
fn reject_and_extend_take_ids() {
    let fields = with(
        &subscription(),
        "publication_ids",
        array(&[id(2), text(UUID_TEXT)]),
    );
    let ids = vec![publication_id(2), PublicationId(UUID_TEXT.parse().unwrap())];
    assert_eq!(
        taken("Extend", &fields),
        ClientCommand::Extend(Extend {
            subscription: by_id(1),
            publication_ids: ids.clone()
        })
    );
    let reject = |delay, dead_letter| {
        ClientCommand::Reject(Reject {
            subscription: by_id(1),
            publication_ids: ids.clone(),
            delay,
            dead_letter,
        })
    };
    assert_eq!(taken("Reject", &fields), reject(None, false));
    let fields = with(
        &with(&fields, "delay", number(50)),
        "dead_letter",
        b"\xf5".to_vec(),
    );
    assert_eq!(taken("Reject", &fields), reject(Some(50), true));
    field_takes(
        "Reject",
        &fields,
        "dead_letter",
        &[b"\xf4".to_vec()],
        &[number(1), text("true")],
    );
}

#[test]
fn log_is_read_by_range_or_by_ids() {
    let log = vec![("log_id", id(1))];
    let range = |after, limit| GetLogIndex {
        log: by_id(1),
        after: Sequence(after),
        limit,
    };
    assert_eq!(
        taken("GetLogIndex", &log),
        ClientCommand::GetLogIndex(range(0, 10_000))
    );
    let fields = with(&with(&log, "after", number(5)), "limit", number(6));
    assert_eq!(
        taken("GetLogIndex", &fields),
        ClientCommand::GetLogIndex(range(5, 6))
    );
    assert_eq!(
        taken("GetLogEntries", &fields),
        ClientCommand::GetLogEntries(GetLogEntries::Range(range(5, 6)))
    );
    for beside in ["after", "limit"] {
        let told = refused(
            "GetLogEntries",
            &with(&with(&log, "entries", array(&[])), beside, number(1)),
        );
        assert_eq!(
            told,
            format!("`entries` and `{beside}` are both given, but only one of them can be")
        );
    }
}

#[test]
fn list_subscriptions_asks_for_100_unless_it_says_otherwise() {
    let list = |after, limit| ClientCommand::ListSubscriptions(ListSubscriptions { after, limit });
    assert_eq!(taken("ListSubscriptions", &[]), list(None, 100));
    assert_eq!(
        decode(b"\x82\x07\x71ListSubscriptions"),
        Ok(list(None, 100))
    );
    let fields = [("after", id(6)), ("limit", number(1_000))];
    assert_eq!(
        taken("ListSubscriptions", &fields),
        list(Some(by_id(6).id), 1_000)
    );
}

fn settings_of(command: &str, settings: &[(&str, Vec<u8>)]) -> SettingsPatch {
    match taken(command, &with(&subscription(), "settings", map(settings))) {
        ClientCommand::CreateSubscription(create) => create.settings,
        ClientCommand::UpdateSubscription(update) => update.settings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn setting_is_absent_default_or_a_value() {
    for command in ["CreateSubscription", "UpdateSubscription"] {
        assert_eq!(settings_of(command, &[]), SettingsPatch::default());
        let names = [
            "retention",
            "durability",
            "ack_timeout",
            "max_deliveries",
            "dead_letter",
        ];
        assert_eq!(
            settings_of(command, &names.map(|name| (name, null()))),
            SettingsPatch {
                retention: Patch::Default,
                durability: Patch::Default,
                ack_timeout: Patch::Default,
                max_deliveries: Patch::Default,
                dead_letter: Patch::Default,
            }
        );
        let retention = map(&[
            ("max_publications", number(1)),
            ("max_bytes", number(2)),
            ("max_age", null()),
        ]);
        let given = [
            ("retention", retention),
            ("durability", text("Written")),
            ("ack_timeout", number(30_000)),
            ("max_deliveries", number(0)),
            ("dead_letter", id(9)),
        ];
        assert_eq!(
            settings_of(command, &given),
            SettingsPatch {
                retention: Patch::Value(Retention {
                    max_publications: Some(1),
                    max_bytes: Some(2),
                    max_age: None
                }),
                durability: Patch::Value(Durability::Written),
                ack_timeout: Patch::Value(30_000),
                max_deliveries: Patch::Value(0),
                dead_letter: Patch::Value(by_id(9)),
            }
        );
        let none = settings_of(command, &[("retention", map(&[]))]);
        assert_eq!(none.retention, Patch::Value(Retention::default()));
    }
}

#[test]
fn each_durability_is_taken_by_name_alone() {
    for (name, durability) in [
        ("Memory", Durability::Memory),
        ("Written", Durability::Written),
        ("Synced", Durability::Synced),
    ] {
        let settings = settings_of("CreateSubscription", &[("durability", text(name))]);
        assert_eq!(settings.durability, Patch::Value(durability));
    }
}

#[test]
fn wrong_settings_are_refused_by_path() {
    for (settings, told) in [
        (
            map(&[("color", number(1))]),
            "`settings` has the key \"color\", but can only have retention, durability, ",
        ),
        (
            map(&[("name", text("a"))]),
            "`settings` has the key \"name\", but can only have ",
        ),
        (
            b"\xa1\x01\x01".to_vec(),
            "`settings` has the key the number 1, but can only have ",
        ),
        (number(1), "`settings` is the number 1, but has to be a map"),
        (
            array(&[]),
            "`settings` is an array of length 0, but has to be a map",
        ),
        (
            map(&[("durability", text("synced"))]),
            "`settings.durability` is the text \"synced\", but has to be ",
        ),
        (
            map(&[("durability", number(0))]),
            "`settings.durability` is the number 0, but has to be ",
        ),
        (
            map(&[("ack_timeout", b"\xf9\x00\x00".to_vec())]),
            "`settings.ack_timeout` is a floating point number, ",
        ),
        (
            map(&[("max_deliveries", number(1 << 53))]),
            "`settings.max_deliveries` is the number 9007199254740992, ",
        ),
        (
            map(&[("dead_letter", text(""))]),
            "`settings.dead_letter` is the text \"\", but has to be ",
        ),
        (
            map(&[("retention", number(1))]),
            "`settings.retention` is the number 1, but has to be a map",
        ),
        (
            map(&[("retention", map(&[("max_age", number(0))]))]),
            "`settings.retention.max_age` is the number 0, but has to be an integer from 1 to 9007199254740991",
        ),
        (
            map(&[("retention", map(&[("max_bytes", number(0))]))]),
            "`settings.retention.max_bytes` is the number 0, ",
        ),
        (
            map(&[("retention", map(&[("max_publications", number(0))]))]),
            "`settings.retention.max_publications` is ",
        ),
        (
            map(&[("retention", map(&[("max", number(1))]))]),
            "`settings.retention` has the key \"max\", but can only have max_publications, max_bytes, max_age",
        ),
    ] {
        for command in ["CreateSubscription", "UpdateSubscription"] {
            let got = refused(
                command,
                &with(&subscription(), "settings", settings.clone()),
            );
            assert!(got.starts_with(told), "{got}");
        }
    }
}
