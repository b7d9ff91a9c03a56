//! A dataset in a few numbers.

use crate::{Dataset, Transition};

/// What is told about a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary<'a> {
    /// How many steps.
    pub transitions: usize,
    /// How many episodes.
    pub episodes: usize,
    /// The episodes' mean return, not discounted.
    pub mean_return: f64,
    /// Its standard deviation over episodes (divided by their number, as NumPy does).
    pub std_return: f64,
    /// The smallest.
    pub min_return: f64,
    /// The largest.
    pub max_return: f64,
    /// What observations look like, in words.
    pub observation: String,
    /// What actions look like, in words.
    pub action: String,
    /// The first step.
    pub first: Transition<'a>,
}

impl Summary<'_> {
    /// Of a dataset with a transition; there is nothing to tell about another.
    pub fn of(dataset: &Dataset) -> Option<Summary<'_>> {
        let first = dataset.transitions().next()?;
        let returns = dataset.returns();
        let count = returns.len() as f64;
        let mean = returns.iter().sum::<f64>() / count;
        let variance = returns.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Some(Summary {
            transitions: dataset.len(),
            episodes: returns.len(),
            mean_return: mean,
            std_return: variance.sqrt(),
            min_return: returns.iter().copied().fold(f64::INFINITY, f64::min),
            max_return: returns.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            observation: crate::dataset::in_words(&dataset.observation),
            action: crate::dataset::in_words(&dataset.action),
            first,
        })
    }
}
