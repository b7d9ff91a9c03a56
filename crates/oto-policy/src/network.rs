//! Policies of Stable-Baselines3, of sb3-contrib and of oto as native networks, recognised by the names of their tensors.
//!
//! | tensors | algorithms | hidden | answer |
//! | --- | --- | --- | --- |
//! | `mlp_extractor.shared_net.N`, `mlp_extractor.policy_net.N`, `action_net` | PPO, A2C, TRPO, MaskablePPO | tanh | largest logit; with `log_std` the mean, clipped |
//! | `actor.latent_pi.N`, `actor.mu` | SAC, TQC | relu | tanh of the mean, scaled to the action range |
//! | `actor.mu.N` | TD3, DDPG | relu | tanh, scaled to the action range |
//! | `q_net.q_net.N` | DQN | relu | largest value |
//! | `quantile_net.quantile_net.N` | QR-DQN | relu | largest mean over quantiles |
//! | `action_net.N` | ARS | relu | largest score, or tanh scaled to the action range; a single layer is clipped |
//! | `mean.N` | oto's own PPO students | tanh | the action, clipped |
//! | `policy.N` | oto's own students and teachers | relu | largest value, or tanh scaled to the action range |
//!
//! oto's own may see images: convolutions `policy.encoder.N` or `mean.encoder.N` before the layers, whose sizes the metadata give.
//!
//! Recurrent ones have LSTM layers before these: `lstm_actor.weight_ih_l0`, ... (RecurrentPPO), or `policy.lstm.N.weight_ih`, ... behind
//! `policy.before.N` (oto's own).

use crate::facts::Hints;
use crate::spaces::{self, ActionShape, Input};
use crate::steps::Steps;
use crate::tensors::{StateDict, Tensor};
use crate::{Metadata, OWN, Output, Policy, PolicyError, ROWS_PER_RUN, argmax, candle, fit_actions};
use oto_proto::{MAX_WIDTH, Space};
use oto_rl::convolution::{ConvEncoder, Convolution};
use oto_rl::lstm::{self, Lstm};
use oto_rl::mlp::{Activation, Layer, Mlp};
use oto_rl::network::Actor;

/// A network and what makes an action of its output.
pub struct Network {
    input: Input,
    action: Space,
    body: Body,
    /// Numbers of an answer, before the head.
    width: usize,
    head: Head,
    values: Vec<f32>,
    /// States of rows that begin episodes, where the network is recurrent.
    fresh: Vec<f32>,
    warnings: Vec<String>,
}

/// What computes the numbers.
struct Body {
    own: Own,
    /// The same on candle's layers, for the rows that they are faster with.
    candle: Option<candle::Network>,
    engine: String,
}

/// oto's own layers.
enum Own {
    /// Convolutions and what follows them, image by image as a student computes them.
    Seeing(Actor),
    /// Layers, for many rows at once.
    Layers(Steps),
    /// With a state for each row.
    Recurrent(Actor),
}

impl Body {
    fn new(network: Actor) -> Result<Self, PolicyError> {
        let width = network.inputs();
        if !network.state().is_empty() {
            return Ok(Body { own: Own::Recurrent(network), candle: None, engine: OWN.into() });
        }
        let (mut own, opened) = match (Steps::of(network.layers()), network.encoder()) {
            (None, _) => (Own::Seeing(network), None),
            (Some(layers), Some(encoder)) => {
                let opened = candle::Network::open(Some(encoder), &layers, width)?;
                (Own::Seeing(network), opened)
            }
            (Some(layers), None) => {
                let opened = candle::Network::open(None, &layers, width)?;
                (Own::Layers(layers), opened)
            }
        };
        let (candle, engine) = match opened {
            Some(opened) => opened.chosen(|rows| own.forward(rows).to_vec())?,
            None => (None, OWN.into()),
        };
        Ok(Body { own, candle, engine })
    }

    fn forward(&mut self, rows: &[f32], states: &mut [f32]) -> Result<&[f32], PolicyError> {
        match (&mut self.candle, &mut self.own) {
            (Some(candle), _) if candle.takes(rows) => candle.forward(rows),
            (_, Own::Recurrent(network)) => Ok(network.forward_from(rows, states)),
            (_, own) => Ok(own.forward(rows)),
        }
    }

    fn state_width(&self) -> usize {
        match &self.own {
            Own::Recurrent(network) => network.state().len(),
            Own::Seeing(_) | Own::Layers(_) => 0,
        }
    }
}

impl Own {
    fn forward(&mut self, rows: &[f32]) -> &[f32] {
        match self {
            Own::Seeing(network) | Own::Recurrent(network) => network.forward(rows),
            Own::Layers(layers) => layers.forward(rows),
        }
    }
}

