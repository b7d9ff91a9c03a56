//! Several policies that answer as one: discrete actions by majority, continuous ones by their mean.
//!
//! In a folder of policies it is a `NAME.json` that names the others: `{"kind":"policy","ensemble":["a","b"]}`. A member is a
//! policy of the same folder, a run in it, or another ensemble.

use crate::load::{RUN_POLICY, load_member};
use crate::scripted::only_action;
use crate::{Metadata, OWN, Output, Policy, PolicyError};
use oto_proto::Space;
use std::path::{Path, PathBuf};

/// The most policies of an ensemble, those of its members included.
pub const MAX_MEMBERS: usize = 64;

/// Policies with the same spaces that answer together.
pub struct Ensemble {
    members: Vec<Box<dyn Policy>>,
    /// What each member said to the last observations, `[members, rows, action width]`.
    answers: Vec<Vec<f32>>,
}

impl Ensemble {
    /// Of policies with their names. Their action spaces must be equal, their observations of one kind and width.
    ///
    /// # Errors
    /// [`PolicyError::Members`], [`PolicyError::MemberSpace`], [`PolicyError::Recurrent`].
    pub fn new(members: Vec<(String, Box<dyn Policy>)>) -> Result<Self, PolicyError> {
        let (found, max) = (members.len(), MAX_MEMBERS);
        let Some((_, first)) = members.first().filter(|_| found <= max) else {
            return Err(PolicyError::Members { found, max });
        };
        if members.iter().any(|(_, member)| member.state_width() > 0) {
            return Err(PolicyError::Recurrent("an ensemble"));
        }
        for (name, member) in &members[1..] {
            let [seen, done] = [member.observation_space(), member.action_space()];
            let refused = |what, found: &Space, expected: &Space| {
                let (member, found, expected) =
                    (name.clone(), Box::new(found.clone()), Box::new(expected.clone()));
                Err(PolicyError::MemberSpace { member, what, found, expected })
            };
            if !same_kind(first.observation_space(), seen) {
                return refused("observation", seen, first.observation_space());
            }
            if first.action_space() != done {
                return refused("action", done, first.action_space());
            }
        }
        let answers = vec![Vec::new(); found];
        Ok(Self { members: members.into_iter().map(|(_, policy)| policy).collect(), answers })
    }
}

/// Bounds of observations differ between those who wrote them down.
fn same_kind(a: &Space, b: &Space) -> bool {
    match (a, b) {
        (Space::Discrete { n: a }, Space::Discrete { n: b }) => a == b,
        (Space::Box { low: a, .. }, Space::Box { low: b, .. }) => a.len() == b.len(),
        _ => false,
    }
}

impl Policy for Ensemble {
    fn observation_space(&self) -> &Space {
        self.members[0].observation_space()
    }

    fn action_space(&self) -> &Space {
        self.members[0].action_space()
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        for (member, answer) in self.members.iter_mut().zip(&mut self.answers) {
            member.act(observations, rows, answer)?;
        }
        actions.clear();
        let numbers = 0..self.answers[0].len();
        let said = |i: usize| self.answers.iter().map(move |answer| answer[i]);
        match self.action_space() {
            Space::Discrete { .. } => actions.extend(numbers.map(|i| majority(|| said(i)))),
            Space::Box { .. } => {
                let count = self.members.len() as f32;
                // Divided first: a sum of large numbers might not be finite.
                actions.extend(numbers.map(|i| said(i).map(|a| a / count).sum::<f32>()));
                crate::fit_actions(self.members[0].action_space(), actions)?;
            }
        }
        Ok(())
    }

    /// The first member's that is not oto's.
    fn engine(&self) -> &str {
        self.members.iter().map(|member| member.engine()).find(|engine| *engine != OWN).unwrap_or(OWN)
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        only_action(self, observations, rows)
    }
}

/// What is said most often; of equals what an earlier member said.
fn majority<I: Iterator<Item = f32>>(said: impl Fn() -> I) -> f32 {
    let votes = |choice: f32| said().filter(|other| *other == choice).count();
    let more = |best: (f32, usize), choice| {
        let count = votes(choice);
        if count > best.1 { (choice, count) } else { best }
    };
    said().fold((0.0, 0), more).0
}

/// Which ensembles are being loaded, one inside the other, and how many policies they have so far.
#[derive(Default)]
pub(crate) struct Members {
    inside: Vec<PathBuf>,
    count: usize,
}

/// Loads the ensemble of a metadata file.
pub(crate) fn load(
    path: &Path,
    metadata: &Metadata,
    members: &mut Members,
) -> Result<Box<dyn Policy>, PolicyError> {
    if members.inside.iter().any(|outer| outer == path) {
        let name = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let around = members.inside.iter().map(name).chain([name(&path.to_owned())]);
        return Err(PolicyError::Circle(around.collect()));
    }
    members.inside.push(path.to_owned());
    let names = metadata.ensemble.as_deref().unwrap_or_default();
    let mut policies = Vec::new();
    for name in names {
        members.count += 1;
        if members.count > MAX_MEMBERS {
            return Err(PolicyError::Members { found: members.count, max: MAX_MEMBERS });
        }
        policies.push((name.clone(), load_member(&file_of(path, name)?, members)?.policy));
    }
    members.inside.pop();
    Ok(Box::new(Ensemble::new(policies)?))
}

/// The file of a member: a name is no path.
fn file_of(path: &Path, name: &str) -> Result<PathBuf, PolicyError> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    let candidates =
        [format!("{name}.json"), format!("{name}/{RUN_POLICY}")].map(|file| path.with_file_name(file));
    let found = candidates.into_iter().find(|file| plain && file.is_file());
    found.ok_or_else(|| PolicyError::NoMember(name.into()))
}
