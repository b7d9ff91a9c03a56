//! Networks that see images: convolutional layers before the fully connected ones, as a program's tensors and as the plain
//! weights that act.

use crate::mlp::dot;
use oto_env::MAX_WIDTH;
use oto_graph::{Activation, Conv, Tensor, Trace};

/// One layer of kernels, ReLU after it, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct ConvolutionLayer {
    /// Number of kernels: the channels of the result.
    pub channels: usize,
    /// Side of a kernel in pixels.
    pub kernel: usize,
    /// Stride in pixels.
    pub stride: usize,
}

oto_json::json_object! { ConvolutionLayer: closed { channels, kernel, stride } }

/// Convolutional layers for images.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Convolution {
    /// Channels, height and width of an observation of numbers from 0 to 255.
    pub shape: [usize; 3],
    /// The layers, first to last.
    pub layers: Vec<ConvolutionLayer>,
}

oto_json::json_object! { Convolution: closed { shape, layers } }

/// What pixels are multiplied with: a network sees numbers from 0 to 1.
const SCALE: f64 = 1.0 / 255.0;
/// The most layers and the most numbers that the last one may give.
const MOST: (usize, usize) = (8, 1 << 16);
/// The most multiplications that an image may take; the Atari network takes 7.7 million.
const MOST_WORK: u64 = 1 << 30;

/// A layer between its images.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Between {
    /// Channels, height and width of what it sees.
    from: [usize; 3],
    /// The same of what it gives.
    to: [usize; 3],
    kernel: usize,
    stride: usize,
}

impl Between {
    /// Numbers that a kernel sees at a place.
    fn seen(self) -> usize {
        self.from[0] * self.kernel * self.kernel
    }

    fn places(self) -> usize {
        self.to[1] * self.to[2]
    }
}

impl Convolution {
    /// The network of Mnih et al. (2015), "Human-level control through deep reinforcement learning", before its 512
    /// fully connected units.
    pub fn atari(shape: [usize; 3]) -> Self {
        let layer = |channels, kernel, stride| ConvolutionLayer { channels, kernel, stride };
        Self { shape, layers: vec![layer(32, 8, 4), layer(64, 4, 2), layer(64, 3, 1)] }
    }

    /// The field's network for images of this shape, and its fully connected units: the Atari network where it fits, for smaller images
    /// that of MinAtar (Young and Tian 2019): 16 kernels of 3 by 3 pixels, then 128 units. None for images below that.
    pub fn usual(shape: [usize; 3]) -> Option<(Self, usize)> {
        let small = ConvolutionLayer { channels: 16, kernel: 3, stride: 1 };
        let networks = [(Self::atari(shape), 512), (Self { shape, layers: vec![small] }, 128)];
        networks.into_iter().find(|(network, _)| network.check().is_ok())
    }