/// What the output of the last layer means.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Head {
    /// A preference for each choice, under this name.
    Choices(&'static str),
    /// So many quantiles of the return of each choice, `[quantiles, choices]`.
    Quantiles(usize),
    /// The action, where it lies in the range.
    Mean,
    /// Its tanh is the action, scaled to the range; clipped to plus and minus this before.
    Squashed(f32),
}

/// Stable-Baselines3 clips the mean to this under generalised state-dependent exploration (`sac/policies.py`,
/// `clip_mean`), if a model zip does not say otherwise.
const SDE_CLIP_MEAN: f32 = 2.0;

impl Network {
    /// Recognises the policy in `dict`.
    ///
    /// # Errors
    /// If the layout is not known, its layers do not fit, a tensor is left over, or `metadata` contradict it or lack what it needs.
    pub(crate) fn new(dict: &StateDict, metadata: &Metadata, hints: Hints) -> Result<Self, PolicyError> {
        let parts = recognise(dict, metadata, hints)?;
        unused(dict, &parts)?;
        if !hints.activation_known {
            declared(&parts, metadata)?;
        }
        Self::of(parts, metadata)
    }

    /// The network that an oto student or teacher acts with: a preference for each choice where `metadata` declare a discrete
    /// action space, otherwise an action before its tanh.
    ///
    /// # Errors
    /// If `metadata` contradict it or lack what it needs.
    pub fn acting(network: &Actor, metadata: &Metadata) -> Result<Self, PolicyError> {
        Self::with(network.clone(), own_head(metadata), metadata)
    }

