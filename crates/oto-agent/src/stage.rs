//! Offline, Transfer, Online: the stages of OTO's Algorithm 2 and what ends each.

pub use oto_proto::Stage;

use crate::config::ConfigError;
use oto_json::shown;

/// The end of a stage: the first condition that is met. Without a condition the stage never ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Ending {
    /// End the stage after this number of environment steps.
    pub steps: Option<u64>,
    /// End the stage after this number of seconds.
    pub seconds: Option<f64>,
    /// End the stage at a greedy evaluation with this mean return.
    pub return_at_least: Option<f64>,
    /// End the stage if it is fruitless.
    pub give_up: Option<GiveUp>,
}

oto_json::json_object! {
    Ending: settings { steps omit none, seconds omit none, return_at_least omit none, give_up omit none }
}

/// Ends a stage after `after_steps` without an evaluation of `below_return` or more. The student then restarts with fresh
/// parameters and schedules, and keeps its transitions. Two good evaluations prevent this: a student that falls back under a
/// good teacher recovers sooner with it than without, and one good evaluation may be luck under a bad teacher
/// (docs/decisions.md).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct GiveUp {
    /// Environment steps since the start of the stage, or since its only good evaluation.
    pub after_steps: u64,
    /// The mean return of a good evaluation.
    pub below_return: f64,
}

oto_json::json_object! { GiveUp: closed { after_steps, below_return } }

/// The stages of a run. An absent stage (`null`) is skipped. A stage without an end lasts to the end of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct StagesConfig {
    /// Training before the teachers.
    pub offline: Option<Ending>,
    /// Training with them.
    pub transfer: Option<Ending>,
    /// Training after them.
    pub online: Option<Ending>,
    /// Repeat all stages after the last one, instead of ending the run.
    #[cfg_attr(feature = "schema", schemars(rename = "loop"))]
    pub repeat: bool,
}

oto_json::json_object! { StagesConfig: settings { offline, transfer, online, repeat as "loop" } }

impl Default for StagesConfig {
    fn default() -> Self {
        Self {
            offline: None,
            transfer: Some(Ending::default()),
            online: Some(Ending::default()),
            repeat: false,
        }
    }
}

impl StagesConfig {
    /// A student without teachers.
    pub const SOLO: Self = Self {
        offline: None,
        transfer: None,
        online: Some(Ending { steps: None, seconds: None, return_at_least: None, give_up: None }),
        repeat: false,
    };

    fn ending(&self, stage: Stage) -> Option<Ending> {
        match stage {
            Stage::Offline => self.offline,
            Stage::Transfer => self.transfer,
            Stage::Online => self.online,
        }
    }

    /// Checks the endings.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let names = ["offline", "transfer", "online"];
        let endings =
            names.into_iter().zip(ORDER).filter_map(|(name, stage)| Some((name, self.ending(stage)?)));
        let endings = endings.collect::<Vec<_>>();
        if endings.is_empty() {
            return Err(ConfigError::new("stages", "empty", "at least one stage"));
        }
        for (stage, e) in endings {
            let error = |field: &str, got: String, expected: &str| {
                Err(ConfigError::new(format!("stages.{stage}.{field}"), got, expected))
            };
            if e.steps == Some(0) {
                return error("steps", "0".into(), "at least one step");
            }
            if let Some(s) = e.seconds.filter(|s| !(*s > 0.0 && s.is_finite())) {
                return error("seconds", shown(&s), "a time above 0");
            }
            if let Some(r) = e.return_at_least.filter(|r| !r.is_finite()) {
                return error("return_at_least", shown(&r), "a finite return");
            }
            if let Some(g) = e.give_up.filter(|g| g.after_steps == 0 || !g.below_return.is_finite()) {
                return error("give_up", oto_json::write(&g), "at least one step and a finite return");
            }
        }
        Ok(())
    }
}

/// So many good evaluations are no luck.
const PROOF: u64 = 2;

const ORDER: [Stage; 3] = [Stage::Offline, Stage::Transfer, Stage::Online];

