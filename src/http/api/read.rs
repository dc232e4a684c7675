//! Reading a log: by range, page by page, or one publication by its id.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header::HeaderMap},
};
use serde::Serialize;

use super::{
    answer, ask,
    link::{Link, internal},
    negotiate::{Format, answer_format},
    problem::Problem,
    target::Parameters,
};
use crate::protocol::{
    ClientCommand, DataLogEntry, GetLogEntries, GetLogIndex, MAX_ENTRIES, NUMBER_LIMIT,
    PublicationId, ReceivedPublication, Sequence, ServerResponse, SubscriptionReference,
    codec::decode_publication,
    shown::{DataForm, ShownPublication},
};

/// Publications of a page unless it is said.
const PAGE: u64 = 100;

/// Reads what follows a position.
pub(super) async fn range(
    link: &mut Link,
    headers: &HeaderMap,
    log: SubscriptionReference,
    parameters: &Parameters,
) -> Result<HttpResponse, Problem> {
    #[derive(Serialize)]
    struct Page<'a> {
        publications: Vec<ShownPublication<'a>>,
        more: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<Sequence>,
    }
    let format = answer_format(headers)?;
    let form = data_form(format, parameters)?;
    let after = parameters.number("after", 0, NUMBER_LIMIT - 1)?;
    let limit = parameters.number("limit", 1, MAX_ENTRIES as u64)?;
    let read = GetLogEntries::Range(GetLogIndex {
        log,
        after: after.map_or(Sequence::ZERO, Sequence),
        limit: limit.unwrap_or(PAGE) as usize,
    });
    let entry = entries(link, read).await?;
    let publications = decoded(&entry)?;
    let last = publications.last().map(|publication| publication.sequence);
    let page = Page {
        publications: publications
            .iter()
            .map(|publication| ShownPublication::new(publication, form))
            .collect(),
        more: entry.more,
        next: last.filter(|_| entry.more),
    };
    Ok(answer(format, StatusCode::OK, &page))
}

/// Reads one publication.
pub(super) async fn one(
    link: &mut Link,
    headers: &HeaderMap,
    log: SubscriptionReference,
    id: PublicationId,
    parameters: &Parameters,
) -> Result<HttpResponse, Problem> {
    let format = answer_format(headers)?;
    let form = data_form(format, parameters)?;
    let entry = entries(link, GetLogEntries::Ids(log, vec![id])).await?;
    match &decoded(&entry)?[..] {
        [publication, ..] => Ok(answer(
            format,
            StatusCode::OK,
            &ShownPublication::new(publication, form),
        )),
        [] => Err(Problem::no_such_publication()),
    }
}

/// CBOR has bytes; JSON needs to be told.
fn data_form(format: Format, parameters: &Parameters) -> Result<DataForm, Problem> {
    let form = parameters.data_form()?;
    Ok(match format {
        Format::Json => form,
        Format::Cbor => DataForm::Bytes,
    })
}

async fn entries(link: &mut Link, read: GetLogEntries) -> Result<Box<DataLogEntry>, Problem> {
    match ask(link, ClientCommand::GetLogEntries(read)).await? {
        ServerResponse::DataLogEntry(entry) => Ok(entry),
        _ => Err(internal().into()),
    }
}

fn decoded(entry: &DataLogEntry) -> Result<Vec<ReceivedPublication>, Problem> {
    let publications = entry.publications.iter().map(decode_publication);
    publications.collect::<Result<_, _>>().map_err(|error| {
        log::error!("the server does not understand what it stored: {error}");
        internal().into()
    })
}
