//! `infotainer completions` and `man`: both out of what the command line is made of, so that they can't be out of date.

use std::io::{self, Write};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Failure, environment, output::unwritten};

/// Prints completions for a shell
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the manual page: infotainer man | man -l -
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The page of this command, such as sub
    command: Option<String>,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "infotainer", &mut script);
    io::stdout().write_all(&script).map_err(unwritten)
}

pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut page = Vec::new();
    Man::new(page_of(args.command.as_deref())?)
        .render(&mut page)
        .map_err(unwritten)?;
    io::stdout().write_all(&page).map_err(unwritten)
}

fn page_of(command: Option<&str>) -> Result<Command, Failure> {
    let mut program = Cli::command();
    // Names the commands as one types them.
    program.build();
    let Some(command) = command else {
        return Ok(program);
    };
    program.find_subcommand(command).cloned().ok_or_else(|| {
        let names = program.get_subcommands().map(Command::get_name);
        let commands: Vec<_> = names.filter(|name| *name != "help").collect();
        let wants = format!("one of {}", commands.join(", "));
        Failure::Usage(environment::wrong("COMMAND", command, &wants))
    })
}
