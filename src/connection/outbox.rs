//! What waits to be written to one connection.
//!
//! Owns two queues and the order between them. *Answers* are joined into one buffer, so that many of them are one piece of a vectored
//! write; with them go pings and pongs. *Publications* are shared bytes, each with the subscriber it is for; with them goes what has
//! its place in the stream: `Gap`, `Deleted`, the Close frame. Does no I/O, and does not decide what is queued.
//!
//! ```text
//!   next write:  rest of a begun publication | answers | publications ... | Close
//! ```
//!
//! Invariants: an item that was begun is finished first; answers go in front of publications not yet begun; publications that lie here
//! have at most the limit's bytes, unless it is a single item; nothing follows the Close frame.

use std::{collections::VecDeque, io::IoSlice, mem, rc::Rc};

use bytes::{Buf, Bytes, BytesMut};

use super::subscriber::Subscriber;
use crate::protocol::{
    Sequence, SubscriptionId,
    frame::{encode_close, encode_ping, encode_pong},
    published,
};

/// Pieces of one vectored write. More would be copied by the kernel's front door for little: beyond this, a write is large anyway.
pub(crate) const MAX_SLICES: usize = 64;

/// Answers written this close to each other give their credit back together.
const CREDIT_GRAIN: u64 = 4096;

/// Pings and pongs are dropped while this much of answers waits: a peer that does not read learns nothing from them.
const MAX_ANSWERS_BEFORE_CONTROL: usize = 64 << 10;

/// Every ping is answered while no more than this of answers waits; then only the newest is, as RFC 6455 (section 5.5.3) allows.
const MAX_ANSWERS_BEFORE_PONG: usize = 4 << 10;

/// The answer to a Close frame that says nothing.
const EMPTY_CLOSE: &[u8] = &[0x88, 0];

/// A publication queue with room for more than this is given back once it is empty.
const KEPT_CAPACITY: usize = 32;

/// What waits to be written to one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    answers: BytesMut,
    /// Bytes of answers ever queued.
    answers_queued: u64,
    /// Bytes of answers ever written.
    answers_written: u64,
    returns: VecDeque<Return>,
    publications: VecDeque<Item>,
    /// Bytes of the first publication that are written.
    begun: usize,
    /// What the publications here cost, see [`Item::cost`].
    publication_bytes: usize,
    /// The newest ping, if it was not answered at once.
    pong: Option<Bytes>,
    closing: Closing,
    /// Bytes ever written.
    written: u64,
    /// The place of the last publication's last byte among these.
    publications_written_to: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Closing {
    #[default]
    No,
    Queued,
    Written,
}

/// Credit that is given back when everything up to `end` is written.
#[derive(Debug)]
struct Return {
    begin: u64,
    end: u64,
    credit: Credited,
}

/// Credit of commands that were answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Credited {
    /// Commands.
    pub(crate) commands: u32,
    /// Bytes of their messages.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Item {
    bytes: Bytes,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Frames, or a gap, up to this sequence.
    Upto(Rc<Subscriber>, Sequence),
    /// The subscription was deleted.
    Deleted(SubscriptionId),
    /// The Close frame.
    Close,
}

impl Item {
    /// Bytes that the item holds, itself included: the limit is one of memory.
    fn cost(&self) -> usize {
        cost(self.bytes.len())
    }

    fn is_about(&self, subscription: SubscriptionId) -> bool {
        match &self.what {
            What::Upto(subscriber, _) => subscriber.subscription == subscription,
            What::Deleted(deleted) => *deleted == subscription,
            What::Close => false,
        }
    }
}

fn cost(len: usize) -> usize {
    len + size_of::<Item>()
}

/// What was taken out of an outbox for a subscription.
#[derive(Debug, Default)]
pub(crate) struct Withdrawn {
    /// The item that is half written, which stays.
    pub(crate) begun: Option<(Rc<Subscriber>, Sequence)>,
    /// A `Deleted` that was not yet begun.
    pub(crate) deleted: Option<Bytes>,
}

impl Outbox {
    /// Where an answer is encoded; [`answered`](Self::answered) follows. `None` if nothing may follow any more.
    pub(crate) fn answers(&mut self) -> Option<&mut BytesMut> {
        let is_over = match self.closing {
            Closing::No => false,
            Closing::Queued => self.publications.len() == 1 && self.begun > 0,
            Closing::Written => true,
        };
        (!is_over).then_some(&mut self.answers)
    }

    /// What lies behind the last answer in [`answers`](Self::answers) is one more, which gives this credit back once it is written.
    pub(crate) fn answered(&mut self, credit: Credited) {
        let begin = self.answers_queued;
        let end = self.answers_written + self.answers.len() as u64;
        self.answers_queued = end;
        match self.returns.back_mut() {
            Some(last) if end - last.begin <= CREDIT_GRAIN => {
                last.end = end;
                last.credit.add(credit);
            }
            _ => self.returns.push_back(Return { begin, end, credit }),
        }
    }

