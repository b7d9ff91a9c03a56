//! The actions of an agent: one of several, or a vector.

use oto_env::rng::Rng;

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
    pub fn outputs(self) -> usize {
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

    /// Whether these numbers are an action.
    pub fn contains(self, action: &[f32]) -> bool {
        match self {
            Actions::Discrete(n) => {
                matches!(action, [a] if a.fract() == 0.0 && (0.0..n as f32).contains(a))
            }
            Actions::Continuous(width) => {
                action.len() == width && action.iter().all(|a| (-1.0..=1.0).contains(a))
            }
        }
    }

    /// Any action.
    pub fn random(self, rng: &mut Rng, action: &mut [f32]) {
        match self {
            Actions::Discrete(n) => action[0] = rng.below(n as u32) as f32,
            Actions::Continuous(_) => action.iter_mut().for_each(|a| *a = rng.uniform(-1.0, 1.0) as f32),
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