    /// Whether layers and image fit each other; what else is expected where they do not.
    pub fn check(&self) -> Result<(), &'static str> {
        let size = self.shape.iter().try_fold(1usize, |size, side| size.checked_mul(*side));
        if !size.is_some_and(|size| (1..=MAX_WIDTH).contains(&size)) {
            return Err("an image of 1 to 1048576 numbers");
        }
        if !(1..=MOST.0).contains(&self.layers.len()) {
            return Err("1 to 8 layers");
        }
        let [_, mut height, mut width] = self.shape;
        for layer in &self.layers {
            if !(1..=1024).contains(&layer.channels) || layer.stride == 0 {
                return Err("1 to 1024 channels a layer, and a stride of at least 1");
            }
            if layer.kernel == 0 || layer.kernel > height.min(width) {
                return Err("kernels of at least 1 pixel that fit into their image");
            }
            [height, width] = [height, width].map(|side| (side - layer.kernel) / layer.stride + 1);
            if layer.channels * height * width > MAX_WIDTH {
                return Err("layers that give at most 1048576 numbers");
            }
        }
        let outputs = self.layers[self.layers.len() - 1].channels * height * width;
        if outputs > MOST.1 {
            return Err("a last layer that gives at most 65536 numbers");
        }
        let work = |layer: Between| (layer.places() * layer.to[0]) as u64 * layer.seen() as u64;
        let fits = self.between().map(work).sum::<u64>() <= MOST_WORK;
        if fits { Ok(()) } else { Err("layers that take at most 2^30 multiplications an image") }
    }

    /// Numbers of an observation.
    pub fn inputs(&self) -> usize {
        self.shape.iter().product()
    }

    fn between(&self) -> impl Iterator<Item = Between> + '_ {
        self.layers.iter().scan(self.shape, |shape, layer| {
            let from = *shape;
            let conv = Conv { stride: layer.stride, padding: 0 };
            let to = [layer.channels, conv.output(from[1], layer.kernel), conv.output(from[2], layer.kernel)];
            *shape = to;
            Some(Between { from, to, kernel: layer.kernel, stride: layer.stride })
        })
    }

    /// Numbers of what the last layer gives.
    pub fn outputs(&self) -> usize {
        self.between().last().map_or(self.inputs(), |layer| layer.to.iter().product())
    }

    /// The shape `[O, C, K, K]` of each layer's weight.
    pub fn weights(&self) -> impl Iterator<Item = [usize; 4]> + '_ {
        self.between().map(|layer| [layer.to[0], layer.from[0], layer.kernel, layer.kernel])
    }

    /// How many numbers each layer's kernel sees at a place, and how many kernels it has: what initial weights depend on.
    pub fn sizes(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.between().map(|layer| (layer.seen(), layer.to[0]))
    }

    /// The parameters as state inputs named `{prefix}{layer}.weight` `[O, C, K, K]` and `.bias` `[O]`.
    pub fn parameters<'t>(&self, trace: &'t Trace, prefix: &str) -> Vec<(String, Tensor<'t>)> {
        let layer = |(i, layer): (usize, Between)| {
            let (weight, bias) = (format!("{prefix}{i}.weight"), format!("{prefix}{i}.bias"));
            let w = trace.state(weight.clone(), &[layer.to[0], layer.from[0], layer.kernel, layer.kernel]);
            let b = trace.state(bias.clone(), &layer.to[..1]);
            [(weight, w), (bias, b)]
        };
        self.between().enumerate().flat_map(layer).collect()
    }

    /// What the layers of those parameters make of observations x `[B, inputs]`: `[B, outputs]`.
    pub fn network<'t>(&self, params: &[(String, Tensor<'t>)], x: Tensor<'t>) -> Tensor<'t> {
        let [channels, height, width] = self.shape;
        let image = (x * SCALE).reshape(&[x.size(0), channels, height, width]);
        let layers = params.chunks_exact(2).zip(&self.layers);
        let seen = layers.fold(image, |x, (p, layer)| {
            x.conv2d(p[0].1, p[1].1, Conv { stride: layer.stride, padding: 0 }, Activation::Relu)
        });
        seen.reshape(&[x.size(0), self.outputs()])
    }
}

/// The layers with plain weights, for acting on one observation at a time. Allocates nothing after the first.
#[derive(Clone, Debug)]
pub struct ConvEncoder {
    convolution: Convolution,
    layers: Vec<(Between, Vec<f32>, Vec<f32>)>,
    image: Vec<f32>,
    result: Vec<f32>,
    patch: Vec<f32>,
}

impl ConvEncoder {
    /// Layers whose weights are zeros.
    pub fn new(convolution: Convolution) -> Self {
        let zeros = |layer: Between| (layer, vec![0.0; layer.seen() * layer.to[0]], vec![0.0; layer.to[0]]);
        let layers = convolution.between().map(zeros).collect();
        Self { convolution, layers, image: Vec::new(), result: Vec::new(), patch: Vec::new() }
    }

    /// Its sizes.
    pub fn convolution(&self) -> &Convolution {
        &self.convolution
    }

    /// Weight `[O, C, K, K]` and bias `[O]` of each layer, first to last.
    pub fn parameters(&self) -> impl Iterator<Item = &[f32]> {
        self.layers.iter().flat_map(|(_, weight, bias)| [weight.as_slice(), bias.as_slice()])
    }

