//! Exploration at the edge: random actions and noise on the policy's own, both over the edge's steps.

use oto_env::rng::Rng;
use oto_rl::actions::Actions;
use oto_rl::checks::Checks;
use oto_rl::exploration::ActionNoise;
use oto_rl::schedule::Linear;

/// How an actor explores. The learner's configuration has it, and the learner tells its actors.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Exploration {
    /// Share of random actions over steps.
    pub epsilon: Linear,
    /// Standard deviation of the noise on continuous actions, whose components go from -1 to 1, over steps.
    pub noise: Linear,
    /// Correlation time of the noise, in steps; 0: each step's noise is drawn alone. Otherwise it is an Ornstein-Uhlenbeck process.
    pub correlation: f64,
}

oto_json::json_object! { Exploration: settings { epsilon, noise, correlation } }

impl Default for Exploration {
    fn default() -> Self {
        Self { epsilon: Linear::constant(0.0), noise: Linear::constant(0.1), correlation: 0.0 }
    }
}

impl Exploration {
    /// No exploration.
    pub fn none() -> Self {
        Self { noise: Linear::constant(0.0), ..Self::default() }
    }

    /// Checks every setting.
    pub fn check(&self, checks: &mut Checks) {
        self.epsilon.check("epsilon", 1.0, "a share from 0 to 1", checks);
        self.noise.check("noise", 2.0, "0 to 2", checks);
        checks.real("correlation", self.correlation, 0.0..=1e6, "0 to 1e6 steps");
    }
}

/// An actor's random actions and noise.
#[derive(Clone, Debug)]
pub struct Explorer {
    epsilon: Linear,
    noise: ActionNoise,
    actions: Actions,
    rng: Rng,
    steps: u64,
}

impl Explorer {
    /// Explores among these actions.
    pub fn new(settings: Exploration, actions: Actions, seed: u64) -> Self {
        let Exploration { epsilon, noise, correlation } = settings;
        let noise = ActionNoise::new(1.0, noise, correlation);
        Self { epsilon, noise, actions, rng: Rng::new(seed), steps: 0 }
    }

    /// An episode begins: its noise knows nothing of the one before it.
    pub fn begin(&mut self) {
        self.noise.begin_episode();
    }

    /// Changes the policy's action to one that explores.
    pub fn explore(&mut self, action: &mut [f32]) {
        let random = self.rng.f64() < self.epsilon.at(self.steps);
        self.noise.at_step(self.steps);
        self.steps += 1;
        if let Actions::Continuous(_) = self.actions {
            self.noise.add(&mut self.rng, action);
        }
        if random {
            self.actions.random(&mut self.rng, action);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(settings: &Exploration, steps: usize) -> Vec<f32> {
        let mut explorer = Explorer::new(settings.clone(), Actions::Continuous(1), 5);
        let one = |_| {
            let mut action = [0.0];
            explorer.explore(&mut action);
            action[0]
        };
        (0..steps).map(one).collect()
    }

    /// The process has its standard deviation and its correlation time.
    #[test]
    fn noise_has_its_deviation_and_correlation() {
        for correlation in [0.0, 20.0] {
            let settings = Exploration { noise: Linear::constant(0.2), correlation, ..Exploration::none() };
            let noise = drawn(&settings, 200_000);
            let square = |lag: usize| {
                let pairs = noise.iter().zip(&noise[lag..]).map(|(a, b)| f64::from(a * b));
                pairs.sum::<f64>() / (noise.len() - lag) as f64
            };
            let deviation = square(0).sqrt();
            assert!((deviation - 0.2).abs() < 0.02, "{correlation}: {deviation}");
            let after = square(20) / square(0);
            let expected = if correlation > 0.0 { (-1.0f64).exp() } else { 0.0 };
            assert!((after - expected).abs() < 0.08, "{correlation}: {after}");
        }
    }

    #[test]
    fn noise_decays_and_random_actions_end() {
        let decay = |start: f64| Linear { start, end: 0.0, steps: 100 };
        let settings = Exploration { epsilon: decay(1.0), noise: decay(0.5), correlation: 3.0 };
        let noise = drawn(&settings, 120);
        assert!(noise[..50].iter().all(|x| x.abs() <= 1.0 && *x != 0.0));
        assert!(noise[100..].iter().all(|x| *x == 0.0), "{:?}", &noise[100..]);
        let mut explorer = Explorer::new(settings, Actions::Discrete(3), 1);
        (0..100).for_each(|_| explorer.explore(&mut [0.0]));
        let mut action = [2.0];
        explorer.explore(&mut action);
        assert_eq!(action, [2.0]);
    }
}
