//! A network that sees images, if it has convolutions, or rows of numbers, and goes on with fully connected layers: as a program's
//! tensors, as initial values, and as the plain weights that act.

use crate::convolution::{ConvEncoder, Convolution};
use crate::critics::{InitialParameters, Params, follow, initial_mlp};
use crate::lstm::Lstm;
use crate::mlp::{Layer, Mlp};
use crate::optimiser::{initial_layer, mlp as connected, mlp_parameters, orthogonal_layer};
use oto_env::rng::Rng;
use oto_graph::{Activation, Tensor, Trace};

/// The sizes of a network with ReLU, or tanh where it is chosen, after each layer but the last; convolutions always have ReLU.
pub(crate) struct Shape<'c> {
    convolution: Option<&'c Convolution>,
    /// What the fully connected layers stand between.
    widths: Vec<usize>,
    activation: Activation,
}

impl<'c> Shape<'c> {
    /// From observations of so many numbers by these hidden layers to so many outputs.
    pub fn new(
        convolution: Option<&'c Convolution>,
        observation: usize,
        hidden: &[usize],
        outputs: usize,
    ) -> Self {
        let seen = convolution.map_or(observation, Convolution::outputs);
        Self { convolution, widths: [&[seen], hidden, &[outputs]].concat(), activation: Activation::Relu }
    }

    /// The same with tanh after the fully connected layers.
    pub fn tanh(self) -> Self {
        Self { activation: Activation::Tanh, ..self }
    }

    /// The parameters as state inputs: `{prefix}encoder.{layer}` of the convolutions, then `{prefix}{layer}`.
    pub fn parameters<'t>(&self, t: &'t Trace, prefix: &str) -> Params<'t> {
        let encoder = format!("{prefix}encoder.");
        let mut params = self.convolution.map_or(Vec::new(), |c| c.parameters(t, &encoder));
        params.extend(mlp_parameters(t, prefix, &self.widths));
        params
    }

    /// What those parameters make of observations x `[B, observation]`: `[B, outputs]`.
    pub fn forward<'t>(&self, params: &[(String, Tensor<'t>)], x: Tensor<'t>) -> Tensor<'t> {
        let (seen, rest) = match self.convolution {
            None => (x, params),
            Some(c) => {
                let (encoder, rest) = params.split_at(2 * c.layers.len());
                (c.network(encoder, x), rest)
            }
        };
        connected(rest, seen, self.activation)
    }

    /// Initial values by the parameters' names.
    pub fn initial(&self, rng: &mut Rng, prefix: &str, initial_values: &mut InitialParameters) {
        initial_convolutions(rng, self.convolution, &format!("{prefix}encoder."), initial_values);
        initial_mlp(rng, prefix, &self.widths, initial_values);
    }

    /// The same with orthogonal weights of gain sqrt 2, the last layer's of `last`, and no biases.
    pub fn orthogonal(&self, rng: &mut Rng, prefix: &str, last: f64, initial_values: &mut InitialParameters) {
        let convolutions = self.convolution.iter().flat_map(|c| c.sizes()).enumerate();
        let convolutions = convolutions.map(|(i, sizes)| (format!("{prefix}encoder.{i}"), sizes));
        let pairs = self.widths.windows(2).enumerate();
        let connected = pairs.map(|(i, pair)| (format!("{prefix}{i}"), (pair[0], pair[1])));
        let layers = convolutions.chain(connected).collect::<Vec<_>>();
        for (i, (name, (inputs, outputs))) in layers.iter().enumerate() {
            let gain = if i + 1 == layers.len() { last } else { std::f64::consts::SQRT_2 };
            let (weight, bias) = orthogonal_layer(rng, *inputs, *outputs, gain);
            initial_values.extend([(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)]);
        }
    }

    /// The same network on plain weights, which are still to be handed over.
    pub fn actor(&self) -> Actor {
        let encoder = self.convolution.map(|c| ConvEncoder::new(c.clone()));
        Actor::new(encoder, Mlp::zeros(&self.widths, self.activation))
    }
}

/// Convolutions that an actor and its critics share, where observations are images. The critics' loss trains them; the target critics
/// see by a slow copy.
pub(crate) struct SharedEncoder<'t, 'c> {
    convolution: Option<&'c Convolution>,
    pub params: Params<'t>,
    targets: Params<'t>,
}

/// The prefix of its parameters: they act, too.
const SHARED: &str = "actor.encoder.";

impl<'t, 'c> SharedEncoder<'t, 'c> {
    /// Records the parameters; none where observations are rows of numbers.
    pub fn new(t: &'t Trace, convolution: Option<&'c Convolution>) -> Self {
        let made = |prefix: &str| convolution.map_or(Vec::new(), |c| c.parameters(t, prefix));
        Self { convolution, params: made(SHARED), targets: made(&format!("target.{SHARED}")) }
    }