    /// The same, for handing new weights over; sizes must stay as they are.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.layers.iter_mut().flat_map(|(_, weight, bias)| [weight.as_mut_slice(), bias.as_mut_slice()])
    }

    /// Answers an observation `[inputs]` with `[outputs]`.
    ///
    /// # Panics
    /// If `x` has another length: callers check what comes from outside.
    pub fn forward(&mut self, x: &[f32]) -> &[f32] {
        let Self { layers, image, result, patch, .. } = self;
        assert_eq!(x.len(), layers[0].0.from.iter().product::<usize>(), "one image");
        image.clear();
        image.extend(x.iter().map(|x| x * SCALE as f32));
        for (layer, weight, bias) in layers {
            let [_, height, width] = layer.from;
            let places = layer.places();
            result.clear();
            result.resize(bias.len() * places, 0.0);
            for place in 0..places {
                let (i, j) = (place / layer.to[2], place % layer.to[2]);
                let corner = (i * width + j) * layer.stride;
                patch.clear();
                for channel in 0..layer.from[0] {
                    for line in 0..layer.kernel {
                        let at = corner + (channel * height + line) * width;
                        patch.extend_from_slice(&image[at..at + layer.kernel]);
                    }
                }
                let kernels = weight.chunks_exact(patch.len()).zip(bias.iter());
                for (out, (w, b)) in result[place..].iter_mut().step_by(places).zip(kernels) {
                    *out = (dot(w, patch) + b).max(0.0);
                }
            }
            std::mem::swap(image, result);
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atari_has_the_published_sizes() {
        let network = Convolution::atari([4, 84, 84]);
        network.check().unwrap();
        assert_eq!(network.sizes().collect::<Vec<_>>(), [(256, 32), (512, 64), (576, 64)]);
        assert_eq!((network.inputs(), network.outputs()), (28_224, 3136));
    }

    #[test]
    fn images_of_every_size_have_their_usual_network() {
        let kernels =
            |shape| Convolution::usual(shape).map(|(network, units)| (network.layers[0].kernel, units));
        assert_eq!(kernels([3, 210, 160]), Some((8, 512)));
        assert_eq!(kernels([1, 36, 36]), Some((8, 512)));
        assert_eq!(kernels([3, 35, 84]), Some((3, 128)));
        assert_eq!(kernels([3, 7, 7]), Some((3, 128)));
        assert_eq!(kernels([1, 1, 128]), None);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let with = |shape, layers: &[[usize; 3]]| {
            let layer =
                |&[channels, kernel, stride]: &[usize; 3]| ConvolutionLayer { channels, kernel, stride };
            Convolution { shape, layers: layers.iter().map(layer).collect() }.check()
        };
        assert_eq!(with([1, 3, 3], &[[1, 3, 1]]), Ok(()));
        assert!(with([1, 3, 3], &[[1, 4, 1]]).unwrap_err().contains("fit into"));
        assert!(with([1, 9, 9], &[[1, 4, 4], [1, 3, 1]]).unwrap_err().contains("fit into"));
        assert!(with([1, 3, 3], &[[1, 0, 1]]).is_err() && with([1, 3, 3], &[[1, 3, 0]]).is_err());
        assert!(with([1, 3, 3], &[]).unwrap_err().contains("layers"));
        assert!(with([0, 3, 3], &[[1, 1, 1]]).unwrap_err().contains("image"));
        assert!(with([usize::MAX, usize::MAX, 2], &[[1, 1, 1]]).unwrap_err().contains("image"));
        assert!(with([1, 1024, 1024], &[[1024, 1, 1]]).unwrap_err().contains("1048576"));
        assert!(with([1, 1024, 1024], &[[100, 1000, 1]]).unwrap_err().contains("multiplications"));
    }

    /// Two kernels of two pixels over an image of three by three, by hand.
    #[test]
    fn an_encoder_convolves() {
        let layer = ConvolutionLayer { channels: 2, kernel: 2, stride: 1 };
        let mut encoder = ConvEncoder::new(Convolution { shape: [1, 3, 3], layers: vec![layer] });
        let new: [&[f32]; 2] = [&[1.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0], &[0.5, 3.0]];
        encoder.parameters_mut().zip(new).for_each(|(to, from)| to.copy_from_slice(from));
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0].map(|x: f32| x * 255.0);
        let seen = encoder.forward(&image);
        let expected = [6.5, 8.5, 12.5, 14.5, 1.0, 0.0, 0.0, 0.0];
        assert!(seen.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{seen:?}");
    }
}