    fn of(parts: Parts, metadata: &Metadata) -> Result<Self, PolicyError> {
        let Parts { encoder, before, cells, layers, head, warning, .. } = parts;
        let misfit = |e: String| PolicyError::Unsupported(format!("a network whose layers do not fit: {e}"));
        let widths = before.iter().chain(&layers).map(|layer| layer.bias.len());
        let widest = widths.chain(cells.iter().map(Lstm::units)).max().unwrap_or(0);
        if widest > MAX_WIDTH {
            // A run keeps the numbers of a layer for all of its rows.
            let (found, max) = (widest as u64, MAX_WIDTH as u64);
            return Err(PolicyError::TooLarge { what: "a layer".into(), found, max, unit: "outputs" });
        }
        let state = cells.iter().map(|cell| 2 * cell.units()).sum::<usize>();
        if state > MAX_STATE {
            let (found, max) = (state as u64, MAX_STATE as u64);
            return Err(PolicyError::TooLarge { what: "the state".into(), found, max, unit: "numbers" });
        }
        let made = |layers: Vec<Layer>| {
            let inputs = layers.first().map_or(0, |layer| layer.weight.len() / layer.bias.len().max(1));
            Mlp::new(inputs, layers).map_err(|e| misfit(e.to_string()))
        };
        let before = (!before.is_empty()).then(|| made(before)).transpose()?;
        let mlp = made(layers)?;
        let mut given = encoder.as_ref().map(|encoder| ("the convolutions", encoder.convolution().outputs()));
        let mut takes =
            |inputs: usize, what: &'static str, outputs: usize| match given.replace((what, outputs)) {
                Some((before, numbers)) if numbers != inputs => {
                    Err(misfit(format!("{before} give {numbers} numbers, the next layer takes {inputs}")))
                }
                _ => Ok(()),
            };
        before.iter().try_for_each(|layers| takes(layers.inputs(), "the layers", layers.outputs()))?;
        cells.iter().try_for_each(|cell| takes(cell.inputs(), "the LSTM layers", cell.units()))?;
        takes(mlp.inputs(), "the layers", mlp.outputs())?;
        let network = match cells.is_empty() {
            true => Actor::new(encoder, mlp),
            false => Actor::recurrent(encoder, before, cells, mlp),
        };
        let network = Self::with(network, head, metadata)?;
        Ok(Self { warnings: warning.into_iter().collect(), ..network })
    }

    fn with(network: Actor, head: Head, metadata: &Metadata) -> Result<Self, PolicyError> {
        let action = spaces::action(metadata, head.shape(network.outputs()))?;
        if let (Head::Squashed(_), Space::Box { low, high }) = (head, &action)
            && low.iter().chain(high).any(|bound| !bound.is_finite())
        {
            let message =
                "the network's tanh has to be scaled to the range of the actions; declare action_space";
            return Err(PolicyError::Metadata(message.into()));
        }
        Ok(Network {
            input: Input::new(metadata, network.inputs())?,
            action,
            width: network.outputs(),
            body: Body::new(network)?,
            head,
            values: Vec::new(),
            fresh: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Runs `each` on the raw answers of consecutive batches of rows. `states` are those of a recurrent network.
    fn run(
        &mut self,
        observations: &[f32],
        rows: usize,
        mut states: &mut [f32],
        mut each: impl FnMut(Head, &Space, &[f32], &mut Vec<f32>) -> Result<(), PolicyError>,
    ) -> Result<(), PolicyError> {
        let (width, state) = (self.input.width, self.body.state_width());
        for rows in self.input.prepare(observations, rows)?.chunks(ROWS_PER_RUN * width) {
            let (own, rest) = std::mem::take(&mut states).split_at_mut(rows.len() / width * state);
            states = rest;
            each(self.head, &self.action, self.body.forward(rows, own)?, &mut self.values)?;
        }
        Ok(())
    }

    /// The same, each row the first step of an episode.
    fn run_alone(
        &mut self,
        observations: &[f32],
        rows: usize,
        each: impl FnMut(Head, &Space, &[f32], &mut Vec<f32>) -> Result<(), PolicyError>,
    ) -> Result<(), PolicyError> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.clear();
        // Observations that are no rows are refused before a state is touched.
        fresh.resize(observations.len() / self.input.width.max(1) * self.body.state_width(), 0.0);
        let done = self.run(observations, rows, &mut fresh, each);
        self.fresh = fresh;
        done
    }
}

impl Policy for Network {
    fn observation_space(&self) -> &Space {
        &self.input.space
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        actions.clear();
        self.run_alone(observations, rows, |head, space, raw, values| {
            head.answer(space, raw, values, actions)
        })?;
        fit_actions(&self.action, actions)
    }

    fn state_width(&self) -> usize {
        self.body.state_width()
    }

    fn act_from(
        &mut self,
        observations: &[f32],
        rows: usize,
        states: &mut [f32],
        actions: &mut Vec<f32>,
    ) -> Result<(), PolicyError> {
        actions.clear();
        let (expected, found) = (rows.saturating_mul(self.state_width()), states.len());
        if expected != found {
            return Err(PolicyError::Run(format!("expected states of {expected} numbers, got {found}")));
        }
        self.run(observations, rows, states, |head, space, raw, values| {
            head.answer(space, raw, values, actions)
        })?;
        fit_actions(&self.action, actions)
    }

    fn engine(&self) -> &str {
        &self.body.engine
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        let (mut raws, mut means, mut actions) = (Vec::new(), Vec::new(), Vec::new());
        self.run_alone(observations, rows, |head, space, raw, values| {
            raws.extend_from_slice(raw);
            head.answer(space, raw, values, &mut actions)?;
            means.extend_from_slice(values);
            Ok(())
        })?;
        if let (Head::Mean, Space::Box { .. }) = (self.head, &self.action) {
            fit_actions(&self.action, &mut actions)?;
        }
        let width = self.width;
        let output = |name: &str, shape: &[usize], values| Output {
            name: name.into(),
            shape: [&[rows], shape].concat(),
            values,
        };
        let action_shape: &[usize] = match &self.action {
            Space::Discrete { .. } => &[],
            Space::Box { low, .. } => &[low.len()],
        };
        let mut outputs = match self.head {
            Head::Choices(name) => vec![output(name, &[width], raws)],
            Head::Quantiles(n) => {
                vec![output("quantiles", &[n, width / n], raws), output("q_values", &[width / n], means)]
            }
            Head::Mean | Head::Squashed(_) => vec![output("mean", &[width], raws)],
        };
        outputs.push(output("action", action_shape, actions));
        Ok(outputs)
    }
}

impl Head {
    fn shape(self, width: usize) -> ActionShape {
        match self {
            Head::Choices(_) => ActionShape::Choices(width),
            Head::Quantiles(n) => ActionShape::Choices(width / n),
            Head::Mean | Head::Squashed(_) => ActionShape::Numbers(width),
        }
    }

    /// Adds the actions for raw answers to `actions`. `values` is filled with the values of the choices where they
    /// are not the raw answers themselves.
    fn answer(
        self,
        space: &Space,
        raw: &[f32],
        values: &mut Vec<f32>,
        actions: &mut Vec<f32>,
    ) -> Result<(), PolicyError> {
        values.clear();
        match (self, space) {
            (Head::Choices(_), _) => argmax(raw, space_choices(space), actions),
            (Head::Quantiles(quantiles), _) => {
                let choices = space_choices(space);
                for row in raw.chunks_exact(quantiles * choices) {
                    let sum = |choice: usize| row.iter().skip(choice).step_by(choices).sum::<f32>();
                    values.extend((0..choices).map(|choice| sum(choice) / quantiles as f32));
                }
                argmax(values, choices, actions)
            }
            (Head::Squashed(clip), Space::Box { low, high }) => {
                for row in raw.chunks_exact(low.len()) {
                    // stable_baselines3/common/policies.py, `unscale_action`.
                    let unscale = |(x, (low, high)): (&f32, (&f32, &f32))| {
                        low + 0.5 * (x.clamp(-clip, clip).tanh() + 1.0) * (high - low)
                    };
                    actions.extend(row.iter().zip(low.iter().zip(high)).map(unscale));
                }
                Ok(())
            }
            _ => {
                actions.extend_from_slice(raw);
                Ok(())
            }
        }
    }
}

fn space_choices(space: &Space) -> usize {
    match space {
        Space::Discrete { n } => *n as usize,
        Space::Box { low, .. } => low.len(),
    }
}

struct Parts {
    encoder: Option<ConvEncoder>,
    /// Before the LSTM layers.
    before: Vec<Layer>,
    cells: Vec<Lstm>,
    layers: Vec<Layer>,
    head: Head,
    /// Names that begin so are computed with.
    used: Vec<String>,
    /// Names that begin so are of no use for an action.
    idle: &'static [&'static str],
    /// What was taken for granted, because tensors do not show it.
    warning: Option<String>,
}

