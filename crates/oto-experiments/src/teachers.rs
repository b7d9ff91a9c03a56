//! The teachers of reports: in this process, behind the real codec.

use crate::soft_targets::{self, Thinker};
use oto_agent::link::memory::MemoryTeacher;
use oto_env::rng::Rng;
use oto_policy::{Policy, PolicyError};
use oto_proto::Space;
use std::path::{Path, PathBuf};

/// Teachers of one seed, in the order of the job's.
pub type Teachers = Box<dyn Fn(u64) -> Result<Vec<MemoryTeacher>, PolicyError> + Sync>;

/// No teacher.
pub fn none() -> Teachers {
    Box::new(|_| Ok(Vec::new()))
}

/// A teacher that comes with the program.
pub fn bundled(name: &'static str) -> Teachers {
    Box::new(move |_| Ok(vec![from_policy(name, bundled_policy(name)?)]))
}

/// The policy of a bundled teacher.
pub fn bundled_policy(name: &str) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(oto_policy::bundled::named(name)?.expect("experiments name bundled teachers only").policy)
}

/// A policy from a file.
pub fn from_file(name: &'static str, path: PathBuf) -> Teachers {
    Box::new(move |_| Ok(vec![from_policy(name, oto_policy::load_file(&path)?.policy)]))
}

/// Its address in a job. It names the file's contents, so that runs of another teacher are not taken for this one's.
pub fn address(name: &str, path: &Path) -> std::io::Result<String> {
    Ok(format!(
        "memory://{name}/{:016x}",
        crate::runs::fnv(&oto_json::file::read_regular(path, oto_policy::tensors::MAX_MODEL_BYTES)?)
    ))
}

/// Any policy.
pub fn from_policy(name: &str, mut policy: Box<dyn Policy>) -> MemoryTeacher {
    let (observation, action) = (policy.observation_space().clone(), policy.action_space().clone());
    let act =
        move |x: &[f32], rows: usize, out: &mut Vec<f32>| policy.act(x, rows, out).map_err(|e| e.to_string());
    MemoryTeacher::new(name, observation, action, Box::new(act))
}

/// Four numbers of any size.
fn four() -> Space {
    Space::Box { low: vec![f32::NEG_INFINITY; 4], high: vec![f32::INFINITY; 4] }
}

/// A teacher of CartPole that answers with a coin.
pub fn random(name: &'static str) -> Teachers {
    Box::new(move |seed| {
        let mut rng = Rng::new(!seed);
        let act = move |_: &[f32], rows: usize, out: &mut Vec<f32>| {
            out.extend((0..rows).map(|_| rng.below(2) as f32));
            Ok(())
        };
        Ok(vec![MemoryTeacher::new(name, four(), Space::Discrete { n: 2 }, Box::new(act))])
    })
}

/// InvertedPendulum's SAC agent, which answers with what it thinks instead of a force.
pub fn thinker(name: &'static str) -> Teachers {
    Box::new(move |_| {
        let file = include_bytes!("../../../tests/fixtures/teacher_sac_inverted_pendulum_v5.safetensors");
        let mut thinker = Thinker::new(&oto_policy::tensors::from_safetensors(file)?)?;
        let act = move |x: &[f32], _: usize, out: &mut Vec<f32>| {
            thinker.think(x, out);
            Ok(())
        };
        let answers = Space::Box { low: vec![0.0, 0.0, f32::MIN], high: vec![1.0, 1.0, f32::MAX] };
        debug_assert_eq!(answers.width(), soft_targets::WIDTH);
        Ok(vec![MemoryTeacher::new(name, four(), answers, Box::new(act))])
    })
}
