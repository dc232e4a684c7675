//! The command line: which command is meant, and with what the process ends.
//!
//! Exit codes: 0 done, 1 failed, 2 called or configured wrongly. What went wrong is one sentence on stderr. Each command has
//! its own file; nothing outside of this folder reads arguments or the environment.

mod bench;
mod environment;
mod logging;
mod serve;
mod values;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A standalone, durable publish/subscribe server: WebSocket clients speak CBOR to it.
///
/// Without a command it serves.
#[derive(Parser, Debug)]
#[command(name = "infotainer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs the server until SIGTERM or SIGINT.
    Serve(Box<serve::ServeArgs>),
    Bench(Box<bench::BenchArgs>),
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// It was called or configured wrongly: exit code 2.
    Usage(String),
    /// It could not be done: exit code 1.
    Failed(String),
}

/// Runs the command that `args` (the program's name first) ask for.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let args = with_command(args);
    let outcome = match parse(&args) {
        Ok(cli) => match cli.command {
            Command::Serve(serve) => serve::run(*serve, &args),
            Command::Bench(bench) => bench::run(*bench),
        },
        Err(error) => match environment::sentence_for(&error, &Cli::command(), &args) {
            Some(sentence) => Err(Failure::Usage(sentence)),
            None => return explained_by_clap(&error),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(sentence)) => ended(1, &sentence),
        Err(Failure::Usage(sentence)) => ended(2, &sentence),
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

fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = Cli::command().try_get_matches_from(args)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// Help, the version, or what is wrong with the shape of the command line, as clap words it.
fn explained_by_clap(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told that stdout or stderr is gone.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

fn ended(code: u8, sentence: &str) -> ExitCode {
    // Nobody is left to be told that stderr is gone.
    let _ = writeln!(std::io::stderr(), "infotainer: {sentence}");
    ExitCode::from(code)
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
