//! The results of the bench: figures beside their ceilings, as a table, as JSON and as plots.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use stock_online::cli::output::say;

use super::plots;
use crate::Failure;

/// The lines of the document between which the table stands.
const BEGIN: &str = "<!-- bench: written by `make bench` -->";
const END: &str = "<!-- end of bench -->";

/// One measured number.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// `everysec` or `always`.
    pub mode: String,
    /// The measured subject, in words.
    pub what: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// A ceiling that was measured in the same run, and the number as a share of it.
    pub of: Option<(String, f64)>,
    /// The value that it should reach, in words.
    pub goal: Option<String>,
}

/// A curve: points of one series.
#[derive(Debug, Clone, Serialize)]
pub struct Curve {
    /// The plot that it belongs to.
    pub plot: &'static str,
    /// Its name in the legend.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// All results of a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The machine and its programs.
    pub machine: BTreeMap<String, String>,
    /// Numbers, in the order in which they were measured.
    pub figures: Vec<Figure>,
    /// Curves.
    pub curves: Vec<Curve>,
}

/// A number with as many digits as matter.
fn rounded(value: f64) -> String {
    match value {
        v if v >= 1_000.0 => {
            let digits = format!("{v:.0}");
            let mut grouped = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

impl Figure {
    fn row(&self) -> String {
        let of = self.of.as_ref().map_or(String::new(), |(name, ratio)| {
            if *ratio >= 2.0 {
                format!("{ratio:.1} × {name}")
            } else {
                format!("{ratio:.2} of {name}")
            }
        });
        let goal = self.goal.as_deref().unwrap_or_default();
        let value = rounded(self.value);
        format!(
            "| {} | {} | {value} {} | {of} | {goal} |",
            self.mode, self.what, self.unit
        )
    }
}

impl Report {
    /// Notes a figure and shows it.
    pub fn add(&mut self, figure: Figure) {
        say(&figure.row());
        self.figures.push(figure);
    }

    /// All figures as a table in Markdown.
    fn table(&self) -> String {
        let mut lines = vec![
            "| fsync | what | measured | of its ceiling, same run | goal |".to_owned(),
            "|---|---|---|---|---|".to_owned(),
        ];
        lines.extend(self.figures.iter().map(Figure::row));
        lines.join("\n")
    }

    /// Writes `performance/bench.json`, the plots, and the table into `performance.md`.
    ///
    /// # Errors
    /// When a file cannot be written, or the document lacks the two lines that enclose the table.
    pub fn write(&self, docs: &Path) -> Result<(), Failure> {
        fs::create_dir_all(docs.join("performance"))?;
        let json = serde_json::to_string_pretty(self)?;
        fs::write(docs.join("performance/bench.json"), json + "\n")?;
        let drawn = plots::draw(&self.curves, &docs.join("performance"))?;
        let document = docs.join("performance.md");
        let text = fs::read_to_string(&document)?;
        let (head, rest) = text.split_once(BEGIN).ok_or("the document has no table")?;
        let (_, tail) = rest.split_once(END).ok_or("the table has no end")?;
        let machine: Vec<String> = self
            .machine
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let plots: Vec<String> = drawn
            .iter()
            .map(|(name, title)| format!("![{title}](performance/{name}.svg)"))
            .collect();
        let written = format!(
            "{head}{BEGIN}\n\n{}.\n\n{}\n\n{}\n\n{END}{tail}",
            machine.join(" · "),
            self.table(),
            plots.join("\n")
        );
        Ok(fs::write(document, written)?)
    }
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn a_number_shows_the_digits_that_matter() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (999.6, "1000"),
            (43.21, "43.2"),
            (0.618, "0.62"),
        ] {
            assert_eq!(rounded(value), text);
        }
    }
}
