//! Metrics for the page: how the run stands, how fast it goes, and what happened since they were taken last.

use crate::{host, values};
use oto_agent::baseline::{Baseline, Baselines};
use oto_agent::student::{Event, Student};
use oto_json::{Json, Object};
use std::collections::VecDeque;
use wasm_bindgen::JsValue;

/// Rates are measured over at least this long, in milliseconds.
const RATE_MS: f64 = 500.0;
/// Episodes and evaluations kept for a page that does not take them; the oldest go first.
const MAX_KEPT: usize = 1_000;

/// A finished training episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpisodeLine {
    /// The environment step at which it ended.
    pub step: u64,
    /// Its undiscounted return.
    pub score: f64,
    /// Its number of steps.
    pub length: u64,
}

oto_json::json_object! { EpisodeLine: written { step, score as "return", length } }

/// Greedy episodes.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationLine {
    /// The environment step of training at which they were played.
    pub step: u64,
    /// Mean return.
    pub mean: f64,
    /// Lowest return.
    pub min: f64,
    /// Highest return.
    pub max: f64,
    /// How many.
    pub episodes: u32,
    /// What others return in these episodes, where that is known.
    pub baselines: Vec<Baseline>,
}

oto_json::json_object! { EvaluationLine: written { step, mean, min, max, episodes, baselines } }

/// Collects a student's events and measures its speed.
#[derive(Default)]
pub struct Reporter {
    /// Plays along with the evaluations, where it can.
    pub baselines: Option<Baselines>,
    episodes: VecDeque<EpisodeLine>,
    evaluations: VecDeque<EvaluationLine>,
    /// When the rates were measured last, and the steps and updates until then.
    mark: (f64, u64, u64),
    steps_per_second: f64,
    updates_per_second: f64,
}

impl Reporter {
    /// Takes the student's events over; gives the newest evaluation among them.
    pub fn collect(&mut self, student: &mut Student) -> Option<EvaluationLine> {
        let mut newest = None;
        while let Some(event) = student.next_event() {
            match event {
                Event::Episode { step, episode } => {
                    let line = EpisodeLine { step, score: episode.score, length: episode.length };
                    keep(&mut self.episodes, line);
                }
                Event::Evaluation { step, mean, min, max, episodes } => {
                    let along = self.baselines.as_mut().and_then(|along| along.next(episodes).ok());
                    let baselines = along.map_or(Vec::new(), Vec::from);
                    let line = EvaluationLine { step, mean, min, max, episodes, baselines };
                    keep(&mut self.evaluations, line.clone());
                    newest = Some(line);
                }
                // The stage now is among the metrics.
                Event::Stage { .. } => {}
                // Pages learn no adapters.
                Event::Adapter { .. } => {}
            }
        }
        newest
    }

    /// The report; episodes and evaluations are given once.
    pub fn take(&mut self, student: &mut Student, share: Option<Json>) -> JsValue {
        self.collect(student);
        let metrics = student.metrics(host::now_ms());
        self.measure(host::now(), metrics.step, metrics.updates);
        let report = oto_json::object_tree(|out| {
            metrics.write_fields(out);
            out.field("learning_rate", &student.trainer().learning_rate());
            out.field("steps_per_second", &self.steps_per_second);
            out.field("updates_per_second", &self.updates_per_second);
            out.field("new_episodes", &self.episodes);
            out.field("new_evaluations", &self.evaluations);
            if let Some(share) = &share {
                out.field("share", share);
            }
        });
        self.episodes.clear();
        self.evaluations.clear();
        values::give_tree(&report)
    }

    fn measure(&mut self, now: f64, steps: u64, updates: u64) {
        let (then, old_steps, old_updates) = self.mark;
        let seconds = (now - then) / 1000.0;
        if seconds * 1000.0 >= RATE_MS {
            // A loaded checkpoint may set the counts back.
            self.steps_per_second = steps.saturating_sub(old_steps) as f64 / seconds;
            self.updates_per_second = updates.saturating_sub(old_updates) as f64 / seconds;
            self.mark = (now, steps, updates);
        }
    }
}

fn keep<T>(lines: &mut VecDeque<T>, line: T) {
    if lines.len() == MAX_KEPT {
        lines.pop_front();
    }
    lines.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_measured_over_half_a_second_at_least() {
        let mut reporter = Reporter::default();
        reporter.measure(1000.0, 200, 100);
        assert_eq!((reporter.steps_per_second, reporter.updates_per_second), (200.0, 100.0));
        reporter.measure(1100.0, 900, 900);
        assert_eq!(reporter.steps_per_second, 200.0, "too soon");
        reporter.measure(3000.0, 1200, 600);
        assert_eq!((reporter.steps_per_second, reporter.updates_per_second), (500.0, 250.0));
        reporter.measure(4000.0, 0, 0);
        assert_eq!(reporter.steps_per_second, 0.0, "a loaded checkpoint set the count back");
    }

    #[test]
    fn only_the_newest_lines_are_kept() {
        let mut lines = VecDeque::new();
        (0..MAX_KEPT + 5).for_each(|i| keep(&mut lines, i));
        assert_eq!((lines.len(), lines[0]), (MAX_KEPT, 5));
    }
}