impl Parts {
    /// A network that sees no images.
    fn new(layers: Vec<Layer>, head: Head, used: &[&str], idle: &'static [&'static str]) -> Self {
        let used = used.iter().map(|name| (*name).into()).collect();
        let (before, cells) = (Vec::new(), Vec::new());
        Self { encoder: None, before, cells, layers, head, used, idle, warning: None }
    }
}

/// No tensor is left over: each is computed with, or is known to be of no use for an action.
fn unused(dict: &StateDict, parts: &Parts) -> Result<(), PolicyError> {
    let is_of = |name: &str, prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| prefix.ends_with('.') || rest.is_empty() || rest.starts_with('.'))
    };
    let known = |name: &str| {
        parts.used.iter().any(|prefix| is_of(name, prefix))
            || parts.idle.iter().any(|prefix| is_of(name, prefix))
    };
    let left: Vec<_> = dict.keys().filter(|name| !known(name)).collect();
    match left.as_slice() {
        [] => Ok(()),
        left => Err(PolicyError::Unsupported(format!(
            "{} of its tensors have no known place in the network, the first are {:?}; export it to ONNX",
            left.len(),
            &left[..left.len().min(4)]
        ))),
    }
}

/// What tensors alone do not show has to be declared.
fn declared(parts: &Parts, metadata: &Metadata) -> Result<(), PolicyError> {
    let squashed = matches!(parts.head, Head::Squashed(_));
    let layers = parts.before.len() + parts.layers.len();
    let (observation, action) = spaces::declared(metadata);
    let mut absent = Vec::new();
    if observation.is_none() {
        absent.push("\"observation_space\"");
    }
    if action.is_none() && metadata.action_range().is_none() {
        absent.push("\"action_space\"");
    }
    if layers > 1 && metadata.hidden_activation(squashed).is_none() {
        absent.push("\"activation\" (\"tanh\" or \"relu\")");
    }
    if absent.is_empty() {
        return Ok(());
    }
    let used = parts.used.join(", ");
    Err(PolicyError::Metadata(format!(
        "a file of tensors alone ({used}) shows neither spaces nor activation: declare {}",
        absent.join(" and ")
    )))
}

