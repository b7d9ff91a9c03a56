//! MOPO (Yu et al. 2020, "MOPO: Model-based Offline Policy Optimization"), and online MOORe (Mao et al. 2022), which continues it with the
//! sampler `forgetting`: soft actor-critic on short rollouts in an ensemble of Gaussian models of the dynamics, whose rewards have a
//! penalty for what the models do not know.
//!
//! Where the authors keep rollouts in a buffer of their own, each update makes its own ones, from states of its batch, with a model drawn for each step.
//! Models learn from the same batches. Rollouts do not terminate: there is no known rule of the environment's ends here.

use super::sac::{Sac, actor_parameters, policy};
use super::td3::taught;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::critics::{Critics, InitialParameters, Params, frozen, initial_ensemble, least, q_value};
use crate::engine::{Engine, LearnError, LossParts, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::dynamics::{
    bounded_log_variance, disagreement, dynamics_loss, negative_log_likelihood, uncertainty,
};
use crate::noise::{Noise, SUBSET, UNIFORM};
use crate::optimiser::{Adam, Optimiser, Updates, ensemble_parameters, mlp};
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct ModelBased;

impl Algorithm for ModelBased {
    fn name(&self) -> &'static str {
        "mopo"
    }

    fn title(&self) -> &'static str {
        "Model-based policy optimisation: rollouts in learned dynamics, with a penalty for what they do not know; MOORe online"
    }

    fn paper(&self) -> &'static str {
        "Yu et al. 2020; MOORe: Mao et al. 2022"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay, Data::Dataset]
    }

    /// The authors' settings; the number of updates is for small environments.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 1_000,
            evaluation: (1_000, 10),
            ..Defaults::new(
                MopoConfig::default(),
                "continuous actions",
                "the authors' code (tianheyu927/mopo)",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<MopoConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<MopoConfig>(self, generator)
    }
}

/// Settings of MOPO. Defaults are those of the authors' code for Hopper's medium data; `largest_penalty` and `samples` are ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct MopoConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update: a whole number of `horizon`.
    pub batch_size: usize,
    /// Models of the dynamics.
    pub models: usize,
    /// Widths of the hidden layers of the models, ReLU after each.
    pub model_hidden: Vec<usize>,
    /// Factor of the run's learning rate for the models.
    pub model_rate: f64,
    /// Steps of a rollout, at most as many as models.
    pub horizon: usize,
    /// Weight of the uncertainty in a rollout's rewards.
    pub penalty: f64,
    /// The most that the penalty takes from a reward.
    pub largest_penalty: f64,
    /// Whether the uncertainty is the distance of the models from their mean instead of their largest standard deviation.
    pub by_disagreement: bool,
    /// Weight of the batch's own transitions beside those of rollouts.
    pub real_share: f64,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    MopoConfig: settings {
        hidden, batch_size, models, model_hidden, model_rate, horizon, penalty, largest_penalty, by_disagreement, real_share,
        initial_alpha, samples, adam
    }
}

impl Default for MopoConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 255,
            models: 7,
            model_hidden: vec![200, 200, 200, 200],
            model_rate: 10.0 / 3.0,
            horizon: 5,
            penalty: 5.0,
            largest_penalty: 100.0,
            by_disagreement: false,
            real_share: 0.05,
            initial_alpha: 1.0,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for MopoConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &ModelBased
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.whole("models", self.models as u64, 2..=64, "2 to 64 models: one alone knows no disagreement");
        let layers = self.model_hidden.len();
        let good =
            (1..=8).contains(&layers) && self.model_hidden.iter().all(|width| (1..=4096).contains(width));
        let shown = || format!("{:?}", self.model_hidden);
        checks.that(good, "model_hidden", shown, "1 to 8 hidden layers of widths from 1 to 4096");
        checks.real("model_rate", self.model_rate, 0.0..=100.0, "a factor from 0 to 100");
        let (horizon, models) = (self.horizon, self.models);
        let expected = format!("1 to models, {models}");
        checks.that((1..=models).contains(&horizon), "horizon", || horizon.to_string(), &expected);
        let whole = horizon == 0 || self.batch_size.is_multiple_of(horizon);
        let expected = format!("a whole number of horizon, {horizon}");
        checks.that(whole, "batch_size", || self.batch_size.to_string(), &expected);
        checks.weight("penalty", self.penalty);
        checks.real("largest_penalty", self.largest_penalty, 0.0..=1e9, "0 to 1e9");
        checks.real("real_share", self.real_share, 0.0..=1.0, "a share from 0 to 1");
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
    }

    fn program(&self, sizes: Sizes) -> Program {
        program(self, sizes)
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        let (rows, width) = (self.batch_size, sizes.actions.width());
        let sampled = (sizes.teachers > 0).then_some((UNIFORM, rows * self.samples));
        let drawn = ["noise", "next_noise", "act_noise", "then_noise", "improve_noise"];
        let noise = Noise::new(drawn.map(|name| (name, rows)).into_iter().chain(sampled), width)
            .and("model_noise", rows * (1 + sizes.observation))
            .with_subset(self.models, self.horizon);
        let critics = (2, self.initial_alpha);
        Ok(Box::new(Sac::of(
            program(self, sizes),
            (None, &self.hidden),
            critics,
            noise,
            sizes,
            backend,
            rng,
        )?))
    }
}

