//! What the writer and the background thread have for each other: journals that are free, journals that wait to be sealed,
//! runs that died.
//!
//! ```text
//!              take                     hand over
//!   spare ───────────────> current ───────────────────> unsealed
//!     ^                       ^                            │ sealed, or removed if a reader holds it
//!     └── made or reused ─────┼────────────────────────────┘
//!   reserve ──────────────────┘  on a full disk only
//! ```
//!
//! Invariants: at most `max_unsealed` journals are in use, the current one included, unless the disk is full. Beside them one
//! spare is kept ready, or two of those that were sealed, so that under steady load files only change hands and none is made;
//! and one reserve, so that state can still be changed on a full disk.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

#[cfg(test)]
mod turns;

use parking_lot::{Condvar, Mutex};

use super::{
    Space,
    backup::FreezeRequest,
    journal::{JournalFile, Unsealed},
    segment::RunDescriptor,
    store::{RunNote, is_disk_full},
};

/// How long to wait before a full disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Spares that are kept: the one that is taken next, and what was sealed meanwhile.
const SPARES: usize = 2;

/// Of the usual size of a journal, what a start goes on in if there is no room for more.
const LEAST_SHARE: u64 = 32;

/// Of the usual size of a journal, what changes of state leave to those that make room, on a full disk.
const CLEARING_SHARE: u64 = 64;

/// Of the usual size of a journal, what those leave to what can't be refused.
const LAST_SHARE: u64 = 256;

/// A journal that is written and not sealed.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) generation: u64,
    pub(crate) file: Arc<JournalFile>,
    /// The system has what is in front of it.
    pub(crate) end: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Backlog {
    dir: PathBuf,
    journal_size: u64,
    max_unsealed: usize,
    lull: Duration,
    next_number: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
    #[cfg(test)]
    room: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The newest last.
    spares: Vec<JournalFile>,
    reserve: Option<JournalFile>,
    unsealed: VecDeque<Unsealed>,
    dead: Vec<RunDescriptor>,
    /// Journals that were begun, and left with nothing in them.
    unused: Vec<Arc<JournalFile>>,
    /// The journal that is written, and its generation.
    current: Option<(u64, Arc<JournalFile>)>,
    /// Bytes left in it, for what is not written yet.
    left: u64,
    /// The last thing tried was to make the spare.
    made_last: bool,
    /// When the disk was found full.
    full: Option<Instant>,
    failed: Option<Arc<str>>,
    stopping: bool,
    /// Something that may lead to merging or unlinking happened.
    untidy: bool,
    /// Journals are being filled: no lull yet, and when there will be one.
    lull_at: Option<Instant>,
    /// What is to be noted of the run, the newest only.
    note: Option<RunNote>,
    /// Somebody waits for everything to be held still.
    freeze: Option<FreezeRequest>,
    /// A merge is under way, or was and is not yet known.
    merging: bool,
    merged: bool,
    /// The background thread has nothing to do.
    idle: bool,
    #[cfg(test)]
    turns: turns::Turns,
}

