//! What a second thread costs each message.

use super::echo::saturate;
use crate::server::{Kind, Setup};
use crate::table::{Figure, Unit};
use std::io;
use std::time::Duration;

pub fn run(kind: &Kind, length: Duration) -> io::Result<Vec<Figure>> {
    // The peers have no such flag.
    if !matches!(kind, Kind::Ours | Kind::Build { .. }) {
        return Ok(Vec::new());
    }
    let each = |threads| {
        let (spent, latencies) = saturate(kind, &Setup { threads, ..Setup::default() }, length)?;
        Ok::<_, io::Error>(spent.server.as_secs_f64() / latencies.count() as f64)
    };
    let (one, two) = (each(1)?, each(2)?);
    Ok(vec![
        Figure { what: "server CPU each", unit: Unit::Seconds, value: two },
        Figure { what: "of that on one", unit: Unit::Times, value: two / one },
    ])
}
