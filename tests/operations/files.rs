//! The table of metrics, the dashboard and the alert rules, against what a server tells that has done some work.
//!
//! The rules are read by the little that their form needs, so that no reader of YAML is wanted: every line is one of those that
//! `promtool` would take for the same, or the test fails.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{metrics::work, page::Page, support::TestServer};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const DASHBOARD: &str = include_str!("../../deploy/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../deploy/alerts.yml");

/// Labels that the collector adds, and the one of histograms.
const ADDED: [&str; 3] = ["instance", "job", "le"];

/// What a scrape offers: every series' name, its labels, and the values of each.
struct Offered(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Offered {
    async fn by_a_server_that_worked() -> Self {
        let server = TestServer::start();
        let _client = work(&server).await;
        let mut offered = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
        for sample in Page::of(server.address()).await.samples() {
            let labels = offered.entry(sample.name.clone()).or_default();
            for (label, value) in &sample.labels {
                labels
                    .entry(label.clone())
                    .or_default()
                    .insert(value.clone());
            }
        }
        // What Prometheus itself says of what it collects from.
        offered.insert("up".into(), BTreeMap::new());
        Self(offered)
    }

    /// Whether an expression asks for nothing that is not there.
    fn check(&self, expression: &str, place: &str) {
        let mut asked = BTreeSet::new();
        let mut grouped = BTreeSet::new();
        let mut rest = expression;
        while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '"') {
            rest = &rest[at..];
            if rest.starts_with('"') {
                rest = rest[1..].split_once('"').expect("a text ends").1;
                continue;
            }
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                .unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            rest = behind;
            if matches!(word, "by" | "without" | "on" | "ignoring" | "group_left") {
                let (labels, behind) = rest.trim_start()[1..].split_once(')').unwrap();
                grouped.extend(labels.split(',').map(|label| label.trim().to_owned()));
                rest = behind;
            } else if !rest.trim_start().starts_with('(')
                && !matches!(word, "and" | "or" | "unless" | "sum" | "max" | "min")
            {
                let labels = self.0.get(word);
                let labels = labels.unwrap_or_else(|| panic!("{place}: there is no {word}"));
                if let Some((matchers, behind)) =
                    rest.strip_prefix('{').and_then(|rest| rest.split_once('}'))
                {
                    rest = behind;
                    check_matchers(matchers, word, labels, place);
                }
                // A range, a step, an offset.
                if let Some((_, behind)) =
                    rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
                {
                    rest = behind;
                }
                asked.insert(word);
            }
        }
        assert!(!asked.is_empty(), "{place}: {expression} asks for nothing");
        for label in grouped {
            let is_known = asked.iter().any(|name| self.0[*name].contains_key(&label));
            assert!(
                is_known || ADDED.contains(&&label[..]),
                "{place}: no {label}"
            );
        }
    }
}

fn check_matchers(
    matchers: &str,
    name: &str,
    labels: &BTreeMap<String, BTreeSet<String>>,
    place: &str,
) {
    for matcher in matchers.split(',').filter(|matcher| !matcher.is_empty()) {
        let at = matcher.find(['=', '!']).expect("a matcher compares");
        let (label, comparison) = matcher.split_at(at);
        let value = comparison
            .trim_start_matches(['=', '!', '~'])
            .trim_matches('"');
        if ADDED.contains(&label.trim()) {
            continue;
        }
        let values = labels.get(label.trim());
        let values = values.unwrap_or_else(|| panic!("{place}: {name} has no {label}"));
        for value in value.split('|') {
            assert!(
                values.contains(value),
                "{place}: {label} of {name} is never {value}"
            );
        }
    }
}

/// The rows of a table of `docs/operations.md` whose head begins with this.
fn rows(head: &str) -> Vec<Vec<&'static str>> {
    let mut lines = OPERATIONS
        .lines()
        .skip_while(|line| !line.starts_with(head));
    assert!(lines.next().is_some(), "no table begins with {head}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cells = |row: &'static str| row.trim_matches('|').split('|').map(str::trim).collect();
    rows.map(cells).collect()
}

