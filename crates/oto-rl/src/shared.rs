//! One agent, many asynchronous workers (Mnih et al. 2016, Algorithm S3). The shared side holds the parameters and the statistics of
//! the optimiser. A worker fetches the parameters, plays a rollout, and sends the gradients of its loss.
//!
//! An asynchronous algorithm records its update in two halves ([`Part`]). [`Shared`] is the shared side of a run, without threads,
//! sockets or clocks: it checks a gradient, bounds its age and its length, applies it, and counts.

use crate::algorithms::Agent;
use crate::engine::LearnError;
use crate::optimiser::{clipped_by_global_norm, global_norm};
use oto_graph::{Tensor, Trace};
use std::ops::Range;

/// A part of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Loss, gradients and the optimiser's step.
    #[default]
    Whole,
    /// Loss and gradients: the parameters do not change.
    Worker,
    /// The optimiser's step, from gradients that are data.
    Shared,
}

/// What stands before a parameter's name in the name of its gradient.
pub const GRADIENT: &str = "gradient.";
/// The data input that shortens the gradients before they are clipped.
const SCALE: &str = "scale";
/// The data input that weighs the clipped gradients.
const WEIGHT: &str = "weight";

/// A worker's gradients of these parameters, as outputs of its program.
// Pages have no asynchronous algorithm.
#[cfg_attr(not(feature = "every-algorithm"), allow(dead_code))]
pub(crate) fn sent<'t>(
    params: &[(String, Tensor<'t>)],
    gradients: Vec<Tensor<'t>>,
) -> Vec<(String, Tensor<'t>)> {
    params
        .iter()
        .zip(gradients)
        .map(|((name, _), gradient)| (format!("{GRADIENT}{name}"), gradient))
        .collect()
}

/// A worker's gradients as data of the shared program, clipped by their common norm and weighed; and that norm `[]`.
// Pages have no asynchronous algorithm.
#[cfg_attr(not(feature = "every-algorithm"), allow(dead_code))]
pub(crate) fn received<'t>(
    t: &'t Trace,
    params: &[(String, Tensor<'t>)],
    max_norm: f64,
) -> (Vec<Tensor<'t>>, Tensor<'t>) {
    let (scale, weight) = (t.data(SCALE, &[]), t.data(WEIGHT, &[]));
    let data = |(name, p): &(String, Tensor<'t>)| t.data(format!("{GRADIENT}{name}"), &p.shape()) * scale;
    let gradients = params.iter().map(data).collect::<Vec<_>>();
    let norm = global_norm(&gradients).unwrap_or_else(|| t.constant(0.0, &[]));
    let clipped = clipped_by_global_norm(&gradients, max_norm);
    (clipped.into_iter().map(|gradient| gradient * weight).collect(), norm)
}

/// The bounds of the shared side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The most updates between the parameters of a gradient and those that it is applied to.
    pub staleness: u64,
    /// The longest gradient, as a multiple of the median over all workers of their mean norms. It counts from three workers on; `None`
    /// is no such limit. The algorithm's own limit holds in any case.
    pub norm: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { staleness: 100, norm: None }
    }
}

/// Why a gradient was refused. It changes nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// It is not of these parameters.
    #[error("expected a gradient of {expected} numbers, got one of {found}")]
    Length {
        /// Numbers of all parameters.
        expected: usize,
        /// Numbers that came.
        found: usize,
    },
    /// A number is NaN or infinite.
    #[error("number {0} of the gradient is not finite")]
    NotFinite(usize),
    /// Its parameters are too old.
    #[error("expected a gradient for version {oldest} or newer, got one for version {found}")]
    Stale {
        /// The oldest version that is taken.
        oldest: u64,
        /// Its version.
        found: u64,
    },
    /// There are no such parameters yet.
    #[error("expected a gradient for version {newest} or older, got one for version {found}")]
    Future {
        /// The newest version.
        newest: u64,
        /// Its version.
        found: u64,
    },
}

/// What became of a gradient.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It made an update.
    Applied {
        /// The version of the parameters now.
        version: u64,
        /// Updates since the parameters of the gradient.
        staleness: u64,
    },
    /// It did not.
    Refused(Refusal),
}

