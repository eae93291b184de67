//! What was measured, as a table: medians and quartiles over the rounds, and how each server compares with the first of the same round.

use crate::server::Kind;
use crate::workloads::Workload;
use std::fmt::{self, Display, Formatter};

pub struct Figure {
    pub what: &'static str,
    pub unit: Unit,
    pub value: f64,
}

#[derive(Clone, Copy)]
pub enum Unit {
    /// Written in µs or ms, whichever reads better.
    Seconds,
    PerSecond,
    Percent,
    /// Written in KiB or MiB.
    Bytes,
    Times,
}

pub struct Table {
    servers: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    workload: Workload,
    what: &'static str,
    unit: Unit,
    /// Of each server, round by round.
    values: Vec<Vec<f64>>,
}

impl Table {
    pub fn new(servers: &[Kind]) -> Self {
        Self { servers: servers.iter().map(Kind::to_string).collect(), rows: Vec::new() }
    }

    pub fn add(&mut self, server: usize, workload: Workload, Figure { what, unit, value }: Figure) {
        let known = self.rows.iter().position(|row| (row.workload, row.what) == (workload, what));
        let row = known.unwrap_or_else(|| {
            self.rows.push(Row { workload, what, unit, values: vec![Vec::new(); self.servers.len()] });
            self.rows.len() - 1
        });
        self.rows[row].values[server].push(value);
    }

    /// The goals that this server missed beside Node's, by the median over the rounds.
    pub fn missed(&self) -> Vec<String> {
        let column = |name| self.servers.iter().position(|server| server == name);
        let (Some(ours), Some(node)) = (column("ours"), column("node")) else { return Vec::new() };
        let missed = self.rows.iter().filter_map(|row| {
            let goal = row.workload.goal(row.what)?;
            let [_, share, _] = quartiles(&row.ratios(ours, node))?;
            (share > goal).then(|| format!("{}: {} is {share:.2} of Node's, not {goal}", row.workload.name(), row.what))
        });
        missed.collect()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut lines = vec![std::iter::once("what").chain(self.servers.iter().map(String::as_str)).map(str::to_owned).collect()];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: Vec<_> = (0..=self.servers.len())
            .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
            .collect();
        for (number, line) in lines.iter().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                writeln!(f, "|{}", widths.iter().map(|width| "-".repeat(width + 2) + "|").collect::<String>())?;
            }
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let name = self.workload.name();
        let mut cells = vec![if self.what.is_empty() { name.to_owned() } else { format!("{name}: {}", self.what) }];
        for (server, values) in self.values.iter().enumerate() {
            // What a server is not measured at is left out in all rounds.
            let Some([low, median, high]) = quartiles(values) else {
                cells.push(String::new());
                continue;
            };
            let shown = self.unit.show(median);
            cells.push(match (server, self.unit, quartiles(&self.ratios(server, 0))) {
                (0, ..) => format!("{shown} ({}..{})", self.unit.show(low), self.unit.show(high)),
                (_, Unit::Times, _) | (.., None) => shown,
                (.., Some([low, median, high])) => format!("{shown}, {median:.2}x ({low:.2}..{high:.2})"),
            });
        }
        cells
    }

    /// Round by round, what one server has of what another has; nothing if one of them was not measured.
    fn ratios(&self, server: usize, other: usize) -> Vec<f64> {
        self.values[server].iter().zip(&self.values[other]).map(|(value, other)| value / other).collect()
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value >= 1e-3 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{:.2} µs", value * 1e6),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Percent => format!("{value:.2} %"),
            Self::Bytes if value >= 1048576.0 => format!("{:.1} MiB", value / 1048576.0),
            Self::Bytes => format!("{:.2} KiB", value / 1024.0),
            Self::Times => format!("{value:.2}x"),
        }
    }
}

/// The quartiles; what disturbs a machine that others use too should not decide what is shown.
fn quartiles(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = |quarters: usize| sorted[(last * quarters + 2) / 4];
    Some([at(1), at(2), at(3)])
}
