//! Datasets: what is read is without a fault, and comes back when it is written.

use oto_data::{Dataset, Episode, Metadata, Rows};
use oto_env::Space;
use std::sync::LazyLock;

/// Two episodes of three steps.
pub fn small_dataset() -> Dataset {
    let episode = |seed: u64| Episode {
        observations: Rows::Numbers((0..8).map(|i| i as f32 / 4.0).collect()),
        actions: vec![0.0, 1.0, 1.0],
        rewards: vec![1.0, 0.5, -1.0],
        terminated: vec![false, false, seed == 0],
        truncated: vec![false, false, seed != 0],
        seed: Some(seed),
    };
    let (id, environment) = (Some("oto/small-v0".into()), Some("CartPole-v1".into()));
    Dataset {
        observation: Space::uniform(2, f32::NEG_INFINITY, 2.0),
        action: Space::Discrete { n: 2 },
        episodes: vec![episode(0), episode(1)],
        metadata: Metadata { id, environment, ..Metadata::default() },
    }
}

/// HDF5 files in Minari's and D4RL's layouts, without a text beside them.
pub fn hdf5(bytes: &[u8]) -> bool {
    oto_data::fuzz::hdf5(bytes, None)
}

/// Minari's `metadata.json`, beside a file that is sound.
pub fn minari(bytes: &[u8]) -> bool {
    static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| oto_data::fuzz::written_hdf5(&small_dataset()).0);
    std::str::from_utf8(bytes).is_ok_and(|text| oto_data::fuzz::hdf5(&FILE, Some(text)))
}
