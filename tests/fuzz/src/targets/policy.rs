//! Policies from files made elsewhere: one that is loaded answers with actions of its space, or says why not.

use oto_policy::{Metadata, Policy, load};
use oto_proto::Space;
use oto_rl::mlp::Activation;
use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The rows that a policy is asked for: more than one, to tell rows from columns.
const ROWS: usize = 3;
/// Wider observations say no more about a decoder.
const MAX_WIDTH: usize = 4096;

/// An ONNX graph.
pub fn onnx(bytes: &[u8]) -> bool {
    loaded(bytes)
}

/// A safetensors file, with what oto writes into its own.
pub fn safetensors(bytes: &[u8]) -> bool {
    loaded(bytes)
}

/// A file of `torch.save`, or a model of Stable-Baselines3: archives both.
pub fn torch(bytes: &[u8]) -> bool {
    loaded(bytes)
}

/// The pickle in an archive, whose storage `0` has a thousand numbers; the archive's checksums would hide it.
pub fn pickle(bytes: &[u8]) -> bool {
    let numbers: Vec<u8> = (0..1000).flat_map(|i| (i as f32 / 500.0 - 1.0).to_le_bytes()).collect();
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in [("a/data.pkl", bytes), ("a/data/0", &numbers[..])] {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file(name, stored).expect("a name that is new");
        archive.write_all(content).expect("room in memory");
    }
    loaded(&archive.finish().expect("room in memory").into_inner())
}

/// Loads it as it is, and as one that acts in a box or among choices on observations of three or four numbers.
fn loaded(bytes: &[u8]) -> bool {
    let boxed = |width| Space::Box { low: vec![-3.0; width], high: vec![3.0; width] };
    let declared = |width, action| Metadata {
        observation_space: Some(boxed(width)),
        action_space: Some(action),
        activation: Some(Activation::Tanh),
        ..Metadata::default()
    };
    let metadata = [
        Metadata::default(),
        declared(4, boxed(1)),
        declared(4, Space::Discrete { n: 2 }),
        declared(3, Space::Discrete { n: 4 }),
    ];
    metadata.iter().filter(|metadata| load(bytes, metadata).map(asked).is_ok()).count() > 0
}

fn asked(mut policy: Box<dyn Policy>) {
    let (observation, action) = (policy.observation_space().clone(), policy.action_space().clone());
    let width = observation.width();
    if width > MAX_WIDTH {
        return;
    }
    let observations = match observation {
        Space::Discrete { .. } => vec![0.0; ROWS],
        Space::Box { .. } => (0..ROWS * width).map(|i| i as f32 / 8.0 - 0.5).collect(),
    };
    let mut actions = Vec::new();
    if policy.act(&observations, ROWS, &mut actions).is_ok() {
        assert_eq!(actions.len(), ROWS * action.width(), "{action}");
        for row in actions.chunks_exact(action.width()) {
            assert!(contains(&action, row), "{row:?} is no action of {action}");
        }
    }
    drop(policy.outputs(&observations, ROWS));
}

fn contains(space: &Space, row: &[f32]) -> bool {
    match space {
        Space::Discrete { n } => row[0] >= 0.0 && row[0] < *n as f32 && row[0].fract() == 0.0,
        Space::Box { low, high } => row
            .iter()
            .zip(low.iter().zip(high))
            .all(|(x, (low, high))| x.is_finite() && low <= x && x <= high),
    }
}
