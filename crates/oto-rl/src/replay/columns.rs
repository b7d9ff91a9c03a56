//! Columns that a buffer stores only for programs that read them.

use oto_graph::Program;

/// The columns of a transition beside observations, action, reward and discount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The Monte-Carlo return: discounted rewards from the transition to the end of its episode (inputs `return_to_go` and
    /// `return_known`). A truncated episode's return ends with its last reward.
    pub return_to_go: bool,
    /// The source of the transition (input `source`), see [`super::Replay::set_source`].
    pub source: bool,
}

impl Columns {
    /// The columns that this program reads.
    pub fn read_by(program: &Program) -> Self {
        let reads =
            |name: &str| program.input(name).is_some() || program.input(&format!("replay.{name}")).is_some();
        Self { return_to_go: reads("return_to_go") || reads("return_known"), source: reads("source") }
    }

    /// How many numbers a transition has in them.
    pub(super) fn width(self) -> usize {
        usize::from(self.return_to_go) + usize::from(self.source)
    }
}
