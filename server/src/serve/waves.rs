//! Batches of a recurrent policy: the next state of each connection in a wave, one wave after the other.

use crate::observe::metrics::Metrics;
use crate::serve::hidden_state::{Memory, Order};
use crate::serve::queue::Request;
use crate::serve::rows::Rows;
use oto_policy::PolicyError;
use std::collections::HashMap;
use std::sync::Arc;

/// Room for a wave of rows.
#[derive(Default)]
pub(crate) struct Waves {
    observations: Vec<f32>,
    states: Vec<f32>,
}

impl Waves {
    /// Answers requests with a recurrent policy of this version: `[rows, action width]` for each. Rows of different streams are computed
    /// together, those of one stream one after the other. If the policy fails, all streams are as they were.
    pub fn act(
        &mut self,
        rows: &mut Rows,
        version: u32,
        requests: &[Request],
        metrics: &Metrics,
    ) -> Result<Vec<Vec<f32>>, PolicyError> {
        let orders = requests.iter().map(|request| request.order.as_deref());
        let orders = orders.collect::<Option<Vec<&Order>>>().ok_or(PolicyError::Recurrent("this request"))?;
        let before: Vec<Memory> = orders.iter().map(|order| order.stream.lock().clone()).collect();
        let mut resets = Vec::new();
        let answered = self.waves(rows, version, requests, &orders, &mut resets);
        match &answered {
            Ok(_) => resets.into_iter().for_each(|reason| metrics.reset_state(reason)),
            Err(_) => {
                orders.iter().zip(before).rev().for_each(|(order, memory)| *order.stream.lock() = memory)
            }
        }
        answered
    }

    fn waves(
        &mut self,
        rows: &mut Rows,
        version: u32,
        requests: &[Request],
        orders: &[&Order],
        resets: &mut Vec<&'static str>,
    ) -> Result<Vec<Vec<f32>>, PolicyError> {
        // Of several requests of a stream each waits for the one before it.
        let mut last = HashMap::new();
        let waits: Vec<Option<usize>> =
            orders.iter().enumerate().map(|(i, order)| last.insert(Arc::as_ptr(&order.stream), i)).collect();
        let mut done = vec![0; requests.len()];
        let mut answers = vec![Vec::new(); requests.len()];
        loop {
            let due = |i: &usize| {
                done[*i] < requests[*i].rows
                    && waits[*i].is_none_or(|first| done[first] == requests[first].rows)
            };
            let wave: Vec<usize> = (0..requests.len()).filter(due).collect();
            if wave.is_empty() {
                return Ok(answers);
            }
            self.observations.clear();
            self.states.clear();
            for &i in &wave {
                let Request { rows, observations, .. } = &requests[i];
                let width = observations.len() / (*rows).max(1);
                self.observations.extend_from_slice(&observations[done[i] * width..][..width]);
                let mut memory = orders[i].stream.lock();
                resets.extend(memory.enter(orders[i].places[done[i]], version));
                self.states.extend_from_slice(&memory.state);
            }
            let actions = rows.act_from(&self.observations, wave.len(), &mut self.states)?;
            let (width, state) = (actions.len() / wave.len(), self.states.len() / wave.len());
            for (at, &i) in wave.iter().enumerate() {
                answers[i].extend_from_slice(&actions[at * width..][..width]);
                orders[i].stream.lock().state.copy_from_slice(&self.states[at * state..][..state]);
                done[i] += 1;
            }
        }
    }
}
