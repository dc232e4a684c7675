//! `infotainer config`: the settings with which a server would start here, and where each comes from.
//!
//! Owns how they are shown. Does not own what they are: that is what clap has read for [`ServeArgs`].

use std::{env, ffi::OsString};

use clap::{Arg, ArgMatches, Args, Command, CommandFactory, parser::ValueSource};
use infotainer::{access, config::Config};
use serde::Serialize;

use super::{
    Cli, Failure, environment,
    output::Output,
    progress,
    serve::{self, ServeArgs},
    table::{Column, Table},
};

/// What stands for a value that is not shown.
const HIDDEN: &str = "(hidden)";

/// Prints the settings that a server would start with here, and where each comes from
///
/// It takes the flags of serve. Secrets are not shown. The exit code is 2 if a server would not start with them.
#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    /// Print nothing; only judge the settings, and the files that they name
    #[arg(long, conflicts_with = "json")]
    check: bool,

    /// Print one JSON object for each setting
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    serve: ServeArgs,
}

/// A setting as it is in effect.
#[derive(Serialize)]
struct Setting {
    /// Its flag, without the dashes.
    setting: String,
    /// Its variable.
    variable: String,
    /// What it is; `null` if that is a secret.
    value: Option<String>,
    /// Where that comes from.
    source: Source,
    /// The variable or the file that it was read from, if it has another name than its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Flag,
    Variable,
    File,
    Default,
}

/// Shows or judges the settings. `matches` are those of the whole command line, and `args` are what they were read from.
pub(super) fn run(
    config: ConfigArgs,
    matches: &ArgMatches,
    args: &[OsString],
) -> Result<(), Failure> {
    let judged = config.serve.config();
    if !config.check {
        let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
        print(&settings(matches, judged.as_ref().ok()), config.json)?;
    }
    for unknown in environment::unknown(&Cli::command()) {
        progress::say(unknown);
    }
    let judged = judged.map_err(|error| serve::out_of_limits(&error, args))?;
    config.serve.log_filter()?;
    access::check(&judged.credentials).map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(files) = &judged.tls {
        let warning = files
            .check()
            .map_err(|error| Failure::Usage(format!("TLS: {error}")))?;
        warning.into_iter().for_each(progress::say);
    }
    Ok(())
}

fn print(settings: &[Setting], as_json: bool) -> Result<(), Failure> {
    let mut out = Output::new();
    if as_json {
        for setting in settings {
            out.json(setting)?;
        }
    } else {
        let rows: Vec<_> = settings.iter().map(row).collect();
        let column = |head| Column {
            head,
            is_number: false,
        };
        let table = Table::new([column("SETTING"), column("VALUE"), column("FROM")], &rows);
        table.head(&mut out)?;
        for row in &rows {
            table.row(row, &mut out)?;
        }
    }
    out.flush()
}

fn row(setting: &Setting) -> [String; 3] {
    let value = setting.value.as_deref().unwrap_or(HIDDEN);
    let from = match (setting.source, &setting.from) {
        (Source::Flag, _) => format!("--{}", setting.setting),
        (Source::Default, _) => "default".to_owned(),
        (Source::Variable, from) => from.as_ref().unwrap_or(&setting.variable).clone(),
        (Source::File, from) => from.clone().unwrap_or_else(|| "a file".to_owned()),
    };
    [setting.setting.clone(), value.to_owned(), from]
}

/// All settings, in the order of the help. `config` is what they came to, if that is within its limits.
fn settings(matches: &ArgMatches, config: Option<&Config>) -> Vec<Setting> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let arguments = command.get_arguments();
    arguments
        .filter_map(|arg| setting(arg, matches, config))
        .collect()
}

fn setting(arg: &Arg, matches: &ArgMatches, config: Option<&Config>) -> Option<Setting> {
    let variable = arg.get_env()?.to_str()?.to_owned();
    let id = arg.get_id().as_str();
    let is_secret = arg.is_hide_env_values_set();
    let in_effect = |value: String, source, from| Setting {
        setting: id.replace('_', "-"),
        variable: variable.clone(),
        value: (!is_secret).then_some(value),
        source,
        from,
    };
    if let Some(values) = matches.get_raw(id) {
        let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Variable,
            _ => Source::Default,
        };
        return Some(in_effect(values.join(","), source, None));
    }
    if let Some(file) = file_of(id, matches) {
        return Some(Setting {
            value: None,
            ..in_effect(String::new(), Source::File, Some(file))
        });
    }
    let told = default_in(arg);
    Some(match (id, env::var("RUST_LOG"), config) {
        ("log", Ok(filter), _) if !filter.is_empty() => {
            in_effect(filter, Source::Variable, Some("RUST_LOG".to_owned()))
        }
        ("log", ..) => in_effect("info".to_owned(), Source::Default, None),
        ("workers", _, Some(config)) => {
            in_effect(config.workers.to_string(), Source::Default, None)
        }
        // That there is none is no secret.
        _ => Setting {
            value: Some(told),
            ..in_effect(String::new(), Source::Default, None)
        },
    })
}

/// The file that the secret `id` is read from: its path is a setting of its own.
fn file_of(id: &str, matches: &ArgMatches) -> Option<String> {
    let mut file = matches.try_get_raw(&format!("{id}_file")).ok()??;
    file.next().map(|file| file.to_string_lossy().into_owned())
}

/// A default that clap does not fill in.
fn default_in(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    serve::told_default(&help).unwrap_or("none").to_owned()
}
