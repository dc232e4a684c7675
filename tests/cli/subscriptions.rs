//! `infotainer subscriptions`, `info`, `create`, `update` and `delete`.

use crate::{objects, sentence, serve};

#[test]
fn all_subscriptions_are_a_table_or_objects() {
    let served = serve();
    served.publish("news", "a\nb\n");
    served.publish("a name with spaces", "x\n");
    let table = served.prints(&["subscriptions"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME                KIND       DURABILITY  FIRST  LAST  SIZE"));
    assert!(lines[1].starts_with("a name with spaces  Broadcast  Synced          1     1   1 B"));
    assert!(lines[2].starts_with("news                Broadcast  Synced          1     2   2 B"));
    assert!(!table.contains('\u{1b}'));
    let mut names: Vec<_> = objects(&served.run(&["subscriptions", "--json"]))
        .iter()
        .map(|meta| meta["settings"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["a name with spaces", "news"]);
}

#[test]
fn info_tells_everything_about_one() {
    let served = serve();
    served.publish("news", "a\nbc\n");
    let lines = served.prints(&["info", "news"]);
    for line in [
        "name          news",
        "kind          Broadcast",
        "durability    Synced",
        "retention     everything is kept",
        "publications  2, sequences 1 to 2, 3 B",
        "subscribers   0, 0 of them connected",
    ] {
        assert!(
            lines.lines().any(|printed| printed == line),
            "{line}: {lines}"
        );
    }
    let meta = &objects(&served.run(&["info", "news", "--json"]))[0];
    let by_id = served.prints(&["info", meta["subscription_id"].as_str().unwrap()]);
    assert_eq!(by_id, lines);
}

#[test]
fn settings_are_made_and_changed_one_by_one() {
    let served = serve();
    let settings = |args: &[&str]| {
        let mut metas = objects(&served.run(&[args, &["--json"]].concat()));
        metas.pop().unwrap()["settings"].take()
    };
    let made = [
        "create",
        "news",
        "--durability",
        "Written",
        "--max-age",
        "2d",
        "--max-bytes",
        "3MiB",
    ];
    let made = settings(&made);
    assert_eq!(made["durability"], "Written");
    assert_eq!(made["retention"]["max_age"], 172_800_000);
    assert_eq!(made["retention"]["max_bytes"], 3 << 20);

    let changed = settings(&[
        "update",
        "news",
        "--max-publications",
        "7",
        "--max-age",
        "default",
    ]);
    assert_eq!(changed["durability"], "Written");
    assert_eq!(changed["retention"]["max_publications"], 7);
    assert_eq!(changed["retention"]["max_bytes"], 3 << 20);
    assert_eq!(changed["retention"].get("max_age"), None);

    let changed = settings(&["update", "news", "--durability", "default"]);
    assert_eq!(changed["durability"], "Synced");
    assert_eq!(changed["retention"]["max_publications"], 7);
}

#[test]
fn what_exists_otherwise_or_not_at_all_is_refused_with_4() {
    let served = serve();
    assert_eq!(served.run(&["create", "news"]).status.code(), Some(0));
    assert_eq!(served.run(&["create", "news"]).status.code(), Some(0));
    for (args, code) in [
        (
            &["create", "news", "--durability", "Memory"][..],
            "conflict: ",
        ),
        (&["update", "nothing", "--max-age", "1d"], "not-found: "),
        (&["info", "nothing"], "not-found: "),
        (&["delete", "nothing"], "not-found: "),
    ] {
        let said = sentence(&served.run(args), 4);
        assert!(said.starts_with(code), "{args:?}: {said}");
    }
}

#[test]
fn delete_asks_nothing_and_takes_everything() {
    let served = serve();
    served.publish("news", "a\n");
    assert_eq!(
        sentence(&served.run(&["delete", "news"]), 0),
        "news is deleted"
    );
    assert_eq!(served.prints(&["subscriptions", "--json"]), "");
}