    /// What the networks behind it see of observations `[B, O]`.
    pub fn see(&self, x: Tensor<'t>) -> Tensor<'t> {
        self.convolution.map_or(x, |c| c.network(&self.params, x))
    }

    /// The same by the slow copy.
    pub fn see_slowly(&self, x: Tensor<'t>) -> Tensor<'t> {
        self.convolution.map_or(x, |c| c.network(&self.targets, x))
    }

    /// What is seen, for a network whose loss does not train the convolutions.
    pub fn held(&self, seen: Tensor<'t>) -> Tensor<'t> {
        if self.convolution.is_some() { seen.stop_gradient() } else { seen }
    }

    /// The slow copy follows the new values, which are among `updates`.
    pub fn follow(&self, updates: &mut Vec<(Tensor<'t>, Tensor<'t>)>, mix: Tensor<'t>) {
        follow(&self.params, &self.targets, updates, mix);
    }
}

/// Inputs of the networks behind shared convolutions, for observations of this width.
pub(crate) fn seen(convolution: Option<&Convolution>, observation: usize) -> usize {
    convolution.map_or(observation, Convolution::outputs)
}

/// Initial values of shared convolutions by the parameters' names.
pub(crate) fn initial_encoder(
    rng: &mut Rng,
    convolution: Option<&Convolution>,
    initial_values: &mut InitialParameters,
) {
    initial_convolutions(rng, convolution, SHARED, initial_values);
}

fn initial_convolutions(
    rng: &mut Rng,
    convolution: Option<&Convolution>,
    prefix: &str,
    initial_values: &mut InitialParameters,
) {
    for (i, (inputs, outputs)) in convolution.iter().flat_map(|c| c.sizes()).enumerate() {
        let (weight, bias) = initial_layer(rng, inputs, outputs);
        let name = |part: &str| format!("{prefix}{i}.{part}");
        initial_values.extend([(name("weight"), weight), (name("bias"), bias)]);
    }
}

/// A network that acts, on plain weights. A recurrent one has a state, which each step changes: zeros where an episode begins.
#[derive(Clone, Debug)]
pub struct Actor {
    encoder: Option<ConvEncoder>,
    recurrent: Option<OwnRecurrent>,
    layers: Mlp,
    /// Answers to several images, or of a recurrent network.
    out: Vec<f32>,
}

/// The recurrent layers, what stands before them, and their state.
#[derive(Clone, Debug)]
struct Recurrent {
    before: Option<Mlp>,
    cells: Vec<Lstm>,
    state: Vec<f32>,
}

/// Recurrent layers of a network.
#[cfg(feature = "every-algorithm")]
type OwnRecurrent = Box<Recurrent>;

/// The algorithms that every page loads have none.
#[cfg(not(feature = "every-algorithm"))]
#[derive(Clone, Debug)]
enum OwnRecurrent {}

#[cfg(not(feature = "every-algorithm"))]
impl std::ops::Deref for OwnRecurrent {
    type Target = Recurrent;

    fn deref(&self) -> &Recurrent {
        match *self {}
    }
}

#[cfg(not(feature = "every-algorithm"))]
impl std::ops::DerefMut for OwnRecurrent {
    fn deref_mut(&mut self) -> &mut Recurrent {
        match *self {}
    }
}

impl Recurrent {
    fn inputs(&self) -> usize {
        self.before.as_ref().map_or(self.cells[0].inputs(), Mlp::inputs)
    }

    fn parameters(&self) -> impl Iterator<Item = &[f32]> {
        let before = self.before.iter().flat_map(Mlp::layers).flat_map(Layer::parameters);
        before.chain(self.cells.iter().flat_map(Lstm::parameters))
    }

    fn parameters_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let before = self.before.iter_mut().flat_map(Mlp::layers_mut).flat_map(Layer::parameters_mut);
        before.chain(self.cells.iter_mut().flat_map(Lstm::parameters_mut))
    }

    /// One step from what an encoder sees. The last layer's output is in the state, see [`Self::output`].
    fn step(before: &mut Option<Mlp>, cells: &mut [Lstm], seen: &[f32], state: &mut [f32]) {
        let mut seen = before.as_mut().map_or(seen, |layers| layers.forward(seen));
        let mut rest = state;
        for cell in cells {
            let (own, next) = rest.split_at_mut(2 * cell.units());
            cell.step(seen, own);
            (seen, rest) = (&own[..cell.units()], next);
        }
    }

    /// What the layers after it read of a state.
    fn output<'s>(cells: &[Lstm], state: &'s [f32]) -> &'s [f32] {
        let units = cells.last().map_or(0, Lstm::units);
        &state[state.len() - 2 * units..][..units]
    }
}

