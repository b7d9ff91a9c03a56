//! The statistics of Stable-Baselines3's `VecNormalize`, which it saves in a file beside the model (`VecNormalize.save`): a policy
//! that was trained behind it expects normalised observations.

use crate::pickle::{self, Node};
use crate::{PolicyError, pickled};
use serde::{Deserialize, Serialize};

/// The largest such file, in bytes.
pub(crate) const MAX_STATISTICS_BYTES: u64 = 16 << 20;

/// Mean and variance of each number of an observation, and how they are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// The means, one for each number of an observation.
    pub mean: Vec<f64>,
    /// The variances.
    pub variance: Vec<f64>,
    /// Is added to each variance.
    pub epsilon: f64,
    /// No normalised number is larger or smaller than this.
    pub clip: f64,
}

/// The same, ready for use.
pub(crate) struct Scaling {
    mean: Vec<f64>,
    deviation: Vec<f64>,
    clip: f64,
}

fn malformed(reason: impl Into<String>) -> PolicyError {
    PolicyError::Malformed { format: "file of VecNormalize", reason: reason.into() }
}

impl Statistics {
    /// Reads what `VecNormalize.save` wrote. None if it leaves observations as they are.
    pub fn read(file: &[u8]) -> Result<Option<Self>, PolicyError> {
        let pickle = pickle::read(file).map_err(malformed)?;
        let top = pickle.top;
        let class = pickle.class(top).unwrap_or("no object");
        if class.rsplit(['.', ' ']).next() != Some("VecNormalize") {
            let class: String = class.chars().take(80).collect();
            return Err(malformed(format!("expected a pickled VecNormalize, got {class:?}")));
        }
        let get =
            |name: &str| pickle.attribute(top, name).ok_or_else(|| malformed(format!("it has no {name}")));
        if matches!(pickle.node(get("norm_obs")?), Node::Bool(false)) {
            return Ok(None);
        }
        let number = |name: &str| {
            pickled::number(&pickle, get(name)?).ok_or_else(|| malformed(format!("its {name} is no number")))
        };
        let running = get("obs_rms")?;
        if let Node::Dict(_) = pickle.node(running) {
            let message = "statistics of a Dict of observations; normalise in the graph of an ONNX export";
            return Err(PolicyError::Unsupported(message.into()));
        }
        let numbers = |name: &str| {
            let array = pickle.attribute(running, name);
            let numbers = array.and_then(|array| pickled::numbers(&pickle, array));
            numbers.ok_or_else(|| malformed(format!("obs_rms.{name} is no array of numbers")))
        };
        let (mean, variance) = (numbers("mean")?, numbers("var")?);
        let (clip, epsilon) = (number("clip_obs")?, number("epsilon")?);
        let statistics = Statistics { mean, variance, epsilon, clip };
        statistics.scaling()?;
        Ok(Some(statistics))
    }

    /// # Errors
    /// If they are no usable numbers.
    pub(crate) fn scaling(&self) -> Result<Scaling, PolicyError> {
        let Statistics { mean, variance, epsilon, clip } = self.clone();
        let deviation: Vec<f64> = variance.iter().map(|v| (v + epsilon).sqrt()).collect();
        let sound = mean.len() == deviation.len()
            && mean.iter().all(|m| m.is_finite())
            && deviation.iter().all(|d| d.is_finite() && *d > 0.0)
            && clip > 0.0;
        match sound {
            true => Ok(Scaling { mean, deviation, clip }),
            false => Err(malformed("mean, variance, epsilon or clip are no usable numbers")),
        }
    }
}

impl Scaling {
    /// Numbers of an observation.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Writes row-major `observations` to `to`, normalised as `VecNormalize` does it: in double precision.
    pub fn apply(&self, observations: &[f32], to: &mut Vec<f32>) {
        to.clear();
        let each = |row: &[f32]| {
            let normal = |(x, (mean, deviation)): (&f32, (&f64, &f64))| {
                ((f64::from(*x) - mean) / deviation).clamp(-self.clip, self.clip) as f32
            };
            to.extend(row.iter().zip(self.mean.iter().zip(&self.deviation)).map(normal));
        };
        observations.chunks_exact(self.width()).for_each(each);
    }
}
