//! Calibrated Q-learning ("Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning", Nakamoto et al. 2023): CQL that
//! pushes down only what is above the value of the policy that made the data, and that value as the data's returns.

use super::offline::{ConservativeForm, conservative};
use oto_graph::Tensor;

/// The regulariser as printed: `mean max(Q(s, pi(s)), V_mu(s)) - mean Q(s, a in the data)`; q_pi `[B, M]`, value_mu and q_data `[B]`.
pub fn cal_ql<'t>(q_pi: Tensor<'t>, value_mu: Tensor<'t>, q_data: Tensor<'t>) -> Tensor<'t> {
    calibrated(q_pi, value_mu).mean() - q_data.mean()
}

/// Q-values `[B, M]` that are at least the state's value `[B]`.
pub fn calibrated<'t>(q: Tensor<'t>, value: Tensor<'t>) -> Tensor<'t> {
    q.maximum(value.reshape(&[value.size(0), 1]))
}

/// The share `[]` of Q-values `[B, M]` that the state's value `[B]` replaces.
pub fn bound_rate<'t>(q: Tensor<'t>, value: Tensor<'t>) -> Tensor<'t> {
    (value.reshape(&[value.size(0), 1]) - q).step().mean()
}

/// The regulariser as in the authors' code, for continuous actions: CQL's with importance weights over uniform actions and over
/// the policy's at this and the next state, of which only the policy's are [`calibrated`]. Each group is Q and log density `[B, M]`.
pub fn cal_ql_continuous<'t>(
    uniform: (Tensor<'t>, Tensor<'t>),
    policy: &[(Tensor<'t>, Tensor<'t>)],
    value: Tensor<'t>,
    q_data: Tensor<'t>,
    form: ConservativeForm,
) -> Tensor<'t> {
    let policy = policy.iter().map(|(q, log_mu)| (calibrated(*q, value), *log_mu));
    conservative(&[uniform].into_iter().chain(policy).collect::<Vec<_>>(), q_data, form)
}

/// The regulariser for discrete actions for each state, `[B]`: `log sum_a e^max(Q(s, a), V_mu(s)) - Q(s, a in the data)`; q `[B, A]`.
pub fn cal_ql_discrete<'t>(q: Tensor<'t>, value: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    calibrated(q, value).logsumexp() - q.pick(action)
}

/// The printed regulariser for discrete actions for each state, `[B]`, its expectation a sum over the policy's chances `[B, A]`.
pub fn cal_ql_expected<'t>(
    q: Tensor<'t>,
    value: Tensor<'t>,
    policy: Tensor<'t>,
    action: Tensor<'t>,
) -> Tensor<'t> {
    (policy * calibrated(q, value)).sum_last() - q.pick(action)
}

/// One step of recorded episodes, as their returns see it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReturnStep {
    /// What the step gave.
    pub reward: f64,
    /// The episode ended by its own rules.
    pub terminated: bool,
    /// The episode was cut off.
    pub truncated: bool,
    /// What lies beyond the step where the episode was cut off: 0 in the authors' code, or the value of the next state.
    pub beyond: f64,
}

/// Each step's discounted return to the end of its episode (Monte-Carlo return), into `returns`. An episode ends where it terminated,
/// where it was cut off, and where the steps end.
pub fn returns_to_go(steps: &[ReturnStep], gamma: f64, returns: &mut [f64]) {
    let mut next = None;
    for (step, to_go) in steps.iter().zip(returns).rev() {
        let later = match next {
            _ if step.terminated => 0.0,
            Some(next) if !step.truncated => next,
            _ => step.beyond,
        };
        *to_go = step.reward + gamma * later;
        next = Some(*to_go);
    }
}

/// The return of an episode that never reached its goal, where rewards are sparse: each step gives `reward`, for ever. The authors' code
/// has it for episodes whose rewards all are this one.
pub fn endless_return(reward: f64, gamma: f64) -> f64 {
    reward / (1.0 - gamma)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_stay_in_their_episodes() {
        let step = |reward, terminated, truncated| ReturnStep { reward, terminated, truncated, beyond: 8.0 };
        let steps = [step(1.0, false, false), step(2.0, true, false), step(4.0, false, true)];
        let mut returns = [0.0; 3];
        returns_to_go(&steps, 0.5, &mut returns);
        assert_eq!(returns, [2.0, 2.0, 8.0]);
        assert_eq!(endless_return(-5.0, 0.5), -10.0);
    }
}
