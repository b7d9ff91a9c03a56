//! A policy as a file of its own: the network that acts, and what it is for. Whoever loads policies (`oto-policy`) takes it
//! for a teacher.

use crate::safetensors;
use oto_env::Space;
use oto_json::Writer;
use oto_rl::engine::NamedTensor;
use oto_rl::mlp::Mlp;

/// The key of the file's only metadata entry: a policy's metadata as JSON.
pub const FORMAT: &str = "oto.policy.v1";

/// Writes a network whose outputs are a preference for each discrete action, or a continuous action before its tanh, ReLU
/// after every other layer: tensors `policy.N.weight` and `policy.N.bias`, and as metadata the spaces, the environment's id
/// and the algorithm, `description` a sentence for people.
pub fn write(
    network: &Mlp,
    [observation, action]: [&Space; 2],
    environment: &str,
    algorithm: &str,
    description: &str,
) -> Vec<u8> {
    let metadata = Writer::object(|out| {
        out.field("kind", "policy");
        out.field("description", description);
        out.field("env", environment);
        out.field("algorithm", algorithm);
        out.field("observation_space", observation);
        out.field("action_space", action);
    });
    safetensors::write(FORMAT, &metadata, &tensors("policy.", network))
}

/// A network's layers as tensors `{prefix}N.weight` and `{prefix}N.bias`.
pub(crate) fn tensors(prefix: &str, network: &Mlp) -> Vec<NamedTensor> {
    let layer = |(i, layer): (usize, &oto_rl::mlp::Layer)| {
        let (outputs, inputs) = (layer.bias.len(), layer.weight.len() / layer.bias.len());
        let named = |part: &str, shape: Vec<usize>, values: &[f32]| NamedTensor {
            name: format!("{prefix}{i}.{part}"),
            shape,
            values: values.to_vec(),
        };
        [named("weight", vec![outputs, inputs], &layer.weight), named("bias", vec![outputs], &layer.bias)]
    };
    network.layers().iter().enumerate().flat_map(layer).collect()
}