impl From<Mlp> for Actor {
    fn from(layers: Mlp) -> Self {
        Self::new(None, layers)
    }
}

impl Actor {
    /// Layers that go on from what an encoder sees.
    ///
    /// # Panics
    /// If they take another number of inputs than it gives: callers check what comes from outside.
    pub fn new(encoder: Option<ConvEncoder>, layers: Mlp) -> Self {
        Self::made(encoder, None, layers)
    }

    /// A recurrent network: an encoder, layers, LSTM layers (at least one), and the layers after them. Its state is zero.
    ///
    /// # Panics
    /// If neighbours do not fit, or there is no LSTM layer: callers check what comes from outside.
    #[cfg(feature = "every-algorithm")]
    pub fn recurrent(
        encoder: Option<ConvEncoder>,
        before: Option<Mlp>,
        cells: Vec<Lstm>,
        layers: Mlp,
    ) -> Self {
        let width = cells.iter().map(|cell| 2 * cell.units()).sum();
        let follow = |pair: &[Lstm]| pair[0].units() == pair[1].inputs();
        let fits = cells.last().is_some_and(|cell| cell.units() == layers.inputs())
            && cells.windows(2).all(follow)
            && before.as_ref().is_none_or(|before| before.outputs() == cells[0].inputs());
        assert!(fits, "recurrent layers between layers that fit");
        let recurrent = Recurrent { before, cells, state: vec![0.0; width] };
        Self::made(encoder, Some(Box::new(recurrent)), layers)
    }

    fn made(encoder: Option<ConvEncoder>, recurrent: Option<OwnRecurrent>, layers: Mlp) -> Self {
        let inputs = recurrent.as_ref().map_or(layers.inputs(), |recurrent| recurrent.inputs());
        let fits = encoder.as_ref().is_none_or(|encoder| encoder.convolution().outputs() == inputs);
        assert!(fits, "layers that take what the encoder gives");
        Self { encoder, recurrent, layers, out: Vec::new() }
    }

    /// The encoder and the layers after it.
    // The algorithms that every page loads are not recurrent.
    #[cfg_attr(not(feature = "every-algorithm"), allow(dead_code))]
    pub(crate) fn into_parts(self) -> (Option<ConvEncoder>, Mlp) {
        (self.encoder, self.layers)
    }

    /// What sees images.
    pub fn encoder(&self) -> Option<&ConvEncoder> {
        self.encoder.as_ref()
    }

    /// The fully connected layers, first to last; of a recurrent network those after its LSTM layers.
    pub fn layers(&self) -> &[Layer] {
        self.layers.layers()
    }

    /// The layers before the LSTM layers; none where the network is not recurrent.
    pub fn layers_before(&self) -> &[Layer] {
        self.recurrent.as_ref().and_then(|r| r.before.as_ref()).map_or(&[], Mlp::layers)
    }

    /// The LSTM layers, first to last; none where the network is not recurrent.
    pub fn cells(&self) -> &[Lstm] {
        self.recurrent.as_ref().map_or(&[], |recurrent| &recurrent.cells)
    }

    /// The state of a recurrent network, hidden and cell state of each LSTM layer in turn; empty where the network is not recurrent.
    pub fn state(&self) -> &[f32] {
        self.recurrent.as_ref().map_or(&[], |recurrent| &recurrent.state)
    }

    /// The same, to be set.
    pub fn state_mut(&mut self) -> &mut [f32] {
        self.recurrent.as_mut().map_or(&mut [], |recurrent| &mut recurrent.state)
    }

    /// What the layers after the LSTM layers have read at the last step.
    pub fn output(&self) -> &[f32] {
        self.recurrent.as_ref().map_or(&[], |recurrent| Recurrent::output(&recurrent.cells, &recurrent.state))
    }

    /// Numbers of an observation.
    pub fn inputs(&self) -> usize {
        let behind = || self.recurrent.as_ref().map_or(self.layers.inputs(), |recurrent| recurrent.inputs());
        self.encoder.as_ref().map_or_else(behind, |encoder| encoder.convolution().inputs())
    }

    /// Numbers of an answer.
    pub fn outputs(&self) -> usize {
        self.layers.outputs()
    }

    /// Weight and bias of each layer, the convolutions' first and the LSTM layers' before those after them, as programs have them.
    pub fn parameters(&self) -> impl Iterator<Item = &[f32]> {
        let recurrent = self.recurrent.iter().flat_map(|recurrent| recurrent.parameters());
        let connected = self.layers.layers().iter().flat_map(Layer::parameters);
        self.encoder.iter().flat_map(ConvEncoder::parameters).chain(recurrent).chain(connected)
    }