    /// Queues a ping.
    pub(crate) fn ping(&mut self) {
        self.put_control(|out| encode_ping(out, b""));
    }

    /// Queues the pong that answers a ping of `payload`; where much waits already, in the place of the one before.
    pub(crate) fn pong(&mut self, payload: Bytes) {
        if self.answers().is_none() {
            return;
        }
        if self.pong.is_none() && self.answers.len() <= MAX_ANSWERS_BEFORE_PONG {
            self.put_control(|out| encode_pong(out, &payload));
        } else {
            self.pong = Some(payload);
        }
    }

    fn put_control(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        if self.answers.len() > MAX_ANSWERS_BEFORE_CONTROL {
            return;
        }
        if let Some(out) = self.answers() {
            encode(out);
            self.answered(Credited::default());
        }
    }

    /// Whether publications of `len` bytes may be queued within `limit`.
    #[inline]
    pub(crate) fn has_room(&self, len: usize, limit: usize) -> bool {
        self.closing == Closing::No
            && (self.publications.is_empty() || self.publication_bytes + cost(len) <= limit)
    }

    /// Bytes that wait here.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.answers.len() + self.publication_bytes - self.begun.min(self.publication_bytes)
    }

    /// What the queued publications cost of the limit.
    pub(crate) fn publication_bytes(&self) -> usize {
        self.publication_bytes
    }

    /// Queues frames, or a gap, that take `subscriber` to `last`.
    #[inline]
    pub(crate) fn push(&mut self, subscriber: Rc<Subscriber>, bytes: Bytes, last: Sequence) {
        self.push_item(bytes, What::Upto(subscriber, last));
    }

    /// Queues the notice that `subscription` was deleted, behind its publications.
    pub(crate) fn push_deleted(&mut self, subscription: SubscriptionId, bytes: Bytes) {
        self.push_item(bytes, What::Deleted(subscription));
    }

    /// Queues the Close frame, with which everything ends.
    pub(crate) fn push_close(&mut self, code: Option<u16>, reason: &str) {
        if self.closing != Closing::No {
            return;
        }
        let mut frame = BytesMut::new();
        match code {
            Some(code) => encode_close(&mut frame, code, reason),
            None => frame.extend_from_slice(EMPTY_CLOSE),
        }
        self.push_item(frame.freeze(), What::Close);
        self.closing = Closing::Queued;
    }

    #[inline]
    fn push_item(&mut self, bytes: Bytes, what: What) {
        if self.closing == Closing::No && !bytes.is_empty() {
            let item = Item { bytes, what };
            self.publication_bytes += item.cost();
            self.publications.push_back(item);
        }
    }

    /// Takes out what is queued for a subscription and not yet begun.
    pub(crate) fn withdraw(&mut self, subscription: SubscriptionId) -> Withdrawn {
        let mut withdrawn = Withdrawn::default();
        let mut is_begun = self.begun > 0;
        let mut freed = 0;
        self.publications.retain(|item| {
            let is_first_begun = mem::take(&mut is_begun);
            if !item.is_about(subscription) {
                return true;
            }
            if is_first_begun {
                if let What::Upto(subscriber, last) = &item.what {
                    withdrawn.begun = Some((subscriber.clone(), *last));
                }
                return true;
            }
            freed += item.cost();
            if matches!(item.what, What::Deleted(_)) {
                withdrawn.deleted = Some(item.bytes.clone());
            }
            false
        });
        self.publication_bytes -= freed;
        withdrawn
    }

    /// Drops the publications that are not begun, and of one that is the frames that are not.
    pub(crate) fn drop_publications(&mut self) {
        let kept = usize::from(self.begun > 0);
        self.publications.truncate(kept);
        let begun = self.begun;
        if let Some(item) = self.publications.front_mut()
            && let What::Upto(subscriber, last) = &mut item.what
            && !subscriber.is_of_queue()
            && let Some((len, through)) = frame_around(&item.bytes, begun)
        {
            item.bytes.truncate(len);
            *last = through;
            if len == begun {
                self.begun = 0;
                self.hand_over_first();
            }
        }
        self.publication_bytes = self.publications.iter().map(Item::cost).sum();
    }

    /// Counts the whole frames of a half-written item as handed: where the connection ended, they were taken.
    pub(crate) fn hand_whole_frames(&self) {
        if self.begun > 0
            && let Some(item) = self.publications.front()
            && let What::Upto(subscriber, _) = &item.what
            && !subscriber.is_of_queue()
            && let Some(last) = whole_frames(&item.bytes, self.begun)
        {
            subscriber.hand(last);
        }
    }

    /// Counts a half-written publication as handed, because the connection goes on until it is written.
    pub(crate) fn hand_begun(&self) {
        if self.begun > 0
            && let Some(item) = self.publications.front()
            && let What::Upto(subscriber, last) = &item.what
        {
            subscriber.hand(*last);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.publications.is_empty() && self.pong.is_none()
    }

    /// Whether publications wait.
    pub(crate) fn has_publications(&self) -> bool {
        !self.publications.is_empty()
    }

    /// Whether the Close frame was written: nothing will follow.
    pub(crate) fn is_finished(&self) -> bool {
        self.closing == Closing::Written
    }

    /// Bytes ever written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Where among these the last byte of a publication is.
    pub(crate) fn publications_written_to(&self) -> u64 {
        self.publications_written_to
    }

    /// The next write, if it is a single piece: most are, and need no vector.
    #[inline]
    pub(crate) fn single(&self) -> Option<&[u8]> {
        match (self.answers.len(), self.publications.len(), &self.pong) {
            (0, 1, None) => Some(&self.publications.front()?.bytes[self.begun..]),
            (1.., 0, None) => Some(&self.answers),
            _ => None,
        }
    }

    /// The pieces of the next write, in order; returns how many there are.
    pub(crate) fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        if let Some(payload) = self.pong.take() {
            self.put_control(|out| encode_pong(out, &payload));
        }
        let mut count = 0;
        let mut items = self.publications.iter();
        if self.begun > 0
            && let Some(first) = items.next()
        {
            slices[count] = IoSlice::new(&first.bytes[self.begun..]);
            count += 1;
        }
        if !self.answers.is_empty() {
            slices[count] = IoSlice::new(&self.answers);
            count += 1;
        }
        for (slice, item) in slices[count..].iter_mut().zip(items) {
            *slice = IoSlice::new(&item.bytes);
            count += 1;
        }
        count
    }

    /// The first `len` bytes of [`slices`](Self::slices) were written. Returns the credit that this gives back.
    pub(crate) fn wrote(&mut self, len: usize) -> Credited {
        self.written += len as u64;
        let mut left = len;
        if self.begun > 0 {
            left = self.wrote_publication(left, self.written - len as u64);
            if self.begun > 0 {
                return Credited::default();
            }
        }
        let answers = left.min(self.answers.len());
        let credited = self.wrote_answers(answers);
        left -= answers;
        while left > 0 {
            left = self.wrote_publication(left, self.written - left as u64);
        }
        if self.publications.is_empty() && self.publications.capacity() > KEPT_CAPACITY {
            self.publications = VecDeque::new();
        }
        credited
    }

    /// The next `len` bytes of publications were written, behind `from` bytes of all. Returns how many are of the item behind.
    fn wrote_publication(&mut self, len: usize, from: u64) -> usize {
        let first = self
            .publications
            .front()
            .expect("invariant: no more is written than was queued");
        let rest = first.bytes.len() - self.begun;
        let taken = rest.min(len);
        self.publications_written_to = from + taken as u64;
        if taken < rest {
            self.begun += taken;
            return 0;
        }
        self.begun = 0;
        self.publication_bytes -= first.cost();
        self.hand_over_first();
        len - taken
    }

    /// The first publication's last byte was written.
    fn hand_over_first(&mut self) {
        match self.publications.pop_front().map(|item| item.what) {
            Some(What::Upto(subscriber, last)) => subscriber.hand(last),
            Some(What::Close) => self.closing = Closing::Written,
            Some(What::Deleted(_)) | None => {}
        }
    }

    fn wrote_answers(&mut self, len: usize) -> Credited {
        let mut credited = Credited::default();
        if len == 0 {
            return credited;
        }
        self.answers_written += len as u64;
        if len == self.answers.len() {
            // An idle connection keeps no buffer.
            self.answers = BytesMut::new();
        } else {
            self.answers.advance(len);
        }
        while let Some(first) = self.returns.front()
            && first.end <= self.answers_written
        {
            credited.add(first.credit);
            self.returns.pop_front();
        }
        if self.returns.is_empty() {
            self.returns = VecDeque::new();
        }
        credited
    }
}

impl Credited {
    /// Adds `other` to this.
    pub(crate) fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.bytes += other.bytes;
    }
}

/// The end of the frame that holds byte `at` of `frames`, or of the one that ends there, and its sequence.
fn frame_around(frames: &[u8], at: usize) -> Option<(usize, Sequence)> {
    let mut end = 0;
    published(frames).find_map(|(len, sequence)| {
        end += len;
        (end >= at).then_some((end, sequence))
    })
}

/// The last publication that lies wholly in the first `len` bytes of `frames`.
fn whole_frames(frames: &[u8], len: usize) -> Option<Sequence> {
    let mut end = 0;
    published(frames)
        .map_while(|(frame, sequence)| {
            end += frame;
            (end <= len).then_some(sequence)
        })
        .last()
}

#[cfg(test)]
mod tests;
