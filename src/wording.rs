//! What every sentence that the server and its program say has in common.

use std::fmt::Display;

/// A count, and the word for what is counted: `1 log`, `2 logs`.
#[must_use]
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let word = if count == N::from(1) { one } else { many };
    format!("{count} {word}")
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn only_one_is_said_in_the_singular() {
        assert_eq!(counted(0_u64, "entry", "entries"), "0 entries");
        assert_eq!(counted(1_u64, "entry", "entries"), "1 entry");
        assert_eq!(counted(2_usize, "entry", "entries"), "2 entries");
    }
}
