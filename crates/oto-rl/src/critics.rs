//! Critics: an ensemble of networks of one shape, their slow copies, and the teachers' BASE term on them. What soft actor-critic and
//! PPO's fusion policy have in common.

use crate::algorithms::Sizes;
use crate::engine::{COPIES, TD_ERROR};
use crate::losses::{self, Aikd, Labels};
use crate::optimiser::{ensemble_parameters, initial_layer, mlp};
use oto_env::rng::Rng;
use oto_graph::{Activation, Tensor, Trace};

/// Parameters by name.
pub(crate) type Params<'t> = Vec<(String, Tensor<'t>)>;
/// Initial values by name.
pub(crate) type InitialParameters = Vec<(String, Vec<f32>)>;

/// The prefix of the critics' parameters; their target networks have `target.` before it.
const CRITICS: &str = "critics.";

/// N critics and the slow copies that their targets come from: parameters `[N, ...]`.
pub(crate) struct Critics<'t> {
    pub params: Params<'t>,
    pub targets: Params<'t>,
}

impl<'t> Critics<'t> {
    /// `count` critics with a value for each of `actions` actions.
    pub fn discrete(
        t: &'t Trace,
        count: usize,
        observation: usize,
        hidden: &[usize],
        actions: usize,
    ) -> Self {
        let widths = [&[observation], hidden, &[actions]].concat();
        Self::named(|prefix| ensemble_parameters(t, prefix, count, &widths))
    }

    /// `count` critics of observation and action side by side.
    pub fn continuous(
        t: &'t Trace,
        count: usize,
        observation: usize,
        hidden: &[usize],
        action: usize,
    ) -> Self {
        Self::discrete(t, count, observation + action, hidden, 1)
    }

    #[cfg(feature = "every-algorithm")]
    /// The same with layer normalisation before each activation, if `normalised`: gains and shifts are parameters beside each layer's
    /// weights, a gain as its difference from 1.
    pub fn normalised(t: &'t Trace, count: usize, widths: &[usize], normalised: bool) -> Self {
        let norm = |prefix: &str, i: usize, width: usize| {
            ["gain", "shift"].map(|part| {
                let name = format!("{prefix}{i}.norm.{part}");
                (name.clone(), t.state(name, &[count, width]))
            })
        };
        Self::named(|prefix| {
            let layers = ensemble_parameters(t, prefix, count, widths);
            let hidden = widths.len() - 2;
            let each = layers.chunks_exact(2).enumerate();
            each.flat_map(|(i, layer)| match normalised && i < hidden {
                true => [layer, &norm(prefix, i, widths[i + 1])].concat(),
                false => layer.to_vec(),
            })
            .collect()
        })
    }

    fn named(make: impl Fn(&str) -> Params<'t>) -> Self {
        Self { params: make(CRITICS), targets: make(&format!("target.{CRITICS}")) }
    }

    /// The sum of all critics' errors; and their mean Q. Values `[N, B]`, the target `[B]`.
    pub fn error(values: Tensor<'t>, target: Tensor<'t>) -> [Tensor<'t>; 2] {
        let errors = (values - target).square();
        [errors.mean_last().sum(), values.mean()]
    }

    /// The same, each row's error times its importance weight.
    pub fn weighted_error(
        values: Tensor<'t>,
        target: Tensor<'t>,
        importance: Importance<'t>,
    ) -> [Tensor<'t>; 2] {
        let errors = importance.weigh((values - target).square());
        [errors.mean_last().sum(), values.mean()]
    }

    /// The targets follow the critics' new values, which are among `updates`.
    pub fn follow(&self, updates: &mut Vec<(Tensor<'t>, Tensor<'t>)>, mix: Tensor<'t>) {
        follow(&self.params, &self.targets, updates, mix);
    }
}