/// What a worker sent, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Gradients that made an update.
    pub applied: u64,
    /// Gradients that were too old.
    pub stale: u64,
    /// Gradients that were refused for another reason.
    pub refused: u64,
    /// Applied gradients that were shortened because they were longer than other workers' ones.
    pub shortened: u64,
    /// Mean staleness of the applied gradients, in updates.
    pub mean_staleness: f64,
    /// Largest staleness of an applied gradient, in updates.
    pub max_staleness: u64,
}

oto_json::json_object! {
    Counts: written { applied, stale, refused, shortened, mean_staleness, max_staleness }
}

impl Counts {
    /// Gradients that came.
    pub fn sent(&self) -> u64 {
        self.applied + self.stale + self.refused
    }
}

/// A worker as the shared side knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    counts: Counts,
    /// The running mean of its gradients' norms, 0 before the first one.
    norm: f64,
}

/// How fast a worker's mean norm follows its gradients.
const NORM_STEP: f64 = 0.05;
/// The fewest workers for a median that one worker cannot set.
const MAJORITY: usize = 3;

/// The shared side: counts and limits. The parameters are those of an agent that is made with [`Part::Shared`].
pub struct Shared {
    limits: Limits,
    /// Each gradient's name as data, and its part of all numbers.
    parts: Vec<(String, Range<usize>)>,
    workers: Vec<Worker>,
    norms: Vec<f64>,
}

impl Shared {
    /// The shared side of this agent, without workers.
    pub fn new(agent: &dyn Agent, limits: Limits) -> Self {
        let mut end = 0;
        let part = |(name, len): (&str, usize)| {
            end += len;
            (format!("{GRADIENT}{name}"), end - len..end)
        };
        let parts = agent.engine().exchanged().map(part).collect();
        Self { limits, parts, workers: Vec::new(), norms: Vec::new() }
    }

    /// One worker more: its number.
    pub fn join(&mut self) -> usize {
        self.workers.push(Worker::default());
        self.workers.len() - 1
    }

    /// A worker pauses: its gradients say no more how long a gradient is.
    pub fn rest(&mut self, worker: usize) {
        self.workers[worker].norm = 0.0;
    }

    /// Gives a worker's number to a new worker.
    pub fn replace(&mut self, worker: usize) {
        self.workers[worker] = Worker::default();
    }

    /// Counts something of a worker that is no gradient for this agent.
    pub fn refused(&mut self, worker: usize) {
        self.workers[worker].counts.refused += 1;
    }

    /// Each worker's counts, by its number.
    pub fn counts(&self) -> impl Iterator<Item = &Counts> {
        self.workers.iter().map(|worker| &worker.counts)
    }

    /// Numbers of all parameters.
    pub fn parameters(&self) -> usize {
        self.parts.last().map_or(0, |(_, part)| part.end)
    }

    /// The version of an agent's parameters: its updates, and one for those that it began with.
    pub fn version(agent: &dyn Agent) -> u64 {
        agent.engine().updates() + 1
    }

    /// The agent's parameters into `out`, which is emptied first, and their version.
    ///
    /// # Errors
    /// The backend's failure.
    pub fn fetch(&self, agent: &dyn Agent, out: &mut Vec<f32>) -> Result<u64, LearnError> {
        agent.engine().read_exchanged(out)?;
        Ok(Self::version(agent))
    }

