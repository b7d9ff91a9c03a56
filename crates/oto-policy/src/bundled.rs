//! The policies that come with the program: models of `server/teachers`, as ONNX graphs where the build reads them.

use crate::{Loaded, Metadata, PolicyError, load};

macro_rules! files {
    ($($name:literal),*) => {
        [$(($name,
            #[cfg(feature = "onnx")]
            include_bytes!(concat!("../../../server/teachers/", $name, ".onnx")).as_slice(),
            #[cfg(not(feature = "onnx"))]
            include_bytes!(concat!("../../../server/teachers/", $name, ".safetensors")).as_slice(),
            include_bytes!(concat!("../../../server/teachers/", $name, ".json")).as_slice())),*]
    };
}

/// Name, model and metadata of each.
const FILES: &[(&str, &[u8], &[u8])] = &files![
    "ppo_cartpole_v1",
    "ppo_cartpole_v1_early",
    "ppo_mobile_lte",
    "sac_inverted_pendulum_v5",
    "sac_pendulum_v1"
];

/// How many bytes the model of a bundled teacher has.
pub fn bytes(name: &str) -> Option<usize> {
    FILES.iter().find(|(n, ..)| *n == name).map(|(_, model, _)| model.len())
}

/// All of them.
///
/// # Errors
/// A model that this build cannot read.
pub fn all() -> Result<Vec<Loaded>, PolicyError> {
    let loaded = FILES.iter().map(|(name, model, metadata)| {
        let mut metadata = Metadata::read(metadata)?;
        let policy = load(model, &metadata)?;
        metadata.observation_space = Some(policy.observation_space().clone());
        metadata.action_space = Some(policy.action_space().clone());
        Ok(Loaded { name: (*name).into(), metadata, policy, model: Some(model.to_vec()), warnings: vec![] })
    });
    loaded.collect()
}

/// The one of this name, if there is one.
///
/// # Errors
/// A model that this build cannot read.
pub fn named(name: &str) -> Result<Option<Loaded>, PolicyError> {
    Ok(all()?.into_iter().find(|loaded| loaded.name == name))
}

#[cfg(all(test, feature = "onnx"))]
mod tests {
    use super::*;

    /// A build without ONNX carries the same teachers as tensors.
    #[test]
    fn bundled_teachers_answer_alike_as_graphs_and_as_tensors() {
        for Loaded { name, metadata, mut policy, .. } in all().unwrap() {
            let file = format!("{}/../../server/teachers/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
            let mut tensors = load(&std::fs::read(file).unwrap(), &metadata).unwrap();
            assert_eq!(tensors.observation_space(), policy.observation_space(), "{name}");
            assert_eq!(tensors.action_space(), policy.action_space(), "{name}");
            let observations = crate::trial(policy.observation_space());
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            policy.act(&observations, crate::TRIAL_ROWS, &mut expected).unwrap();
            tensors.act(&observations, crate::TRIAL_ROWS, &mut found).unwrap();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
            assert!(
                expected.len() == found.len() && found.iter().zip(&expected).all(near),
                "{name}: {found:?} {expected:?}"
            );
        }
    }
}
