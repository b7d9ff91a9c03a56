//! What a Stable-Baselines3 SAC teacher thinks of a state, for the method that OTO compares itself with: how probable a push
//! to either side is for its stochastic policy, and what its critics say the state is worth.

use oto_policy::PolicyError;
use oto_policy::tensors::StateDict;
use oto_rl::mlp::{Activation, Layer, Mlp};

/// A SAC agent with one action component: its policy and both critics.
pub struct Thinker {
    trunk: Mlp,
    mean: Mlp,
    log_std: Mlp,
    critics: [Mlp; 2],
}

/// Numbers of an answer: left, right, value.
pub const WIDTH: usize = 3;

impl Thinker {
    /// Finds the networks by Stable-Baselines3's names.
    pub fn new(dict: &StateDict) -> Result<Self, PolicyError> {
        let hidden = |name: &str| layer(dict, name, Activation::Relu);
        let last = |name: &str| layer(dict, name, Activation::Identity);
        let critic = |i: usize| {
            let name = |n: usize| format!("critic.qf{i}.{n}");
            join(vec![hidden(&name(0))?, hidden(&name(2))?, last(&name(4))?])
        };
        Ok(Self {
            trunk: join(vec![hidden("actor.latent_pi.0")?, hidden("actor.latent_pi.2")?])?,
            mean: join(vec![last("actor.mu")?])?,
            log_std: join(vec![last("actor.log_std")?])?,
            critics: [critic(0)?, critic(1)?],
        })
    }

    /// Appends `[rows, WIDTH]` for observations `[rows, inputs]`.
    pub fn think(&mut self, observations: &[f32], out: &mut Vec<f32>) {
        for observation in observations.chunks_exact(self.trunk.inputs()) {
            let latent = self.trunk.forward(observation);
            let mean = self.mean.forward(latent)[0];
            let std = self.log_std.forward(latent)[0].clamp(-20.0, 2.0).exp();
            // The squashing keeps the sign, so right is as probable as the Gaussian is above zero; its distribution function
            // as a logistic curve, which is nowhere off by more than a hundredth (Bowling et al. 2009).
            let right = 1.0 / (1.0 + (-1.702 * mean / std).exp());
            let input = [observation, &[mean.tanh()]].concat();
            let value = self.critics.iter_mut().map(|c| c.forward(&input)[0]).fold(f32::INFINITY, f32::min);
            out.extend([1.0 - right, right, value]);
        }
    }
}

fn layer(dict: &StateDict, name: &str, activation: Activation) -> Result<Layer, PolicyError> {
    let part = |part: &str| {
        let name = format!("{name}.{part}");
        let tensor = dict.get(&name).map(|t| t.values.clone());
        tensor.ok_or_else(|| PolicyError::Unsupported(format!("no SAC agent: it has no tensor {name}")))
    };
    Ok(Layer { weight: part("weight")?, bias: part("bias")?, activation })
}

fn join(layers: Vec<Layer>) -> Result<Mlp, PolicyError> {
    let inputs = layers.first().map_or(0, |l| l.weight.len() / l.bias.len().max(1));
    Mlp::new(inputs, layers)
        .map_err(|e| PolicyError::Unsupported(format!("a SAC agent whose layers do not fit: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solved_pendulum_is_worth_most_upright_and_pushed_where_it_leans() {
        let file = include_bytes!("../../../tests/fixtures/teacher_sac_inverted_pendulum_v5.safetensors");
        let mut thinker = Thinker::new(&oto_policy::tensors::from_safetensors(file).unwrap()).unwrap();
        let mut out = Vec::new();
        // x, angle, and their speeds: upright, leaning and falling to either side.
        thinker.think(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.15, 0.0, 1.0, 0.0, -0.15, 0.0, -1.0], &mut out);
        let [upright, right, left] = [0, 1, 2].map(|i| &out[i * WIDTH..][..WIDTH]);
        assert!(right[1] > 0.9 && left[0] > 0.9, "{out:?}");
        assert!(upright[2] > right[2] && upright[2] > left[2], "{out:?}");
        assert!(out.chunks_exact(WIDTH).all(|t| (t[0] + t[1] - 1.0).abs() < 1e-6), "{out:?}");
    }

    #[test]
    fn another_agent_is_named() {
        let error = Thinker::new(&StateDict::new()).err().unwrap().to_string();
        assert!(error.contains("actor.latent_pi.0.weight"), "{error}");
    }
}
