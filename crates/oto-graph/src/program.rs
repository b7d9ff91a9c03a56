//! A finished program: nodes in an order in which they can be computed, inputs, outputs and state updates.

use crate::{BackendError, Op};
use std::fmt;

/// Which node, counted from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub usize);

/// Which input, counted from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputId(pub usize);

/// An operation and the shape of what it gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// The result's shape; empty for one number.
    pub shape: Vec<usize>,
}

/// Who owns an input between two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The executable: parameters, moments, counters. Replaced by the program's updates.
    State,
    /// The caller, who gives it anew for every run.
    Data,
}

/// What a program reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Unique name; parameters carry PyTorch-like names, which checkpoints keep.
    pub name: String,
    /// Shape; empty for one number.
    pub shape: Vec<usize>,
    /// Who owns it.
    pub role: Role,
}

impl Input {
    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pure function from state and data to new state and outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// In order: a node's operands come before it.
    pub nodes: Vec<Node>,
    /// All inputs.
    pub inputs: Vec<Input>,
    /// State inputs and the nodes whose values replace them after a run.
    pub updates: Vec<(InputId, NodeId)>,
    /// Named results.
    pub outputs: Vec<(String, NodeId)>,
}

impl Program {
    /// Refuses programs with an input of no numbers, a batch of zero rows above all.
    pub fn check(&self) -> Result<(), BackendError> {
        match self.inputs.iter().find(|i| i.is_empty()) {
            Some(Input { name, shape, .. }) => {
                Err(BackendError::Empty { name: name.clone(), shape: shape.clone() })
            }
            None => Ok(()),
        }
    }

    /// Whether `got` numbers are what an input holds.
    pub fn check_size(&self, input: InputId, got: usize) -> Result<(), BackendError> {
        let spec = &self.inputs[input.0];
        match spec.len() {
            expected if expected == got => Ok(()),
            expected => Err(BackendError::Size { name: spec.name.clone(), expected, got }),
        }
    }

    /// Whether a run was given as many data inputs and outputs as there are.
    pub fn check_counts(&self, data: usize, outputs: usize) -> Result<(), BackendError> {
        let inputs = self.data().count();
        for (what, expected, got) in [("data inputs", inputs, data), ("outputs", self.outputs.len(), outputs)]
        {
            if expected != got {
                return Err(BackendError::Count { what, expected, got });
            }
        }
        Ok(())
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<InputId> {
        self.inputs.iter().position(|i| i.name == name).map(InputId)
    }

    /// Position of the output of this name among the outputs.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|(n, _)| n == name)
    }

    /// The inputs the caller gives, in the order in which [`crate::Executable::run`] takes them.
    pub fn data(&self) -> impl Iterator<Item = (InputId, &Input)> {
        self.inputs
            .iter()
            .enumerate()
            .filter(|(_, i)| i.role == Role::Data)
            .map(|(i, input)| (InputId(i), input))
    }

    /// Drops the nodes that neither an output nor an update needs, and counts the rest anew.
    pub(crate) fn without_unused(self) -> Program {
        let mut needed = vec![false; self.nodes.len()];
        let roots = self.updates.iter().map(|(_, n)| n).chain(self.outputs.iter().map(|(_, n)| n));
        roots.for_each(|n| needed[n.0] = true);
        // Walking backwards marks operands before they are visited, because operands always come first.
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if needed[i] {
                node.op.operands().for_each(|o| needed[o.0] = true);
            }
        }
        let mut name = vec![NodeId(usize::MAX); self.nodes.len()];
        let mut nodes = Vec::new();
        for (i, node) in self.nodes.into_iter().enumerate().filter(|(i, _)| needed[*i]) {
            name[i] = NodeId(nodes.len());
            nodes.push(Node { op: node.op.renamed(&name), shape: node.shape });
        }
        Program {
            nodes,
            inputs: self.inputs,
            updates: self.updates.into_iter().map(|(input, n)| (input, name[n.0])).collect(),
            outputs: self.outputs.into_iter().map(|(s, n)| (s, name[n.0])).collect(),
        }
    }

    /// The node after which each node's value is needed no more.
    pub fn last_uses(&self) -> Vec<usize> {
        let mut last = (0..self.nodes.len()).collect::<Vec<_>>();
        for (i, node) in self.nodes.iter().enumerate() {
            node.op.operands().for_each(|o| last[o.0] = i);
        }
        let kept = self.updates.iter().map(|(_, n)| n).chain(self.outputs.iter().map(|(_, n)| n));
        kept.for_each(|n| last[n.0] = usize::MAX);
        last
    }
}

/// One line a node.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.nodes.iter().enumerate() {
            match node.op {
                Op::Input(n) => writeln!(f, "%{i} {:?} = {}", node.shape, self.inputs[n].name)?,
                ref op => writeln!(f, "%{i} {:?} = {op:?}", node.shape)?,
            }
        }
        self.updates
            .iter()
            .try_for_each(|(input, n)| writeln!(f, "{} <- %{}", self.inputs[input.0].name, n.0))?;
        self.outputs.iter().try_for_each(|(name, n)| writeln!(f, "return {name} = %{}", n.0))
    }
}
