//! What REDQ, RLPD, WSRL, GCQL and UPQ have in common: soft actor-critic with an ensemble of critics, whose actor sees their mean. They
//! differ in the target, in layer normalisation, in a conservative term for recorded data, and in the updates of the actor.

use super::sac::{Sac, actor_parameters, drawn, policy};
use super::td3::taught;
use super::{Agent, Sizes};
use crate::checks::Checks;
use crate::critics::{self, Base, Critics, Importance, chosen, each, frozen, least, q_value, sum, uniform};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::adaptive_policy::offline_mean;
use crate::losses::deterministic::bellman_target;
use crate::losses::ensemble::{lower_confidence, mean_of_critics, spread_of_critics};
use crate::losses::offline::out_of_distribution;
use crate::noise::{Noise, SUBSET, UNIFORM};
use crate::optimiser::{Adam, Optimiser, Updates};
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};

/// The critics' value of the next state.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// The smallest of this many critics, drawn for each update (Chen et al. 2021, algorithm 1).
    Subset(usize),
    /// The mean of all, less this multiple of their standard deviation (UPQ).
    LowerConfidence(f64),
}

/// CQL's term, for the recorded rows of a batch.
#[derive(Clone, Copy)]
pub(super) struct Conservative {
    pub weight: f64,
    /// Actions from a uniform distribution, from the policy and from the policy at the next state each.
    pub samples: usize,
}

/// One of these methods.
pub(super) struct Recipe<'a> {
    pub hidden: &'a [usize],
    pub batch_size: usize,
    pub critics: usize,
    pub target: Target,
    /// Whether the target has the next action's entropy.
    pub entropy_backup: bool,
    pub layer_norm: bool,
    pub conservative: Option<Conservative>,
    /// Updates from one step of actor and temperature to the next.
    pub policy_period: u64,
    /// Factor of the run's learning rate for actor and temperature.
    pub actor_rate: f64,
    /// The target of the policy's entropy, for each component of an action.
    pub target_entropy: f64,
    pub initial_alpha: f64,
    /// Actions for each state in OTO eq. 10.
    pub samples: usize,
    pub adam: Adam,
}

