//! Twin critics and the teachers' BASE term on them: what soft actor-critic and PPO's fusion policy have in common.

use crate::losses::{self, Aikd, Labels, actor_critic::critic};
use crate::optimiser::{initial_layer, mlp, mlp_parameters};
use oto_env::rng::Rng;
use oto_graph::{Activation, Tensor, Trace};

/// Parameters by name.
pub(crate) type Params<'t> = Vec<(String, Tensor<'t>)>;
/// Initial values by name.
pub(crate) type Drawn = Vec<(String, Vec<f32>)>;

/// The critics' names.
const CRITICS: [&str; 2] = ["q1.", "q2."];

/// Two critics and the slow copies that their targets come from.
pub(crate) struct Twins<'t> {
    pub critics: [Params<'t>; 2],
    pub targets: [Params<'t>; 2],
}

impl<'t> Twins<'t> {
    /// Critics with a value for each of so many actions.
    pub fn discrete(t: &'t Trace, observation: usize, hidden: &[usize], actions: usize) -> Self {
        let widths = [&[observation], hidden, &[actions]].concat();
        Self::named(|prefix| mlp_parameters(t, prefix, &widths))
    }

    /// Critics of observation and action: their first layer has a weight for each.
    pub fn continuous(t: &'t Trace, observation: usize, hidden: &[usize], action: usize) -> Self {
        let widths = [&[observation], hidden, &[1]].concat();
        Self::named(|prefix| {
            let mut params = mlp_parameters(t, prefix, &widths);
            let name = format!("{prefix}0.action");
            params.push((name.clone(), t.state(name, &[hidden[0], action])));
            params
        })
    }

    fn named(make: impl Fn(&str) -> Params<'t>) -> Self {
        Self { critics: CRITICS.map(&make), targets: CRITICS.map(|prefix| make(&format!("target.{prefix}"))) }
    }

    /// What either critic gets wrong, added up; and their mean Q. Each value and the target is `[B]`.
    pub fn error(values: [Tensor<'t>; 2], target: Tensor<'t>) -> [Tensor<'t>; 2] {
        [critic(values[0], target) + critic(values[1], target), (values[0] + values[1]).mean() * 0.5]
    }

    /// The targets follow the critics' new values, which are among `updates`.
    pub fn follow(&self, updates: &mut Vec<(Tensor<'t>, Tensor<'t>)>, mix: Tensor<'t>) {
        for ((_, target), (_, p)) in self.targets.iter().flatten().zip(self.critics.iter().flatten()) {
            let new = updates.iter().find(|(old, _)| old.id() == p.id());
            let new = new.expect("every parameter is updated").1;
            updates.push((*target, target.polyak(new, mix)));
        }
    }
}

/// Q-values `[B]` of observations `[B, O]` and actions `[B, D]`.
pub(crate) fn q_value<'t>(
    params: &[(String, Tensor<'t>)],
    observation: Tensor<'t>,
    action: Tensor<'t>,
) -> Tensor<'t> {
    let (acting, layers) = params.split_last().expect("a critic has parameters");
    let (first, rest) = layers.split_at(2);
    let seen = observation.linear(first[0].1, first[1].1, Activation::Identity);
    let hidden = (seen + action.matmul(acting.1, false, true)).relu();
    mlp(rest, hidden, Activation::Relu).reshape(&[observation.size(0)])
}

/// Q-values `[B, A]` of observations `[B, O]`.
pub(crate) fn q_values<'t>(params: &[(String, Tensor<'t>)], observation: Tensor<'t>) -> Tensor<'t> {
    mlp(params, observation, Activation::Relu)
}

/// The same values, which no gradient reaches.
pub(crate) fn frozen<'t>(params: &[(String, Tensor<'t>)]) -> Params<'t> {
    params.iter().map(|(name, p)| (name.clone(), p.stop_gradient())).collect()
}

/// Each row `count` times, one after the other: `[B, W]` gives `[B * count, W]`.
pub(crate) fn repeated(x: Tensor<'_>, count: usize) -> Tensor<'_> {
    let (rows, width) = (x.size(0), x.size(1));
    x.reshape(&[rows, 1, width]).broadcast(&[rows, count, width]).reshape(&[rows * count, width])
}

/// Teacher `i`'s part of what all gave, of this shape.
fn teacher<'t>(x: Tensor<'t>, i: usize, shape: &[usize]) -> Tensor<'t> {
    x.rows(x.trace().constant(i as f64, &[1])).reshape(shape)
}

/// What each of `count` teachers' labels gives, its actions being of this shape, the batch first; records the inputs they are
/// read from, whose names begin with `prefix`.
pub(crate) fn labelled<'t>(
    t: &'t Trace,
    prefix: &str,
    count: usize,
    shape: &[usize],
    aikd: impl Fn(Labels<'t>, Tensor<'t>) -> Aikd<'t>,
) -> Vec<Aikd<'t>> {
    if count == 0 {
        return Vec::new();
    }
    let batch = shape[0];
    let actions = t.data(format!("{prefix}teacher_action"), &[&[count], shape].concat());
    let masks = t.data(format!("{prefix}mask"), &[count, batch]);
    let perm = t.data(format!("{prefix}perm"), &[batch]);
    let one = |i| Labels { action: teacher(actions, i, shape), mask: teacher(masks, i, &[batch]) };
    (0..count).map(|i| aikd(one(i), perm)).collect()
}

