//! `infotainer sub` of a Queue: prints what is delivered, and acknowledges it when it was printed, or when stdin says so.
//!
//! Owns what is leased and not settled. What is printed is acknowledged only after it was handed to whoever reads stdout.

use std::{collections::VecDeque, future::pending, pin::pin, str, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use infotainer::{
    client::{Delivery, Lease, Queue, Rejection, Settlement, SubscribeError},
    protocol::PublicationId,
};
use tokio::time::Instant;

use super::{
    Failure,
    connect::Stop,
    input::{self, Lines},
    output::unread,
    print::Printer,
    progress::{Notes, Progress},
    subscribe::at,
    values,
};

/// Deliveries after which the output is handed on, and acknowledged, however fast more of them come.
const AT_ONCE: usize = 1024;

/// Leases that are remembered until they are settled: the largest prefetch. Of more, the oldest have ended.
const HELD: usize = u16::MAX as usize;

/// A Queue that is printed as it comes.
pub(super) struct Working {
    pub(super) queue: Queue,
    pub(super) printer: Printer,
    pub(super) progress: Progress,
    pub(super) wait: Option<Duration>,
}

/// Why a Queue delivers no more; errors that are no end in order are failures.
pub(super) fn ended(
    next: Option<Result<Delivery, SubscribeError>>,
) -> Result<Result<Delivery, &'static str>, Failure> {
    match next {
        Some(Ok(delivery)) => Ok(Ok(delivery)),
        Some(Err(SubscribeError::Deleted)) => Ok(Err("the subscription was deleted")),
        Some(Err(error)) => Err(error.into()),
        None => Ok(Err("the subscription has ended")),
    }
}

impl Working {
    /// Prints, and acknowledges what was printed. Says why it ends, should that be too early.
    pub(super) async fn acknowledging(&mut self, stop: &mut Stop) -> Result<&'static str, Failure> {
        let notes = self.progress.notes();
        let mut unread = pin!(unread());
        let mut ends_at = self.ends_at();
        let mut printed: Vec<Lease> = Vec::new();
        loop {
            let may_gather = printed.len() < AT_ONCE && !self.printer.is_done();
            let ready = may_gather.then(|| self.queue.next().now_or_never());
            let next = if let Some(Some(next)) = ready {
                next
            } else {
                self.printer.flush()?;
                if !printed.is_empty() {
                    self.acknowledge(&mut printed, stop, &notes).await?;
                    continue;
                }
                if self.printer.is_done() {
                    return Ok("");
                }
                tokio::select! {
                    biased;
                    () = stop.asked() => return Ok("interrupted"),
                    () = &mut unread => return Err(Failure::Unread),
                    next = self.queue.next() => next,
                    () = at(ends_at) => return Ok("nothing came any more"),
                }
            };
            match ended(next)? {
                Ok(delivery) => {
                    self.print(&delivery)?;
                    printed.push(delivery.lease());
                    ends_at = self.ends_at();
                }
                Err(why) => {
                    self.printer.flush()?;
                    notes.say(why);
                    return Ok(why);
                }
            }
        }
    }

    async fn acknowledge(
        &self,
        printed: &mut Vec<Lease>,
        stop: &mut Stop,
        notes: &Notes,
    ) -> Result<(), Failure> {
        let leases = std::mem::take(printed);
        let count = leases.len();
        match stop.unless_asked(self.queue.acknowledge(leases)).await {
            Some(settlement) => {
                tell_lost(&settlement?, "was printed and not acknowledged", notes);
                Ok(())
            }
            None => Err(Failure::Failed(format!(
                "interrupted: {count} printed, but perhaps not acknowledged"
            ))),
        }
    }

    /// Prints, and does with it what the lines of stdin say. Says why it ends, should that be too early.
    pub(super) async fn by_hand(&mut self, stop: &mut Stop) -> Result<&'static str, Failure> {
        let notes = self.progress.notes();
        if input::is_typed() {
            notes.say("type ack, reject, dead-letter or extend, and ids");
        }
        let mut unread = pin!(unread());
        let mut ends_at = self.ends_at();
        let mut lines = Some(Lines::of_stdin());
        let mut held: VecDeque<Delivery> = VecDeque::new();
        let why = loop {
            self.printer.flush()?;
            let has_room = !self.printer.is_done();
            if !has_room && (lines.is_none() || held.is_empty()) {
                break "";
            }
            tokio::select! {
                biased;
                () = stop.asked() => break "interrupted",
                () = &mut unread => return Err(Failure::Unread),
                line = next_line(&mut lines) => match line {
                    Some(line) => self.obey(&line?, &mut held, &notes).await?,
                    None => lines = None,
                },
                next = self.queue.next(), if has_room => match ended(next)? {
                    Ok(delivery) => {
                        self.print(&delivery)?;
                        let id = delivery.publication.publication_id;
                        held.retain(|held| held.publication.publication_id != id);
                        held.push_back(delivery);
                        if held.len() > HELD {
                            held.pop_front();
                        }
                        ends_at = self.ends_at();
                    }
                    Err(why) => {
                        notes.say(why);
                        break why;
                    }
                },
                () = at(ends_at) => break "nothing came any more",
            }
        };
        if !held.is_empty() {
            notes.say(format_args!(
                "{} not acknowledged: what is not settled goes back",
                held.len()
            ));
        }
        Ok(why)
    }

    /// Does what `line` says.
    async fn obey(
        &self,
        line: &Bytes,
        held: &mut VecDeque<Delivery>,
        notes: &Notes,
    ) -> Result<(), Failure> {
        let Some(order) = Order::read(line) else {
            if !line.trim_ascii().is_empty() {
                notes.say(
                    "a line of stdin must be ack, reject, dead-letter or extend, and ids behind it",
                );
            }
            return Ok(());
        };
        let mut leases = Vec::new();
        for id in order.ids {
            let place = held
                .iter()
                .rposition(|held| held.publication.publication_id == id);
            let Some(place) = place else {
                notes.say(format_args!("{id} is not held"));
                continue;
            };
            leases.push(held[place].lease());
            if !matches!(order.what, What::Extend) {
                held.remove(place);
            }
        }
        let settlement = match order.what {
            What::Ack => self.queue.acknowledge(leases).await?,
            What::Reject(rejection) => self.queue.reject(leases, rejection).await?,
            What::Extend => self.queue.extend(leases).await?,
        };
        held.retain(|held| !settlement.lost.contains(&held.publication.publication_id));
        tell_lost(&settlement, "is not held any more", notes);
        Ok(())
    }

    fn ends_at(&self) -> Option<Instant> {
        self.wait.map(|wait| Instant::now() + wait)
    }

    fn print(&mut self, delivery: &Delivery) -> Result<(), Failure> {
        let publication = &delivery.publication;
        self.progress.add_publication(publication.data.len() as u64);
        self.printer.publication(publication)
    }
}