impl Recipe<'_> {
    /// Checks the settings that all of them have, and those of the target and of the conservative term.
    pub fn check(&self, checks: &mut Checks) {
        checks.hidden(self.hidden);
        checks.batch_size(self.batch_size);
        let critics = self.critics as u64;
        match self.target {
            Target::Subset(subset) => {
                checks.whole("critics", critics, 1..=512, "1 to 512 critics");
                checks.subset(subset, self.critics);
            }
            Target::LowerConfidence(beta) => {
                let expected = "2 to 512 critics: one alone has no standard deviation";
                checks.whole("critics", critics, 2..=512, expected);
                checks.real("beta", beta, 0.0..=1e3, "0 to 1000 standard deviations");
            }
        }
        if let Some(Conservative { weight, samples }) = self.conservative {
            checks.weight("weight", weight);
            checks.whole("conservative_samples", samples as u64, 1..=256, "1 to 256 actions a state");
        }
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub(super) fn program(recipe: &Recipe<'_>, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width, n) = (recipe.batch_size, sizes.actions.width(), recipe.critics);
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);

    let actor = actor_parameters(t, recipe.hidden, sizes);
    let widths = [&[sizes.observation + width], recipe.hidden, &[1]].concat();
    let ensemble = Critics::normalised(t, n, &widths, recipe.layer_norm);
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next) = (rows("observation"), rows("next_observation"));

    let [mean, log_std] = policy(&actor, next);
    let then = squashed_gaussian(mean, log_std, actions("next_noise"));
    let next_q = match recipe.target {
        Target::Subset(count) if count < n => {
            least(q_value(&chosen(&ensemble.targets, t.data(SUBSET, &[count])), next, then.action))
        }
        Target::Subset(_) => least(q_value(&ensemble.targets, next, then.action)),
        Target::LowerConfidence(beta) => {
            lower_confidence(q_value(&ensemble.targets, next, then.action), beta)
        }
    };
    let target = match recipe.entropy_backup {
        true => soft_target(row("reward"), row("discount"), next_q, then.log_prob, alpha),
        false => bellman_target(row("reward"), row("discount"), next_q),
    };
    let target = target.stop_gradient();
    let values = q_value(&ensemble.params, observation, actions("action"));
    let importance = Importance::new(t, sizes, batch);
    let [critic_loss, q] = Critics::weighted_error(values, target, importance);

    let [mean, log_std] = policy(&actor, observation);
    let now = squashed_gaussian(mean, log_std, actions("noise"));
    let fixed = q_value(&frozen(&ensemble.params), observation, now.action);
    let acted = sac_actor(mean_of_critics(fixed), now.log_prob, alpha);
    let tempered = temperature(log_alpha, now.log_prob, width as f64 * recipe.target_entropy);

    let base = recipe.conservative.map(|Conservative { samples, .. }| {
        let many = [batch, samples];
        let draws = [
            uniform(t, batch, samples, width),
            drawn(&actor, observation, "sample_noise", many, width),
            drawn(&actor, next, "next_sample_noise", many, width),
        ];
        Base::new(ensemble.params.clone(), observation, &draws)
    });
    let conservative = base.as_ref().zip(recipe.conservative).map(|(base, term)| {
        let offline = row("source");
        let one = |(groups, q): (&Vec<_>, _)| offline_mean(out_of_distribution(groups, 1.0) - q, offline);
        let terms = base.groups().iter().zip(each(values)).map(one).collect::<Vec<_>>();
        sum(&terms) * term.weight
    });

    let weights = aikd_weights(t, sizes.teachers);
    let action = mean.tanh();
    let aikd = match &base {
        // Both terms share the sampled actions.
        Some(base) => critics::labelled(t, "", sizes.teachers, &[batch, width], |labels, perm| {
            losses::aikd_continuous(base.of(labels), action, labels, perm, weights)
        }),
        None => taught(t, &ensemble, observation, action, recipe.samples, (sizes.teachers, weights)),
    };
    let learnt = conservative.map_or(critic_loss, |term| critic_loss + term);
    let loss = losses::transfer(&aikd, learnt + acted + tempered, weights);

    let (lr, mix, period) = (t.data("lr", &[]), t.data("target_mix", &[]), recipe.policy_period);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("critics", recipe.adam, lr), &ensemble.params, loss);
    let of_actor = Optimiser::new("actor", recipe.adam, lr * recipe.actor_rate).every(period);
    let moved = [&actor[..], &[("log_alpha".into(), log_alpha)]].concat();
    updates.minimise(&of_actor, &moved, loss);
    updates.follow(&ensemble.targets, &ensemble.params, mix, 1);

    let acted = updates.hold("actor_loss", acted, period);
    let tempered = updates.hold("temperature_term", tempered, period);
    let entropy = updates.hold("entropy", -now.log_prob.mean(), period);
    let task = learnt + acted + tempered;
    let loss = losses::transfer(&aikd, task, weights);
    let mut own = vec![
        ("actor_loss", acted),
        ("critic_loss", critic_loss),
        ("temperature", alpha),
        ("entropy", entropy),
    ];
    if n > 1 {
        own.push(("spread", spread_of_critics(values).mean()));
    }
    own.extend(conservative.map(|term| ("conservative", term)));
    own.extend(importance.output(values, target));
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

/// An agent of this recipe with parameters drawn from `rng`.
pub(super) fn agent(
    recipe: &Recipe<'_>,
    sizes: Sizes,
    backend: &dyn Backend,
    rng: &mut Rng,
) -> Result<Box<dyn Agent>, LearnError> {
    let rows = recipe.batch_size;
    let mut names = vec![("noise", rows), ("next_noise", rows)];
    let conservative = recipe.conservative.map(|term| rows * term.samples);
    // Teachers' sampled actions and those of the conservative term have inputs of one name.
    match conservative {
        Some(many) => names.extend([(UNIFORM, many), ("sample_noise", many), ("next_sample_noise", many)]),
        None if sizes.teachers > 0 => names.push((UNIFORM, rows * recipe.samples)),
        None => {}
    }
    let noise = Noise::new(names, sizes.actions.width());
    let noise = match recipe.target {
        Target::Subset(count) => noise.with_subset(recipe.critics, count),
        Target::LowerConfidence(_) => noise,
    };
    let critics = (recipe.critics, recipe.initial_alpha);
    Ok(Box::new(Sac::of(program(recipe, sizes), (None, recipe.hidden), critics, noise, sizes, backend, rng)?))
}
