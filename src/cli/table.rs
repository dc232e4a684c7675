//! A table for people: columns as wide as what stands in them.

use std::fmt::Write;

use clap::builder::styling::Style;
use unicode_width::UnicodeWidthStr;

use super::{Failure, output::Output};

const HEAD: Style = Style::new().bold();

/// Between two columns.
const GUTTER: &str = "  ";

/// A column.
pub(super) struct Column {
    pub(super) head: &'static str,
    /// Whether it holds numbers, whose ends are aligned.
    pub(super) is_number: bool,
}

/// A table that is printed.
pub(super) struct Table<const N: usize> {
    columns: [Column; N],
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    /// Columns as wide as `rows` need them, which will be among those printed. What is wider stands out.
    pub(super) fn new(columns: [Column; N], rows: &[[String; N]]) -> Self {
        let mut widths = columns.each_ref().map(|column| column.head.width());
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.width().max(*width);
            }
        }
        Self { columns, widths }
    }

    pub(super) fn head(&self, out: &mut Output) -> Result<(), Failure> {
        let heads = self.columns.each_ref().map(|column| column.head);
        out.styled(HEAD, self.line(&heads))?;
        out.write(b"\n")
    }

    pub(super) fn row(&self, row: &[String; N], out: &mut Output) -> Result<(), Failure> {
        out.write(self.line(&row.each_ref().map(String::as_str)).as_bytes())?;
        out.write(b"\n")
    }

    fn line(&self, cells: &[&str; N]) -> String {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let fill = self.widths[index].saturating_sub(cell.width());
            let (before, behind) = if self.columns[index].is_number {
                (fill, 0)
            } else {
                (0, fill)
            };
            if index > 0 {
                line.push_str(GUTTER);
            }
            // Writing to a String can't fail.
            let _ = write!(line, "{:before$}{cell}{:behind$}", "", "");
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_look_and_numbers_end_together() {
        let column = |head, is_number| Column { head, is_number };
        let rows = [
            ["news".to_owned(), "7".to_owned(), "x".to_owned()],
            ["日本語".to_owned(), "12345".to_owned(), String::new()],
        ];
        let table = Table::new(
            [
                column("NAME", false),
                column("LAST", true),
                column("Z", false),
            ],
            &rows,
        );
        let lines = rows
            .each_ref()
            .map(|row| table.line(&row.each_ref().map(String::as_str)));
        assert_eq!(table.line(&["NAME", "LAST", "Z"]), "NAME     LAST  Z");
        assert_eq!(lines, ["news        7  x", "日本語  12345"]);
    }
}
