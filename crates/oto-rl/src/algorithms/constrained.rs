//! What adaptive behaviour cloning, the refined TD3+BC and GCTD3BC have in common: TD3 whose actor stays near the data's actions, by a
//! weight that changes over the run. They differ in the number of critics, in the form of the actor's loss, and in what learns.

use super::td3::{CONSTRAINT, Constraint, Deterministic, Parts, act, noise, taught};
use super::{Agent, Sizes};
use crate::checks::Checks;
use crate::critics::{Critics, chosen, frozen, least, q_value};
use crate::engine::{LearnError, LossParts, aikd_weights};
use crate::exploration::ActionNoise;
use crate::losses;
use crate::losses::adaptive_policy::{gctd3bc, offline_mean, squared_distance};
use crate::losses::constraint::{constrained_actor, inverse_magnitude};
use crate::losses::deterministic::{bellman_target, smoothed_action};
use crate::losses::ensemble::mean_of_critics;
use crate::losses::offline::td3_bc_scale;
use crate::noise::SUBSET;
use crate::normaliser::Normaliser;
use crate::optimiser::{Adam, Optimiser, Updates, mlp_parameters};
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};

/// The form of the actor's loss.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// The constraint has the weight alpha, Q-values are over their mean size; without that as printed.
    Constrained { scaled: bool },
    /// Q-values have the weight alpha over their mean size, and the constraint holds for recorded rows.
    Greedy,
}

/// One of these methods.
pub(super) struct Recipe<'a> {
    pub hidden: &'a [usize],
    pub batch_size: usize,
    pub critics: usize,
    /// Critics whose smallest value is the target.
    pub subset: usize,
    /// Whether the actor sees the mean of all critics, or the first one's values.
    pub mean: bool,
    pub form: Form,
    /// The weight alpha.
    pub constraint: Constraint,
    /// Whether the critics stay as they are.
    pub frozen_critics: bool,
    pub normalise: bool,
    pub exploration: f64,
    pub smoothing: [f64; 2],
    /// Updates from one step of the actor and all target networks to the next.
    pub policy_period: u64,
    /// Actions for each state in OTO eq. 10.
    pub samples: usize,
    pub adam: Adam,
}

impl Recipe<'_> {
    /// Checks the settings that all of them have.
    pub fn check(&self, checks: &mut Checks) {
        checks.hidden(self.hidden);
        checks.batch_size(self.batch_size);
        let [smoothing, clip] = self.smoothing;
        checks.real("exploration", self.exploration, 0.0..=2.0, "0 to 2");
        checks.real("smoothing", smoothing, 0.0..=2.0, "0 to 2");
        checks.real("smoothing_clip", clip, 0.0..=2.0, "0 to 2");
        checks.whole("policy_period", self.policy_period, 1..=1024, "1 to 1024 updates");
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

    let widths = [&[sizes.observation], recipe.hidden, &[width]].concat();
    let [actor, target_actor] = ["actor.", "target.actor."].map(|prefix| mlp_parameters(t, prefix, &widths));
    let normalised = recipe.normalise.then(|| Normaliser::record(t, sizes.observation));
    let seen = |name: &str| match &normalised {
        Some(normalised) => normalised(rows(name)),
        None => rows(name),
    };
    let ensemble = Critics::continuous(t, n, sizes.observation, recipe.hidden, width);
    let (observation, next, known) = (seen("observation"), seen("next_observation"), actions("action"));

    let [sigma, clip] = recipe.smoothing;
    let then = smoothed_action(act(&target_actor, next), actions("next_noise"), sigma, clip, 1.0);
    let next_q = match recipe.subset < n {
        true => q_value(&chosen(&ensemble.targets, t.data(SUBSET, &[recipe.subset])), next, then),
        false => q_value(&ensemble.targets, next, then),
    };
    let target = bellman_target(row("reward"), row("discount"), least(next_q)).stop_gradient();
    let [critic_loss, q] = Critics::error(q_value(&ensemble.params, observation, known), target);

    let action = act(&actor, observation);
    let all = q_value(&frozen(&ensemble.params), observation, action);
    let q_pi = if recipe.mean { mean_of_critics(all) } else { all.member(0) };
    let alpha = t.data(CONSTRAINT, &[]);
    let actor_loss = match recipe.form {
        Form::Constrained { scaled } => {
            let scale = if scaled { inverse_magnitude(q_pi) } else { t.constant(1.0, &[]) };
            constrained_actor(q_pi, action, known, scale, alpha)
        }
        Form::Greedy => {
            let constraint = offline_mean(squared_distance(action, known), row("source"));
            gctd3bc(q_pi, constraint, td3_bc_scale(q_pi, 1.0) * alpha)
        }
    };

    let weights = aikd_weights(t, sizes.teachers);
    let aikd = taught(t, &ensemble, observation, action, recipe.samples, (sizes.teachers, weights));
    let loss = losses::transfer(&aikd, critic_loss + actor_loss, weights);

    let (lr, mix, period) = (t.data("lr", &[]), t.data("target_mix", &[]), recipe.policy_period);
    let mut updates = Updates::new(t);
    let of_critics = Optimiser::new("critics", recipe.adam, lr);
    // Frozen critics keep their moments, too, so that a run after this one has them.
    let of_critics = if recipe.frozen_critics { of_critics.when(t.constant(0.0, &[])) } else { of_critics };
    updates.minimise(&of_critics, &ensemble.params, loss);
    updates.minimise(&Optimiser::new("actor", recipe.adam, lr).every(period), &actor, loss);
    updates.follow(&ensemble.targets, &ensemble.params, mix, period);
    updates.follow(&target_actor, &actor, mix, period);

    let actor_loss = updates.hold("actor_loss", actor_loss, period);
    let task = critic_loss + actor_loss;
    let loss = losses::transfer(&aikd, task, weights);
    let own = [("actor_loss", actor_loss), ("critic_loss", critic_loss), ("constraint", alpha)];
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
    let parts = Parts {
        critics: recipe.critics,
        hidden: recipe.hidden,
        exploration: ActionNoise::new(recipe.exploration, Linear::constant(1.0), 0.0),
        policy_period: recipe.policy_period,
        actor_starts: None,
        normalised: recipe.normalise,
        constraint: recipe.constraint,
    };
    let noise = noise(recipe.batch_size, recipe.samples, sizes).with_subset(recipe.critics, recipe.subset);
    Ok(Box::new(Deterministic::new(program(recipe, sizes), parts, noise, sizes, backend, rng)?))
}