fn recognise(dict: &StateDict, metadata: &Metadata, hints: Hints) -> Result<Parts, PolicyError> {
    use Activation::{Identity, Relu, Tanh};
    let has = |name: &str| dict.contains_key(name);
    let starts = |prefix: &str| dict.keys().find(|name| name.starts_with(prefix));
    for (part, what) in [
        ("features_extractor.", "a features extractor"),
        ("pi_features_extractor.", "a features extractor"),
        ("actor.features_extractor.", "a features extractor"),
        ("q_net.features_extractor.", "a features extractor"),
        ("quantile_net.features_extractor.", "a features extractor"),
    ] {
        if let Some(name) = starts(part) {
            return Err(PolicyError::Unsupported(format!("{what} (tensor {name:?}); export it to ONNX")));
        }
    }
    complete(dict, hints)?;
    let hidden = |default, squashed| metadata.hidden_activation(squashed).unwrap_or(default);
    let read = |prefix: &str, activation| layers(dict, prefix, activation);
    let last = |name: &str| layer(dict, name, Identity, false).map(|layer| vec![layer]);
    if has("action_net.weight") {
        if hints.squash.or(metadata.squash_output) == Some(true) {
            let message = "a model with squash_output, whose answer is a tanh; export it to ONNX";
            return Err(PolicyError::Unsupported(message.into()));
        }
        // Up to Stable-Baselines3 1.7, actor and critic could share layers.
        usual(Tanh, metadata, hints)?;
        let shared = starts("mlp_extractor.shared_net.").is_some();
        let mut layers = read("mlp_extractor.shared_net.", hidden(Tanh, false))?;
        layers.extend(read("mlp_extractor.policy_net.", hidden(Tanh, false))?);
        layers.extend(last("action_net")?);
        let head = if has("log_std") { Head::Mean } else { Head::Choices("logits") };
        let used = ["action_net", "mlp_extractor.policy_net.", "mlp_extractor.shared_net."];
        let idle = &["log_std", "mlp_extractor.value_net.", "value_net", "vf_features_extractor."];
        // Only state-dependent exploration, whose log_std is a matrix, may have a tanh behind it.
        let explores = dict.get("log_std").is_some_and(|tensor| tensor.shape.len() == 2);
        let unknown = !hints.all_known && hints.squash.or(metadata.squash_output).is_none();
        let warning = (explores && unknown).then(|| {
            "the tensors do not show whether it was made with squash_output: it is taken as made without; declare \"squash_output\"".into()
        });
        if starts("lstm_actor.").is_some() {
            // sb3_contrib/ppo_recurrent: the critic has an LSTM of its own, the actor's, or a linear layer.
            let idle = &["log_std", "mlp_extractor.value_net.", "value_net", "lstm_critic.", "critic."];
            let parts = Parts::new(layers, head, &[used[0], used[1], "lstm_actor."], idle);
            return Ok(Parts { warning, cells: contrib_cells(dict, "lstm_actor.")?, ..parts });
        }
        let parts = Parts::new(layers, head, if shared { &used } else { &used[..2] }, idle);
        return Ok(Parts { warning, ..parts });
    }
    if has("actor.mu.weight") || (has("actor.mu.0.weight") && starts("actor.latent_pi.").is_some()) {
        usual(Relu, metadata, hints)?;
        let mut layers = read("actor.latent_pi.", hidden(Relu, true))?;
        let sde = has("actor.mu.0.weight");
        layers.extend(last(if sde { "actor.mu.0" } else { "actor.mu" })?);
        let clip = hints.clip_mean.unwrap_or(SDE_CLIP_MEAN);
        // Stable-Baselines3 clips if the bound is above zero.
        let head = Head::Squashed(if sde && clip > 0.0 { clip } else { f32::MAX });
        let used = ["actor.latent_pi.", if sde { "actor.mu.0" } else { "actor.mu" }];
        let warning = (sde && !hints.all_known && hints.clip_mean.is_none()).then(|| {
            format!(
                "the tensors do not show the bound of its mean (clip_mean): it is taken as Stable-Baselines3's usual {SDE_CLIP_MEAN}; \
                 a zip of model.save() records another"
            )
        });
        let parts = Parts::new(layers, head, &used, &["actor.log_std", "critic.", "critic_target."]);
        return Ok(Parts { warning, ..parts });
    }
    let open = |prefix: &str, squashed| {
        usual(Relu, metadata, hints)?;
        let mut layers = read(prefix, hidden(Relu, squashed))?;
        if let Some(last) = layers.last_mut() {
            last.activation = Identity;
        }
        Ok(layers)
    };
    if starts("actor.mu.").is_some() {
        let idle = &["actor_target.", "critic.", "critic_target."];
        return Ok(Parts::new(open("actor.mu.", true)?, Head::Squashed(f32::MAX), &["actor.mu."], idle));
    }
    if starts("q_net.q_net.").is_some() {
        let (layers, idle) = (open("q_net.q_net.", false)?, &["q_net_target."]);
        return Ok(Parts::new(layers, Head::Choices("q_values"), &["q_net.q_net."], idle));
    }
    if starts("quantile_net.quantile_net.").is_some() {
        let layers = open("quantile_net.quantile_net.", false)?;
        let head = Head::Quantiles(quantiles(&layers, metadata)?);
        return Ok(Parts::new(layers, head, &["quantile_net.quantile_net."], &["quantile_net_target."]));
    }
    if starts("action_net.").is_some() {
        let discrete = matches!(spaces::declared(metadata).1, Some(Space::Discrete { .. }));
        let layers = open("action_net.", !discrete)?;
        // `sb3_contrib/ars/policies.py`: the linear policy is clipped, the others end in a tanh unless they were told otherwise.
        let usual = (hints.all_known || layers.len() == 1).then_some(layers.len() > 1);
        let head = match hints.squash.or(metadata.squash_output).or(usual) {
            _ if discrete => Head::Choices("logits"),
            Some(true) => Head::Squashed(f32::MAX),
            Some(false) => Head::Mean,
            None => {
                let message =
                    "tensors of ARS do not show whether a tanh follows them: declare \"squash_output\"";
                return Err(PolicyError::Metadata(message.into()));
            }
        };
        return Ok(Parts::new(layers, head, &["action_net."], &[]));
    }
    let own = |prefix: &str, head| {
        let layers = open(prefix, matches!(head, Head::Squashed(_)))?;
        let parts = Parts::new(layers, head, &[prefix], &[]);
        let before = read(&format!("{prefix}{BEFORE}"), hidden(Relu, false))?;
        let cells = own_cells(dict, &format!("{prefix}{LSTM}"))?;
        if !before.is_empty() && cells.is_empty() {
            return Err(PolicyError::Unsupported(format!("{prefix}{BEFORE} without {prefix}{LSTM}")));
        }
        Ok(Parts { encoder: encoder(dict, prefix, metadata)?, before, cells, ..parts })
    };
    if starts("mean.").is_some() {
        return own("mean.", Head::Mean);
    }
    if starts("policy.").is_some() && wrapped(dict).is_empty() {
        return own("policy.", own_head(metadata));
    }
    let names: Vec<_> = dict.keys().take(4).collect();
    Err(PolicyError::Unsupported(format!(
        "{} tensors of no known layout, the first are {names:?}{}",
        dict.len(),
        wrapped(dict)
    )))
}

