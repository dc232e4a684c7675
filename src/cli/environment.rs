//! What stands in the environment besides what clap reads from it: variables that nobody knows, and how a bad one is named.

use std::{
    env,
    error::Error,
    ffi::{OsStr, OsString},
    fmt,
};

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{Failure, values};

const PREFIX: &str = "INFOTAINER_";

/// A variable that no command reads.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Unknown {
    /// Its name.
    pub(super) name: String,
    /// A known one that looks like it.
    pub(super) meant: Option<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no setting of infotainer", self.name)?;
        match &self.meant {
            Some(meant) => write!(f, "; was {meant} meant?"),
            None => Ok(()),
        }
    }
}

/// The variables named `INFOTAINER_*` that `commands` do not read, in order of their names.
pub(super) fn unknown(commands: &Command) -> Vec<Unknown> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown_among(names, &known(commands))
}

fn unknown_among(names: impl Iterator<Item = String>, known: &[String]) -> Vec<Unknown> {
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name))
        .map(|name| Unknown {
            meant: nearest(&name, known),
            name,
        })
        .collect();
    unknown.sort_by(|a, b| a.name.cmp(&b.name));
    unknown
}

/// How the setting of `flag` is called where its value came from: the flag if `args` have it, else its variable.
pub(super) fn spoken_name(flag: &str, commands: &Command, args: &[OsString]) -> String {
    let is_flag = |arg: &OsString| {
        let rest = arg.to_str().and_then(|arg| arg.strip_prefix(flag));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    if args.iter().any(is_flag) {
        return flag.into();
    }
    let variable = settings(commands).find(|arg| {
        arg.get_long()
            .is_some_and(|long| flag.strip_prefix("--") == Some(long))
    });
    variable
        .and_then(variable_of)
        .unwrap_or_else(|| flag.into())
}

/// One sentence for a value that a setting's reader refused; `None` where clap's own words are the better ones.
pub(super) fn sentence_for(
    error: &clap::Error,
    commands: &Command,
    args: &[OsString],
) -> Option<String> {
    if error.kind() == ErrorKind::InvalidUtf8 {
        let unreadable =
            |name: &String| env::var_os(name).is_some_and(|value| value.to_str().is_none());
        return known(commands)
            .into_iter()
            .find(unreadable)
            .map(|name| format!("{name} must be text in UTF-8"));
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = spoken_name(flag.split(' ').next()?, commands, args);
    match (
        error.kind(),
        error.get(ContextKind::InvalidValue),
        error.source(),
    ) {
        (ErrorKind::ValueValidation, Some(ContextValue::String(got)), Some(wants)) => {
            Some(wrong(&name, got, &wants.to_string()))
        }
        (ErrorKind::InvalidValue, Some(ContextValue::String(got)), _) if got.is_empty() => {
            Some(format!("{name} is empty, but must have a value"))
        }
        _ => None,
    }
}

/// What to log: what `RUST_LOG` says, else `default`.
pub(super) fn log_filter(default: &str) -> Result<String, Failure> {
    match env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => values::log_filter(&filter)
            .map_err(|wants| Failure::Usage(wrong("RUST_LOG", &filter, &wants))),
        _ => Ok(default.into()),
    }
}

/// That the setting `name` is `got`, but must be something else.
pub(super) fn wrong(name: &str, got: &str, wants: &str) -> String {
    let got = if got.is_empty() {
        "empty".into()
    } else {
        format!("{got:?}")
    };
    format!("{name} is {got}, but must be {wants}")
}

fn known(commands: &Command) -> Vec<String> {
    settings(commands).filter_map(variable_of).collect()
}

fn variable_of(setting: &Arg) -> Option<String> {
    setting.get_env().and_then(OsStr::to_str).map(String::from)
}

fn settings(commands: &Command) -> Box<dyn Iterator<Item = &Arg> + '_> {
    let of_subcommands = commands.get_subcommands().flat_map(settings);
    Box::new(commands.get_arguments().chain(of_subcommands))
}

/// The known name that is so near that it was probably meant.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    /// Two letters swapped are two edits; a word left away is more, and then a guess helps nobody.
    const NEAR: usize = 3;
    let by_distance = known.iter().map(|known| (distance(name, known), known));
    by_distance
        .min()
        .filter(|(distance, _)| *distance <= NEAR)
        .map(|(_, known)| known.clone())
}

/// The edits (a byte put in, taken out or replaced) that make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, of_a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, of_b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(of_a != of_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_names(names: &[&str]) -> Vec<(String, Option<String>)> {
        let known = [
            "INFOTAINER_LISTEN".into(),
            "INFOTAINER_WORKERS".into(),
            "INFOTAINER_LOG".into(),
        ];
        let unknown = unknown_among(names.iter().map(|name| String::from(*name)), &known);
        unknown
            .into_iter()
            .map(|unknown| (unknown.name, unknown.meant))
            .collect()
    }

    #[test]
    fn only_variables_with_our_prefix_can_be_unknown() {
        assert_eq!(
            unknown_names(&[
                "PATH",
                "INFOTAINER_LISTEN",
                "infotainer_listen",
                "INFOTAINER"
            ]),
            []
        );
    }

    #[test]
    fn a_misspelt_variable_is_met_with_the_nearest_name() {
        assert_eq!(
            unknown_names(&[
                "INFOTAINER_WROKERS",
                "INFOTAINER_LISTN",
                "INFOTAINER_SOMETHING_ELSE"
            ]),
            [
                ("INFOTAINER_LISTN".into(), Some("INFOTAINER_LISTEN".into())),
                ("INFOTAINER_SOMETHING_ELSE".into(), None),
                (
                    "INFOTAINER_WROKERS".into(),
                    Some("INFOTAINER_WORKERS".into())
                ),
            ]
        );
    }

    #[test]
    fn a_setting_is_named_as_it_was_given() {
        let commands = Command::new("infotainer").subcommand(
            Command::new("serve").arg(
                Arg::new("workers")
                    .long("workers")
                    .env("INFOTAINER_WORKERS"),
            ),
        );
        let named = |args: &[&str]| {
            spoken_name(
                "--workers",
                &commands,
                &args.iter().map(OsString::from).collect::<Vec<_>>(),
            )
        };
        assert_eq!(named(&["infotainer", "serve"]), "INFOTAINER_WORKERS");
        assert_eq!(
            named(&["infotainer", "serve", "--workers", "0"]),
            "--workers"
        );
        assert_eq!(named(&["infotainer", "serve", "--workers=0"]), "--workers");
    }
}
