//! Serving those who are behind: new subscribers with a past, resumed sessions, slow readers. All of them read the log, a page at a time.
//!
//! Owns the turns: one page of a connection is on its way at a time, its subscribers that are behind get theirs in turn, and the next is
//! asked for while little waits in the outbox. So a slow client costs two pages of memory, and a fast one is never without work. Pages
//! get larger while the socket takes each at once, which serves a client nearly twice as fast, and are small again when it does not: the one
//! that it did not take waits as large as it is.
//!
//! ```text
//!   Idle ──a subscriber is behind, little waits──> Asked ──page──> Idle
//!                                                    └──failure──> Paused ──timer──> Idle
//! ```

use std::rc::Rc;

use actix_web::rt::spawn;

use crate::{
    actors::{log_reader::DataLogPage, messages::MemoryPage, worker::Worker},
    connection::{Connection, Paging, Phase, Subscriber, encoded, in_form},
    datalog::ReadError,
    domain::{LogSource, Page},
    protocol::{Form, Gap, Sequence, ServerResponse},
};

/// Bytes of a page, and what may wait in an outbox when the next is asked for.
const PAGE_SIZE: usize = 64 << 10;

/// The same of a page for a client that takes them as fast as they come.
const MAX_PAGE_SIZE: usize = 256 << 10;

impl Worker {
    /// Asks for the next page of a connection, if it needs one and there is room.
    pub(in crate::actors) fn serve_behind(self: &Rc<Self>, connection: &Rc<Connection>) {
        if connection.paging() != Paging::Idle || connection.phase() != Phase::Open {
            return;
        }
        while let Some(subscriber) = connection.next_behind() {
            let end = self.table.borrow().end(&subscriber);
            match end {
                Some(end) if subscriber.position() < end => {
                    let waiting = connection.with_outbox(|outbox| outbox.publication_bytes());
                    if waiting < PAGE_SIZE {
                        connection.set_page_size(self.larger_page(connection));
                        self.ask_page(connection, subscriber, end);
                    }
                    return;
                }
                // It has met the live end; or its log is gone, of which it will be told.
                Some(_) | None => connection.leave_behind(&subscriber),
            }
        }
    }

    /// Bytes of the next page: twice those of the last, if the socket took that at once. JSON takes more room than what it is made of.
    fn larger_page(&self, connection: &Connection) -> usize {
        let largest = match connection.form() {
            Form::Cbor => (self.outbox_size / 4).clamp(PAGE_SIZE, MAX_PAGE_SIZE),
            Form::Json => PAGE_SIZE,
        };
        (connection.page_size() * 2).clamp(PAGE_SIZE, largest)
    }

    fn ask_page(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        subscriber: Rc<Subscriber>,
        through: Sequence,
    ) {
        connection.pass_turn();
        connection.set_paging(Paging::Asked);
        let (after, max_bytes) = (subscriber.position(), connection.page_size());
        let (worker, connection) = (Rc::clone(self), Rc::clone(connection));
        spawn(async move {
            let page = worker
                .fetch_page(&subscriber, after, through, max_bytes)
                .await;
            connection.set_paging(Paging::Idle);
            if connection.phase() == Phase::Open {
                worker.serve_page(&connection, &subscriber, after, page);
                worker.mark_dirty(&connection);
            }
        });
    }

    async fn fetch_page(
        &self,
        subscriber: &Subscriber,
        after: Sequence,
        through: Sequence,
        max_bytes: usize,
    ) -> Result<Page, ReadError> {
        let log = subscriber.log;
        let page = match subscriber.source {
            LogSource::Disk => {
                let page = DataLogPage {
                    log,
                    after,
                    through,
                    max_bytes,
                };
                self.neighbours.page.send(page).await
            }
            LogSource::Memory => {
                let page = MemoryPage {
                    subscription: subscriber.subscription,
                    log,
                    after,
                    through,
                    max_bytes,
                };
                self.neighbours.memory_page.send(page).await
            }
        };
        // Without its reader, the server is stopping.
        page.unwrap_or(Err(ReadError::Gone))
    }

    fn serve_page(
        &self,
        connection: &Rc<Connection>,
        subscriber: &Rc<Subscriber>,
        after: Sequence,
        page: Result<Page, ReadError>,
    ) {
        let page = match page {
            Ok(page) => page,
            Err(ReadError::Gone) => return connection.leave_behind(subscriber),
            Err(error) => {
                if !connection.page_failed(true) {
                    log::warn!(
                        "a subscriber of {} has to wait for what it missed: {error}",
                        subscriber.subscription
                    );
                }
                return connection.set_paging(Paging::Paused);
            }
        };
        connection.page_failed(false);
        // If it has moved since, the next page is asked for from where it stands.
        let Some(served) = subscriber.serve(after, page) else {
            return;
        };
        if served.gap.is_none() && served.frames.is_none() {
            return connection.set_paging(Paging::Paused);
        }
        connection.with_outbox(|outbox| {
            if let Some(gap) = served.gap {
                let notice = ServerResponse::Gap(Gap {
                    subscription_id: subscriber.subscription,
                    from: after.next(),
                    to: gap.to,
                    cause: gap.cause,
                });
                let notice = encoded(connection.form(), &notice);
                outbox.push(Rc::clone(subscriber), notice, gap.to);
            }
            if let Some((frames, last)) = served.frames {
                let before = served.gap.map_or(after, |gap| gap.to);
                self.counts.deliveries.add(last.0 - before.0);
                let frames = in_form(connection.form(), frames);
                outbox.push(Rc::clone(subscriber), frames, last);
            }
        });
    }
}
