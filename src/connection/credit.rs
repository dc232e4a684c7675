//! What a connection may have taken from its socket and not answered yet.
//!
//! Owns the counts. Every command holds credit from when it is forwarded until the last byte of its answer was written; without
//! credit the session reads no more, so that TCP holds the client back. That bounds every queue between here and the data log.

use std::cell::Cell;

use super::outbox::Credited;

/// Commands that a connection may have under way. Enough to keep the disk busy from one connection, few enough that ten thousand
/// connections together stay within memory.
const MAX_COMMANDS: u32 = 4096;

/// What a command costs the server's memory beside its message.
const COMMAND_OVERHEAD: u64 = 128;

/// What a command of `bytes` bytes counts for in the budget that all connections share.
pub(crate) fn budget_cost(bytes: u32) -> u64 {
    u64::from(bytes) + COMMAND_OVERHEAD
}

/// The credit of one connection.
#[derive(Debug)]
pub(crate) struct Credit {
    max_bytes: u64,
    commands: Cell<u32>,
    bytes: Cell<u64>,
    /// Whether the session waits for credit.
    is_starved: Cell<bool>,
}

impl Credit {
    /// All credit is there. Commands under way may have `max_bytes` bytes.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            commands: Cell::new(0),
            bytes: Cell::new(0),
            is_starved: Cell::new(false),
        }
    }

    /// Whether another message may be taken. If not, [`give_back`](Self::give_back) tells when to try again.
    pub(crate) fn may_take(&self) -> bool {
        let may = self.commands.get() < MAX_COMMANDS && self.bytes.get() < self.max_bytes;
        self.is_starved.set(!may);
        may
    }

    /// What a command whose answer may be long (up to 4 MiB) counts for, however short it is: so two of them are under way at a time, and no
    /// more of their answers wait for a client that does not read.
    pub(crate) fn of_long_answer(&self) -> u32 {
        u32::try_from(self.max_bytes / 2).unwrap_or(u32::MAX)
    }

    /// A message of `bytes` bytes is forwarded.
    pub(crate) fn take(&self, bytes: u32) {
        self.commands.set(self.commands.get() + 1);
        self.bytes.set(self.bytes.get() + u64::from(bytes));
    }

    /// Answers were written. Returns whether a session that waits may read again: not for every single one, but when half is free.
    pub(crate) fn give_back(&self, credited: Credited) -> bool {
        let commands = self.commands.get().saturating_sub(credited.commands);
        let bytes = self.bytes.get().saturating_sub(credited.bytes);
        self.commands.set(commands);
        self.bytes.set(bytes);
        self.is_starved.get() && commands <= MAX_COMMANDS / 2 && bytes <= self.max_bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credited(commands: u32, bytes: u64) -> Credited {
        Credited { commands, bytes }
    }

    #[test]
    fn reading_stops_at_the_last_command_and_goes_on_at_half() {
        let credit = Credit::new(1 << 20);
        for _ in 0..MAX_COMMANDS {
            assert!(credit.may_take());
            credit.take(1);
        }
        assert!(!credit.may_take());
        assert!(!credit.give_back(credited(MAX_COMMANDS / 2 - 1, 2047)));
        assert!(credit.give_back(credited(1, 1)));
        assert!(credit.may_take());
    }

    #[test]
    fn reading_stops_behind_the_message_that_uses_up_the_bytes() {
        let credit = Credit::new(100);
        credit.take(99);
        assert!(credit.may_take());
        credit.take(500);
        assert!(!credit.may_take());
        assert!(!credit.give_back(credited(1, 99)));
        assert!(credit.give_back(credited(1, 500)));
    }

    #[test]
    fn two_commands_with_long_answers_use_up_the_bytes_however_many_there_are() {
        for max_bytes in [1 << 20, 16 << 20] {
            let credit = Credit::new(max_bytes);
            for _ in 0..2 {
                assert!(credit.may_take());
                credit.take(credit.of_long_answer());
            }
            assert!(!credit.may_take());
        }
    }

    #[test]
    fn nobody_is_woken_who_does_not_wait() {
        let credit = Credit::new(100);
        credit.take(10);
        assert!(!credit.give_back(credited(1, 10)));
    }
}