/// Slow copies follow their parameters' new values, which are among `updates`.
pub(crate) fn follow<'t>(
    params: &[(String, Tensor<'t>)],
    targets: &[(String, Tensor<'t>)],
    updates: &mut Vec<(Tensor<'t>, Tensor<'t>)>,
    mix: Tensor<'t>,
) {
    for ((_, target), (_, p)) in targets.iter().zip(params) {
        let new = updates.iter().find(|(old, _)| old.id() == p.id());
        let new = new.expect("every parameter is updated").1;
        updates.push((*target, target.polyak(new, mix)));
    }
}

/// The importance weights `[B]` of a batch's rows, where replay is prioritised: they undo the bias of sampling by priority (Schaul et
/// al. 2016, section 3.4).
#[derive(Clone, Copy)]
pub(crate) struct Importance<'t>(Option<Tensor<'t>>);

impl<'t> Importance<'t> {
    /// For so many rows; records the input `weights` where these sizes ask for it.
    pub fn new(t: &'t Trace, sizes: Sizes, batch: usize) -> Self {
        Self(sizes.weighted.then(|| t.data("weights", &[batch])))
    }

    /// Each row's error times its weight: errors `[.., B]`.
    pub fn weigh(self, errors: Tensor<'t>) -> Tensor<'t> {
        self.0.map_or(errors, |weights| errors * weights)
    }

    /// The output [`TD_ERROR`], where it is asked for: the mean over the critics of each row's absolute error, from values `[N, B]` and
    /// their target `[B]`.
    pub fn output(self, values: Tensor<'t>, target: Tensor<'t>) -> Option<(&'static str, Tensor<'t>)> {
        self.0?;
        let errors = (values - target).abs();
        Some((TD_ERROR, sum(&each(errors)) * (1.0 / values.size(0) as f64)))
    }
}

/// Q-values `[N, B]` of observations `[B, O]` and actions `[B, D]`.
pub(crate) fn q_value<'t>(
    params: &[(String, Tensor<'t>)],
    observation: Tensor<'t>,
    action: Tensor<'t>,
) -> Tensor<'t> {
    let x = observation.concat(action);
    #[cfg(feature = "every-algorithm")]
    if params.iter().any(|(name, _)| name.ends_with(NORM_GAIN)) {
        let q = normalised_network(params, x);
        return q.reshape(&[q.size(0), q.size(1)]);
    }
    let q = mlp(params, x, Activation::Relu);
    q.reshape(&[q.size(0), q.size(1)])
}

#[cfg(feature = "every-algorithm")]
/// How the name of a layer normalisation's gain ends.
const NORM_GAIN: &str = ".norm.gain";
#[cfg(feature = "every-algorithm")]
/// The number under the root of layer normalisation, as in RLPD's code (flax).
const NORM_EPSILON: f64 = 1e-6;

#[cfg(feature = "every-algorithm")]
/// The networks of [`Critics::normalised`] for inputs `[B, W]`: `[N, B, 1]`.
fn normalised_network<'t>(params: &[(String, Tensor<'t>)], x: Tensor<'t>) -> Tensor<'t> {
    let (hidden, last) = params.split_at(params.len() - 2);
    let over_rows = |p: Tensor<'t>| p.reshape(&[p.size(0), 1, p.size(1)]);
    let layer = |x: Tensor<'t>, p: &[(String, Tensor<'t>)]| {
        let z = x.linear(p[0].1, p[1].1, Activation::Identity).layer_norm(NORM_EPSILON);
        (z * (over_rows(p[2].1) + 1.0) + over_rows(p[3].1)).relu()
    };
    let x = hidden.chunks_exact(4).fold(x, layer);
    x.linear(last[0].1, last[1].1, Activation::Identity)
}

#[cfg(feature = "every-algorithm")]
/// The networks at these places `[M]` of an ensemble, in its order.
pub(crate) fn chosen<'t>(params: &[(String, Tensor<'t>)], places: Tensor<'t>) -> Params<'t> {
    let rows = |p: Tensor<'t>| {
        let (mut shape, count) = (p.shape(), p.size(0));
        let flat = p.reshape(&[count, shape.iter().product::<usize>() / count]).rows(places);
        shape[0] = places.size(0);
        flat.reshape(&shape)
    };
    params.iter().map(|(name, p)| (name.clone(), rows(*p))).collect()
}

/// Q-values `[N, B, A]` of observations `[B, O]`.
pub(crate) fn q_values<'t>(params: &[(String, Tensor<'t>)], observation: Tensor<'t>) -> Tensor<'t> {
    mlp(params, observation, Activation::Relu)
}

/// The Q-values `[N, B]` of actions `[B]` among those of all actions `[N, B, A]`.
pub(crate) fn picked<'t>(q: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    let [n, batch, actions] = q.shape()[..] else { panic!("an ensemble's values of all actions") };
    let action = action.broadcast(&[n, batch]).reshape(&[n * batch]);
    q.reshape(&[n * batch, actions]).pick(action).reshape(&[n, batch])
}

/// What each critic says, of what all say `[N, ...]`.
pub(crate) fn each<'t>(q: Tensor<'t>) -> Vec<Tensor<'t>> {
    (0..q.size(0)).map(|i| q.member(i)).collect()
}

/// The smallest of what all critics say `[N, ...]`, place by place.
pub(crate) fn least<'t>(q: Tensor<'t>) -> Tensor<'t> {
    each(q).into_iter().reduce(Tensor::minimum).expect("at least one critic")
}

/// The sum of what all critics say, place by place.
pub(crate) fn sum<'t>(values: &[Tensor<'t>]) -> Tensor<'t> {
    values.iter().copied().reduce(|a, b| a + b).expect("at least one critic")
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
pub(crate) struct SampledActions<'t> {
    /// `[B * count, D]`.
    pub action: Tensor<'t>,
    /// The log density they were drawn with, `[B, count]`.
    pub log_density: Tensor<'t>,
}

