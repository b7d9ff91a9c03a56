//! Policies with known answers, and one that waits until it is told to go on.

use oto_policy::{Loaded, Metadata, Output, Policy, PolicyError};
use oto_proto::Space;
use std::sync::{Arc, Condvar, Mutex};

pub fn boxed(width: usize) -> Space {
    Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] }
}

/// A policy made of a function from one observation to one action.
pub struct Function<F> {
    observation: Space,
    action: Space,
    f: F,
}

impl<F: FnMut(&[f32], &mut Vec<f32>) + Send> Policy for Function<F> {
    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn act(&mut self, observations: &[f32], _: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        actions.clear();
        observations.chunks(self.observation.width()).for_each(|row| (self.f)(row, actions));
        Ok(())
    }

    fn outputs(&mut self, _: &[f32], _: usize) -> Result<Vec<Output>, PolicyError> {
        Err(PolicyError::Unsupported("no outputs in these tests".into()))
    }
}

pub fn function(
    observation: Space,
    action: Space,
    f: impl FnMut(&[f32], &mut Vec<f32>) + Send + 'static,
) -> Box<dyn Policy> {
    Box::new(Function { observation, action, f })
}

pub fn loaded(name: &str, policy: Box<dyn Policy>) -> Loaded {
    let metadata = Metadata { kind: "policy".into(), ..Metadata::default() };
    Loaded { name: name.into(), metadata, policy, model: None, warnings: vec![] }
}

/// Four numbers to one of two choices: 1 where the sum is positive. A first number beyond 1e6 makes it say NaN, one
/// below -1e6 makes it panic, so that its students can be told apart from those of a sound one.
pub fn sum() -> Loaded {
    let f = |row: &[f32], actions: &mut Vec<f32>| {
        assert!(row[0] > -1e6, "asked to");
        actions.push(if row[0] > 1e6 { f32::NAN } else { f32::from(row.iter().sum::<f32>() > 0.0) });
    };
    loaded("sum", function(boxed(4), Space::Discrete { n: 2 }, f))
}

/// One number to sixty-four times that number: small questions, large answers.
pub fn wide() -> Loaded {
    let f = |row: &[f32], actions: &mut Vec<f32>| actions.extend([row[0]; 64]);
    loaded("wide", function(boxed(1), boxed(64), f))
}

/// A recurrent policy that adds up the first numbers of an episode; an answer is the sum and a mark. A number beyond 1e6 makes it say NaN.
pub struct Sums {
    observation: Space,
    action: Space,
    mark: f32,
}

impl Policy for Sums {
    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn state_width(&self) -> usize {
        1
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        self.act_from(observations, rows, &mut vec![0.0; rows], actions)
    }

    fn act_from(
        &mut self,
        observations: &[f32],
        _: usize,
        states: &mut [f32],
        actions: &mut Vec<f32>,
    ) -> Result<(), PolicyError> {
        actions.clear();
        for (row, state) in observations.chunks(self.observation.width()).zip(states) {
            *state += row[0];
            actions.extend([if row[0] > 1e6 { f32::NAN } else { *state }, self.mark]);
        }
        Ok(())
    }

    fn outputs(&mut self, _: &[f32], _: usize) -> Result<Vec<Output>, PolicyError> {
        Err(PolicyError::Unsupported("no outputs in these tests".into()))
    }
}

pub fn sums(observation: Space, mark: f32) -> Box<dyn Policy> {
    Box::new(Sums { observation, action: boxed(2), mark })
}

/// What a gated policy was asked, and whether it may answer.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    calls: Vec<usize>,
}

impl Gate {
    /// Lets every call pass from now on.
    pub fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Waits until the policy was called `n` times.
    pub fn wait_for_calls(&self, n: usize) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| state.calls.len() < n).unwrap());
    }

    /// The number of rows of each call.
    pub fn calls(&self) -> Vec<usize> {
        self.state.lock().unwrap().calls.clone()
    }

    fn pass(&self, rows: usize) {
        let mut state = self.state.lock().unwrap();
        state.calls.push(rows);
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.open).unwrap());
    }
}

struct Gated {
    gate: Arc<Gate>,
    inner: Box<dyn Policy>,
}

impl Policy for Gated {
    fn observation_space(&self) -> &Space {
        self.inner.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.inner.action_space()
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        self.gate.pass(rows);
        self.inner.act(observations, rows, actions)
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        self.inner.outputs(observations, rows)
    }
}

/// The policy [`sum`] behind a gate, under the name `gated`.
pub fn gated() -> (Loaded, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let policy = Gated { gate: gate.clone(), inner: sum().policy };
    (loaded("gated", Box::new(policy)), gate)
}