/// The models' parameters, and the bounds of their log variances.
struct Models<'t> {
    params: Params<'t>,
    least: Tensor<'t>,
    most: Tensor<'t>,
}

const LEAST: &str = "models.least_log_variance";
const MOST: &str = "models.most_log_variance";
/// Where a predicted state is cut off, so that a model that diverges gives finite numbers.
const LARGEST_STATE: f64 = 1e6;

impl<'t> Models<'t> {
    fn record(t: &'t Trace, config: &MopoConfig, sizes: Sizes) -> Self {
        let outputs = 1 + sizes.observation;
        let widths =
            [&[sizes.observation + sizes.actions.width()], &config.model_hidden[..], &[2 * outputs]].concat();
        let params = ensemble_parameters(t, "models.", config.models, &widths);
        let [least, most] = [LEAST, MOST].map(|name| t.state(name, &[outputs]));
        Self { params, least, most }
    }

    fn all(&self) -> Params<'t> {
        let bounds = [(LEAST.to_string(), self.least), (MOST.to_string(), self.most)];
        [&self.params[..], &bounds].concat()
    }

    /// Each model's mean and log variance of the reward and the state's change, `[E, R, 1 + O]`.
    fn predict(&self, observation: Tensor<'t>, action: Tensor<'t>) -> [Tensor<'t>; 2] {
        let out = mlp(&self.params, observation.concat(action), Activation::Relu);
        let width = out.size(2) / 2;
        [out.slice_last(0, width), bounded_log_variance(out.slice_last(width, width), self.least, self.most)]
    }
}

