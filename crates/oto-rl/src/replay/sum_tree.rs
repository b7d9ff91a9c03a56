//! A sum tree: numbers at places, changed and sampled in proportion to them in logarithmic time (Schaul et al. 2016, appendix B.2.1).

use std::collections::TryReserveError;

/// A binary tree whose leaves are weights and whose inner nodes are the sums of their children.
#[derive(Clone, Debug, PartialEq)]
pub struct SumTree {
    /// Number of leaves, a power of two. Node 1 is the root, the children of node i are 2i and 2i + 1, leaves begin at node `leaves`.
    leaves: usize,
    sums: Vec<f64>,
}

impl Default for SumTree {
    fn default() -> Self {
        Self { leaves: 1, sums: vec![0.0; 2] }
    }
}

impl SumTree {
    /// Grows to this number of places; the weights stay.
    ///
    /// # Errors
    /// If there is no memory for it; the tree is as it was.
    pub fn make_room(&mut self, places: usize) -> Result<(), TryReserveError> {
        let leaves = places.max(1).checked_next_power_of_two().unwrap_or(usize::MAX);
        if leaves <= self.leaves {
            return Ok(());
        }
        let mut sums = Vec::new();
        sums.try_reserve_exact(leaves.saturating_mul(2))?;
        sums.resize(leaves * 2, 0.0);
        sums[leaves..leaves + self.leaves].copy_from_slice(&self.sums[self.leaves..]);
        (self.leaves, self.sums) = (leaves, sums);
        for node in (1..leaves).rev() {
            self.add_up(node);
        }
        Ok(())
    }

    /// How many places there is room for.
    pub fn room(&self) -> usize {
        self.leaves
    }

    /// The sum of all weights.
    pub fn total(&self) -> f64 {
        self.sums[1]
    }

    /// The weight at a place.
    pub fn get(&self, place: usize) -> f64 {
        self.sums[self.leaves + place]
    }

    /// Sets the weight at a place: a finite number from 0.
    pub fn set(&mut self, place: usize, weight: f64) {
        let mut node = self.leaves + place;
        self.sums[node] = weight;
        while node > 1 {
            node /= 2;
            self.add_up(node);
        }
    }

    /// The place where the running sum of weights exceeds `mass`, a number from 0 to [`Self::total`]. A place of weight 0 is never
    /// found, unless all are 0.
    pub fn find(&self, mut mass: f64) -> usize {
        let mut node = 1;
        while node < self.leaves {
            let (left, right) = (self.sums[2 * node], self.sums[2 * node + 1]);
            node = match mass < left || right == 0.0 {
                true => 2 * node,
                false => {
                    mass -= left;
                    2 * node + 1
                }
            };
        }
        node - self.leaves
    }

    /// A node is always the sum of its two children, so that rounding errors do not add up.
    fn add_up(&mut self, node: usize) {
        self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1];
    }
}