impl<'t> SampledActions<'t> {
    /// What each critic says of these actions at observations `[B, O]`, and their log density, `[B, count]`.
    pub fn groups(&self, critics: &Params<'t>, observation: Tensor<'t>) -> Vec<(Tensor<'t>, Tensor<'t>)> {
        let shape = self.log_density.shape();
        let q = q_value(critics, repeated(observation, shape[1]), self.action);
        each(q).into_iter().map(|q| (q.reshape(&shape), self.log_density)).collect()
    }
}

/// So many actions for each of `batch` states, evenly from the whole range.
pub(crate) fn uniform<'t>(t: &'t Trace, batch: usize, count: usize, width: usize) -> SampledActions<'t> {
    let flat = -(width as f64) * std::f64::consts::LN_2;
    SampledActions {
        action: t.data("uniform", &[batch * count, width]),
        log_density: t.constant(flat, &[batch, count]),
    }
}

/// OTO eq. 10 on critics of continuous actions.
pub(crate) struct Base<'t> {
    critics: Params<'t>,
    observation: Tensor<'t>,
    /// For each critic, Q of each draw's actions and their log density, `[B, M]`.
    groups: Vec<Vec<(Tensor<'t>, Tensor<'t>)>>,
}

impl<'t> Base<'t> {
    /// For observations `[B, O]` and the actions drawn for each.
    pub fn new(critics: Params<'t>, observation: Tensor<'t>, draws: &[SampledActions<'t>]) -> Self {
        let of_draws = draws.iter().map(|draw| draw.groups(&critics, observation)).collect::<Vec<_>>();
        let count = critics[0].1.size(0);
        let groups = (0..count).map(|i| of_draws.iter().map(|of| of[i]).collect()).collect();
        Self { critics, observation, groups }
    }

    /// For each critic, what [`SampledActions::groups`] gives for each draw.
    pub fn groups(&self) -> &[Vec<(Tensor<'t>, Tensor<'t>)>] {
        &self.groups
    }

    /// One teacher's term, the mean over the critics, for its actions `[B, D]`.
    pub fn of(&self, labels: Labels<'t>) -> Tensor<'t> {
        let taught = each(q_value(&self.critics, self.observation, labels.action));
        let one = |(groups, q): (&Vec<_>, Tensor<'t>)| {
            losses::masked_mean(losses::aikd_base_sampled(groups, q), labels.mask)
        };
        let count = taught.len();
        let each = self.groups.iter().zip(taught).map(one).collect::<Vec<_>>();
        sum(&each) * (1.0 / count as f64)
    }
}

/// Initial values of a network of these widths.
pub(crate) fn initial_mlp(
    rng: &mut Rng,
    prefix: &str,
    widths: &[usize],
    initial_values: &mut InitialParameters,
) {
    for (i, pair) in widths.windows(2).enumerate() {
        let (weight, bias) = initial_layer(rng, pair[0], pair[1]);
        initial_values.extend([(format!("{prefix}{i}.weight"), weight), (format!("{prefix}{i}.bias"), bias)]);
    }
}

/// Initial values of `count` critics of these widths, critic after critic.
pub(crate) fn initial_critics(
    rng: &mut Rng,
    count: usize,
    widths: &[usize],
    initial_values: &mut InitialParameters,
) {
    initial_ensemble(rng, CRITICS, count, widths, initial_values);
}

/// Initial values of `count` networks of these widths, network after network.
pub(crate) fn initial_ensemble(
    rng: &mut Rng,
    prefix: &str,
    count: usize,
    widths: &[usize],
    initial_values: &mut InitialParameters,
) {
    let network = |_| {
        let mut values = InitialParameters::new();
        initial_mlp(rng, prefix, widths, &mut values);
        values
    };
    initial_values.extend(side_by_side((0..count).map(network)));
}

/// The values of several networks of one shape, each parameter's one after the other.
fn side_by_side(networks: impl Iterator<Item = InitialParameters>) -> InitialParameters {
    let join = |mut all: InitialParameters, next: InitialParameters| {
        all.iter_mut().zip(next).for_each(|((_, all), (_, next))| all.extend(next));
        all
    };
    networks.reduce(join).unwrap_or_default()
}

/// The initial value that an input takes: a target's is its critic's. None where nothing was drawn for it.
pub(crate) fn initial(initial_values: &InitialParameters, input: &str) -> Option<Vec<f32>> {
    let name = COPIES.iter().find_map(|prefix| input.strip_prefix(prefix)).unwrap_or(input);
    initial_values.iter().find(|(n, _)| n == name).map(|(_, values)| values.clone())
}
