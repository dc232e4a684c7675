//! A publication becomes a ready frame, once, and is found again in what is stored.

use criterion::{Criterion, Throughput};
use infotainer::protocol::{StoredPublication, stored_publications};

use crate::{Area, PAYLOAD, frames_of, publication, table::Table};

pub(crate) fn benchmarks(criterion: &mut Criterion, table: &mut Table) {
    let mut area = Area::new("frames", criterion, table);
    for (case, payload) in [("128 B", PAYLOAD), ("1 KiB", 1 << 10), ("64 KiB", 64 << 10)] {
        let data = vec![7; payload];
        let mut out = Vec::new();
        let publication = publication(70_000, &data);
        let bytes = Throughput::Bytes(publication.encoded_len() as u64);
        area.measure(&format!("build one of {case}"), bytes, || {
            out.clear();
            publication.encode_into(&mut out);
        });
    }

    let mut frame = Vec::new();
    publication(70_000, &[7; PAYLOAD]).encode_into(&mut frame);
    let (stored, _) =
        StoredPublication::split_first(&frame).expect("what was encoded is a publication");
    let mut out = Vec::new();
    let bytes = Throughput::Bytes(frame.len() as u64);
    area.measure("build a Queue's delivery of 128 B", bytes, || {
        out.clear();
        stored.encode_delivery(3, &mut out);
    });

    let page = frames_of(1, 256);
    let bytes = Throughput::Bytes(page.len() as u64);
    area.measure("find 256 in a page", bytes, || {
        stored_publications(&page).filter(Result::is_ok).count()
    });
}
