//! Prints the QR-DQN student's program and the plan that compiled backends run.

use oto_graph::Plan;
use oto_rl::actions::Actions;
use oto_rl::algorithms::Sizes;
use oto_rl::algorithms::qrdqn::{QrDqnConfig, program};

fn main() {
    let sizes = Sizes { observation: 4, actions: Actions::Discrete(2), teachers: 1, weighted: false };
    let config = QrDqnConfig { hidden: vec![64, 64], quantiles: 32, ..QrDqnConfig::default() };
    let plan = Plan::new(&program(&config, sizes));
    print!("{}\n{plan}", plan.program);
}
