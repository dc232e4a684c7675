//! Which sequences are lost, and of which part: a beginning, a middle or an end.

use std::collections::BTreeSet;

/// Where in what is there a part is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Nothing in front of it is there.
    Beginning,
    /// Something is there on both sides.
    Middle,
    /// Nothing behind it is there.
    End,
    /// Nothing is there at all.
    Everything,
}

/// Sequences that follow each other and are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    pub part: Part,
    pub from: u64,
    pub to: u64,
}

/// What lacks of `expected`, which ascends, in runs of neighbours.
pub fn lost(expected: impl IntoIterator<Item = u64>, there: &BTreeSet<u64>) -> Vec<Lost> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for sequence in expected {
        if there.contains(&sequence) {
            continue;
        }
        match runs.last_mut().filter(|(_, to)| to + 1 == sequence) {
            Some((_, to)) => *to = sequence,
            None => runs.push((sequence, sequence)),
        }
    }
    runs.into_iter()
        .map(|(from, to)| {
            let is_in_front = there.first().is_some_and(|first| *first < from);
            let is_behind = there.last().is_some_and(|last| *last > to);
            let part = match (is_in_front, is_behind) {
                (true, true) => Part::Middle,
                (true, false) => Part::End,
                (false, true) => Part::Beginning,
                (false, false) => Part::Everything,
            };
            Lost { part, from, to }
        })
        .collect()
}