/// What to do where a wrapper put a prefix before all names; empty where none did.
fn wrapped(dict: &StateDict) -> String {
    let inside = |name: &str| {
        let parts = ["action_net.", "mlp_extractor.", "actor.", "q_net.", "quantile_net.", "policy."];
        parts.iter().any(|part| name.starts_with(part))
    };
    let prefix = ["module.", "_orig_mod.", "policy."].into_iter().find(|prefix| {
        let mut names = dict.keys().filter_map(|name| name.strip_prefix(prefix));
        dict.keys().all(|name| name.starts_with(prefix)) && names.any(inside)
    });
    prefix.map_or(String::new(), |prefix| {
        format!("; a wrapper put {prefix:?} before the names: save the state dict of the policy in it")
    })
}

/// A record of a model that names no activation has its algorithm's: metadata cannot declare another.
fn usual(default: Activation, metadata: &Metadata, hints: Hints) -> Result<(), PolicyError> {
    match metadata.activation {
        Some(declared) if hints.usual_activation && declared != default => {
            let message = format!(
                "\"activation\" is {declared:?}, but the model's own record leaves it at its algorithm's, {default:?}; leave it out"
            );
            Err(PolicyError::Metadata(message))
        }
        _ => Ok(()),
    }
}

/// Layers that a twin of the network has are there. Where the sizes of a network are not recorded, an actor that ends before its
/// critic, with the same layers up to there, may lack some.
fn complete(dict: &StateDict, hints: Hints) -> Result<(), PolicyError> {
    let sizes = |prefix: &str| -> Vec<(u32, usize)> {
        let weight = |name: &str| name.strip_prefix(prefix)?.strip_suffix(".weight")?.parse().ok();
        let mut sizes: Vec<_> = dict
            .iter()
            .filter_map(|(name, tensor)| Some((weight(name)?, tensor.shape.first().copied()?)))
            .collect();
        sizes.sort_unstable();
        sizes
    };
    let twins = [
        ("actor.mu.", "actor_target.mu."),
        ("q_net.q_net.", "q_net_target.q_net."),
        ("quantile_net.quantile_net.", "quantile_net_target.quantile_net."),
    ];
    let found = twins.iter().find(|(own, twin)| {
        let (own, twin) = (sizes(own), sizes(twin));
        !own.is_empty() && !twin.is_empty() && own != twin
    });
    let alike = ("mlp_extractor.policy_net.", "mlp_extractor.value_net.");
    let (actor, critic) = (sizes(alike.0), sizes(alike.1));
    let shorter = actor.len() < critic.len() && critic.starts_with(&actor);
    let shorter = !hints.activation_known && !actor.is_empty() && shorter;
    match found.or(shorter.then_some(&alike)) {
        Some((own, twin)) => Err(PolicyError::Unsupported(format!(
            "the layers of {own:?} differ from those of {twin:?}: some are missing; save it with policy.save(), which records their sizes"
        ))),
        None => Ok(()),
    }
}