/// Where a student stands in its round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    config: StagesConfig,
    stage: Stage,
    /// Environment steps taken in the stage.
    steps: u64,
    /// Seconds spent in the stage.
    seconds: f64,
    /// How many of them since an evaluation was good enough for [`GiveUp`].
    fruitless: u64,
    /// How many evaluations in it were.
    good: u64,
    /// How often the round was completed.
    rounds: u64,
    done: bool,
}

oto_json::json_object! {
    Stages: open { config, stage, steps, seconds, fruitless, good = 0, rounds, done }
}

/// What [`Stages::advance`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The stage goes on.
    None,
    /// It ended as it should.
    Ended,
    /// It led nowhere ([`GiveUp`]).
    GivenUp,
}

impl Stages {
    /// At the first stage there is; `config` is valid.
    pub fn new(config: StagesConfig) -> Self {
        let first = ORDER.into_iter().find(|s| config.ending(*s).is_some()).unwrap_or(Stage::Online);
        Self { config, stage: first, steps: 0, seconds: 0.0, fruitless: 0, good: 0, rounds: 0, done: false }
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Environment steps taken in it.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Seconds spent in it.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// How often all stages were gone through.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Whether the last stage ended for good.
    pub fn done(&self) -> bool {
        self.done
    }

    /// Whether an evaluation in this stage is good enough for [`GiveUp`].
    fn is_good(&self, evaluation: f64) -> bool {
        let give_up = self.config.ending(self.stage).and_then(|ending| ending.give_up);
        give_up.is_some_and(|give_up| evaluation >= give_up.below_return)
    }

    /// One environment step of `seconds`, after it perhaps an evaluation's mean return: whether the stage ended.
    pub fn advance(&mut self, seconds: f64, evaluation: Option<f64>) -> Change {
        if self.done {
            return Change::None;
        }
        self.steps += 1;
        self.seconds += seconds.max(0.0);
        let Some(e) = self.config.ending(self.stage) else { return Change::None };
        self.fruitless += 1;
        if evaluation.is_some_and(|got| self.is_good(got)) {
            (self.fruitless, self.good) = (0, self.good + 1);
        }
        // Judged by evaluations: a run that makes none gives no teacher up.
        let hopeless =
            |g: GiveUp| evaluation.is_some() && self.good < PROOF && self.fruitless >= g.after_steps;
        let over = e.steps.is_some_and(|s| self.steps >= s)
            || e.seconds.is_some_and(|s| self.seconds >= s)
            || e.return_at_least.zip(evaluation).is_some_and(|(bar, got)| got >= bar);
        let change = match over {
            true => Change::Ended,
            false if e.give_up.is_some_and(hopeless) => Change::GivenUp,
            false => return Change::None,
        };
        self.next();
        change
    }

    fn next(&mut self) {
        let at = ORDER.iter().position(|s| *s == self.stage).expect("a stage is one of three");
        let later = ORDER[at + 1..].iter().find(|s| self.config.ending(**s).is_some());
        let next = match later {
            Some(stage) => *stage,
            None => {
                self.rounds += 1;
                self.done = !self.config.repeat;
                if self.done {
                    return;
                }
                Self::new(self.config).stage
            }
        };
        (self.stage, self.steps, self.seconds) = (next, 0, 0.0);
        (self.fruitless, self.good) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps(n: u64) -> Option<Ending> {
        Some(Ending { steps: Some(n), ..Ending::default() })
    }

    #[test]
    fn each_ending_ends_its_stage() {
        let online = Some(Ending { return_at_least: Some(475.0), ..Ending::default() });
        let transfer = Some(Ending { seconds: Some(1.0), ..Ending::default() });
        let mut s = Stages::new(StagesConfig { offline: steps(2), transfer, online, repeat: false });
        assert_eq!(s.stage(), Stage::Offline);
        assert_eq!(s.advance(9.0, Some(500.0)), Change::None);
        assert_eq!(s.advance(0.0, None), Change::Ended);
        assert_eq!(s.stage(), Stage::Transfer);
        assert_eq!(s.advance(0.5, None), Change::None);
        assert_eq!(s.advance(0.5, None), Change::Ended);
        assert_eq!(s.stage(), Stage::Online);
        assert_eq!(s.advance(0.0, Some(474.0)), Change::None);
        assert_eq!(s.advance(0.0, Some(475.0)), Change::Ended);
        assert!(s.done() && s.rounds() == 1);
    }

    #[test]
    fn a_stage_without_success_is_given_up() {
        let give_up = Some(GiveUp { after_steps: 3, below_return: 475.0 });
        let transfer = Some(Ending { give_up, ..Ending::default() });
        let config = StagesConfig { transfer, ..StagesConfig::default() };
        let mut s = Stages::new(config);
        assert_eq!([Some(100.0), None].map(|e| s.advance(0.0, e)), [Change::None; 2]);
        assert_eq!(s.advance(0.0, Some(474.0)), Change::GivenUp);
        assert_eq!(s.stage(), Stage::Online);
        // One good evaluation gives it more time; what was good twice is not given up, however long ago.
        let mut s = Stages::new(config);
        assert_eq!([480.0, 9.0, 9.0].map(|e| s.advance(0.0, Some(e))), [Change::None; 3]);
        assert_eq!(s.advance(0.0, Some(9.0)), Change::GivenUp);
        let mut s = Stages::new(config);
        let evaluations = [480.0, 9.0, 475.0, 9.0, 9.0, 9.0, 9.0, 9.0];
        assert!(evaluations.iter().all(|e| s.advance(0.0, Some(*e)) == Change::None));
        let mut s = Stages::new(config);
        assert_eq!([None; 4].map(|e| s.advance(0.0, e)), [Change::None; 4], "no evaluation, no judgement");
        assert_eq!(s.advance(0.0, Some(9.0)), Change::GivenUp);
        // What another stage brought does not count.
        let transfer = Some(Ending { give_up, steps: Some(2), ..Ending::default() });
        let mut s = Stages::new(StagesConfig { transfer, online: steps(1), repeat: true, ..config });
        s.advance(0.0, Some(480.0));
        assert_eq!([None; 2].map(|e| s.advance(0.0, e)), [Change::Ended; 2]);
        assert!(s.good == 0 && s.stage() == Stage::Transfer);
    }

    proptest! {
        /// A stage is given up at the first evaluation after its patience, and only if at most one of its evaluations was good.
        #[test]
        fn what_was_good_once_is_not_thrown_away(
            evaluations in prop::collection::vec(prop::option::of(0.0..10.0f64), 1..60),
            after_steps in 1u64..12,
        ) {
            let give_up = Some(GiveUp { after_steps, below_return: 9.0 });
            let transfer = Some(Ending { give_up, ..Ending::default() });
            let mut s = Stages::new(StagesConfig { transfer, ..StagesConfig::default() });
            let is_good = |e: &Option<f64>| e.is_some_and(|e| e >= 9.0);
            for (i, evaluation) in evaluations.iter().enumerate() {
                let change = s.advance(0.0, *evaluation);
                let so_far = &evaluations[..=i];
                let since = so_far.iter().rev().position(is_good).unwrap_or(so_far.len()) as u64;
                let ends = evaluation.is_some() && since >= after_steps;
                let good = so_far.iter().filter(|e| is_good(e)).count();
                let expected = if ends && good < 2 { Change::GivenUp } else { Change::None };
                prop_assert_eq!(change, expected);
                if change != Change::None {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_loop_starts_over_with_the_first_stage_there_is() {
        let config = StagesConfig { offline: None, transfer: steps(1), online: steps(2), repeat: true };
        let mut s = Stages::new(config);
        let seen = (0..6).map(|_| {
            let stage = s.stage();
            s.advance(0.0, None);
            stage
        });
        use Stage::*;
        assert_eq!(seen.collect::<Vec<_>>(), [Transfer, Online, Online, Transfer, Online, Online]);
        assert!(!s.done() && s.rounds() == 2);
    }
}
