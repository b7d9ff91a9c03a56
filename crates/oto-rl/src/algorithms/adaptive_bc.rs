//! Adaptive behaviour cloning (Zhao et al. 2022, "Adaptive Behavior Cloning Regularization for Stable Offline-to-Online Reinforcement
//! Learning"): TD3 with an ensemble of critics and a constraint, whose weight a controller changes by the returns of episodes: less while they
//! are good, more when they drop. The first episode's score is the first average.

use super::constrained::{self, Form, Recipe};
use super::td3::Constraint;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::engine::LearnError;
use crate::losses::constraint::AlphaController;
use crate::optimiser::Adam;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct AdaptiveCloning;

impl Algorithm for AdaptiveCloning {
    fn name(&self) -> &'static str {
        "adaptive-bc"
    }

    fn title(&self) -> &'static str {
        "Adaptive behaviour cloning: a constraint whose weight follows the returns of episodes"
    }

    fn paper(&self) -> &'static str {
        "Zhao et al. 2022"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The authors' settings: learning rate 3e-4, 10 updates a step. The number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            updates: 10,
            evaluation: (1_000, 10),
            ..Defaults::new(
                AdaptiveBcConfig::default(),
                "continuous actions",
                "the authors' code (zhaoyi11/adaptive_bc)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<AdaptiveBcConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<AdaptiveBcConfig>(self, generator)
    }
}

/// Settings of adaptive behaviour cloning. Defaults are those of the authors' code; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct AdaptiveBcConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Critics.
    pub critics: usize,
    /// Critics whose smallest value is the target, drawn for each update.
    pub subset: usize,
    /// Weight of the constraint at first, and its largest weight.
    pub alpha: f64,
    /// Whether the controller changes the weight after each episode of training.
    pub adaptive: bool,
    /// The controller's gain of the difference between the average score and `target`.
    pub k_p: f64,
    /// The controller's gain of a drop below the average score.
    pub k_d: f64,
    /// The score from which on the constraint is no longer needed.
    pub target: f64,
    /// Whether an episode's length has no influence on the weight, as printed.
    pub printed: bool,
    /// The mean return of a random policy, which has the score 0.
    pub random_return: f64,
    /// The mean return of an expert, which has the score 1.
    pub expert_return: f64,
    /// Whether observations are normalised by the mean and the standard deviation of the dataset.
    pub normalise: bool,
    /// Standard deviation of the noise on actions that explore.
    pub exploration: f64,
    /// Standard deviation of the noise on the target's action.
    pub smoothing: f64,
    /// Largest noise on the target's action.
    pub smoothing_clip: f64,
    /// Updates from one step of the actor and all target networks to the next.
    pub policy_period: u64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    AdaptiveBcConfig: settings {
        hidden, batch_size, critics, subset, alpha, adaptive, k_p, k_d, target, printed, random_return, expert_return, normalise, exploration, smoothing, smoothing_clip, policy_period, samples, adam
    }
}

impl Default for AdaptiveBcConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            critics: 10,
            subset: 2,
            alpha: 0.4,
            adaptive: true,
            k_p: 3e-5,
            k_d: 1e-4,
            target: 1.05,
            printed: false,
            random_return: 0.0,
            expert_return: 1.0,
            normalise: false,
            exploration: 0.1,
            smoothing: 0.2,
            smoothing_clip: 0.5,
            policy_period: 2,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl AdaptiveBcConfig {
    fn recipe(&self) -> Recipe<'_> {
        let constraint = match self.adaptive {
            true => Constraint::Adaptive(Adaptive::new(self)),
            false => Constraint::Fixed(self.alpha),
        };
        Recipe {
            hidden: &self.hidden,
            batch_size: self.batch_size,
            critics: self.critics,
            subset: self.subset,
            mean: true,
            form: Form::Constrained { scaled: true },
            constraint,
            frozen_critics: false,
            normalise: self.normalise,
            exploration: self.exploration,
            smoothing: [self.smoothing, self.smoothing_clip],
            policy_period: self.policy_period,
            samples: self.samples,
            adam: self.adam,
        }
    }
}

impl Settings for AdaptiveBcConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &AdaptiveCloning
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        self.recipe().check(checks);
        checks.whole("critics", self.critics as u64, 2..=512, "2 to 512 critics");
        checks.subset(self.subset, self.critics);
        checks.weight("alpha", self.alpha);
        checks.real("k_p", self.k_p, 0.0..=1e3, "a gain from 0 to 1000");
        checks.real("k_d", self.k_d, 0.0..=1e3, "a gain from 0 to 1000");
        checks.real("target", self.target, -1e6..=1e6, "a score");
        checks.real("random_return", self.random_return, -1e12..=1e12, "a return");
        let best = self.expert_return;
        let good = best > self.random_return && best <= 1e12;
        checks.that(good, "expert_return", || oto_json::shown(&best), "a return above random_return");
    }

    fn program(&self, sizes: Sizes) -> Program {
        constrained::program(&self.recipe(), sizes)
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        constrained::agent(&self.recipe(), sizes, backend, rng)
    }
}