/// What sees images: the convolutions `{prefix}encoder.N`, of the sizes that the metadata give.
fn encoder(dict: &StateDict, prefix: &str, metadata: &Metadata) -> Result<Option<ConvEncoder>, PolicyError> {
    let [new, old] = [ENCODER, OLD_ENCODER].map(|part| format!("{prefix}{part}"));
    let is_old = dict.keys().any(|name| name.starts_with(&old));
    let there = dict.keys().filter(|name| name.starts_with(&new) || name.starts_with(&old));
    let first = if is_old { &old } else { &new };
    let Some(convolution) = &metadata.convolution else {
        let refused = |name| {
            let message = format!("{name} is of a convolution, whose sizes they do not give");
            Err(PolicyError::Metadata(message))
        };
        return there.into_iter().next().map_or(Ok(None), refused);
    };
    convolution.check().map_err(|expected| {
        PolicyError::Metadata(format!("expected as convolution {expected}, got {convolution:?}"))
    })?;
    let parts = parts_of(first, convolution);
    if let Some(name) = there.into_iter().find(|name| !parts.iter().any(|(part, _)| part == *name)) {
        return Err(PolicyError::Unsupported(format!("{name} belongs to no convolution of the metadata's")));
    }
    let mut found = Vec::new();
    for (name, shape) in &parts {
        match dict.get(name) {
            Some(tensor) if tensor.shape == *shape => found.push(&tensor.values),
            other => {
                let got = other.map_or("it is missing".into(), |t| format!("it has {:?}", t.shape));
                return Err(PolicyError::Unsupported(format!("{name}: expected the shape {shape:?}, {got}")));
            }
        }
    }
    // Room for the weights is made once the file is known to have them.
    let mut encoder = ConvEncoder::new(convolution.clone());
    encoder.parameters_mut().zip(found).for_each(|(to, from)| to.copy_from_slice(from));
    Ok(Some(encoder))
}

/// Names and shapes of the tensors of convolutions.
fn parts_of(first: &str, convolution: &Convolution) -> Vec<(String, Vec<usize>)> {
    let layer = |(i, shape): (usize, [usize; 4])| {
        [(format!("{first}{i}.weight"), shape.to_vec()), (format!("{first}{i}.bias"), vec![shape[0]])]
    };
    convolution.weights().enumerate().flat_map(layer).collect()
}

/// What the outputs of oto's own networks mean.
fn own_head(metadata: &Metadata) -> Head {
    match spaces::declared(metadata).1 {
        Some(Space::Discrete { .. }) => Head::Choices("values"),
        _ => Head::Squashed(f32::MAX),
    }
}

/// How many quantiles the last layer has for each choice: the file only knows the product.
fn quantiles(layers: &[Layer], metadata: &Metadata) -> Result<usize, PolicyError> {
    let outputs = layers.last().map_or(0, |layer| layer.bias.len());
    let Some(Space::Discrete { n }) = spaces::declared(metadata).1 else {
        let message = "a quantile network does not say how many choices it has; declare action_space";
        return Err(PolicyError::Metadata(message.into()));
    };
    let n = n as usize;
    if outputs == 0 || !outputs.is_multiple_of(n) {
        let message = format!("the model has {outputs} quantiles, which is no multiple of {n} choices");
        return Err(PolicyError::Metadata(message));
    }
    Ok(outputs / n)
}

/// Names of convolutions, among those of layers.
const ENCODER: &str = "encoder.";
/// The same in policies of versions before.
const OLD_ENCODER: &str = "eye.";
/// Names of layers before LSTM layers, and of those.
const BEFORE: &str = "before.";
const LSTM: &str = "lstm.";
/// The most numbers of a recurrent policy's state. A server keeps one for each connection.
const MAX_STATE: usize = 65_536;
/// The most LSTM layers.
const MAX_CELLS: usize = 16;

/// oto's own LSTM layers `{prefix}N.weight_ih`, ....
fn own_cells(dict: &StateDict, prefix: &str) -> Result<Vec<Lstm>, PolicyError> {
    let name = |i: usize, part: &str| format!("{prefix}{i}.{part}");
    let count = (0..MAX_CELLS).take_while(|i| dict.contains_key(&name(*i, lstm::PARAMETERS[0]))).count();
    let known = |key: &str| (0..count).any(|i| lstm::PARAMETERS.iter().any(|part| name(i, part) == key));
    if let Some(key) = dict.keys().find(|key| key.starts_with(prefix) && !known(key)) {
        return Err(PolicyError::Unsupported(format!("{key} belongs to no LSTM layer")));
    }
    (0..count).map(|i| cell(dict, lstm::PARAMETERS.map(|part| name(i, part)), None)).collect()
}

/// PyTorch's LSTM layers `{prefix}weight_ih_lN`, ..., in one direction.
fn contrib_cells(dict: &StateDict, prefix: &str) -> Result<Vec<Lstm>, PolicyError> {
    let name = |i: usize, part: &str| format!("{prefix}{part}_l{i}");
    let count = (0..MAX_CELLS).take_while(|i| dict.contains_key(&name(*i, "weight_ih"))).count();
    let parts = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
    let known = |key: &str| (0..count).any(|i| parts.iter().any(|part| name(i, part) == key));
    if let Some(key) = dict.keys().find(|key| key.starts_with(prefix) && !known(key)) {
        return Err(PolicyError::Unsupported(format!(
            "{key} belongs to no LSTM layer of one direction with biases"
        )));
    }
    let layer = |i: usize| cell(dict, [0, 1, 2].map(|part| name(i, parts[part])), Some(name(i, parts[3])));
    (0..count).map(layer).collect()
}