/// Actions that stand for all in OTO eq. 10: how they were drawn, `count` for each state.
pub(crate) struct Draw<'t> {
    /// `[B * count, D]`.
    pub action: Tensor<'t>,
    /// The log density they were drawn with, `[B, count]`.
    pub log_density: Tensor<'t>,
}

impl<'t> Draw<'t> {
    /// What a critic says of these actions at observations `[B, O]`, and their log density, `[B, count]`.
    pub fn group(&self, critic: &Params<'t>, observation: Tensor<'t>) -> (Tensor<'t>, Tensor<'t>) {
        let shape = self.log_density.shape();
        let q = q_value(critic, repeated(observation, shape[1]), self.action);
        (q.reshape(&shape), self.log_density)
    }
}

/// So many actions for each of `batch` states, evenly from the whole range.
pub(crate) fn uniform<'t>(t: &'t Trace, batch: usize, count: usize, width: usize) -> Draw<'t> {
    let flat = -(width as f64) * std::f64::consts::LN_2;
    Draw {
        action: t.data("uniform", &[batch * count, width]),
        log_density: t.constant(flat, &[batch, count]),
    }
}

/// OTO eq. 10 on twin critics of continuous actions.
pub(crate) struct Base<'t> {
    critics: [Params<'t>; 2],
    observation: Tensor<'t>,
    /// For each critic, Q of each draw's actions and their log density, `[B, M]`.
    groups: [Vec<(Tensor<'t>, Tensor<'t>)>; 2],
}

impl<'t> Base<'t> {
    /// For observations `[B, O]` and the actions drawn for each.
    pub fn new(critics: [Params<'t>; 2], observation: Tensor<'t>, draws: &[Draw<'t>]) -> Self {
        let groups = [0, 1].map(|i| draws.iter().map(|draw| draw.group(&critics[i], observation)).collect());
        Self { critics, observation, groups }
    }

    /// Q of each draw's actions and their log density, `[B, M]`, for either critic.
    pub fn groups(&self) -> &[Vec<(Tensor<'t>, Tensor<'t>)>; 2] {
        &self.groups
    }

    /// One teacher's term, the mean over both critics, for its actions `[B, D]`.
    pub fn of(&self, labels: Labels<'t>) -> Tensor<'t> {
        let one = |i: usize| {
            let taught = q_value(&self.critics[i], self.observation, labels.action);
            losses::masked_mean(losses::aikd_base_sampled(&self.groups[i], taught), labels.mask)
        };
        (one(0) + one(1)) * 0.5
    }
}

/// Initial values of a network of these widths.
pub(crate) fn initial_mlp(rng: &mut Rng, prefix: &str, widths: &[usize], drawn: &mut Drawn) {
    for (i, pair) in widths.windows(2).enumerate() {
        let (weight, bias) = initial_layer(rng, pair[0], pair[1]);
        drawn.extend([(format!("{prefix}{i}.weight"), weight), (format!("{prefix}{i}.bias"), bias)]);
    }
}

/// Initial values of [`Twins::discrete`].
pub(crate) fn initial_discrete(
    rng: &mut Rng,
    observation: usize,
    hidden: &[usize],
    actions: usize,
    drawn: &mut Drawn,
) {
    let widths = [&[observation], hidden, &[actions]].concat();
    CRITICS.iter().for_each(|prefix| initial_mlp(rng, prefix, &widths, drawn));
}

/// Initial values of [`Twins::continuous`]: a critic's first layer is drawn for observation and action together.
pub(crate) fn initial_continuous(
    rng: &mut Rng,
    observation: usize,
    hidden: &[usize],
    action: usize,
    drawn: &mut Drawn,
) {
    let widths = [&[observation + action], hidden, &[1]].concat();
    for prefix in CRITICS {
        let first = drawn.len();
        initial_mlp(rng, prefix, &widths, drawn);
        let rows = drawn[first].1.chunks_exact(observation + action).map(|row| row.split_at(observation));
        let (seen, acting): (Vec<_>, Vec<_>) = rows.unzip();
        let parts = (seen.concat(), acting.concat());
        drawn[first].1 = parts.0;
        drawn.push((format!("{prefix}0.action"), parts.1));
    }
}

/// The initial value that an input takes: a target's is its critic's. None where nothing was drawn for it.
pub(crate) fn initial(drawn: &Drawn, input: &str) -> Option<Vec<f32>> {
    let name = input.strip_prefix("target.").unwrap_or(input);
    drawn.iter().find(|(n, _)| n == name).map(|(_, values)| values.clone())
}