/// Initial values of the models for a program that has them.
pub(super) fn initial_models(rng: &mut Rng, engine: &Engine, initial_values: &mut InitialParameters) {
    let shapes = engine.shapes().filter(|(name, _)| name.starts_with("models.") && name.ends_with(".weight"));
    let shapes = shapes.map(|(_, shape)| shape.to_vec()).collect::<Vec<_>>();
    let Some(first) = shapes.first() else { return };
    let widths = [first[2]].into_iter().chain(shapes.iter().map(|shape| shape[1])).collect::<Vec<_>>();
    initial_ensemble(rng, "models.", first[0], &widths, initial_values);
    let outputs = widths[widths.len() - 1] / 2;
    // As in the authors' code.
    initial_values.extend([(LEAST.into(), vec![-10.0; outputs]), (MOST.into(), vec![0.5; outputs])]);
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &MopoConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width, seen) = (config.batch_size, sizes.actions.width(), sizes.observation);
    let (horizon, rows) = (config.horizon, batch / config.horizon);
    let row = |name: &str| t.data(name, &[batch]);
    let numbers = |name: &str| t.data(name, &[batch, seen]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let bound = |b: f64| t.constant(b, &[]);

    let actor = actor_parameters(t, &config.hidden, sizes);
    let twins = Critics::continuous(t, 2, seen, &config.hidden, width);
    let models = Models::record(t, config, sizes);
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let held = frozen(&twins.params);
    let (observation, next, known) = (numbers("observation"), numbers("next_observation"), actions("action"));
    let (reward, discount) = (row("reward"), row("discount"));

    // The models: reward and change of the state (negative log likelihood).
    let change = reward.reshape(&[batch, 1]).concat(next - observation);
    let [mean, log_variance] = models.predict(observation, known);
    let change = change.reshape(&[1, batch, 1 + seen]).broadcast(&[config.models, batch, 1 + seen]) + 0.0;
    let likelihood = negative_log_likelihood(mean, log_variance, change);
    let model_loss = dynamics_loss(likelihood, models.least, models.most);

    // Soft actor-critic on some transitions: the critics' and the actor's loss, and the log probability of the actor's actions.
    let real = Rows { observation, action: known, reward, discount, next };
    let noise = [actions("next_noise"), actions("noise")];
    let real = learn(&actor, &twins, &held, alpha, real, noise);

    // Rollouts of the policy in the models, from the batch's first states.
    let gamma = discount.reshape(&[1, batch]).max_last().reshape(&[]) + t.constant(0.0, &[rows]);
    let part = |name: &str, width: usize, step: usize| {
        t.shared_data(name, &[batch, width]).reshape(&[horizon, rows, width]).member(step)
    };
    let members = t.data(SUBSET, &[horizon]);
    let mut state = observation.reshape(&[horizon, rows, seen]).member(0);
    let (mut learnt, mut acted, mut density) = (Vec::new(), Vec::new(), Vec::new());
    let (mut penalties, mut saturated) = (Vec::new(), Vec::new());
    for step in 0..horizon {
        let [mean, log_std] = policy(&actor, state);
        let action = squashed_gaussian(mean, log_std, part("act_noise", width, step)).action.stop_gradient();
        let [mean, log_variance] = models.predict(state, action);
        let std = (log_variance * 0.5).exp();
        let unknown = if config.by_disagreement { disagreement(mean) } else { uncertainty(std) };
        let penalty = (unknown * config.penalty).minimum(bound(config.largest_penalty));
        saturated.push((penalty + -config.largest_penalty * (1.0 - 1e-6)).step().mean());
        penalties.push(penalty.mean());
        let member = members.reshape(&[horizon, 1]).rows(t.constant(step as f64, &[1])).reshape(&[1]);
        let drawn = one_of(mean, member) + one_of(std, member) * part("model_noise", 1 + seen, step);
        let reward = drawn.slice_last(0, 1).reshape(&[rows]) - penalty;
        let reached =
            (state + drawn.slice_last(1, seen)).maximum(bound(-LARGEST_STATE)).minimum(bound(LARGEST_STATE));
        let reached = reached.stop_gradient();
        let rollout = Rows {
            observation: state,
            action,
            reward: reward.stop_gradient(),
            discount: gamma,
            next: reached,
        };
        let noise = [part("then_noise", width, step), part("improve_noise", width, step)];
        let [critic, actor_loss, log_prob] = learn(&actor, &twins, &held, alpha, rollout, noise);
        learnt.push(critic);
        acted.push(actor_loss);
        density.push(log_prob.mean());
        state = reached;
    }
    let share = config.real_share;
    let critic_loss = mix(share, real[0], average(&learnt));
    let actor_loss = mix(share, real[1], average(&acted));
    let log_prob = mix(share, real[2].mean(), average(&density));
    let tempered = temperature(log_alpha, log_prob, -(width as f64));

    let weights = aikd_weights(t, sizes.teachers);
    let [mean, _] = policy(&actor, observation);
    let aikd = taught(t, &twins, observation, mean.tanh(), config.samples, (sizes.teachers, weights));
    let task = critic_loss + actor_loss + tempered;
    let loss = losses::transfer(&aikd, task, weights);
    let lr = t.data("lr", &[]);
    let mut params = [&actor[..], &twins.params].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", config.adam, lr), &params, loss);
    updates.minimise(
        &Optimiser::new("models", config.adam, lr * config.model_rate),
        &models.all(),
        model_loss,
    );
    updates.follow(&twins.targets, &twins.params, t.data("target_mix", &[]), 1);
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("model_loss", model_loss),
        ("penalty", average(&penalties)),
        // The share of rollouts' transitions whose penalty is at its most: 1 where the models have diverged.
        ("penalty_saturated", average(&saturated)),
        ("temperature", alpha),
        ("entropy", -log_prob),
    ];
    let q = q_value(&twins.params, observation, known).mean();
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

/// The mean of what all steps of the rollouts gave.
fn average<'t>(each: &[Tensor<'t>]) -> Tensor<'t> {
    crate::critics::sum(each) * (1.0 / each.len() as f64)
}

/// What the batch gave, with this share, and what the rollouts gave.
fn mix<'t>(share: f64, real: Tensor<'t>, rollouts: Tensor<'t>) -> Tensor<'t> {
    real * share + rollouts * (1.0 - share)
}

/// Transitions `[R, ...]`.
struct Rows<'t> {
    observation: Tensor<'t>,
    action: Tensor<'t>,
    reward: Tensor<'t>,
    discount: Tensor<'t>,
    next: Tensor<'t>,
}

