//! Plays back what is kept of every target: true encodings, and the smallest bytes that once broke something.

#[allow(dead_code, unused_imports)] // Some of it is for `seeds.rs`.
#[path = "src/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use targets::{TARGETS, Target};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The names in a folder, without their extensions.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

#[test]
fn every_corpus_entry_is_survived_and_each_target_takes_some() {
    for Target { name, run } in TARGETS {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder("corpus").join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        let mut taken = 0;
        for entry in entries {
            // Shown if the test fails: the last one is what it failed on.
            println!("{}", entry.display());
            taken += usize::from(run(&fs::read(&entry).unwrap()));
        }
        assert!(taken > 0, "{name} has a true encoding");
    }
}

#[test]
fn what_lies_around_every_corpus_entry_is_survived() {
    let mut rng = oto_env::rng::Rng::new(1);
    for Target { name, run } in TARGETS {
        for entry in fs::read_dir(folder("corpus").join(name)).unwrap() {
            let path = entry.unwrap().path();
            let whole = fs::read(&path).unwrap();
            for _ in 0..if cfg!(debug_assertions) { 4 } else { 24 } {
                let mut bytes = whole.clone();
                for _ in 0..1 + rng.below(3) {
                    let at = rng.below(bytes.len().max(1) as u32) as usize;
                    match rng.below(3) {
                        0 => bytes.truncate(at),
                        1 => bytes.insert(at, rng.below(256) as u8),
                        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.below(256) as u8),
                    }
                }
                println!("{name}, near {}", path.display());
                run(&bytes);
            }
        }
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_there_are_no_others() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names(&folder("fuzz_targets")), targets);
    assert_eq!(names(&folder("corpus")), targets);
}

#[test]
fn numbers_images_and_parts_of_a_bridge_are_each_believed() {
    for name in ["episode", "image", "parts"] {
        let answers = fs::read(folder("corpus/bridge").join(name)).unwrap();
        assert!(targets::bridge(&answers), "{name}: its step is believed");
        assert!(!targets::bridge(&answers[..answers.len() / 2]), "{name}: half of it has no step");
    }
}