    /// The same, for handing new weights over; sizes must stay as they are.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let recurrent = self.recurrent.iter_mut().flat_map(|recurrent| recurrent.parameters_mut());
        let connected = self.layers.layers_mut().iter_mut().flat_map(Layer::parameters_mut);
        self.encoder.iter_mut().flat_map(ConvEncoder::parameters_mut).chain(recurrent).chain(connected)
    }

    /// The convolutions' weights and biases, and the fully connected layers, for handing new weights over to a network that is not recurrent.
    pub fn parts_mut(&mut self) -> (impl Iterator<Item = &mut [f32]>, &mut [Layer]) {
        (self.encoder.iter_mut().flat_map(ConvEncoder::parameters_mut), self.layers.layers_mut())
    }

    /// Answers row-major `x` `[rows, inputs]` with `[rows, outputs]`. Allocates only when `rows` grows. The rows of a recurrent network are
    /// consecutive steps: each changes its state.
    ///
    /// # Panics
    /// If `x` is not a whole number of rows: callers check what comes from outside.
    pub fn forward(&mut self, x: &[f32]) -> &[f32] {
        if let Some(recurrent) = &mut self.recurrent {
            let mut state = std::mem::take(&mut recurrent.state);
            self.out.clear();
            x.chunks_exact(self.inputs()).for_each(|row| self.step(row, &mut state));
            self.recurrent.as_mut().expect("just seen").state = state;
            return &self.out;
        }
        let Self { encoder, layers, out, .. } = self;
        let Some(encoder) = encoder else { return layers.forward(x) };
        let inputs = encoder.convolution().inputs();
        assert_eq!(x.len() % inputs, 0, "whole rows of {inputs}");
        out.clear();
        x.chunks_exact(inputs)
            .for_each(|image| out.extend_from_slice(layers.forward(encoder.forward(image))));
        out
    }

    /// Answers one step of each of several episodes: x `[rows, inputs]`, `states` `[rows, state]`, which become the next ones. The network's
    /// own state stays.
    ///
    /// # Panics
    /// If the network is not recurrent, or there are not as many states as rows.
    pub fn forward_from(&mut self, x: &[f32], states: &mut [f32]) -> &[f32] {
        let (inputs, width) = (self.inputs(), self.state().len());
        assert!(width > 0 && x.len() / inputs == states.len() / width, "a state for each row");
        self.out.clear();
        let rows = x.chunks_exact(inputs).zip(states.chunks_exact_mut(width));
        rows.for_each(|(row, state)| self.step(row, state));
        &self.out
    }

    /// Adds the answer to one step of a recurrent network.
    fn step(&mut self, row: &[f32], state: &mut [f32]) {
        let Self { encoder, recurrent, layers, out } = self;
        let Some(recurrent) = recurrent else { return };
        let seen = encoder.as_mut().map_or(row, |encoder| encoder.forward(row));
        let Recurrent { before, cells, .. } = &mut **recurrent;
        Recurrent::step(before, cells, seen, state);
        out.extend_from_slice(layers.forward(Recurrent::output(cells, state)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convolution::ConvolutionLayer;

    #[test]
    fn rows_of_images_are_answered_one_by_one() {
        let layers = vec![ConvolutionLayer { channels: 2, kernel: 2, stride: 1 }];
        let convolution = Convolution { shape: [1, 3, 3], layers };
        let shape = Shape::new(Some(&convolution), 9, &[4], 2);
        let mut actor = shape.actor();
        assert_eq!((actor.inputs(), actor.outputs(), actor.layers().len()), (9, 2, 2));
        let mut initial_values = Vec::new();
        let rng = &mut Rng::new(3);
        shape.initial(rng, "q.", &mut initial_values);
        let names = initial_values.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
        let expected =
            ["q.encoder.0.weight", "q.encoder.0.bias", "q.0.weight", "q.0.bias", "q.1.weight", "q.1.bias"];
        assert_eq!(names, expected);
        actor.parameters_mut().zip(&initial_values).for_each(|(to, (_, from))| to.copy_from_slice(from));
        assert!(actor.parameters().zip(&initial_values).all(|(a, (_, b))| a == b));
        let images = (0..18).map(|_| rng.below(256) as f32).collect::<Vec<_>>();
        let both = actor.forward(&images).to_vec();
        let each = images.chunks_exact(9).flat_map(|image| actor.forward(image).to_vec()).collect::<Vec<_>>();
        assert_eq!((both.len(), &both), (4, &each));
        assert!(both[..2] != both[2..]);
    }
}
