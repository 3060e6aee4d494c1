//! What commands print: tables, times and sizes for people. Everything that came from outside (event types, targets,
//! headers, error texts) is made harmless for a terminal first.

use std::io::{IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table};

use super::failure::Failure;
use crate::clock::{Clock, Timestamp};

/// How results are printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned, for people
    #[default]
    Table,
    /// For programs
    Json,
}

/// What and how much is printed
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// How results are printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,

    /// Exact times in UTC instead of relative ones
    #[arg(long)]
    pub utc: bool,

    /// Print the least: ids only, or nothing
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print more
    #[arg(short, long)]
    pub verbose: bool,
}

/// Prints to standard output. A reader that has gone is an error like any other, never a panic.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print(&(json(value)? + "\n"))
}

pub fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string_pretty(value).map_err(std::io::Error::other)?)
}

/// Prints a list as it was asked for: whole as JSON, its names alone (`--quiet`, one a line), or as a table. Of an empty one
/// people are told so.
pub fn print_list<'n>(
    output: &OutputArgs,
    list: &impl serde::Serialize,
    names: impl Iterator<Item = &'n str>,
    empty: &str,
    table: impl FnOnce(Times) -> String,
) -> Result<(), Failure> {
    let mut names = names.peekable();
    if output.output == Format::Json {
        print_json(list)
    } else if output.quiet {
        print(&names.map(|name| harmless(name) + "\n").collect::<String>())
    } else if names.peek().is_none() {
        note(empty);
        Ok(())
    } else {
        print(&table(Times::of(output)))
    }
}

/// Says something beside the result, on standard error.
pub fn note(text: &str) {
    // Nobody to tell it to is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether standard output shows colours: it is a terminal, and `NO_COLOR` is not set.
pub fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// A cell's meaning, which gives its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Waiting,
    Bad,
}

impl Tone {
    /// Of a delivery's state.
    pub fn of_state(state: &str) -> Self {
        match state {
            "delivered" => Tone::Good,
            "retrying" => Tone::Waiting,
            "dead" => Tone::Bad,
            _ => Tone::Plain,
        }
    }
}

/// Which side a column's values stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// A table without lines. On a terminal its last column wraps where the width ends; elsewhere nothing wraps.
pub struct Rows {
    table: Table,
    columns: Vec<Side>,
    colours: bool,
}

impl Rows {
    pub fn new(columns: &[(&str, Side)]) -> Self {
        Self::with(columns, colours(), std::io::stdout().is_terminal())
    }

    fn with(columns: &[(&str, Side)], colours: bool, fit: bool) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_content_arrangement(match fit {
            true => ContentArrangement::Dynamic,
            false => ContentArrangement::Disabled,
        });
        if colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let head = columns
            .iter()
            .map(|(name, side)| aligned(Cell::new(name.to_uppercase()), *side).add_attribute(Attribute::Dim));
        table.set_header(head.collect::<Vec<_>>());
        for (index, _) in columns.iter().enumerate() {
            let is_last = index + 1 == columns.len();
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, if is_last { 0 } else { 2 }));
                if !is_last {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        Self { table, columns: columns.iter().map(|(_, side)| *side).collect(), colours }
    }

    pub fn row(&mut self, cells: Vec<(String, Tone)>) {
        let cells = cells.into_iter().zip(&self.columns).map(|((text, tone), side)| {
            let cell = aligned(Cell::new(harmless(&text)), *side);
            match tone {
                Tone::Plain => cell,
                Tone::Good => cell.fg(Color::Green),
                Tone::Waiting => cell.fg(Color::Yellow),
                Tone::Bad => cell.fg(Color::Red),
            }
        });
        self.table.add_row(cells.collect::<Vec<_>>());
    }

    /// The table, without blanks at the ends of lines.
    pub fn text(&self) -> String {
        let lines = self.table.lines().map(|line| match self.colours {
            true => line,
            false => line.trim_end().to_owned(),
        });
        lines.fold(String::new(), |text, line| text + &line + "\n")
    }
}

fn aligned(cell: Cell, side: Side) -> Cell {
    match side {
        Side::Left => cell,
        Side::Right => cell.set_alignment(CellAlignment::Right),
    }
}

/// Text from outside on one line: control and direction-changing characters are shown escaped, so that they can't
/// move the cursor, recolour the screen or hide something.
pub fn harmless(text: &str) -> String {
    escaped(text, &[])
}

/// The same for text of several lines.
pub fn harmless_lines(text: &str) -> String {
    escaped(&text.replace("\r\n", "\n"), &['\n', '\t'])
}

fn escaped(text: &str, keep: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) && !keep.contains(&c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How times are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// `3m ago`, `in 20s`, as seen from this moment.
    Relative(Timestamp),
    Utc,
}

impl Times {
    pub fn of(args: &OutputArgs) -> Self {
        if args.utc { Times::Utc } else { Times::Relative(Clock::System.now()) }
    }

