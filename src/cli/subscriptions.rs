//! `infotainer subscriptions`, `info` and `delete`: subscriptions as such.

use clap::Args;
use futures_util::TryStreamExt;
use infotainer::protocol::{SubscriptionMeta, SubscriptionReference};

use super::{
    Failure,
    connect::{self, ServerArgs},
    meta,
    output::Output,
    progress::Notes,
    table::Table,
    values,
};

/// Subscriptions that are held in memory, sorted by name, and measured for the width of columns.
const SORTED: usize = 10_000;

/// Prints a table of all subscriptions
#[derive(Args, Debug)]
pub(super) struct SubscriptionsArgs {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Prints what a subscription is like
#[derive(Args, Debug)]
pub(super) struct InfoArgs {
    /// The subscription: a name or a UUID
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Deletes a subscription with everything that it holds, without asking
#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The subscription: a name or a UUID
    #[arg(value_parser = values::subscription)]
    name: SubscriptionReference,

    #[command(flatten)]
    server: ServerArgs,
}

pub(super) fn list(args: SubscriptionsArgs) -> Result<(), Failure> {
    connect::run(async {
        let client = args.server.connect(None, &Notes::alone()).await?;
        let mut out = Output::new();
        let mut all = client.list();
        if args.json {
            while let Some(meta) = all.try_next().await? {
                out.json(&meta)?;
            }
        } else {
            let mut first: Vec<SubscriptionMeta> = Vec::new();
            while first.len() < SORTED
                && let Some(meta) = all.try_next().await?
            {
                first.push(meta);
            }
            first.sort_by_cached_key(meta::name);
            let rows: Vec<_> = first.iter().map(meta::row).collect();
            let table = Table::new(meta::columns(), &rows);
            table.head(&mut out)?;
            for row in &rows {
                table.row(row, &mut out)?;
            }
            // More than anybody reads: in order of their ids, as they come.
            while let Some(meta) = all.try_next().await? {
                table.row(&meta::row(&meta), &mut out)?;
            }
        }
        out.flush()?;
        client.close().await;
        Ok(())
    })
}

pub(super) fn info(args: InfoArgs) -> Result<(), Failure> {
    connect::run(async {
        let client = args.server.connect(None, &Notes::alone()).await?;
        let meta = client.get(&args.name).await?;
        client.close().await;
        meta::print(&meta, args.json)
    })
}

pub(super) fn delete(args: DeleteArgs) -> Result<(), Failure> {
    connect::run(async {
        let notes = Notes::alone();
        let client = args.server.connect(None, &notes).await?;
        client.delete(&args.name).await?;
        client.close().await;
        notes.say(format_args!("{} is deleted", args.name));
        Ok(())
    })
}
