//! One decision of an actor: the network that acts, its exploration, the environment's units, and a safe action where there is no other.

use super::buffer::Acting;
use super::explore::Explorer;
use crate::trainer::in_units;
use oto_env::{Action, Space};
use oto_proto::weights::{Activation, Model, Output};
use oto_rl::actions::Actions;
use oto_rl::mlp::{self, Mlp, choice};
use oto_rl::network::Actor;

/// Where an action came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The weights of this version.
    Policy(u32),
    /// The configured safe action: there are no weights, or they answered with no finite number.
    Safe,
}

/// A safe action that the environment does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a safe action of {space}, got {got}")]
pub struct SafeActionError {
    space: String,
    got: String,
}

/// What a learner's first words make of an actor: the network that acts, and how it explores.
pub struct Equipment {
    /// The acting side of the network's buffer.
    pub acting: Acting,
    /// What makes an action of the network's outputs.
    pub output: Output,
    /// The noise.
    pub explorer: Explorer,
    /// Nanoseconds from one step to the next, where the learner says.
    pub period: Option<u64>,
}

/// Decides, step by step, without waiting and without allocating.
pub struct Decider {
    equipment: Option<Equipment>,
    space: Space,
    safe: Vec<f32>,
    /// The action as the learner has it, and in the environment's units.
    own: Vec<f32>,
    units: Vec<f32>,
}

impl Decider {
    /// Decides among the actions of `space`; `safe` is an action in its units, by default the middle of each range, or the first choice.
    ///
    /// # Errors
    /// A safe action that the space does not have.
    pub fn new(space: Space, safe: Option<&[f32]>) -> Result<Self, SafeActionError> {
        let safe = match safe {
            Some(safe) if is_action(&space, safe) => safe.to_vec(),
            Some(safe) => {
                return Err(SafeActionError { space: described(&space), got: format!("{safe:?}") });
            }
            None => middle(&space),
        };
        let (own, units) = (vec![0.0; safe.len()], vec![0.0; safe.len()]);
        Ok(Decider { equipment: None, space, safe, own, units })
    }

    /// Gets the network. Until then every action is the safe one.
    pub fn equip(&mut self, equipment: Equipment) {
        self.equipment = Some(equipment);
    }

    /// Puts new weights to use, if they have come. Gives their version.
    pub fn swap(&mut self) -> Option<u32> {
        self.equipment.as_mut().and_then(|equipment| equipment.acting.swap())
    }

    /// The version of the weights that act; 0: none yet.
    pub fn version(&self) -> u32 {
        self.equipment.as_ref().map_or(0, |equipment| equipment.acting.version())
    }

    /// An episode begins.
    pub fn begin(&mut self) {
        self.equipment.iter_mut().for_each(|equipment| equipment.explorer.begin());
    }

    /// Chooses the action for an observation, see [`Self::action`]; it explores unless it is evaluated.
    pub fn decide(&mut self, observation: &[f32], explores: bool) -> Decision {
        let Self { equipment, own, .. } = self;
        let Some(Equipment { acting, output, explorer, .. }) = equipment else { return self.safely() };
        let version = acting.version();
        let Some(answer) = acting.forward(observation) else { return self.safely() };
        match output {
            Output::Tanh => own.iter_mut().zip(answer).for_each(|(own, x)| *own = x.tanh()),
            Output::Clip => own.iter_mut().zip(answer).for_each(|(own, x)| *own = x.clamp(-1.0, 1.0)),
            Output::Argmax => own[0] = choice(answer),
        }
        if own.iter().any(|x| !x.is_finite()) {
            return self.safely();
        }
        if explores {
            explorer.explore(own);
        }
        if let Action::Discrete(index) = in_units(&self.space, &self.own, &mut self.units) {
            self.units[0] = index as f32;
        }
        Decision::Policy(version)
    }

    fn safely(&mut self) -> Decision {
        self.units.copy_from_slice(&self.safe);
        Decision::Safe
    }

    /// The action chosen last, in the environment's units; the index of a discrete one.
    pub fn action(&self) -> &[f32] {
        &self.units
    }

    /// The same, as an environment takes it.
    pub fn environment_action(&self) -> Action<'_> {
        match self.space {
            Space::Discrete { .. } => Action::Discrete(self.units[0] as u32),
            Space::Box { .. } => Action::Continuous(&self.units),
        }
    }
}

