//! A policy as a file of its own: the network that acts, and what it is for. Whoever loads policies (`oto-policy`) takes it
//! for a teacher.

use crate::safetensors::{self, network as tensors};
use oto_env::Space;
use oto_json::Writer;
use oto_rl::mlp::{Activation, Layer};
use oto_rl::network::Actor;

/// The key of the file's only metadata entry: a policy's metadata as JSON.
pub const FORMAT: &str = "oto.policy.v1";

/// Writes a network whose outputs are a preference for each discrete action, or a continuous action: before its tanh
/// (`squashed`), or as it is, cut off at -1 and 1. Tensors are `policy.N.weight` and `policy.N.bias`, or `mean.N...`, whose outputs
/// are in the environment's units; convolutions before them are `policy.encoder.N.weight` and `.bias`. A recurrent network has
/// `policy.before.N.weight` and `.bias` before its LSTM layers `policy.lstm.N.weight_ih`, `.weight_hh` and `.bias`, and `policy.N...` after
/// them. Metadata are the spaces, the
/// convolutions' sizes, the hidden layers' activation, the environment's id and the algorithm, `description` a sentence for
/// people.
pub fn write(
    network: &Actor,
    squashed: bool,
    [observation, action]: [&Space; 2],
    environment: &str,
    algorithm: &str,
    description: &str,
) -> Vec<u8> {
    let hidden = network.layers_before().first().unwrap_or(&network.layers()[0]).activation;
    let metadata = Writer::object(|out| {
        out.field("kind", "policy");
        out.field("description", description);
        out.field("env", environment);
        out.field("algorithm", algorithm);
        out.field("observation_space", observation);
        out.field("action_space", action);
        if hidden == Activation::Tanh {
            out.field("activation", "tanh");
        }
        if let Some(encoder) = network.encoder() {
            out.field("convolution", encoder.convolution());
        }
    });
    let tensors = match action {
        Space::Box { low, high } if !squashed => {
            tensors("mean.", network, &in_units(network.layers(), low, high))
        }
        _ => tensors("policy.", network, network.layers()),
    };
    safetensors::write(FORMAT, &metadata, &tensors)
}

/// The same network with outputs from `low` to `high` where they went from -1 to 1.
fn in_units(layers: &[Layer], low: &[f32], high: &[f32]) -> Vec<Layer> {
    let mut layers = layers.to_vec();
    let last = layers.last_mut().expect("a network has a last layer");
    let width = last.weight.len() / last.bias.len();
    for (i, row) in last.weight.chunks_exact_mut(width).enumerate() {
        let half = (high[i] - low[i]) * 0.5;
        row.iter_mut().for_each(|w| *w *= half);
        last.bias[i] = last.bias[i] * half + low[i] + half;
    }
    layers
}
