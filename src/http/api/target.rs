//! What a request is about: the path, and the parameters of its query.

use actix_web::{http::Method, web::Query};
use uuid::Uuid;

use super::problem::Problem;
use crate::protocol::{PublicationId, SubscriptionReference, shown::DataForm};

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// `/v1/openapi.json`
    Description,
    /// `/v1/subscriptions`
    Subscriptions,
    /// `/v1/publications`: those of any subscriptions, to be submitted.
    Publications,
    /// `/v1/subscriptions/{subscription}`
    Subscription(SubscriptionReference),
    /// `/v1/subscriptions/{subscription}/publications`
    Log(SubscriptionReference),
    /// `/v1/subscriptions/{subscription}/publications/{publication_id}`
    Entry(SubscriptionReference, PublicationId),
    /// `/v1/subscriptions/{subscription}/events`
    Events(SubscriptionReference),
}

impl Target {
    /// What `path`, as it stands in the request, names. A name of a subscription is percent-encoded; slashes in it, too.
    ///
    /// # Errors
    /// If it names nothing, or what stands for a subscription or a publication is none.
    pub(super) fn of(path: &str) -> Result<Self, Problem> {
        let rest = path
            .strip_prefix("/v1/")
            .ok_or_else(Problem::no_such_path)?;
        let segments: Vec<_> = rest.split('/').collect();
        Ok(match segments[..] {
            ["openapi.json"] => Self::Description,
            ["subscriptions"] => Self::Subscriptions,
            ["publications"] => Self::Publications,
            ["subscriptions", name] => Self::Subscription(subscription(name)?),
            ["subscriptions", name, "publications"] => Self::Log(subscription(name)?),
            ["subscriptions", name, "publications", id] => {
                Self::Entry(subscription(name)?, publication(id)?)
            }
            ["subscriptions", name, "events"] => Self::Events(subscription(name)?),
            _ => return Err(Problem::no_such_path()),
        })
    }

    /// What can be done with it, as `Allow` says it.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Description | Self::Subscriptions | Self::Entry(..) | Self::Events(_) => {
                "GET, HEAD, OPTIONS"
            }
            Self::Publications => "POST, OPTIONS",
            Self::Subscription(_) => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            Self::Log(_) => "GET, HEAD, POST, OPTIONS",
        }
    }

    /// Whether `method` is among that.
    pub(super) fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|one| one == method.as_str())
    }
}

fn subscription(segment: &str) -> Result<SubscriptionReference, Problem> {
    let text = percent_decode(segment)
        .ok_or_else(|| Problem::invalid("the path is no percent-encoded UTF-8"))?;
    text.parse().map_err(|error| {
        Problem::invalid(format!("what stands for a subscription is none: {error}"))
    })
}

fn publication(segment: &str) -> Result<PublicationId, Problem> {
    percent_decode(segment)
        .filter(|text| text.len() == uuid::fmt::Hyphenated::LENGTH)
        .and_then(|text| Uuid::try_parse(&text).ok())
        .map(PublicationId)
        .ok_or_else(|| Problem::invalid("what stands for a publication is no UUID"))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The parameters of a query. Those that are not known are ignored.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of `query`.
    ///
    /// # Errors
    /// If it is no query.
    pub(super) fn of(query: &str) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|_| Problem::invalid("the query can't be read"))?;
        Ok(Self(pairs.into_inner()))
    }

    /// The parameter `name`, which may stand there once.
    ///
    /// # Errors
    /// If it stands there twice.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        let first = values.next().map(|(_, value)| value.as_str());
        if values.next().is_some() {
            return Err(Problem::invalid(format!(
                "`{name}` stands twice in the query"
            )));
        }
        Ok(first)
    }

    /// The parameter `name` as a number from `least` to `most`.
    ///
    /// # Errors
    /// If it is none.
    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.parse() {
            // Without signs.
            Ok(number)
                if (least..=most).contains(&number)
                    && text.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Ok(Some(number))
            }
            _ => Err(Problem::invalid(format!(
                "`{name}` has to be a whole number from {least} to {most}"
            ))),
        }
    }

    /// The parameter `payload`: how data is shown in JSON.
    ///
    /// # Errors
    /// If it is no form.
    pub(super) fn data_form(&self) -> Result<DataForm, Problem> {
        match self.text("payload")? {
            None | Some("text") => Ok(DataForm::Text),
            Some("json") => Ok(DataForm::Json),
            Some("base64") => Ok(DataForm::Base64),
            Some(_) => Err(Problem::invalid("`payload` has to be text, json or base64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "5f2b6c1e-8d3a-4b7f-9c0d-1e2f3a4b5c6d";

    #[test]
    fn a_subscription_is_named_by_what_is_percent_encoded() {
        let named = |segment: &str| match Target::of(&format!("/v1/subscriptions/{segment}")) {
            Ok(Target::Subscription(reference)) => Some(reference.to_string()),
            _ => None,
        };
        for (segment, name) in [
            ("news", "news"),
            ("a%2Fb", "a/b"),
            ("a+b", "a+b"),
            ("%C3%BC%25", "ü%"),
            (ID, ID),
        ] {
            assert_eq!(named(segment).as_deref(), Some(name), "{segment}");
        }
        for segment in ["", "%", "%2", "%zz", "%+1", "%ff", "%00", &"x".repeat(256)] {
            assert_eq!(named(segment), None, "{segment}");
        }
    }

    #[test]
    fn every_other_path_is_nothing() {
        for path in [
            "/v1",
            "/v1/",
            "/v2/subscriptions",
            "/v1/subscriptions/a/b",
            "/v1/subscriptions/a/events/",
            "/v1//subscriptions",
        ] {
            assert_eq!(Target::of(path), Err(Problem::no_such_path()), "{path}");
        }
        let entry = |id: &str| Target::of(&format!("/v1/subscriptions/a/publications/{id}"));
        assert!(entry(ID).is_ok());
        assert!(entry(&ID.replace('-', "")).is_err());
    }

    #[test]
    fn a_number_is_judged_by_its_range() {
        let number = |query: &str| Parameters::of(query).unwrap().number("limit", 1, 10);
        assert_eq!(number("a=b&limit=10"), Ok(Some(10)));
        assert_eq!(number(""), Ok(None));
        for query in [
            "limit=0",
            "limit=11",
            "limit=",
            "limit=+1",
            "limit=1.0",
            "limit=1&limit=1",
        ] {
            assert!(number(query).is_err(), "{query}");
        }
    }
}
