//! Policies in files as other libraries write them: each answers as the library that made it, or is refused by a sentence that says why.
//! `data/found.zip` has files that were once read wrongly, `data/sb3.zip` those of `data/make_policies.py`.

use oto_policy::{PolicyError, load_file};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

#[derive(serde::Deserialize)]
struct Case {
    path: String,
    observations: Vec<Vec<f32>>,
    actions: serde_json::Value,
    /// Words of the refusal, if it is to be refused.
    #[serde(default)]
    refusal: Option<String>,
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The cases of an archive, and where its files are: a folder of this test's own.
fn unpack(name: &str, test: &str) -> (Folder, Vec<Case>) {
    let packed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let mut outer = ZipArchive::new(std::fs::File::open(packed).unwrap()).unwrap();
    let mut inner = Vec::new();
    outer.by_name("cases.zip").unwrap().read_to_end(&mut inner).unwrap();
    let folder = std::env::temp_dir().join(format!("oto-{test}-{}", std::process::id()));
    let mut archive = ZipArchive::new(Cursor::new(inner)).unwrap();
    archive.extract(&folder).unwrap();
    let cases = std::fs::read(folder.join("cases.json")).unwrap();
    (Folder(folder), serde_json::from_slice(&cases).unwrap())
}

fn flatten(value: &serde_json::Value, into: &mut Vec<f32>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        number => into.push(number.as_f64().expect("a number") as f32),
    }
}

/// What the policy in `folder` does for each observation alone and for all together, which must be the same.
fn actions(folder: &Path, observations: &[Vec<f32>]) -> Result<Vec<f32>, PolicyError> {
    let mut policy = load_file(&folder.join("p.json"))?.policy;
    let (mut all, mut one, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    policy.act(&observations.concat(), observations.len(), &mut all)?;
    for observation in observations {
        policy.act(observation, 1, &mut one)?;
        alone.extend_from_slice(&one);
    }
    assert!(near(&all, &alone), "{}: alone {alone:?}, among others {all:?}", folder.display());
    Ok(all)
}

fn near(found: &[f32], expected: &[f32]) -> bool {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    found.len() == expected.len() && found.iter().zip(expected).all(near)
}

/// What is wrong with a case.
fn fault(folder: &Path, case: &Case) -> Option<String> {
    let found = actions(&folder.join(&case.path), &case.observations);
    match (found, &case.refusal) {
        (Ok(found), None) => {
            let mut expected = Vec::new();
            flatten(&case.actions, &mut expected);
            (!near(&found, &expected)).then(|| format!("got {found:?}, expected {expected:?}"))
        }
        (Ok(_), Some(word)) => Some(format!("is read, expected a refusal with {word:?}")),
        (Err(error), Some(word)) if error.to_string().contains(word.as_str()) => None,
        (Err(error), _) => Some(error.to_string()),
    }
}

fn check(name: &str, least: usize) {
    let (folder, cases) = unpack(name, name);
    assert!(cases.len() >= least);
    let faults: Vec<_> =
        cases.iter().filter_map(|case| Some(format!("{}: {}", case.path, fault(&folder.0, case)?))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_that_were_once_read_wrongly() {
    check("found.zip", 15);
}

#[test]
fn policies_of_stable_baselines3() {
    check("sb3.zip", 160);
}

/// Layers that actor and critic share are computed with, once the activation is declared; so is what a checkpoint has.
#[test]
fn tensors_that_lacked_only_their_activation_are_read_with_it() {
    let (folder, cases) = unpack("found.zip", "declared");
    let lacking =
        |case: &&Case| case.path.starts_with("sb3_shared_net") || case.path.ends_with("checkpoint_dict");
    let found: Vec<_> = cases.iter().filter(lacking).collect();
    assert_eq!(found.len(), 3);
    for case in found {
        let path = folder.0.join(&case.path).join("p.json");
        let mut metadata: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        metadata["activation"] = "tanh".into();
        std::fs::write(&path, metadata.to_string()).unwrap();
        let mut expected = Vec::new();
        flatten(&case.actions, &mut expected);
        assert_eq!(
            actions(&folder.0.join(&case.path), &case.observations).unwrap(),
            expected,
            "{}",
            case.path
        );
    }
}

/// A file that says where weights are is no way to other files, and what it says is checked.
#[test]
fn weights_in_another_file_are_read_from_the_models_own_folder() {
    let (folder, cases) = unpack("found.zip", "external-weights");
    let case = cases.iter().find(|case| case.path.starts_with("onnx_external_data")).unwrap();
    let place = folder.0.join(&case.path);
    let (model, weights) = (place.join("p.onnx"), place.join("p.onnx.data"));
    let loaded = load_file(&place.join("p.json")).unwrap();
    // What is published or followed has them all.
    oto_policy::load(&loaded.model.unwrap(), &loaded.metadata).map(drop).unwrap();
    let bytes = std::fs::read(&model).unwrap();
    let alone = oto_policy::load(&bytes, &loaded.metadata).map(drop).unwrap_err().to_string();
    assert!(alone.contains("external_data=False"), "{alone}");
    let refusal = || load_file(&place.join("p.json")).map(drop).unwrap_err().to_string();
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() - 4]).unwrap();
    assert!(refusal().contains("p.onnx.data"), "{}", refusal());
    std::fs::remove_file(&weights).unwrap();
    assert!(refusal().contains("p.onnx.data"), "{}", refusal());
    #[cfg(unix)]
    {
        assert!(std::process::Command::new("mkfifo").arg(&weights).status().unwrap().success());
        assert!(refusal().contains("not a regular file"), "{}", refusal());
    }
    // The same length, so that the file stays sound.
    let elsewhere = b"../../p.dat";
    let at = bytes.windows(11).position(|window| window == b"p.onnx.data").unwrap();
    let mut moved = bytes.clone();
    while let Some(at) = moved.windows(11).position(|window| window == b"p.onnx.data") {
        moved[at..at + 11].copy_from_slice(elsewhere);
    }
    assert!(at > 0);
    std::fs::write(&model, moved).unwrap();
    assert!(refusal().contains("expected a file beside the model"), "{}", refusal());
}