fn tell_lost(settlement: &Settlement, what: &str, notes: &Notes) {
    for id in &settlement.lost {
        notes.say(format_args!(
            "{id} {what}: its lease had ended, and it may come again"
        ));
    }
}

async fn next_line(lines: &mut Option<Lines>) -> Option<Result<Bytes, Failure>> {
    match lines {
        Some(lines) => lines.next().await,
        None => pending().await,
    }
}

/// What is to be done with which publications.
#[derive(PartialEq, Debug)]
struct Order {
    what: What,
    ids: Vec<PublicationId>,
}

#[derive(PartialEq, Debug)]
enum What {
    Ack,
    Reject(Rejection),
    Extend,
}

impl Order {
    fn read(line: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
        let what = match words.next()? {
            "ack" => What::Ack,
            "reject" => What::Reject(Rejection::AtOnce),
            "dead-letter" => What::Reject(Rejection::DeadLetter),
            "extend" => What::Extend,
            _ => return None,
        };
        let ids = words.map(|word| values::publication_id(word).ok());
        let ids: Vec<_> = ids.collect::<Option<_>>()?;
        (!ids.is_empty()).then_some(Self { what, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_do_with_which() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let order = |line: String| Order::read(line.as_bytes());
        let ids = vec![values::publication_id(id).unwrap()];
        for (word, what) in [
            ("ack", What::Ack),
            ("reject", What::Reject(Rejection::AtOnce)),
            ("dead-letter", What::Reject(Rejection::DeadLetter)),
            ("extend", What::Extend),
        ] {
            let ids = ids.clone();
            assert_eq!(order(format!(" {word}  {id}\r")), Some(Order { what, ids }));
        }
        for line in [
            "",
            "ack",
            "ack x",
            "nack 67e55044-10b1-426f-9247-bb680e5fe0c8",
        ] {
            assert_eq!(order(line.into()), None, "{line}");
        }
        assert_eq!(order(format!("ack {id} {id} x")), None);
        assert_eq!(Order::read(b"\xff"), None);
    }
}