    /// A time of the API's for people.
    pub fn show(self, rfc3339: &str) -> String {
        let parsed = rfc3339.parse::<jiff::Timestamp>().ok();
        match (self, parsed.and_then(|t| u64::try_from(t.as_millisecond()).ok()).map(Timestamp)) {
            (Times::Utc, _) | (_, None) => harmless(rfc3339),
            (Times::Relative(now), Some(then)) if then > now => {
                format!("in {}", span(then.since(now).as_secs()))
            }
            (Times::Relative(now), Some(then)) => format!("{} ago", span(now.since(then).as_secs())),
        }
    }
}

/// The two largest units that matter: `5s`, `3m`, `2h 5m`, `4d 1h`.
pub fn span(secs: u64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
    let two = |a: u64, unit: char, b: u64, small: char| match b {
        0 => format!("{a}{unit}"),
        b => format!("{a}{unit} {b}{small}"),
    };
    match secs {
        0..60 => format!("{secs}s"),
        60..600 => two(minutes, 'm', secs % 60, 's'),
        600..3600 => format!("{minutes}m"),
        3600..86_400 => two(hours, 'h', minutes % 60, 'm'),
        _ => two(days, 'd', hours % 24, 'h'),
    }
}

/// A size as `512 B`, `1.5 KiB`, `10 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[allow(clippy::cast_precision_loss)] // shown with one digit after the point
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ if value >= 10.0 || value.fract() == 0.0 => format!("{value:.0} {}", UNITS[unit]),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Bytes as offset, hexadecimal and ASCII, 16 a line.
pub fn hex_dump(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5);
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let digits: Vec<String> = chunk
            .chunks(8)
            .map(|half| half.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        let ascii: String =
            chunk.iter().map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' }).collect();
        text += &format!("{:08x}  {:48}  |{ascii}|\n", line * 16, digits.join("  "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_is_aligned_and_has_no_colours_for_programs() {
        let columns = [("id", Side::Left), ("bytes", Side::Right), ("state", Side::Left)];
        let fill = |mut rows: Rows| {
            rows.row(vec![
                ("a".into(), Tone::Plain),
                ("1000".into(), Tone::Plain),
                ("dead".into(), Tone::Bad),
            ]);
            rows.row(vec![
                ("long".into(), Tone::Plain),
                ("1".into(), Tone::Plain),
                ("x".into(), Tone::Plain),
            ]);
            rows.text()
        };
        let plain = fill(Rows::with(&columns, false, false));
        assert_eq!(plain, "ID    BYTES  STATE\na      1000  dead\nlong      1  x\n");
        assert!(fill(Rows::with(&columns, true, false)).contains("\x1b["));
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        assert_eq!(harmless("a\x1b[2Jb\n\u{202e}c"), "a\\u{1b}[2Jb\\n\\u{202e}c");
        assert_eq!(harmless_lines("a\tb\\t\r\nc\x07"), "a\tb\\t\nc\\u{7}");
        let mut rows = Rows::with(&[("x", Side::Left)], false, false);
        rows.row(vec![("\x1b[31m".into(), Tone::Plain)]);
        assert!(!rows.text().contains('\x1b'));
    }

    #[test]
    fn times_read_as_people_say_them() {
        let times = Times::Relative(Timestamp(1_764_000_000_000));
        assert_eq!(times.show("2025-11-24T15:57:00.000Z"), "3m ago");
        assert_eq!(times.show("2025-11-24T16:00:20.000Z"), "in 20s");
        assert_eq!(times.show("nonsense\x1b"), "nonsense\\u{1b}");
        assert_eq!(Times::Utc.show("2025-11-24T15:57:00.000Z"), "2025-11-24T15:57:00.000Z");
        let spans = [0, 59, 61, 600, 3660, 90_000].map(span);
        assert_eq!(spans, ["0s", "59s", "1m 1s", "10m", "1h 1m", "1d 1h"]);
        assert_eq!([5, 1536, 10 << 30, 11_811_160_064].map(size), ["5 B", "1.5 KiB", "10 GiB", "11 GiB"]);
    }

    #[test]
    fn a_hex_dump_shows_bytes_and_text() {
        let dump = hex_dump(b"\x00ABCDEFGHIJKLMNOP");
        let lines: Vec<_> = dump.lines().collect();
        assert_eq!(
            lines[0],
            "00000000  00 41 42 43 44 45 46 47  48 49 4a 4b 4c 4d 4e 4f  |.ABCDEFGHIJKLMNO|"
        );
        assert!(lines[1].starts_with("00000010  50 ") && lines[1].ends_with("|P|"));
    }

    proptest! {
        #[test]
        fn harmless_text_has_no_control_characters(text in any::<String>()) {
            prop_assert!(!harmless(&text).chars().any(is_harmful));
        }
    }
}