/// The weight of the constraint, and the controller that changes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Adaptive {
    controller: AlphaController,
    /// Whether an episode has ended: the first one's score is the first average.
    begun: bool,
    printed: bool,
    random_return: f64,
    expert_return: f64,
}

impl Adaptive {
    fn new(config: &AdaptiveBcConfig) -> Self {
        let AdaptiveBcConfig { k_p, k_d, target, alpha, .. } = *config;
        Self {
            controller: AlphaController { k_p, k_d, target, most: alpha, alpha, average: 0.0 },
            begun: false,
            printed: config.printed,
            random_return: config.random_return,
            expert_return: config.expert_return,
        }
    }

    /// The weight now.
    pub fn weight(&self) -> f64 {
        self.controller.alpha
    }

    /// An episode of training ended.
    pub fn end_episode(&mut self, episode_return: f64, length: u64) {
        let score = (episode_return - self.random_return) / (self.expert_return - self.random_return);
        if !self.begun && score.is_finite() {
            (self.begun, self.controller.average) = (true, f64::from(score as f32));
        }
        self.controller.end_episode(score, if self.printed { 1 } else { length });
        // As a checkpoint holds them.
        let AlphaController { alpha, average, .. } = &mut self.controller;
        (*alpha, *average) = (f64::from(*alpha as f32), f64::from(*average as f32));
    }

    /// Weight, average, and whether an episode has ended.
    pub fn memory(&self) -> Vec<f32> {
        vec![self.controller.alpha as f32, self.controller.average as f32, f32::from(self.begun)]
    }

    /// Takes them back; false, and nothing changes, if they are none.
    pub fn recall(&mut self, memory: &[f32]) -> bool {
        match *memory {
            [alpha, average, begun]
                if (0.0..=self.controller.most as f32).contains(&alpha)
                    && average.is_finite()
                    && (begun == 0.0 || begun == 1.0) =>
            {
                (self.controller.alpha, self.controller.average) = (alpha.into(), average.into());
                self.begun = begun == 1.0;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_falls_while_returns_are_good_and_rises_when_they_drop() {
        let config = AdaptiveBcConfig { random_return: -100.0, expert_return: 0.0, ..Default::default() };
        let mut adaptive = Adaptive::new(&config);
        adaptive.end_episode(-20.0, 1000);
        // The average is 0.8: 1000 steps by 3e-5 of 0.8 - 1.05.
        assert!((adaptive.weight() - (0.4 - 0.0075)).abs() < 1e-6, "{}", adaptive.weight());
        (0..20).for_each(|_| adaptive.end_episode(-20.0, 1000));
        let low = adaptive.weight();
        assert!(low < 0.3);
        adaptive.end_episode(-90.0, 1000);
        assert!(adaptive.weight() > low + 0.05, "a drop by 0.7 raises it");
        let before = adaptive;
        adaptive.end_episode(f64::NAN, 1000);
        assert_eq!(adaptive, before);

        let mut again = Adaptive::new(&config);
        assert!(again.recall(&adaptive.memory()));
        assert_eq!(again, adaptive);
        for wrong in
            [vec![], vec![0.2, 0.1], vec![0.5, 0.1, 1.0], vec![0.1, f32::NAN, 1.0], vec![0.1, 0.1, 0.5]]
        {
            assert!(!again.recall(&wrong), "{wrong:?}");
        }
        assert_eq!(again, adaptive);
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong =
            |config: AdaptiveBcConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = AdaptiveBcConfig::default;
        assert!(
            wrong(AdaptiveBcConfig { critics: 1, ..config() })
                .starts_with("algorithm.critics is 1: 2 to 512")
        );
        assert!(
            wrong(AdaptiveBcConfig { alpha: f64::NAN, ..config() }).starts_with("algorithm.alpha is NaN")
        );
        let upside_down = AdaptiveBcConfig { expert_return: -1.0, ..config() };
        assert_eq!(wrong(upside_down), "algorithm.expert_return is -1.0: a return above random_return");
        assert!(wrong(AdaptiveBcConfig { k_d: -1.0, ..config() }).starts_with("algorithm.k_d is -1"));
    }
}
