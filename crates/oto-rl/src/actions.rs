//! What actions a learner gives: one of several, or a vector.

/// What the actions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actions {
    /// One of so many.
    Discrete(usize),
    /// So many components from -1 to 1.
    Continuous(usize),
}

impl Actions {
    /// Outputs of the network.
    pub(crate) fn outputs(self) -> usize {
        let (Actions::Discrete(n) | Actions::Continuous(n)) = self;
        n
    }

    /// How many numbers an action has.
    pub fn width(self) -> usize {
        match self {
            Actions::Discrete(_) => 1,
            Actions::Continuous(n) => n,
        }
    }

    /// The shape of so many actions in a program.
    pub(crate) fn shape(self, rows: usize) -> Vec<usize> {
        match self {
            Actions::Discrete(_) => vec![rows],
            Actions::Continuous(n) => vec![rows, n],
        }
    }
}