#[tokio::test]
async fn the_table_names_every_metric_with_its_type_and_labels_and_no_other() {
    let server = TestServer::start();
    let _client = work(&server).await;
    let page = Page::of(server.address()).await;
    let told = page.0.iter().map(|(name, family)| {
        let suffix = match &family.kind[..] {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels = family
            .samples
            .iter()
            .flat_map(|sample| sample.labels.keys());
        let labels: BTreeSet<_> = labels.filter(|label| *label != "le").cloned().collect();
        (format!("{name}{suffix}"), (family.kind.clone(), labels))
    });
    let told: BTreeMap<_, _> = told.collect();
    let unquoted = |cell: &str| cell.replace('`', "");
    let named = rows("| metric |").into_iter().map(|row| {
        let labels = unquoted(row[2]);
        let labels = labels.split(',').map(|label| label.trim().to_owned());
        let labels: BTreeSet<_> = labels.filter(|label| !label.is_empty()).collect();
        (unquoted(row[0]), (row[1].to_owned(), labels))
    });
    let named: Vec<_> = named.collect();
    for (name, written) in &named {
        assert_eq!(told.get(name), Some(written), "{name}");
    }
    let named: BTreeSet<_> = named.into_iter().map(|(name, _)| name).collect();
    let told: BTreeSet<_> = told.into_keys().collect();
    assert_eq!(told.difference(&named).collect::<Vec<_>>(), [""; 0]);
}

#[tokio::test]
async fn the_dashboard_asks_for_what_there_is() {
    let offered = Offered::by_a_server_that_worked().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut count = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            offered.check(target["expr"].as_str().unwrap(), title);
            count += 1;
        }
        if panel["type"] != "row" {
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{title} has no unit"
            );
        }
    }
    assert!(count > 20, "{count}");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["definition"].as_str() {
            let series = query
                .trim_start_matches("label_values(")
                .split([',', '{'])
                .next();
            assert!(offered.0.contains_key(series.unwrap()), "{query}");
        }
    }
}

/// An alert.
#[derive(Debug, Default)]
struct Rule<'a> {
    name: &'a str,
    expression: &'a str,
    fields: BTreeMap<&'a str, &'a str>,
}

/// The alerts of the file, whose lines are all of the forms that stand here.
fn alerts() -> Vec<Rule<'static>> {
    let mut rules = Vec::<Rule<'_>>::new();
    let mut lines = ALERTS.lines().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with('#')
    });
    assert_eq!(lines.next(), Some("groups:"));
    for line in lines {
        if line.starts_with("  - name: ")
            || matches!(line.trim(), "rules:" | "labels:" | "annotations:")
        {
            continue;
        }
        if let Some(name) = line.strip_prefix("      - alert: ") {
            rules.push(Rule {
                name,
                ..Rule::default()
            });
            continue;
        }
        let rule = rules.last_mut().unwrap();
        let (key, value) = line
            .trim()
            .split_once(": ")
            .unwrap_or_else(|| panic!("{line}"));
        // A text in single quotes is as it is, and neither colon nor number sign means anything in it.
        let text = value.strip_prefix('\'').map_or(value, |text| {
            let text = text.strip_suffix('\'').unwrap_or_else(|| panic!("{line}"));
            assert!(!text.contains('\''), "{line}");
            text
        });
        if text == value {
            assert!(
                !value.contains([':', '#', '{', '"', '\'']),
                "{line} wants quotes"
            );
        }
        let depth = line.len() - line.trim_start().len();
        match (depth, key) {
            (8, "expr") => rule.expression = text,
            (8, "for") | (10, "severity" | "summary" | "description" | "runbook") => {
                assert_eq!(rule.fields.insert(key, text), None, "{line}");
            }
            _ => panic!("{line} is not known"),
        }
    }
    rules
}

#[tokio::test]
async fn every_alert_asks_for_what_there_is_and_says_what_to_do() {
    let offered = Offered::by_a_server_that_worked().await;
    let runbook = rows("| alert |");
    let alerts = alerts();
    assert!(alerts.len() >= 15, "{}", alerts.len());
    for alert in &alerts {
        let name = alert.name;
        offered.check(alert.expression, name);
        assert!(name.starts_with("Infotainer"), "{name}");
        assert!(
            matches!(alert.fields["severity"], "page" | "ticket"),
            "{name}"
        );
        for field in ["summary", "description"] {
            assert!(!alert.fields[field].is_empty(), "{name}");
        }
        assert_eq!(
            alert.fields["runbook"],
            "docs/operations.md#what-to-do-about-an-alert"
        );
        let row = runbook.iter().find(|row| row[0] == format!("`{name}`"));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md says nothing of {name}"));
        assert_eq!(row[1], alert.fields["severity"], "{name}");
        assert!(row[3].len() > 20, "{name}");
    }
    let names: BTreeSet<_> = alerts
        .iter()
        .map(|alert| format!("`{}`", alert.name))
        .collect();
    assert_eq!(names.len(), alerts.len());
    for row in runbook {
        assert!(names.contains(row[0]), "there is no alert {}", row[0]);
    }
}