    /// Makes an update from a worker's gradients, which are of the parameters of `version`; or refuses them. `weight` is the worker's,
    /// from 0 to 1.
    ///
    /// # Errors
    /// The backend's failure.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn apply(
        &mut self,
        agent: &mut dyn Agent,
        worker: usize,
        version: u64,
        gradients: &[f32],
        [lr, weight]: [f32; 2],
    ) -> Result<Outcome, LearnError> {
        let newest = Self::version(agent);
        if let Err(refusal) = self.check(newest, version, gradients) {
            let counts = &mut self.workers[worker].counts;
            match refusal {
                Refusal::Stale { .. } => counts.stale += 1,
                _ => counts.refused += 1,
            }
            return Ok(Outcome::Refused(refusal));
        }
        let scale = self.scale(worker, gradients);
        let parts = &self.parts;
        agent.engine_mut().update(|name| match name {
            "lr" => Some(std::slice::from_ref(&lr)),
            SCALE => Some(std::slice::from_ref(&scale)),
            WEIGHT => Some(std::slice::from_ref(&weight)),
            _ => parts.iter().find(|(part, _)| part == name).map(|(_, part)| &gradients[part.clone()]),
        })?;
        let (staleness, counts) = (newest - version, &mut self.workers[worker].counts);
        counts.applied += 1;
        counts.shortened += u64::from(scale < 1.0);
        counts.mean_staleness += (staleness as f64 - counts.mean_staleness) / counts.applied as f64;
        counts.max_staleness = counts.max_staleness.max(staleness);
        Ok(Outcome::Applied { version: newest + 1, staleness })
    }

    fn check(&self, newest: u64, version: u64, gradients: &[f32]) -> Result<(), Refusal> {
        let (expected, found) = (self.parameters(), gradients.len());
        if expected != found {
            return Err(Refusal::Length { expected, found });
        }
        let oldest = newest.saturating_sub(self.limits.staleness).max(1);
        if version > newest {
            return Err(Refusal::Future { newest, found: version });
        }
        if version < oldest {
            return Err(Refusal::Stale { oldest, found: version });
        }
        match gradients.iter().position(|x| !x.is_finite()) {
            Some(index) => Err(Refusal::NotFinite(index)),
            None => Ok(()),
        }
    }

    /// What a gradient is multiplied by to be no longer than the limit; notes its norm.
    fn scale(&mut self, worker: usize, gradients: &[f32]) -> f32 {
        let Some(times) = self.limits.norm else { return 1.0 };
        let norm = gradients.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let known = &mut self.workers[worker].norm;
        *known = if *known == 0.0 { norm } else { *known + NORM_STEP * (norm - *known) };
        self.norms.clear();
        self.norms.extend(self.workers.iter().map(|worker| worker.norm).filter(|norm| *norm > 0.0));
        if self.norms.len() < MAJORITY {
            return 1.0;
        }
        let middle = (self.norms.len() - 1) / 2;
        let (_, median, _) = self.norms.select_nth_unstable_by(middle, f64::total_cmp);
        (times * *median / norm.max(f64::MIN_POSITIVE)).min(1.0) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;
    use crate::algorithms::a3c::A3cConfig;
    use crate::algorithms::{Settings, Sizes};
    use crate::engine::{NamedTensor, Schedule};
    use crate::replay::Batch;
    use oto_cpu::Cpu;
    use oto_env::rng::Rng;

    const SIZES: Sizes =
        Sizes { observation: 3, actions: Actions::Discrete(2), teachers: 0, weighted: false };
    const SCHEDULE: Schedule<'_> = Schedule {
        lr: 0.01,
        target_mix: 0.0,
        alpha_aikd: 0.0,
        delta: 0.0,
        eta: 0.0,
        alpha_task: 1.0,
        share: &[],
    };

    fn agent(part: Part) -> Box<dyn Agent> {
        let config = A3cConfig { hidden: vec![5], t_max: 4, max_grad_norm: 2.0, ..A3cConfig::default() };
        config.part(part, SIZES, &Cpu, &mut Rng::new(3)).unwrap()
    }

    fn batch(rng: &mut Rng) -> Batch {
        let mut drawn = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<_>>();
        let mut batch = Batch::default();
        (batch.observation, batch.advantage, batch.target) = (drawn(12), drawn(4), drawn(4));
        batch.action = vec![0.0, 1.0, 1.0, 0.0];
        batch
    }

    fn state(agent: &dyn Agent) -> Vec<NamedTensor> {
        agent.engine().state().unwrap()
    }

    #[test]
    fn both_halves_make_the_whole_update() {
        let [mut whole, mut worker, mut shared_agent] = [Part::Whole, Part::Worker, Part::Shared].map(agent);
        let mut shared = Shared::new(&*shared_agent, Limits::default());
        let (number, rng) = (shared.join(), &mut Rng::new(1));
        let (mut parameters, mut gradients) = (Vec::new(), Vec::new());
        for update in 1..=30 {
            let version = shared.fetch(&*shared_agent, &mut parameters).unwrap();
            assert_eq!(version, update);
            worker.engine_mut().write_exchanged(&parameters).unwrap();
            let batch = batch(rng);
            whole.update(&batch, &SCHEDULE, rng).unwrap();
            worker.update(&batch, &SCHEDULE, rng).unwrap();
            worker.engine().gradients(&mut gradients);
            let applied = shared.apply(&mut *shared_agent, number, version, &gradients, [0.01, 1.0]).unwrap();
            assert_eq!(applied, Outcome::Applied { version: version + 1, staleness: 0 });
            for name in ["gradient_norm", "loss", "entropy"] {
                let of = |agent: &dyn Agent| agent.engine().last_loss().unwrap().get(name);
                assert_eq!(of(&*whole), of(&*worker), "{name}");
            }
        }
        let norm = whole.engine().last_loss().unwrap().get("gradient_norm").unwrap();
        assert!(norm > 2.0, "a gradient of norm {norm} is clipped");
        assert_eq!(state(&*whole), state(&*shared_agent));
        assert_eq!(
            shared.counts().map(|counts| (counts.applied, counts.sent())).collect::<Vec<_>>(),
            [(30, 30)]
        );
    }

    #[test]
    fn a_gradient_that_does_not_fit_changes_nothing() {
        let mut agent = agent(Part::Shared);
        let mut shared = Shared::new(&*agent, Limits { staleness: 2, norm: None });
        let worker = shared.join();
        let good = vec![0.5; shared.parameters()];
        for _ in 0..4 {
            let version = Shared::version(&*agent);
            shared.apply(&mut *agent, worker, version, &good, [0.01, 1.0]).unwrap();
        }
        let before = state(&*agent);
        let number = |index: usize, value: f32| {
            let mut gradients = good.clone();
            gradients[index] = value;
            gradients
        };
        let (expected, last) = (good.len(), good.len() - 1);
        let cases = [
            (5, good[1..].to_vec(), Refusal::Length { expected, found: last }),
            (5, Vec::new(), Refusal::Length { expected, found: 0 }),
            (5, number(last, f32::NAN), Refusal::NotFinite(last)),
            (5, number(0, f32::NEG_INFINITY), Refusal::NotFinite(0)),
            (6, good.clone(), Refusal::Future { newest: 5, found: 6 }),
            (u64::MAX, good.clone(), Refusal::Future { newest: 5, found: u64::MAX }),
            (2, good.clone(), Refusal::Stale { oldest: 3, found: 2 }),
            (0, good.clone(), Refusal::Stale { oldest: 3, found: 0 }),
        ];
        for (version, gradients, expected) in cases {
            let outcome = shared.apply(&mut *agent, worker, version, &gradients, [0.01, 1.0]).unwrap();
            assert_eq!(outcome, Outcome::Refused(expected));
        }
        assert_eq!(state(&*agent), before);
        shared.apply(&mut *agent, worker, 3, &number(0, f32::MAX), [0.01, 1.0]).unwrap();
        assert!(state(&*agent).iter().all(|tensor| tensor.values.iter().all(|x| x.is_finite())));
        let counts = shared.counts().next().unwrap();
        assert_eq!((counts.applied, counts.stale, counts.refused, counts.max_staleness), (5, 2, 6, 2));
        assert_eq!(counts.mean_staleness, 2.0 / 5.0);
        assert!(agent.engine_mut().write_exchanged(&good[1..]).is_err());
    }

    /// One worker of four sends gradients a thousand times as long: they move the first moments no more than another's.
    #[test]
    fn a_long_gradient_counts_as_twice_the_median() {
        let mut agent = agent(Part::Shared);
        let mut shared = Shared::new(&*agent, Limits { norm: Some(2.0), ..Limits::default() });
        let workers: [usize; 4] = std::array::from_fn(|_| shared.join());
        let count = shared.parameters();
        let mut send = |worker: usize, value: f32| {
            let version = Shared::version(&*agent);
            shared.apply(&mut *agent, worker, version, &vec![value; count], [0.0, 1.0]).unwrap();
            let tensors = state(&*agent);
            tensors.iter().find(|tensor| tensor.name.starts_with("adam.m.")).unwrap().values[0]
        };
        let mut last = 0.0;
        for round in 0..20 {
            for worker in workers {
                let value = if worker == 3 { -1000.0 } else { 0.01 };
                let moment = send(worker, value);
                if worker == 3 && round > 0 {
                    let change = moment - 0.9 * last;
                    assert!((-0.1 * 0.0202..0.0).contains(&change), "round {round}: {change}");
                }
                last = moment;
            }
        }
        let shortened = shared.counts().map(|counts| counts.shortened).collect::<Vec<_>>();
        assert_eq!(shortened, [0, 0, 0, 20]);
    }
}