/// The losses of critics and actor on these transitions, and the log probability `[R]` of the actor's actions.
fn learn<'t>(
    actor: &Params<'t>,
    twins: &Critics<'t>,
    held: &Params<'t>,
    alpha: Tensor<'t>,
    rows: Rows<'t>,
    [then, now]: [Tensor<'t>; 2],
) -> [Tensor<'t>; 3] {
    let Rows { observation, action, reward, discount, next } = rows;
    let [mean, log_std] = policy(actor, next);
    let then = squashed_gaussian(mean, log_std, then);
    let next_q = least(q_value(&twins.targets, next, then.action));
    let target = soft_target(reward, discount, next_q, then.log_prob, alpha).stop_gradient();
    let [critic_loss, _] = Critics::error(q_value(&twins.params, observation, action), target);
    let [mean, log_std] = policy(actor, observation);
    let now = squashed_gaussian(mean, log_std, now);
    let fixed = least(q_value(held, observation, now.action));
    [critic_loss, sac_actor(fixed, now.log_prob, alpha), now.log_prob]
}

/// What the model `[1]` says, of what all say `[E, R, W]`: `[R, W]`.
fn one_of<'t>(x: Tensor<'t>, model: Tensor<'t>) -> Tensor<'t> {
    let (count, rows, width) = (x.size(0), x.size(1), x.size(2));
    x.reshape(&[count, rows * width]).rows(model).reshape(&[rows, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;
    use crate::engine::Schedule;
    use crate::replay::{Batch, Replay};

    fn run(config: &MopoConfig, rewards: f32, updates: usize) -> LossParts {
        let sizes = Sizes { observation: 2, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        let rng = &mut Rng::new(5);
        let mut agent = config.agent(sizes, &oto_cpu::Cpu, rng).unwrap();
        let mut replay = Replay::new(256, [2, 1], 0, 1, 0.9);
        for i in 0..256 {
            let (x, a) = ((i % 16) as f32 / 8.0 - 1.0, (i % 5) as f32 / 2.5 - 1.0);
            replay.push(&[x, 1.0], &[a], rewards * x, &[x + 0.1 * a, 1.0], false, false, |_, _| {});
        }
        let schedule = Schedule {
            lr: 3e-3,
            target_mix: 0.05,
            alpha_aikd: 0.0,
            delta: 0.0,
            eta: 0.0,
            alpha_task: 1.0,
            share: &[],
        };
        let mut batch = Batch::default();
        for _ in 0..updates {
            replay.sample(rng, config.batch_size, &mut batch);
            agent.update(&batch, &schedule, rng).unwrap();
        }
        agent.engine().last_loss().unwrap().clone()
    }

    fn small() -> MopoConfig {
        MopoConfig {
            hidden: vec![16],
            batch_size: 32,
            models: 3,
            model_hidden: vec![16],
            model_rate: 1.0,
            horizon: 2,
            ..MopoConfig::default()
        }
    }

    /// The models learn the dynamics, and the penalty falls with what they do not know.
    #[test]
    fn the_penalty_falls_while_the_models_learn() {
        let of = |losses: &LossParts, name: &str| losses.get(name).unwrap();
        let (first, last) = (run(&small(), 1.0, 1), run(&small(), 1.0, 400));
        assert!(of(&last, "model_loss") < of(&first, "model_loss") - 3.0, "{first:?} {last:?}");
        assert!(of(&last, "penalty") < 0.7 * of(&first, "penalty"), "{first:?} {last:?}");
        assert_eq!(of(&last, "penalty_saturated"), 0.0);
    }

    /// Models that know nothing: every penalty is at its most, which is reported, and training continues.
    #[test]
    fn a_penalty_that_saturates_is_reported_and_training_continues() {
        let lost = MopoConfig { penalty: 1e6, largest_penalty: 3.0, ..small() };
        let losses = run(&lost, 1e4, 30);
        assert_eq!((losses.get("penalty_saturated"), losses.get("penalty")), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: MopoConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = MopoConfig::default;
        assert!(
            wrong(MopoConfig { models: 1, ..config() }).starts_with("algorithm.models is 1: 2 to 64 models")
        );
        assert_eq!(wrong(MopoConfig { horizon: 8, ..config() }), "algorithm.horizon is 8: 1 to models, 7");
        let uneven = wrong(MopoConfig { batch_size: 256, ..config() });
        assert_eq!(uneven, "algorithm.batch_size is 256: a whole number of horizon, 5");
        assert!(wrong(MopoConfig { penalty: f64::NAN, ..config() }).starts_with("algorithm.penalty is NaN"));
        assert!(wrong(MopoConfig { real_share: 1.5, ..config() }).starts_with("algorithm.real_share is 1.5"));
    }
}
