//! Brings together what the metadata say about a policy's spaces and what its model shows of them.

use crate::metadata::Normalize;
use crate::statistics::{Scaling, Statistics};
use crate::{Metadata, PolicyError, check_rows};
use oto_proto::{MAX_DISCRETE, MAX_WIDTH, Space, check_space};

/// What a model shows of its action space.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ActionShape {
    /// A preference for each of so many choices.
    Choices(usize),
    /// The index of a choice; how many there are is not to be seen. Only ONNX graphs answer so.
    #[cfg_attr(not(feature = "onnx"), allow(dead_code))]
    Index,
    /// So many numbers.
    Numbers(usize),
}

/// The spaces that the metadata declare, or else those of the built-in environment they name.
pub(crate) fn declared(metadata: &Metadata) -> (Option<Space>, Option<Space>) {
    let env = metadata.env.as_deref().and_then(|id| oto_env::make(id).ok());
    let observation = env.as_ref().map(|env| env.observation_space().clone());
    let action = env.as_ref().map(|env| env.action_space().clone());
    (metadata.observation_space.clone().or(observation), metadata.action_space.clone().or(action))
}

fn mismatch(what: &str, shown: String, declared: &Space) -> PolicyError {
    PolicyError::Metadata(format!("the model has {shown}, the {what} space is {declared}"))
}

/// The observation space of a model that takes `width` numbers.
pub(crate) fn observation(metadata: &Metadata, width: usize) -> Result<Space, PolicyError> {
    if width == 0 || width > MAX_WIDTH {
        let (found, max) = (width as u64, MAX_WIDTH as u64);
        return Err(PolicyError::TooLarge { what: "an observation".into(), found, max, unit: "numbers" });
    }
    match declared(metadata).0 {
        Some(Space::Discrete { n }) if width == 1 || n as usize == width => Ok(Space::Discrete { n }),
        Some(space @ Space::Box { .. }) if space.width() == width => Ok(space),
        // A built-in environment of this name may differ from the one of the training; a declaration may not.
        Some(space) if metadata.observation_space.is_some() => {
            Err(mismatch("observation", format!("{width} inputs"), &space))
        }
        _ => Ok(unbounded(width)),
    }
}

fn unbounded(width: usize) -> Space {
    Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] }
}

/// The action space of a model that shows `shape`.
pub(crate) fn action(metadata: &Metadata, shape: ActionShape) -> Result<Space, PolicyError> {
    let (space, explicit) = (declared(metadata).1, metadata.action_space.is_some());
    let limit = |found: usize, max: usize| match found {
        0 => Err(PolicyError::Unsupported("a model without an output".into())),
        _ if found > max => Err(PolicyError::TooLarge {
            what: "an action".into(),
            found: found as u64,
            max: max as u64,
            unit: "outputs",
        }),
        _ => Ok(found),
    };
    match (shape, space) {
        (ActionShape::Choices(n), Some(space @ Space::Discrete { .. })) if space == choices(n) => Ok(space),
        (ActionShape::Index, Some(space @ Space::Discrete { .. })) => Ok(space),
        (ActionShape::Numbers(n), Some(space @ Space::Box { .. })) if space.width() == n && explicit => {
            Ok(space)
        }
        (shape, Some(space)) if explicit => Err(mismatch("action", shape.to_string(), &space)),
        (ActionShape::Choices(n), _) => Ok(choices(limit(n, MAX_DISCRETE as usize)?)),
        (ActionShape::Index, _) => Err(PolicyError::Metadata(
            "the model gives an index and does not say of how many choices; declare action_space".into(),
        )),
        (ActionShape::Numbers(n), space) => {
            limit(n, MAX_WIDTH)?;
            match (metadata.action_range(), space) {
                (Some((low, high)), _) => checked(Space::Box { low: vec![low; n], high: vec![high; n] }),
                (None, Some(space @ Space::Box { .. })) if space.width() == n => Ok(space),
                _ => Ok(unbounded(n)),
            }
        }
    }
}

fn choices(n: usize) -> Space {
    Space::Discrete { n: u32::try_from(n).unwrap_or(u32::MAX) }
}

fn checked(space: Space) -> Result<Space, PolicyError> {
    check_space(&space).map_err(|e| PolicyError::Metadata(e.to_string()))?;
    Ok(space)
}

impl std::fmt::Display for ActionShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ActionShape::Choices(n) => write!(f, "{n} preferences"),
            ActionShape::Index => write!(f, "an index as output"),
            ActionShape::Numbers(n) => write!(f, "{n} outputs"),
        }
    }
}

/// The way from observations to a model's input: as they are, normalised, or one-hot where a discrete observation meets a network
/// with an input for each choice, as Stable-Baselines3's `preprocess_obs` does.
pub(crate) struct Input {
    /// What is observed.
    pub space: Space,
    /// Numbers the model takes for one observation.
    pub width: usize,
    scaling: Option<Scaling>,
    /// What becomes of observations.
    prepared: Vec<f32>,
}

impl Input {
    pub fn new(metadata: &Metadata, width: usize) -> Result<Self, PolicyError> {
        let space = observation(metadata, width)?;
        let scaling = metadata.statistics.as_ref().map(Statistics::scaling).transpose()?;
        if let (None, Some(Normalize::File(name))) = (&scaling, &metadata.normalize) {
            let message =
                format!("\"normalize\" names {name:?}, whose statistics did not come with the model");
            return Err(PolicyError::Metadata(message));
        }
        if let Some(scaling) = &scaling
            && (scaling.width() != width || !matches!(space, Space::Box { .. }))
        {
            return Err(PolicyError::Metadata(format!(
                "the statistics of observations have {} numbers, the model takes {width} of {space}",
                scaling.width()
            )));
        }
        Ok(Input { space, width, scaling, prepared: Vec::new() })
    }

    /// Checks `rows` observations and gives the model's input for them, `[rows, width]`.
    pub fn prepare<'a>(&'a mut self, observations: &'a [f32], rows: usize) -> Result<&'a [f32], PolicyError> {
        check_rows(observations, rows, self.space.width())?;
        let Space::Discrete { n } = self.space else {
            let Some(scaling) = &self.scaling else { return Ok(observations) };
            scaling.apply(observations, &mut self.prepared);
            return Ok(&self.prepared);
        };
        let exists = |x: &f32| *x >= 0.0 && *x < n as f32 && x.fract() == 0.0;
        if let Some(row) = observations.iter().position(|x| !exists(x)) {
            return Err(PolicyError::ObservationIndex { row, found: observations[row], n });
        }
        if self.width != n as usize {
            return Ok(observations);
        }
        self.prepared.clear();
        self.prepared.resize(rows * self.width, 0.0);
        for (row, index) in self.prepared.chunks_exact_mut(self.width).zip(observations) {
            row[*index as usize] = 1.0;
        }
        Ok(&self.prepared)
    }
}
