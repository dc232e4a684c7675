//! The command line: which command is meant, and with what the process ends.
//!
//! Data goes to stdout, everything else to stderr, and what went wrong is one sentence there. Each command has its own file; nothing
//! outside of this folder reads arguments or the environment.

mod allocator;
mod backup;
mod bench;
mod connect;
mod credentials;
mod effective;
mod environment;
mod exec;
mod failure;
mod health;
mod input;
mod key;
mod log;
mod logging;
mod manual;
mod meta;
mod output;
mod print;
mod progress;
mod publish;
mod redrive;
mod serve;
mod settings;
mod signals;
mod start;
mod subscribe;
mod subscriptions;
mod table;
mod token;
mod values;
mod verify;
mod work;

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::failure::Failure;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 called or configured wrongly, 3 timed out or fewer than --count, 4 refused by the server.";

/// A standalone, durable publish/subscribe server, and its client
///
/// Without a command it serves. The commands of the client talk to the server that --server or INFOTAINER_URL names. Data goes to
/// stdout, everything else to stderr.
#[derive(Parser, Debug)]
#[command(name = "infotainer", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs the server until SIGTERM or SIGINT
    Serve(Box<serve::ServeArgs>),
    Pub(publish::PubArgs),
    Sub(subscribe::SubArgs),
    Log(log::LogArgs),
    Subscriptions(subscriptions::SubscriptionsArgs),
    Info(subscriptions::InfoArgs),
    Create(settings::CreateArgs),
    Update(settings::UpdateArgs),
    Delete(subscriptions::DeleteArgs),
    Redrive(redrive::RedriveArgs),
    Bench(Box<bench::BenchArgs>),
    Verify(verify::VerifyArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Config(Box<effective::ConfigArgs>),
    Token(token::TokenArgs),
    Key(key::KeyArgs),
    Health(health::HealthArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// Runs the command that `args` (the program's name first) ask for.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let args = with_command(args);
    let outcome = match parse(&args) {
        Ok((cli, matches)) => match cli.command {
            Command::Serve(serve) => serve::run(*serve, &args),
            Command::Pub(publish) => publish::run(publish),
            Command::Sub(subscribe) => subscribe::run(subscribe),
            Command::Log(log) => log::run(log),
            Command::Subscriptions(subscriptions) => subscriptions::list(subscriptions),
            Command::Info(info) => subscriptions::info(info),
            Command::Create(create) => settings::create(create),
            Command::Update(update) => settings::update(update),
            Command::Delete(delete) => subscriptions::delete(delete),
            Command::Redrive(redrive) => redrive::run(redrive),
            Command::Bench(bench) => bench::run(*bench),
            Command::Verify(verify) => verify::run(&verify),
            Command::Backup(backup) => backup::backup(backup),
            Command::Restore(restore) => backup::restore(restore),
            Command::Config(config) => effective::run(*config, &matches, &args),
            Command::Token(token) => token::run(token),
            Command::Key(key) => key::run(key),
            Command::Health(health) => health::run(health),
            Command::Completions(completions) => manual::completions(&completions),
            Command::Man(man) => manual::man(&man),
        },
        Err(error) => match environment::sentence_for(&error, &Cli::command(), &args) {
            Some(sentence) => Err(Failure::Usage(sentence)),
            None => return explained_by_clap(&error),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, sentence) = failure.end();
            sentence.into_iter().for_each(progress::say);
            ExitCode::from(code)
        }
    }
}

/// `args`, with `serve` where no command is named.
fn with_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let for_all = ["-h", "--help", "-V", "--version"];
    let names_none = match args.get(1) {
        None => true,
        Some(first) => first
            .to_str()
            .is_some_and(|first| first.starts_with('-') && !for_all.contains(&first)),
    };
    if names_none {
        if args.is_empty() {
            args.push("infotainer".into());
        }
        args.insert(1, "serve".into());
    }
    args
}

/// The command, and where its arguments came from.
fn parse(args: &[OsString]) -> Result<(Cli, ArgMatches), clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches).map(|cli| (cli, matches))
}

/// Help, the version, or what is wrong with the shape of the command line, as clap words it.
fn explained_by_clap(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told that stdout or stderr is gone.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(args: &[&str]) -> Vec<OsString> {
        with_command(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves() {
        assert_eq!(with(&["infotainer"]), ["infotainer", "serve"]);
        assert_eq!(
            with(&["infotainer", "--workers", "1"]),
            ["infotainer", "serve", "--workers", "1"]
        );
        assert_eq!(with(&["infotainer", "--help"]), ["infotainer", "--help"]);
        assert_eq!(
            with(&["infotainer", "serve", "--help"]),
            ["infotainer", "serve", "--help"]
        );
    }
}