/// One LSTM layer; PyTorch's has a second bias.
fn cell(dict: &StateDict, names: [String; 3], second: Option<String>) -> Result<Lstm, PolicyError> {
    let tensor =
        |name: &String| dict.get(name).ok_or_else(|| PolicyError::Unsupported(format!("{name} is missing")));
    let [ih, hh, bias] = [tensor(&names[0])?, tensor(&names[1])?, tensor(&names[2])?];
    let (&[gates, inputs], &[more, units]) = (ih.shape.as_slice(), hh.shape.as_slice()) else {
        let message = format!(
            "{} and {} have the shapes {:?} and {:?}, expected matrices",
            names[0], names[1], ih.shape, hh.shape
        );
        return Err(PolicyError::Unsupported(message));
    };
    let mut values = bias.values.clone();
    if let Some(second) = &second {
        let second = tensor(second)?;
        if second.shape != bias.shape {
            let message =
                format!("{} has the shape {:?}, its second one {:?}", names[2], bias.shape, second.shape);
            return Err(PolicyError::Unsupported(message));
        }
        values.iter_mut().zip(&second.values).for_each(|(a, b)| *a += b);
    }
    if bias.shape != [gates] || gates != more {
        let message = format!(
            "{} has {gates} rows, {} {more}, and {} the shape {:?}",
            names[0], names[1], names[2], bias.shape
        );
        return Err(PolicyError::Unsupported(message));
    }
    let parameters = [ih.values.clone(), hh.values.clone(), values];
    Lstm::new(inputs, units, parameters)
        .map_err(|error| PolicyError::Unsupported(format!("{}: {error}", names[0])))
}

/// The linear layers `PREFIX{N}.weight` in the order of their numbers; convolutions and recurrent layers are passed over.
fn layers(dict: &StateDict, prefix: &str, activation: Activation) -> Result<Vec<Layer>, PolicyError> {
    let mut numbers = Vec::new();
    let names = dict.keys().filter_map(|name| name.strip_prefix(prefix));
    let others = [ENCODER, OLD_ENCODER, BEFORE, LSTM];
    for name in names.filter(|name| !others.iter().any(|first| name.starts_with(first))) {
        match name.split_once('.') {
            Some((number, "weight" | "bias")) => {
                numbers.push(number.parse::<u32>().map_err(|_| foreign(prefix, name))?)
            }
            _ => return Err(foreign(prefix, name)),
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    // `sb3_contrib/ars/policies.py`, with_bias: ARS has biases in all layers or in none.
    let is_bias = |name: &String| name.starts_with(prefix) && name.ends_with(".bias");
    let bare = prefix == "action_net." && !dict.keys().any(is_bias);
    numbers.iter().map(|number| layer(dict, &format!("{prefix}{number}"), activation, bare)).collect()
}

fn foreign(prefix: &str, name: &str) -> PolicyError {
    PolicyError::Unsupported(format!("{prefix}{name} belongs to no linear layer"))
}

/// One linear layer. `bare`: it has no bias, which then is zero.
fn layer(dict: &StateDict, name: &str, activation: Activation, bare: bool) -> Result<Layer, PolicyError> {
    let absent = |part: &str| PolicyError::Unsupported(format!("{name}.{part} is missing"));
    let weight = dict.get(&format!("{name}.weight")).ok_or_else(|| absent("weight"))?;
    let &[outputs, inputs] = weight.shape.as_slice() else {
        let message = format!("{name}.weight has the shape {:?}, expected [outputs, inputs]", weight.shape);
        return Err(PolicyError::Unsupported(message));
    };
    // Before room is made: an empty tensor may have any other dimension.
    if inputs == 0 || outputs == 0 {
        return Err(PolicyError::Unsupported(format!("{name}.weight is empty")));
    }
    let bias = match dict.get(&format!("{name}.bias")) {
        None if bare => vec![0.0; outputs],
        None => return Err(absent("bias")),
        Some(Tensor { shape, values }) if *shape == [outputs] => values.clone(),
        Some(Tensor { shape, .. }) => {
            let message = format!("{name}.bias has the shape {shape:?}, expected [{outputs}]");
            return Err(PolicyError::Unsupported(message));
        }
    };
    Ok(Layer { weight: weight.values.clone(), bias, activation })
}
