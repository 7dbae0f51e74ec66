//! What commands print: tables for people, one JSON document for programs. Text that came from
//! elsewhere never reaches a terminal with control characters in it.

use serde::Serialize;

/// One line of JSON on stdout.
pub fn json(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).expect("our own types serialise"));
}

/// Columns as wide as their widest cell; the last one is left as it is.
pub fn table(rows: &[Vec<String>]) {
    print!("{}", layout(rows));
}

fn layout(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A name from a list or an error from a server, safe to print.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns() {
        let rows = vec![
            vec!["NAME".to_owned(), "SIZE".to_owned()],
            vec!["film.mp4".to_owned(), "1".to_owned()],
        ];
        assert_eq!(layout(&rows), "NAME      SIZE\nfilm.mp4  1\n");
    }

    #[test]
    fn keeps_escape_sequences_off_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
