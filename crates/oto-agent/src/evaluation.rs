//! What policies are worth: their returns in the same episodes, and how sure the differences are.
//!
//! Episodes of one seed differ far more from episodes of another than policies do, so policies are compared seed by seed.
//! Intervals are percentile bootstraps (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13) over
//! seeds: they assume no distribution, and cover shares as they cover means.

use oto_env::rng::Rng;
use oto_env::{EnvError, Environment, Step};

/// How many times seeds are drawn anew for an interval.
const RESAMPLES: usize = 10_000;
/// The part of the resamples that an interval leaves out on each side: 95% are inside.
const TAIL: f64 = 0.025;

/// An estimate with its 95% confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate from all seeds.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// Why returns cannot be compared.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluationError {
    /// There is no return.
    #[error("expected at least one return, got none")]
    Empty,
    /// Lists of different length cannot be of the same seeds.
    #[error("expected returns of the same episodes, got {0} and {1}")]
    Lengths(usize, usize),
    /// A return with NaN or infinity.
    #[error("return {index} is {value}, expected a finite number")]
    NotFinite {
        /// Which return, from 0.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// The bound is no better than what the gap begins with.
    #[error("expected a bound above the baseline, got {bound} against {baseline}")]
    NoGap {
        /// The baseline's mean return.
        baseline: f64,
        /// The bound's mean return.
        bound: f64,
    },
}

/// An evaluation that no earlier one was better than.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Environment steps before it; updates where the source is a dataset.
    pub step: u64,
    /// Its mean return.
    pub mean: f64,
}

oto_json::json_object! { Best: open { step, mean } }

/// The greedy evaluations of a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluations {
    /// Mean return of the last one.
    pub last: Option<f64>,
    /// The best one.
    pub best: Option<Best>,
    /// The number of evaluations since one was better than all before.
    pub since_best: u32,
}

oto_json::json_object! { Evaluations: open { last, best, since_best } }

impl Evaluations {
    /// Checks the numbers of a saved run that has come to `step`.
    pub(crate) fn check(&self, step: u64) -> Result<(), String> {
        let means = self.best.iter().map(|best| best.mean).chain(self.last);
        if let Some(wrong) = means.into_iter().find(|mean| !mean.is_finite()) {
            return Err(format!("a return is {}, expected a finite number", oto_json::shown(&wrong)));
        }
        match &self.best {
            Some(best) if best.step > step => {
                Err(format!("the best evaluation is of step {}, expected {step} at most", best.step))
            }
            _ => Ok(()),
        }
    }
}

/// Greedy episodes of one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Environment steps before it; updates where the source is a dataset.
    pub step: u64,
    /// Mean return.
    pub mean: f64,
    /// Lowest return.
    pub min: f64,
    /// Highest return.
    pub max: f64,
    /// How many episodes.
    pub episodes: u32,
    /// Whether its policy is the best one now.
    pub best: bool,
}

/// Plays one evaluation episode: resets the environment, has `turn` act once after the other and gives the sum of the rewards. `turn` finds
/// the observation `[width]` in the buffer, and leaves the next one there, as [`Environment::step`] does.
///
/// # Errors
/// What the environment or `turn` says.
pub fn play<W: Environment + ?Sized, E: From<EnvError>>(
    environment: &mut W,
    seed: Option<u64>,
    observation: &mut [f32],
    mut turn: impl FnMut(&mut W, &mut [f32]) -> Result<Step, E>,
) -> Result<f64, E> {
    environment.evaluate(true);
    let score = play_on(environment, seed, observation, &mut turn);
    environment.evaluate(false);
    score
}

fn play_on<W: Environment + ?Sized, E: From<EnvError>>(
    environment: &mut W,
    seed: Option<u64>,
    observation: &mut [f32],
    turn: &mut impl FnMut(&mut W, &mut [f32]) -> Result<Step, E>,
) -> Result<f64, E> {
    environment.reset(seed, observation)?;
    let mut score = 0.0;
    loop {
        let step = turn(environment, observation)?;
        score += step.reward;
        if step.done() {
            return Ok(score);
        }
    }
}