/// A network of this architecture, whose weights are still to come. [`Model::check`] has approved its sizes.
pub fn network(model: &Model) -> Actor {
    let hidden = match model.activation {
        Activation::Relu => mlp::Activation::Relu,
        Activation::Tanh => mlp::Activation::Tanh,
    };
    let widths = model.widths.iter().map(|width| *width as usize).collect::<Vec<_>>();
    Mlp::zeros(&widths, hidden).into()
}

/// The kind of actions of a space.
pub fn actions(space: &Space) -> Actions {
    match space {
        Space::Discrete { n } => Actions::Discrete(*n as usize),
        Space::Box { low, .. } => Actions::Continuous(low.len()),
    }
}

fn is_action(space: &Space, action: &[f32]) -> bool {
    match space {
        Space::Discrete { .. } => actions(space).contains(action),
        Space::Box { low, high } => {
            action.len() == low.len()
                && action.iter().zip(low).zip(high).all(|((a, low), high)| (*low..=*high).contains(a))
        }
    }
}

fn middle(space: &Space) -> Vec<f32> {
    match space {
        Space::Discrete { .. } => vec![0.0],
        Space::Box { low, high } => low.iter().zip(high).map(|(low, high)| 0.5 * low + 0.5 * high).collect(),
    }
}

fn described(space: &Space) -> String {
    match space {
        Space::Discrete { n } => format!("{n} choices"),
        Space::Box { low, high } => format!("a box from {low:?} to {high:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::{DoubleBuffer, Writing};
    use super::super::explore::Exploration;
    use super::*;

    fn torque() -> Space {
        Space::Box { low: vec![-2.0], high: vec![2.0] }
    }

    fn decider(space: Space, output: Output, outputs: u32, safe: Option<&[f32]>) -> (Decider, Writing) {
        let (acting, writing) =
            DoubleBuffer::new(network(&Model::mlp(vec![1, outputs], Activation::Relu, output))).split();
        let explorer = Explorer::new(Exploration::none(), actions(&space), 1);
        let mut decider = Decider::new(space, safe).unwrap();
        assert_eq!(decider.decide(&[1.0], true), Decision::Safe, "without a network");
        decider.equip(Equipment { acting, output, explorer, period: None });
        (decider, writing)
    }

    #[test]
    fn the_safe_action_stands_in_until_there_are_weights() {
        let (mut decider, mut writing) = decider(torque(), Output::Tanh, 1, Some(&[0.5]));
        assert_eq!((decider.decide(&[1.0], true), decider.action()), (Decision::Safe, &[0.5][..]));
        writing.write(1, &[1.0, 0.0]).unwrap();
        assert_eq!(decider.decide(&[1.0], true), Decision::Safe, "weights wait for a swap");
        assert_eq!(decider.swap(), Some(1));
        assert_eq!(decider.decide(&[1.0], true), Decision::Policy(1));
        assert_eq!(decider.action(), [2.0 * 1.0f32.tanh()]);
        // Numbers too large for the network: the answer is none.
        writing.write(2, &[f32::MAX, f32::MAX]).unwrap();
        decider.swap();
        assert_eq!(decider.decide(&[f32::NAN], true), Decision::Safe);
        assert_eq!((decider.decide(&[1.0], true), decider.action()), (Decision::Policy(2), &[2.0][..]));
    }

    #[test]
    fn heads_make_actions() {
        let (mut clip, mut writing) = decider(torque(), Output::Clip, 1, None);
        writing.write(1, &[3.0, 0.0]).unwrap();
        clip.swap();
        assert_eq!((clip.decide(&[1.0], false), clip.action()), (Decision::Policy(1), &[2.0][..]));
        assert_eq!((clip.decide(&[0.25], false), clip.action()), (Decision::Policy(1), &[1.5][..]));
        let (mut argmax, mut writing) = decider(Space::Discrete { n: 3 }, Output::Argmax, 3, Some(&[2.0]));
        assert_eq!((argmax.decide(&[1.0], false), argmax.action()), (Decision::Safe, &[2.0][..]));
        writing.write(1, &[0.0, 1.0, 0.5, 0.0, 0.0, 0.0]).unwrap();
        argmax.swap();
        argmax.decide(&[1.0], false);
        assert_eq!(argmax.environment_action(), Action::Discrete(1));
    }

    #[test]
    fn a_safe_action_is_an_action() {
        for (space, safe) in [(torque(), [2.5]), (torque(), [f32::NAN]), (Space::Discrete { n: 2 }, [2.0])] {
            let error = Decider::new(space, Some(&safe)).err().unwrap();
            assert!(error.to_string().starts_with("expected a safe action of"), "{error}");
        }
    }
}
