//! The registry as a table, for the command line and the documentation.

use super::{ActionKind, Algorithm, Data};

/// The columns of the table.
pub const COLUMNS: [&str; 6] = ["name", "actions", "observations", "learns", "data", "paper"];

/// One algorithm, by column; a column with several values has them as a list.
pub fn row(algorithm: &dyn Algorithm) -> [Vec<&'static str>; 6] {
    let actions = algorithm.actions().iter().map(|kind| match kind {
        ActionKind::Discrete => "discrete",
        ActionKind::Continuous => "continuous",
    });
    let data = algorithm.data().iter().map(|data| match data {
        Data::Replay => "replay",
        Data::Rollouts => "rollouts",
        Data::Dataset => "dataset",
    });
    let learns = [(algorithm.online(), "online"), (algorithm.offline(), "offline")];
    [
        vec![algorithm.name()],
        actions.collect(),
        if algorithm.images() { vec!["numbers", "images"] } else { vec!["numbers"] },
        learns.into_iter().filter_map(|(does, how)| does.then_some(how)).collect(),
        data.collect(),
        vec![algorithm.paper()],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::{ALGORITHMS, find};

    #[test]
    fn every_algorithm_has_a_row() {
        let sac = row(find("sac").unwrap());
        let (actions, observations) = (vec!["continuous", "discrete"], vec!["numbers", "images"]);
        assert_eq!(sac[..4], [vec!["sac"], actions, observations, vec!["online"]]);
        assert!(ALGORITHMS.iter().all(|one| row(*one).iter().all(|cell| !cell.is_empty())));
    }
}