/// The returns of one policy in the episodes of these seeds, played with [`play`].
///
/// # Errors
/// What the environment or `turn` says.
pub fn returns<W: Environment + ?Sized, E: From<EnvError>>(
    environment: &mut W,
    seeds: impl IntoIterator<Item = u64>,
    mut turn: impl FnMut(&mut W, &mut [f32]) -> Result<Step, E>,
) -> Result<Vec<f64>, E> {
    let mut observation = vec![0.0; environment.observation_space().width()];
    seeds.into_iter().map(|seed| play(environment, Some(seed), &mut observation, &mut turn)).collect()
}

/// The mean return; `seed` draws the resamples.
///
/// # Errors
/// [`EvaluationError::Empty`], [`EvaluationError::NotFinite`].
pub fn mean_return(returns: &[f64], seed: u64) -> Result<Estimate, EvaluationError> {
    bootstrap([returns], seed, |[mean]| mean)
}

/// How much larger the first policy's return is than the second's, on average over the same seeds, in the same order.
///
/// # Errors
/// [`EvaluationError::Empty`], [`EvaluationError::Lengths`], [`EvaluationError::NotFinite`].
pub fn difference(policy: &[f64], other: &[f64], seed: u64) -> Result<Estimate, EvaluationError> {
    bootstrap([policy, other], seed, |[policy, other]| policy - other)
}

/// The share of the way from a baseline to a bound that a policy has gone, all on the same seeds: 0 is as good as the
/// baseline, 1 as good as the bound. Where resamples have no gap, an end of the interval may be no finite number.
///
/// # Errors
/// As [`difference`], and [`EvaluationError::NoGap`].
pub fn gap_closed(
    policy: &[f64],
    baseline: &[f64],
    bound: &[f64],
    seed: u64,
) -> Result<Estimate, EvaluationError> {
    let share = |[policy, baseline, bound]: [f64; 3]| (policy - baseline) / (bound - baseline);
    let estimate = bootstrap([policy, baseline, bound], seed, share)?;
    let [baseline, bound] =
        [baseline, bound].map(|returns| returns.iter().sum::<f64>() / returns.len() as f64);
    if bound > baseline { Ok(estimate) } else { Err(EvaluationError::NoGap { baseline, bound }) }
}

