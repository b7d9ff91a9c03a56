//! Actor-critic alignment (Yu and Zhang 2023, "Actor-Critic Alignment for Offline-to-Online Reinforcement Learning"), the online half: the
//! critics are rebuilt from the offline policy, Q(s, a) = log pi_0(a|s) + R(s, a), and R alone learns. It begins with a run of
//! [`super::sac_ml`]: pi_0 is that run's policy and stays as it is, R begins as its Z(s), with weights 0 for the action, and the temperature
//! begins anew. With or without recorded data in its batches.

use super::sac::{Sac, actor_parameters, policy};
use super::sac_ml::noise;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::checks::Checks;
use crate::critics::{Critics, InitialParameters, Params, frozen, initial_ensemble, least, q_value};
use crate::engine::{Engine, LearnError, LossParts, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::alignment::{aligned_q, clip_density, softly_clipped, squashed_log_prob};
use crate::optimiser::{Adam, Optimiser, Updates, ensemble_parameters};
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct ActorCriticAlignment;

impl Algorithm for ActorCriticAlignment {
    fn name(&self) -> &'static str {
        "aca"
    }

    fn title(&self) -> &'static str {
        "Actor-critic alignment: critics rebuilt from an offline policy, to continue sac-ml online"
    }

    fn paper(&self) -> &'static str {
        "Yu and Zhang 2023"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay]
    }

    fn in_pages(&self) -> bool {
        false
    }

    /// The authors' settings: learning rate 3e-4, an update a step.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 1_000,
            evaluation: (1_000, 10),
            ..Defaults::new(AcaConfig::default(), "continuous actions", "the authors' code (ZishunYu/ACA)")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<AcaConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<AcaConfig>(self, generator)
    }
}

/// Settings of actor-critic alignment. Defaults are those of the authors' code.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct AcaConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Standard deviations from the offline policy's mean beyond which its log density is softly cut. The authors use 7 for data of random
    /// and medium policies and of replays, 15 for those of experts, 3 for AntMaze.
    pub clip: f64,
    /// Whether the log density is taken as it is, as printed.
    pub printed: bool,
    /// Longest gradient of the actor.
    pub max_gradient: f64,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    AcaConfig: settings { hidden, batch_size, clip, printed, max_gradient, initial_alpha, adam }
}

impl Default for AcaConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            clip: 7.0,
            printed: false,
            max_gradient: 0.25,
            initial_alpha: 1.0,
            adam: Adam::default(),
        }
    }
}

impl Settings for AcaConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &ActorCriticAlignment
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.real("clip", self.clip, 1e-3..=1e3, "0.001 to 1000 standard deviations");
        checks.real("max_gradient", self.max_gradient, 1e-6..=1e6, "1e-6 to 1e6");
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.adam(self.adam);
    }

    /// Its critics are no networks of state and action alone, on which a teacher's BASE term is defined.
    fn fits(&self, sizes: Sizes) -> Result<(), String> {
        match sizes.teachers {
            0 => Ok(()),
            _ => Err("learns without teachers; set algorithm to \"sac\", \"rlpd\" or \"wsrl\"".into()),
        }
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
        let (noise, critics) = (noise(self.batch_size, 1, sizes), (2, self.initial_alpha));
        let agent = Sac::of(program(self, sizes), (None, &self.hidden), critics, noise, sizes, backend, rng)?;
        Ok(Box::new(agent.with_own(&["log_alpha"])))
    }
}

const RESIDUAL: &str = "residual.";

/// The twin networks R(s, a), Z(s) before it, and their slow copies.
pub(super) fn residuals<'t>(t: &'t Trace, hidden: &[usize], sizes: Sizes) -> Critics<'t> {
    let widths = [&[sizes.observation + sizes.actions.width()], hidden, &[1]].concat();
    let make = |prefix: &str| ensemble_parameters(t, prefix, 2, &widths);
    Critics { params: make(RESIDUAL), targets: make("target.residual.") }
}

/// R(s, a) `[2, B]`; without an action Z(s), whose action is 0.
pub(super) fn residual_value<'t>(
    params: &Params<'t>,
    observation: Tensor<'t>,
    action: Option<Tensor<'t>>,
    width: usize,
) -> Tensor<'t> {
    let none = || observation.trace().constant(0.0, &[observation.size(0), width]);
    q_value(params, observation, action.unwrap_or_else(none))
}

