//! A network that sees images, if it has convolutions, or rows of numbers, and goes on with fully connected layers: as a program's
//! tensors, as initial values, and as the plain weights that act.

use crate::convolution::{ConvEncoder, Convolution};
use crate::critics::{InitialParameters, Params, follow, initial_mlp};
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

/// A network that acts, on plain weights.
#[derive(Clone, Debug)]
pub struct Actor {
    encoder: Option<ConvEncoder>,
    layers: Mlp,
    /// Answers to several images.
    out: Vec<f32>,
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
        let fits = encoder.as_ref().is_none_or(|encoder| encoder.convolution().outputs() == layers.inputs());
        assert!(fits, "layers that take what the encoder gives");
        Self { encoder, layers, out: Vec::new() }
    }

    /// What sees images.
    pub fn encoder(&self) -> Option<&ConvEncoder> {
        self.encoder.as_ref()
    }

    /// The fully connected layers, first to last.
    pub fn layers(&self) -> &[Layer] {
        self.layers.layers()
    }

    /// Numbers of an observation.
    pub fn inputs(&self) -> usize {
        self.encoder.as_ref().map_or(self.layers.inputs(), |encoder| encoder.convolution().inputs())
    }

    /// Numbers of an answer.
    pub fn outputs(&self) -> usize {
        self.layers.outputs()
    }

    /// Weight and bias of each layer, the convolutions' first, as programs have them.
    pub fn parameters(&self) -> impl Iterator<Item = &[f32]> {
        let layers = self.layers.layers().iter();
        let connected = layers.flat_map(|l| [l.weight.as_slice(), l.bias.as_slice()]);
        self.encoder.iter().flat_map(ConvEncoder::parameters).chain(connected)
    }

    /// The same, for handing new weights over; sizes must stay as they are.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let layers = self.layers.layers_mut().iter_mut();
        let connected = layers.flat_map(|l| [l.weight.as_mut_slice(), l.bias.as_mut_slice()]);
        self.encoder.iter_mut().flat_map(ConvEncoder::parameters_mut).chain(connected)
    }

    /// The convolutions' weights and biases, and the fully connected layers, for handing new weights over.
    pub fn parts_mut(&mut self) -> (impl Iterator<Item = &mut [f32]>, &mut [Layer]) {
        (self.encoder.iter_mut().flat_map(ConvEncoder::parameters_mut), self.layers.layers_mut())
    }

    /// Answers row-major `x` `[rows, inputs]` with `[rows, outputs]`. Allocates only when `rows` grows.
    ///
    /// # Panics
    /// If `x` is not a whole number of rows: callers check what comes from outside.
    pub fn forward(&mut self, x: &[f32]) -> &[f32] {
        let Self { encoder, layers, out } = self;
        let Some(encoder) = encoder else { return layers.forward(x) };
        let inputs = encoder.convolution().inputs();
        assert_eq!(x.len() % inputs, 0, "whole rows of {inputs}");
        out.clear();
        x.chunks_exact(inputs)
            .for_each(|image| out.extend_from_slice(layers.forward(encoder.forward(image))));
        out
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