impl State {
    /// The disk was found full just now.
    fn is_blocked(&self) -> bool {
        #[cfg(test)]
        if self.turns.are_given() {
            return false;
        }
        self.full.is_some_and(|since| since.elapsed() < RETRY)
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl State {
    fn wants_something(&self) -> bool {
        self.spares.is_empty()
            || self.reserve.is_none()
            || !self.unsealed.is_empty()
            || !self.dead.is_empty()
            || !self.unused.is_empty()
            || self.untidy
            || self.lull_at.is_some()
            || self.note.is_some()
            || self.freeze.is_some()
            || self.merged
    }
}

/// What the background thread does next, the most urgent first.
#[derive(Debug)]
pub(crate) enum Task {
    /// Make a journal file.
    Make,
    /// Note how far the log is synced.
    Note(RunNote),
    /// Hold everything still that a backup is made of.
    Freeze(FreezeRequest),
    /// Use a journal again in which nothing was written.
    Free(Arc<JournalFile>),
    Seal(Unsealed),
    /// Drop runs that are dead.
    Drop(Vec<RunDescriptor>),
    /// The merge that was begun came to its end.
    Merged,
    /// Look for what can be merged, and the like.
    Tidy,
    /// Nothing was to be done, and no journal filled, for a while: what was put off can be done.
    Lull,
    Stop,
}

impl Backlog {
    pub(crate) fn new(
        dir: PathBuf,
        journal_size: u64,
        max_unsealed: usize,
        lull: Duration,
        unsealed: Vec<Unsealed>,
        next_number: u64,
    ) -> Self {
        Self {
            journal_size,
            max_unsealed,
            lull,
            next_number: AtomicU64::new(next_number),
            state: Mutex::new(State {
                untidy: true,
                unsealed: unsealed.into(),
                #[cfg(test)]
                turns: turns::Turns::new(&dir),
                ..State::default()
            }),
            changed: Condvar::new(),
            #[cfg(test)]
            room: u64::MAX.into(),
            dir,
        }
    }

    /// What may still be appended.
    pub(crate) fn space(&self) -> Space {
        self.space_of(&self.state.lock())
    }

    fn space_of(&self, state: &State) -> Space {
        // Records that the caller did not count when it was told what is guaranteed.
        let slack = (self.journal_size / 16).min(256 << 10);
        let room = if !state.spares.is_empty() && self.may_rotate(state) {
            self.journal_size
        } else if state.full.is_some() && state.reserve.is_none() {
            0
        } else {
            state.left
        };
        let reserve = match (&state.full, state.spares.last().or(state.reserve.as_ref())) {
            (None, Some(_)) => u64::MAX,
            (Some(_), Some(next)) => next.capacity(),
            // Nobody knows yet whether there will be room for another.
            (_, None) => state.left,
        };
        Space {
            guaranteed: room.saturating_sub(slack),
            changes: reserve.saturating_sub(self.journal_size / CLEARING_SHARE),
            clearing: reserve.saturating_sub(self.journal_size / LAST_SHARE),
            full: state.full.is_some(),
        }
    }

    fn may_rotate(&self, state: &State) -> bool {
        state.unsealed.len() + 2 <= self.max_unsealed
    }

    /// Notes which journal is written first.
    pub(crate) fn begin(&self, generation: u64, file: Arc<JournalFile>) {
        let mut state = self.state.lock();
        state.left = file.capacity();
        state.current = Some((generation, file));
    }

    /// Notes how much is left in the current journal: the system has what is in front of that.
    pub(crate) fn set_left(&self, left: u64) {
        self.state.lock().left = left;
    }

    /// What is written and not sealed, in order. Everything that was acknowledged and is not sealed is in it.
    pub(crate) fn written(&self) -> Vec<Written> {
        let state = self.state.lock();
        let unsealed = state.unsealed.iter().map(|journal| Written {
            generation: journal.generation,
            file: journal.file.clone(),
            end: journal.written(),
        });
        let current = state.current.iter().map(|(generation, file)| Written {
            generation: *generation,
            file: file.clone(),
            end: file.capacity() - state.left,
        });
        let all = unsealed.chain(current);
        all.filter(|journal| journal.end > 0).collect()
    }

    /// Takes a journal that `needed` bytes fit into. Waits for one; on a full disk there is nothing to wait for.
    pub(crate) fn take(&self, needed: u64) -> Result<JournalFile, Arc<str>> {
        let mut state = self.state.lock();
        loop {
            if let Some(why) = &state.failed {
                return Err(why.clone());
            }
            let full = state.full.is_some();
            if needed > self.journal_size && (full || self.may_rotate(&state)) {
                drop(state);
                let made = JournalFile::create(&self.dir, self.next_number(), needed);
                return made.map_err(|error| format!("making a journal: {error}").into());
            }
            if full || self.may_rotate(&state) {
                let mut taken = state.spares.pop();
                if taken.is_none() && full {
                    taken = state.reserve.take();
                }
                if let Some(file) = taken {
                    drop(state);
                    self.changed.notify_all();
                    return Ok(file);
                }
                if full {
                    return Err("the disk is full, and so is the reserve".into());
                }
            }
            #[cfg(test)]
            self.give_turn(&mut state, needed);
            self.changed.wait(&mut state);
            #[cfg(test)]
            self.take_turn(&mut state);
        }
    }

    /// Hands a journal over for sealing; `next` is written from now on, as the generation `generation`.
    pub(crate) fn hand_over(&self, journal: Unsealed, generation: u64, next: Arc<JournalFile>) {
        let mut state = self.state.lock();
        state.unsealed.push_back(journal);
        state.lull_at = self.next_lull(&state);
        state.left = next.capacity();
        state.current = Some((generation, next));
        drop(state);
        self.changed.notify_all();
    }

    /// Gives back a journal that was begun and left with nothing in it: `next` is written in its place, as the generation `generation`.
    /// The background thread may be about to use the file's name, so nobody else removes it.
    pub(crate) fn replace(
        &self,
        unused: Arc<JournalFile>,
        generation: u64,
        next: Arc<JournalFile>,
    ) {
        self.begin(generation, next);
        self.state.lock().unused.push(unused);
        self.changed.notify_all();
    }

    /// Asks for everything to be held still, in front of what else there is to do.
    pub(crate) fn ask_to_freeze(&self, request: FreezeRequest) {
        let mut state = self.state.lock();
        let failed = state.failed.clone();
        if state.stopping || failed.is_some() || state.freeze.is_some() {
            drop(state);
            return request.refuse(failed);
        }
        state.freeze = Some(request);
        drop(state);
        self.changed.notify_all();
    }

    /// Asks for a note, in place of one that was asked for and not made yet.
    pub(crate) fn note(&self, note: RunNote) {
        self.state.lock().note = Some(note);
        self.changed.notify_all();
    }

    /// Hands dead runs over. What killed them must be synced.
    pub(crate) fn bury(&self, dead: Vec<RunDescriptor>) {
        if dead.is_empty() {
            return;
        }
        self.state.lock().dead.extend(dead);
        self.changed.notify_all();
    }

    /// Waits for something to do.
    pub(crate) fn next_task(&self) -> Task {
        let mut state = self.state.lock();
        state.idle = false;
        #[cfg(test)]
        self.end_turn(&mut state);
        loop {
            #[cfg(test)]
            self.wait_for_turn(&mut state);
            let blocked = state.is_blocked();
            if state.stopping || state.failed.is_some() {
                state.freeze = None;
                return Task::Stop;
            }
            if let Some(note) = state.note.take() {
                return Task::Note(note);
            }
            if let Some(request) = state.freeze.take() {
                return Task::Freeze(request);
            }
            if let Some(journal) = state.unused.pop() {
                return Task::Free(journal);
            }
            // On a full disk, letting go of something is what helps.
            if !blocked && state.full.is_some() && !state.dead.is_empty() {
                return Task::Drop(std::mem::take(&mut state.dead));
            }
            // There may be no room for a journal, and yet for what is live in one that waits, which frees it.
            let seals_first = state.full.is_some() && !state.unsealed.is_empty() && state.made_last;
            if !blocked && state.spares.is_empty() && !seals_first {
                state.made_last = true;
                return Task::Make;
            }
            state.made_last &= blocked;
            if !blocked && let Some(journal) = state.unsealed.front() {
                return Task::Seal(journal.clone());
            }
            if !blocked && state.reserve.is_none() {
                return Task::Make;
            }
            if !blocked && !state.dead.is_empty() {
                return Task::Drop(std::mem::take(&mut state.dead));
            }
            if !blocked && std::mem::take(&mut state.merged) {
                return Task::Merged;
            }
            if !blocked && std::mem::take(&mut state.untidy) {
                return Task::Tidy;
            }
            if state.lull_at.is_some_and(|at| at <= Instant::now()) {
                state.lull_at = None;
                return Task::Lull;
            }
            state.idle = true;
            self.changed.notify_all();
            match (state.full, state.lull_at) {
                (Some(_), _) => drop(self.changed.wait_for(&mut state, RETRY)),
                (None, Some(at)) => drop(self.changed.wait_until(&mut state, at)),
                (None, None) => self.changed.wait(&mut state),
            }
        }
    }

    /// Adds a journal that a start found free: the reserve before the spare, since on a full disk it can't be made.
    pub(crate) fn put_found(&self, file: JournalFile) -> Result<(), JournalFile> {
        let mut state = self.state.lock();
        if state.reserve.is_none() && file.capacity() == self.journal_size {
            state.reserve = Some(file);
            return Ok(());
        }
        drop(state);
        self.put(file)
    }

    /// Adds a journal that is free, or gives it back: no more are needed, and its file can go.
    pub(crate) fn put(&self, file: JournalFile) -> Result<(), JournalFile> {
        if file.capacity() != self.journal_size {
            return Err(file);
        }
        let mut state = self.state.lock();
        if state.spares.is_empty() {
            state.spares.push(file);
        } else if state.reserve.is_none() {
            state.reserve = Some(file);
        } else if state.spares.len() < SPARES && state.full.is_none() {
            state.spares.push(file);
        } else {
            return Err(file);
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A spare that can be done without where room is short.
    pub(crate) fn take_surplus(&self) -> Option<JournalFile> {
        let mut state = self.state.lock();
        (state.spares.len() > 1)
            .then(|| state.spares.pop())
            .flatten()
    }

    /// From now on everything that takes more room than this fails.
    #[cfg(test)]
    pub(crate) fn pretend_room(&self, room: u64) {
        self.room.store(room, Ordering::SeqCst);
    }

    /// Where tests make the disk full.
    pub(crate) fn ask_for_room(&self, _needed: u64) -> io::Result<()> {
        #[cfg(test)]
        if _needed > self.room.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Makes a journal file of the usual size.
    pub(crate) fn make(&self) -> io::Result<JournalFile> {
        self.ask_for_room(self.journal_size)?;
        JournalFile::create(&self.dir, self.next_number(), self.journal_size)
    }

    /// Makes the journal that a start goes on in. On a full disk, those that wait to be sealed give up what they don't use,
    /// or else each start would take the room of a journal.
    pub(crate) fn make_first(&self) -> io::Result<JournalFile> {
        match self.make() {
            Err(error) if is_disk_full(&error) => {}
            made => return made,
        }
        for journal in &self.state.lock().unsealed {
            journal.file.shrink(journal.end)?;
        }
        match self.make() {
            Err(error) if is_disk_full(&error) => self.make_least(0),
            made => made,
        }
    }

    /// Makes a journal that is no larger than it has to be, for a full disk on which something was given up for it.
    pub(crate) fn make_least(&self, needed: u64) -> io::Result<JournalFile> {
        let capacity = needed.max(self.journal_size / LEAST_SHARE);
        self.ask_for_room(capacity)?;
        JournalFile::create(&self.dir, self.next_number(), capacity)
    }

    fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// The oldest unsealed journal is sealed.
    pub(crate) fn sealed(&self, generation: u64) {
        let mut state = self.state.lock();
        state
            .unsealed
            .retain(|journal| journal.generation != generation);
        state.untidy = true;
        if state.lull_at.is_none() {
            state.lull_at = self.next_lull(&state);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Generations that wait to be sealed, and hold something.
    pub(crate) fn unsealed_generations(&self) -> Vec<u64> {
        let state = self.state.lock();
        let waiting = state
            .unsealed
            .iter()
            .filter(|journal| journal.written() > 0);
        waiting.map(|journal| journal.generation).collect()
    }

    /// Journals that wait to be sealed and hold something, and the bytes of those that nobody has.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let state = self.state.lock();
        let waiting = state
            .unsealed
            .iter()
            .filter(|journal| journal.written() > 0);
        let spares = state.spares.iter().chain(&state.reserve);
        (
            waiting.count() as u64,
            spares.map(JournalFile::capacity).sum(),
        )
    }

    /// A merge begins, or what it made is known.
    pub(crate) fn set_merging(&self, merging: bool) {
        self.state.lock().merging = merging;
    }

    /// Waits until the background thread found the disk full and waits itself.
    #[cfg(test)]
    pub(crate) fn wait_until_full(&self) {
        let mut state = self.state.lock();
        while !state.idle || state.full.is_none() {
            self.changed.wait(&mut state);
        }
    }

    /// Waits until the background thread has nothing to do, or found the disk full and waits itself.
    #[cfg(test)]
    pub(crate) fn wait_until_still(&self) {
        let mut state = self.state.lock();
        while state.failed.is_none()
            && (!state.idle || state.full.is_none() && (state.merging || state.wants_something()))
        {
            self.changed.wait(&mut state);
        }
    }

    /// Waits until the background thread has nothing to do.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn wait_until_idle(&self) {
        let mut state = self.state.lock();
        while state.failed.is_none() && (!state.idle || state.merging || state.wants_something()) {
            self.changed.wait(&mut state);
        }
    }

    /// The merge that was begun came to its end.
    pub(crate) fn merged(&self) {
        self.state.lock().merged = true;
        self.changed.notify_all();
    }

    /// When it is a lull if no journal is filled from now on. Where turns are given nobody waits for time, so that it always is.
    fn next_lull(&self, _state: &State) -> Option<Instant> {
        #[cfg(test)]
        if _state.turns.are_given() {
            return None;
        }
        Some(Instant::now() + self.lull)
    }

    /// Whether journals are being filled one after the other, so that what can wait should.
    pub(crate) fn is_busy(&self) -> bool {
        self.state.lock().lull_at.is_some()
    }

    /// There may be more to tidy.
    pub(crate) fn set_untidy(&self) {
        self.state.lock().untidy = true;
    }

    /// Commits may have to wait for background work: it should be done as fast as it can.
    pub(crate) fn is_pressed(&self) -> bool {
        let state = self.state.lock();
        #[cfg(test)]
        if state.turns.are_given() {
            return true;
        }
        let is_over = state.stopping || state.failed.is_some();
        is_over || state.full.is_some() || state.unsealed.len() > 1 || state.spares.is_empty()
    }

    /// Whether another journal can be begun at once.
    pub(crate) fn has_spare(&self) -> bool {
        !self.state.lock().spares.is_empty()
    }

    /// Notes whether the disk is full. True if that is new.
    pub(crate) fn set_full(&self, full: bool) -> bool {
        let mut state = self.state.lock();
        let changed = state.full.is_some() != full;
        state.full = full.then(Instant::now);
        drop(state);
        self.changed.notify_all();
        changed
    }

    /// Something was unlinked: a full disk may be so no more.
    pub(crate) fn retry_soon(&self) {
        let mut state = self.state.lock();
        state.full = state
            .full
            .map(|since| since.checked_sub(RETRY).unwrap_or(since));
        state.untidy = true;
    }

    /// Background work is over: nothing can be written any more.
    pub(crate) fn fail(&self, why: Arc<str>) {
        let mut state = self.state.lock();
        state.failed.get_or_insert(why);
        state.freeze = None;
        drop(state);
        self.changed.notify_all();
    }

    /// Why nothing can be written any more.
    pub(crate) fn failed(&self) -> Option<Arc<str>> {
        self.state.lock().failed.clone()
    }

    /// Lets the background thread end.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_all();
    }
}