/// Initial values of R for a program that has it, with weights 0 for the action.
pub(super) fn initial_residuals(
    rng: &mut Rng,
    engine: &Engine,
    widths: &[usize],
    observation: usize,
    initial_values: &mut InitialParameters,
) {
    if engine.program().input("residual.0.weight").is_none() {
        return;
    }
    let at = initial_values.len();
    initial_ensemble(rng, RESIDUAL, 2, widths, initial_values);
    if let Some((_, weight)) = initial_values.get_mut(at) {
        weight.chunks_exact_mut(widths[0]).for_each(|row| row[observation..].fill(0.0));
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &AcaConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);

    let actor = actor_parameters(t, &config.hidden, sizes);
    let offline = frozen_copy(t, &actor);
    let residuals = residuals(t, &config.hidden, sizes);
    let held = frozen(&residuals.params);
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next, known) = (rows("observation"), rows("next_observation"), actions("action"));
    let prior = |observation, action| {
        let [mean, log_std] = policy(&offline, observation);
        let density = squashed_log_prob(mean, log_std, action);
        match config.printed {
            true => density,
            false => softly_clipped(density, clip_density(mean, log_std, config.clip), 1.0),
        }
    };
    let value = |params, observation, action| {
        aligned_q(prior(observation, action), residual_value(params, observation, Some(action), width))
    };

    let [mean, log_std] = policy(&actor, next);
    let then = squashed_gaussian(mean, log_std, actions("next_noise"));
    let next_q = least(value(&residuals.targets, next, then.action));
    let target = soft_target(row("reward"), row("discount"), next_q, then.log_prob, alpha).stop_gradient();
    let [critic_loss, q] = Critics::error(value(&residuals.params, observation, known), target);

    let [mean, log_std] = policy(&actor, observation);
    let now = squashed_gaussian(mean, log_std, actions("noise"));
    let fixed = least(value(&held, observation, now.action));
    let actor_loss = sac_actor(fixed, now.log_prob, alpha);
    let tempered = temperature(log_alpha, now.log_prob, -(width as f64));

    let weights = aikd_weights(t, sizes.teachers);
    let task = critic_loss + actor_loss + tempered;
    let loss = losses::transfer(&[], task, weights);
    let (lr, mix) = (t.data("lr", &[]), t.data("target_mix", &[]));
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("residual", config.adam, lr), &residuals.params, critic_loss);
    let of_actor = Optimiser::new("actor", config.adam, lr).clip(config.max_gradient);
    updates.minimise(&of_actor, &actor, actor_loss);
    updates.minimise(
        &Optimiser::new("temperature", config.adam, lr),
        &[("log_alpha".into(), log_alpha)],
        tempered,
    );
    updates.follow(&residuals.targets, &residuals.params, mix, 1);
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("prior", prior(observation, now.action).mean()),
        ("temperature", alpha),
        ("entropy", -now.log_prob.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &[], weights.share, q);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

/// Parameters that stay as the offline run had them: states whose names have `offline.` before a parameter's.
pub(super) fn frozen_copy<'t>(t: &'t Trace, params: &Params<'t>) -> Params<'t> {
    let copy = |(name, p): &(String, Tensor<'t>)| {
        let name = format!("offline.{name}");
        (name.clone(), t.state(name, &p.shape()))
    };
    params.iter().map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;
    use crate::algorithms::sac_ml::SacMlConfig;

    fn sizes() -> Sizes {
        Sizes { observation: 3, actions: Actions::Continuous(2), teachers: 0, weighted: false }
    }

    /// It begins with the offline run's policy, which stays, with R that is Z, and with a fresh temperature.
    #[test]
    fn an_offline_run_becomes_policy_prior_and_residual() {
        let rng = &mut Rng::new(4);
        let before =
            SacMlConfig { hidden: vec![5], batch_size: 2, initial_alpha: 0.5, ..SacMlConfig::default() };
        let before = before.agent(sizes(), &oto_cpu::Cpu, rng).unwrap();
        let run = before.engine().state().unwrap();
        let after = AcaConfig { hidden: vec![5], batch_size: 2, ..AcaConfig::default() };
        let mut after = after.agent(sizes(), &oto_cpu::Cpu, rng).unwrap();
        let find =
            |name: &str| run.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.values.clone());
        let adopted = after.adopt(&mut |name, _| find(name)).unwrap();
        assert!(adopted.copied.contains(&"offline.actor.0.weight".to_string()), "{adopted:?}");
        let state = after.engine().state().unwrap();
        let of = |name: &str| state.iter().find(|tensor| tensor.name == name).unwrap().values.clone();
        for name in ["0.weight", "mean.bias", "log_std.weight"] {
            let actor = find(&format!("actor.{name}")).unwrap();
            assert_eq!(
                (of(&format!("actor.{name}")), of(&format!("offline.actor.{name}"))),
                (actor.clone(), actor)
            );
        }
        assert_eq!(of("residual.0.weight"), find("residual.0.weight").unwrap());
        assert!(of("residual.0.weight").chunks(5).all(|row| row[3..] == [0.0; 2] && row[..3] != [0.0; 3]));
        assert_eq!((of("log_alpha"), find("log_alpha").unwrap()), (vec![0.0], vec![0.5f32.ln()]));
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: AcaConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        assert!(wrong(AcaConfig { clip: 0.0, ..AcaConfig::default() }).starts_with("algorithm.clip is 0"));
        let gradient = AcaConfig { max_gradient: f64::INFINITY, ..AcaConfig::default() };
        assert!(wrong(gradient).starts_with("algorithm.max_gradient is"));
    }
}
