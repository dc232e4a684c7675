//! A page of metrics, read as a collector reads it.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::support::{ask, eventually};

const OPEN_METRICS: &str = "application/openmetrics-text";

/// A value with its labels.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// What one `# TYPE` is about.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) samples: Vec<Sample>,
}

/// All families, by their names.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Page(pub(crate) BTreeMap<String, Family>);

impl Page {
    /// What the server at `address` tells, in the format of OpenMetrics.
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let (status, body, headers) = ask(
            address,
            "GET",
            "/metrics",
            &[(
                "Accept",
                "application/openmetrics-text; version=1.0.0, text/plain;q=0.5",
            )],
        )
        .await;
        assert_eq!(status, 200, "{body}");
        let content_type = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        assert!(content_type.unwrap().1.starts_with(OPEN_METRICS));
        assert!(body.ends_with("# EOF\n"), "{body}");
        Self::read(&body)
    }

    /// Reads either format.
    pub(crate) fn read(text: &str) -> Self {
        let mut page = Self::default();
        let mut family = String::new();
        let mut help = None;
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(told) = line.strip_prefix("# HELP ") {
                help = Some(told.split_once(' ').unwrap());
            } else if let Some(told) = line.strip_prefix("# TYPE ") {
                let (name, kind) = told.split_once(' ').unwrap();
                let (helped, help) = help.take().unwrap_or_else(|| panic!("{name} has no help"));
                assert_eq!(helped, name);
                family = name.to_owned();
                let told = Family {
                    help: help.to_owned(),
                    kind: kind.to_owned(),
                    samples: Vec::new(),
                };
                let before = page.0.insert(family.clone(), told);
                assert_eq!(before, None, "{name} is told twice");
            } else {
                let sample = sample(line);
                assert!(sample.name.starts_with(&family), "{line}");
                page.0.get_mut(&family).unwrap().samples.push(sample);
            }
        }
        page
    }

    /// Every sample.
    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.0.values().flat_map(|family| &family.samples)
    }

    /// The value of the sample with this name and these labels.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_it = |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| {
                sample.labels.get(*label).is_some_and(|has| has == value)
            };
            sample.name == name && sample.labels.len() == labels.len() && labels.iter().all(has)
        };
        match self.samples().find(is_it) {
            Some(sample) => sample.value,
            None => panic!("{name} {labels:?} is not told"),
        }
    }
}

/// Waits until the server tells this.
pub(crate) async fn told(address: SocketAddr, name: &str, labels: &[(&str, &str)], value: f64) {
    eventually(&format!("{name} {labels:?} is {value}"), async || {
        Page::of(address).await.value(name, labels) == value
    })
    .await;
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (series, ""),
    };
    // No value of a label holds a comma or a quote.
    let labels = labels.split(',').filter(|label| !label.is_empty());
    let labels = labels.map(|label| {
        let (label, value) = label.split_once('=').unwrap();
        let value = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        (label.to_owned(), value.unwrap().to_owned())
    });
    Sample {
        name: name.to_owned(),
        labels: labels.collect(),
        value: value.parse().unwrap(),
    }
}