/// A function of mean returns, with the interval that it spans over resampled seeds.
fn bootstrap<const N: usize>(
    returns: [&[f64]; N],
    seed: u64,
    function: impl Fn([f64; N]) -> f64,
) -> Result<Estimate, EvaluationError> {
    let count = returns[0].len();
    let mut rng = Rng::new(seed);
    // A generator's draw is below 2^32; nobody plays as many episodes.
    let Some(draws) = u32::try_from(count).ok().filter(|&count| count > 0) else {
        return Err(EvaluationError::Empty);
    };
    for list in returns {
        if list.len() != count {
            return Err(EvaluationError::Lengths(count, list.len()));
        }
        if let Some(index) = list.iter().position(|value| !value.is_finite()) {
            return Err(EvaluationError::NotFinite { index, value: list[index] });
        }
    }
    let means = |sums: [f64; N]| sums.map(|sum| sum / count as f64);
    let value = function(means(returns.map(|list| list.iter().sum())));
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut sums = [0.0; N];
            for _ in 0..count {
                let index = rng.below(draws) as usize;
                sums.iter_mut().zip(returns).for_each(|(sum, list)| *sum += list[index]);
            }
            function(means(sums))
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let cut = (TAIL * RESAMPLES as f64) as usize;
    Ok(Estimate { value, low: resampled[cut], high: resampled[RESAMPLES - 1 - cut] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_env::{Action, rng::Rng};
    use proptest::prelude::*;

    fn normal(count: usize, seed: u64) -> Vec<f64> {
        let mut rng = Rng::new(seed);
        (0..count).map(|_| rng.normal()).collect()
    }

    /// An environment that starts training episodes upright starts an evaluation's hanging.
    #[test]
    fn an_environment_knows_which_episodes_are_evaluations() {
        let mut environment = oto_env::make("CartPoleSwingUp-v0?upright=1").unwrap();
        let (mut observation, mut first) = ([0.0; 10], None);
        play(&mut *environment, Some(1), &mut observation, |environment, observation| {
            first.get_or_insert(observation[3]);
            environment.step(Action::Continuous(&[1.0]), observation)
        })
        .unwrap();
        assert!(first.is_some_and(|cosine| cosine < 0.5), "{first:?}");
        environment.reset(None, &mut observation).unwrap();
        assert!(observation[3] > 0.5, "{observation:?}");
    }

    #[test]
    fn returns_are_of_the_seeds_alone() {
        let mut environment = oto_env::make("CartPole-v1").unwrap();
        let mut push = |seeds: &[u64]| {
            returns(&mut *environment, seeds.iter().copied(), |environment, observation| {
                environment.step(Action::Discrete(u32::from(observation[2] > 0.0)), observation)
            })
        };
        let both: Vec<f64> = push(&[7, 3]).unwrap();
        assert_eq!(push(&[3]), Ok(both[1..].to_vec()));
        assert!(both[0] != both[1] && both.iter().all(|score| (10.0..500.0).contains(score)), "{both:?}");
        let broken =
            returns(&mut *environment, [0], |environment, seen| environment.step(Action::Discrete(2), seen));
        assert_eq!(broken, Err(EnvError::ActionRange { n: 2, got: 2 }));
    }

    /// The textbook's interval of a mean, 1.96 standard errors to each side, holds for many normal numbers.
    #[test]
    fn intervals_are_those_of_the_normal_distribution() {
        let Estimate { value, low, high } = mean_return(&normal(400, 1), 0).unwrap();
        assert!(value.abs() < 0.15);
        for end in [value - low, high - value] {
            assert!((end - 1.96 / 20.0).abs() < 0.012, "{low} {value} {high}");
        }
    }

    /// Of a hundred intervals about 95 hold the truth; standard deviation 2.2.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let holds = |seed: &u64| {
            let noise = normal(50, *seed);
            let better: Vec<_> =
                noise.iter().zip(normal(50, seed + 1000)).map(|(a, b)| a + b + 2.0).collect();
            let Estimate { low, high, .. } = difference(&better, &noise, 0).unwrap();
            (low..=high).contains(&2.0)
        };
        let held = (0..100).filter(holds).count();
        assert!((88..=99).contains(&held), "{held}");
    }

    /// Differences are sure even where single episodes differ a thousand times more.
    #[test]
    fn pairs_take_out_what_seeds_have_in_common() {
        let baseline: Vec<_> = normal(100, 3).iter().map(|x| 1000.0 * x).collect();
        let moved = |by: f64, noise| -> Vec<f64> {
            baseline.iter().zip(normal(100, noise)).map(|(x, noise)| x + by + 0.1 * noise).collect()
        };
        let (policy, bound) = (moved(1.5, 4), moved(2.0, 5));
        let Estimate { value, low, high } = difference(&policy, &baseline, 0).unwrap();
        assert!(low < value && value < high && (1.4..1.6).contains(&low) && (1.4..1.6).contains(&high));
        let Estimate { value, low, high } = gap_closed(&policy, &baseline, &bound, 0).unwrap();
        assert!(low < value && value < high && (0.7..0.8).contains(&low) && (0.7..0.8).contains(&high));
        assert_eq!(gap_closed(&bound, &baseline, &bound, 0).unwrap().low, 1.0);
        assert_eq!(gap_closed(&baseline, &baseline, &bound, 0).unwrap().high, 0.0);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert_eq!(mean_return(&[], 0), Err(EvaluationError::Empty));
        assert_eq!(difference(&[1.0], &[1.0, 2.0], 0), Err(EvaluationError::Lengths(1, 2)));
        let error = difference(&[1.0, 1.0], &[1.0, f64::INFINITY], 0);
        assert_eq!(error, Err(EvaluationError::NotFinite { index: 1, value: f64::INFINITY }));
        let error = gap_closed(&[1.0], &[2.0], &[2.0], 0);
        assert_eq!(error, Err(EvaluationError::NoGap { baseline: 2.0, bound: 2.0 }));
        assert_eq!(mean_return(&[5.0], 0), Ok(Estimate { value: 5.0, low: 5.0, high: 5.0 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn an_interval_lies_among_the_returns(list in prop::collection::vec(-1e9f64..1e9, 1..20), seed: u64) {
            let Estimate { value, low, high } = mean_return(&list, seed).unwrap();
            let (min, max) = list.iter().fold((f64::MAX, f64::MIN), |(min, max), x| (x.min(min), x.max(max)));
            // A mean of equal numbers may be rounded away from them.
            prop_assert!(min - 1e-6 <= low && low <= high && high <= max + 1e-6);
            prop_assert!((min - 1e-6..=max + 1e-6).contains(&value));
        }
    }
}
