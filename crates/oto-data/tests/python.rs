//! Python's minari loads what is written here, and what it writes is read, in both of its formats. Skipped, and said so, where there
//! is no Python with `minari`, `h5py`, `pyarrow` and `pillow`; `OTO_PYTHON` names another interpreter than `python3`.

use oto_data::{DataError, Dataset, read_file, write_folder, write_parquet_folder};
use oto_env::Space;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn minari_reads_what_is_written_and_the_reverse() {
    let python = std::env::var("OTO_PYTHON").unwrap_or("python3".into());
    let there = Command::new(&python).args(["-c", "import minari, h5py, pyarrow, PIL"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} has no minari (pip install minari h5py pyarrow pillow)");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("minari");
    let _ = std::fs::remove_dir_all(&root);
    type Write = fn(&Dataset, &Path) -> Result<(), DataError>;
    let formats: [(&str, Write); 2] = [("hdf5", write_folder), ("parquet", write_parquet_folder)];
    let written: Vec<Dataset> = ["cartpole_random", "inverted_pendulum_medium"]
        .into_iter()
        .flat_map(|name| formats.map(|(format, write)| (name, format, write)))
        .map(|(name, format, write)| {
            let mut dataset = read_file(&here.join("fixtures").join(name)).unwrap();
            let id = format!("oto/{name}_{format}-v0");
            dataset.metadata.id = Some(id.clone());
            write(&dataset, &root.join(id)).unwrap();
            dataset
        })
        .collect();

    let output = Command::new(&python)
        .arg(here.join("python.py"))
        .arg("oto/theirs")
        .args(written.iter().map(|dataset| dataset.metadata.id.clone().unwrap()))
        .env("MINARI_DATASETS_PATH", &root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (seen, dataset) in lines.iter().zip(&written) {
        compare(seen, dataset);
    }

    compare_parts(&root);
    for (format, _) in formats {
        let theirs = read_file(&root.join(format!("oto/theirs-{format}-v0"))).unwrap();
        assert_eq!((theirs.len(), theirs.observation.width()), (2041, 6), "{format}");
        assert_eq!(theirs.action, Space::Discrete { n: 3 });
        for (episode, sums) in theirs.episodes.iter().zip(lines[written.len()].as_array().unwrap()) {
            assert!((episode.total_reward() - sums[0].as_f64().unwrap()).abs() < 1e-9);
            // Their first choice is -1.
            let actions = episode.actions.iter().map(|&action| f64::from(action) - 1.0).sum::<f64>();
            assert_eq!(actions, sums[1].as_f64().unwrap());
        }
    }
}

/// Dictionaries and tuples are the same in both formats, which keep their parts in their own ways.
fn compare_parts(root: &Path) {
    let [hdf5, parquet] = ["hdf5", "parquet"]
        .map(|format| read_file(&root.join(format!("oto/theirs-parts-{format}-v0"))).unwrap());
    assert_eq!((hdf5.len(), hdf5.action.width()), (31, 3));
    assert_eq!((&hdf5.observation, &hdf5.action), (&parquet.observation, &parquet.action));
    assert_eq!(hdf5.episodes, parquet.episodes);
}

/// Every number that Python saw is the one that was written.
fn compare(seen: &Value, dataset: &Dataset) {
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let flags = |value: &Value| -> Vec<bool> {
        value.as_array().unwrap().iter().map(|flag| flag.as_bool().unwrap()).collect()
    };
    let wide = |numbers: &[f32]| -> Vec<f64> { numbers.iter().map(|&number| number.into()).collect() };
    assert_eq!(seen["id"].as_str(), dataset.metadata.id.as_deref());
    assert_eq!(seen["environment"].as_str(), dataset.metadata.environment.as_deref());
    assert_eq!(seen["steps"].as_u64(), Some(dataset.len() as u64));
    assert_eq!(numbers(&seen["observation"]), [dataset.observation.width() as f64]);
    let episodes = seen["episodes"].as_array().unwrap();
    assert_eq!(episodes.len(), dataset.episodes.len());
    for (seen, episode) in episodes.iter().zip(&dataset.episodes) {
        assert_eq!(numbers(&seen["observations"]), wide(&episode.observations.numbers()));
        assert_eq!(numbers(&seen["actions"]), wide(&episode.actions));
        assert_eq!(numbers(&seen["rewards"]), episode.rewards);
        assert_eq!(flags(&seen["terminated"]), episode.terminated);
        assert_eq!(flags(&seen["truncated"]), episode.truncated);
        assert_eq!(seen["seed"].as_u64(), episode.seed);
    }
}
