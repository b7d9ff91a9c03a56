//! What another process has used of memory and processor, as Linux tells it.

use super::LoadError;
use serde::Serialize;
use std::time::Duration;

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory, in bytes.
    resident: u64,
    /// Time on processors, of all threads.
    processor: Duration,
}

/// Over a measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Used {
    /// Resident memory before the students came, in bytes.
    pub resident_before: u64,
    /// When all were connected and idle.
    pub resident_connected: u64,
    /// The difference for each student.
    pub bytes_per_student: f64,
    /// At the end.
    pub resident_after: u64,
    /// Time on processors while it was measured, in seconds.
    pub processor_seconds: f64,
}

/// Clock ticks in a second, as `/proc` counts them.
const TICKS: u64 = 100;
/// Bytes of a page there.
const PAGE: u64 = 4096;

/// What a process has used so far; none of none.
///
/// # Errors
/// If there is no such process.
pub fn usage(pid: Option<u32>) -> Result<Option<Usage>, LoadError> {
    let Some(pid) = pid else { return Ok(None) };
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{file}"))
            .map_err(|source| LoadError::Process { pid, source })
    };
    let odd = || LoadError::Process { pid, source: std::io::ErrorKind::InvalidData.into() };
    let pages =
        read("statm")?.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).ok_or_else(odd)?;
    let ticks = ticks(&read("stat")?).ok_or_else(odd)?;
    Ok(Some(Usage {
        resident: pages * PAGE,
        processor: Duration::from_secs_f64(ticks as f64 / TICKS as f64),
    }))
}

/// The time of a process in ticks: fields 14 and 15, counted behind its name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<_> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// What was used between four moments: alone, with all students connected, when measuring began, and after it.
pub fn between(
    alone: Option<Usage>,
    connected: Option<Usage>,
    began: Option<Usage>,
    after: Option<Usage>,
    students: usize,
) -> Option<Used> {
    let (alone, connected, began, after) = (alone?, connected?, began?, after?);
    Some(Used {
        resident_before: alone.resident,
        resident_connected: connected.resident,
        bytes_per_student: connected.resident.saturating_sub(alone.resident) as f64 / students as f64,
        resident_after: after.resident,
        processor_seconds: after.processor.saturating_sub(began.processor).as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 120 34 0 0 20 0 9 0";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(ticks("nothing"), None);
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(Some(std::process::id())).unwrap().unwrap();
        assert!(usage.resident > 100_000);
    }
}
