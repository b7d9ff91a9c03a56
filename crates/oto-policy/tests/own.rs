//! Policies of oto's own: a student's policy answers as the student acts, and several policies answer as one.

use oto_agent::config::StudentConfig;
use oto_agent::presets;
use oto_agent::student::{Environments, Student};
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_policy::network::Network;
use oto_policy::{Metadata, Policy, PolicyError, load, load_file, load_folder};
use oto_proto::Space;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::convolution::{Convolution, ConvolutionLayer};
use oto_rl::mlp::{Activation, Layer, Mlp};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// A folder of its own that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("oto-policy-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A policy that always answers the same, in an environment.
    fn constant(&self, name: &str, env: &str, value: f32) {
        let text = format!(r#"{{"kind":"policy","model":"scripted:constant:{value}","env":"{env}"}}"#);
        self.write(&format!("{name}.json"), text);
    }

    fn ensemble(&self, name: &str, members: &[&str]) -> PathBuf {
        let text = format!(r#"{{"kind":"policy","description":"together","ensemble":{members:?}}}"#);
        self.write(&format!("{name}.json"), text)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Shapes and bytes, by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

#[test]
fn a_students_policy_answers_as_the_student_acts() {
    for (env, on_policy) in
        [("CartPole-v1", false), ("Pendulum-v1", false), ("CartPole-v1", true), ("Pendulum-v1", true)]
    {
        let config = if on_policy { presets::on_policy(env) } else { presets::student(env) };
        let mut student = Student::new(&config, Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap();
        let file = student.policy(env);
        let mut policy = load(&file, &Metadata::default()).unwrap();
        let mut rng = Rng::new(2);
        let width = policy.observation_space().width();
        for _ in 0..50 {
            let observation = (0..width).map(|_| rng.normal() as f32).collect::<Vec<_>>();
            let mut row = Vec::new();
            policy.act(&observation, 1, &mut row).unwrap();
            match student.trainer().greedy(&observation).unwrap() {
                oto_env::Action::Discrete(index) => assert_eq!(row, [index as f32]),
                oto_env::Action::Continuous(values) => {
                    assert!((row[0] - values[0]).abs() < 1e-5, "{row:?} {values:?}")
                }
            }
        }
        assert_eq!(policy.outputs(&vec![0.0; width], 1).unwrap().len(), 2);
        for length in 0..file.len().min(400) {
            assert!(load(&file[..length], &Metadata::default()).is_err(), "cut to {length} bytes");
        }
    }
}

/// A student that sees two images of seven by six pixels, and its policy's file.
fn seeing() -> (Student, Vec<u8>) {
    let layer = |channels, kernel, stride| ConvolutionLayer { channels, kernel, stride };
    let convolution = Convolution { shape: [2, 7, 6], layers: vec![layer(4, 3, 2), layer(5, 2, 1)] };
    let algorithm =
        QrDqnConfig { convolution: Some(convolution), hidden: vec![16], ..QrDqnConfig::default() }.into();
    let config = StudentConfig { algorithm, ..StudentConfig::default() };
    let observation = oto_env::Space::uniform(84, 0.0, 255.0);
    let environment =
        Environments::Outside { observation, action: oto_env::Space::Discrete { n: 5 }, evaluates: false };
    let student = Student::new(&config, environment, &[], &Cpu, 0).unwrap();
    let file = student.policy("Images-v0");
    (student, file)
}

#[test]
fn a_policy_that_sees_images_answers_as_the_student_acts() {
    let (mut student, file) = seeing();
    let mut policy = load(&file, &Metadata::default()).unwrap();
    assert_eq!((policy.observation_space().width(), policy.action_space()), (84, &Space::Discrete { n: 5 }));
    let mut rng = Rng::new(2);
    let images = (0..84 * 40).map(|_| rng.below(256) as f32).collect::<Vec<_>>();
    let mut actions = Vec::new();
    policy.act(&images, 40, &mut actions).unwrap();
    let values = policy.outputs(&images, 40).unwrap().remove(0);
    assert_eq!(values.shape, [40, 5]);
    for ((image, action), values) in images.chunks_exact(84).zip(&actions).zip(values.values.chunks_exact(5))
    {
        assert_eq!(student.trainer().greedy(image).unwrap(), oto_env::Action::Discrete(*action as u32));
        assert_eq!(student.trainer().learner().policy().forward(image), values);
    }
    assert!(values.values[..5] != values.values[5..10], "it looks");
    for length in (0..file.len().min(3_000)).chain([file.len() - 1]) {
        assert!(load(&file[..length], &Metadata::default()).is_err(), "cut to {length} bytes");
    }
}

/// The same file with other metadata and tensors.
fn remade(
    file: &[u8],
    metadata: impl Fn(&mut serde_json::Value),
    tensors: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<u8>)>),
) -> Result<(), PolicyError> {
    let (_, header) = SafeTensors::read_metadata(file).unwrap();
    let (key, text) = header.metadata().as_ref().unwrap().iter().next().unwrap();
    let mut json = serde_json::from_str(text).unwrap();
    metadata(&mut json);
    let old = SafeTensors::deserialize(file).unwrap();
    let mut all = BTreeMap::new();
    for name in old.names() {
        let view = old.tensor(name).unwrap();
        all.insert(name.to_string(), (view.shape().to_vec(), view.data().to_vec()));
    }
    tensors(&mut all);
    let views = all.iter().map(|(name, (shape, data))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("the test's tensors are sound"))
    });
    let entries = HashMap::from([(key.clone(), json.to_string())]);
    load(&safetensors::serialize(views, Some(entries)).unwrap(), &Metadata::default()).map(drop)
}

#[test]
fn convolutions_that_do_not_fit_are_refused_with_a_sentence() {
    let (_, file) = seeing();
    remade(&file, |_| (), |_| ()).unwrap();
    let metadata =
        |change: fn(&mut serde_json::Value)| remade(&file, change, |_| ()).unwrap_err().to_string();
    let layer = |key: &'static str, value: u64| {
        let change = move |m: &mut serde_json::Value| m["convolution"]["layers"][0][key] = value.into();
        remade(&file, change, |_| ()).unwrap_err().to_string()
    };
    assert!(
        metadata(|m| drop(m.as_object_mut().unwrap().remove("convolution"))).contains("policy.encoder.0")
    );
    assert!(metadata(|m| m["convolution"]["layers"] = [(); 0].into()).contains("1 to 8 layers"));
    assert!(metadata(|m| m["convolution"] = 3.into()).starts_with("metadata: "));
    let huge = metadata(|m| m["convolution"]["shape"] = vec![1u64 << 60, 1 << 60, 1 << 60].into());
    assert!(huge.contains("an image of 1 to 1048576 numbers"), "{huge}");
    assert!(
        metadata(|m| m["convolution"]["shape"] = vec![2, 70, 60].into()).contains("the convolutions give")
    );
    assert!(metadata(|m| m["convolution"]["shape"] = vec![3, 7, 6].into()).contains("[4, 3, 3, 3]"));
    assert!(layer("channels", 5).contains("[5, 2, 3, 3]"));
    assert!(layer("channels", 1 << 40).contains("1 to 1024 channels"));
    assert!(layer("kernel", 2).contains("[4, 2, 2, 2]"));
    assert!(layer("kernel", 0).contains("at least 1 pixel") && layer("kernel", 8).contains("fit into"));
    assert!(layer("stride", 0).contains("stride of at least 1"));
    // The weights' shapes do not know the stride: what the next layer takes does.
    assert!(layer("stride", 1).contains("the convolutions give"));

    let tensors = |change: fn(&mut Tensors)| remade(&file, |_| (), change).unwrap_err().to_string();
    assert!(tensors(|t| drop(t.remove("policy.encoder.1.bias"))).contains("policy.encoder.1.bias: expected"));
    let flat = tensors(|t| t.get_mut("policy.encoder.0.weight").unwrap().0 = vec![4, 18]);
    assert!(flat.contains("expected the shape [4, 2, 3, 3], it has [4, 18]"), "{flat}");
    let more = tensors(|t| drop(t.insert("policy.encoder.2.bias".into(), (vec![1], vec![0; 4]))));
    assert!(more.contains("belongs to no convolution"), "{more}");
}

/// Whatever happens to a byte, reading and acting return.
#[test]
fn damaged_policies_that_see_images_never_panic() {
    let (_, file) = seeing();
    let mut rng = Rng::new(4);
    let mut actions = Vec::new();
    for _ in 0..2_000 {
        let mut damaged = file.clone();
        for _ in 0..1 + rng.below(3) {
            let within = if rng.below(4) > 0 { 3_000 } else { file.len() as u32 };
            let at = rng.below(within) as usize;
            damaged[at] = if rng.below(2) > 0 { b'0' + rng.below(10) as u8 } else { rng.below(256) as u8 };
        }
        if let Ok(mut policy) = load(&damaged, &Metadata::default()) {
            let width = policy.observation_space().width();
            drop(policy.act(&vec![200.0; 2 * width], 2, &mut actions));
        }
    }
}

#[test]
fn a_run_is_a_policy_of_its_folders_name() {
    let folder = Folder::new("run");
    let env = "CartPole-v1";
    let student =
        Student::new(&presets::student(env), Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap();
    folder.write("first/policy.safetensors", student.policy(env));
    folder.write("first/config.json", "{}");
    folder.constant("push", env, 1.0);
    let names = |path: PathBuf| load_folder(&path).unwrap().into_iter().map(|l| l.name).collect::<Vec<_>>();
    assert_eq!(names(folder.0.clone()), ["first", "push"]);
    assert_eq!(names(folder.0.join("first")), ["first"]);
    let loaded = load_file(&folder.0.join("first/policy.safetensors")).unwrap();
    assert_eq!(loaded.metadata.env.as_deref(), Some(env));
    assert_eq!(loaded.metadata.algorithm.as_deref(), Some("oto qrdqn"));
    folder.ensemble("both", &["first", "push", "push"]);
    let mut actions = Vec::new();
    load_file(&folder.0.join("both.json")).unwrap().policy.act(&[0.0; 4], 1, &mut actions).unwrap();
    assert_eq!(actions, [1.0]);
}

#[test]
fn a_network_in_memory_is_a_policy() {
    let layer = Layer { weight: vec![1.0, -1.0], bias: vec![0.0, 0.0], activation: Activation::Identity };
    let network = Mlp::new(1, vec![layer]).unwrap();
    let metadata = |action| Metadata {
        observation_space: Some(Space::Box { low: vec![-9.0], high: vec![9.0] }),
        action_space: Some(action),
        ..Metadata::default()
    };
    let mut actions = Vec::new();
    let network = network.into();
    let mut choices = Network::acting(&network, &metadata(Space::Discrete { n: 2 })).unwrap();
    choices.act(&[2.0, -2.0], 2, &mut actions).unwrap();
    assert_eq!(actions, [0.0, 1.0]);
    let boxed = Space::Box { low: vec![0.0, -3.0], high: vec![4.0, 3.0] };
    Network::acting(&network, &metadata(boxed)).unwrap().act(&[1.0], 1, &mut actions).unwrap();
    let t = 1f32.tanh();
    assert!((actions[0] - 2.0 * (t + 1.0)).abs() < 1e-6 && (actions[1] + 3.0 * t).abs() < 1e-6);
    assert!(Network::acting(&network, &metadata(Space::Discrete { n: 3 })).is_err());
    assert!(Network::acting(&network, &Metadata::default()).is_err(), "a tanh has no range");
}

#[test]
fn members_vote_or_are_averaged() {
    let folder = Folder::new("votes");
    let cell = "MobileCell-5G-v0";
    for (name, value) in [("none", 0.0), ("two", 2.0), ("three", 3.0)] {
        folder.constant(name, cell, value);
    }
    let answer = |path: PathBuf| {
        let loaded = load_file(&path).unwrap();
        assert_eq!(loaded.metadata.description.as_deref(), Some("together"));
        let (mut policy, mut actions) = (loaded.policy, Vec::new());
        let width = policy.observation_space().width();
        policy.act(&vec![0.5; 2 * width], 2, &mut actions).unwrap();
        assert_eq!(policy.outputs(&vec![0.5; 2 * width], 2).unwrap()[0].values, actions);
        actions
    };
    assert_eq!(answer(folder.ensemble("majority", &["none", "two", "three", "two"])), [2.0, 2.0]);
    assert_eq!(answer(folder.ensemble("tie", &["three", "two", "none"])), [3.0, 3.0], "the earlier one");
    assert_eq!(answer(folder.ensemble("nested", &["none", "majority", "tie", "three"])), [3.0, 3.0]);
    for (name, value) in [("left", -3.0), ("right", 3.0), ("some", 1.5)] {
        folder.constant(name, "InvertedPendulum-v5", value);
    }
    assert_eq!(answer(folder.ensemble("mean", &["left", "right", "some", "some"])), [0.75, 0.75]);
}

#[test]
fn ensembles_that_cannot_be_are_refused() {
    let folder = Folder::new("refused");
    folder.constant("choice", "CartPole-v1", 1.0);
    folder.constant("force", "InvertedPendulum-v5", 1.0);
    folder.constant("torque", "Pendulum-v1", 1.0);
    let refused = |path: PathBuf| match load_file(&path).map(drop) {
        Err(PolicyError::In { source, .. }) => *source,
        other => panic!("{other:?}"),
    };
    let error = refused(folder.ensemble("actions", &["force", "choice"]));
    assert!(
        matches!(&error, PolicyError::MemberSpace { member, what: "action", .. } if member == "choice"),
        "{error}"
    );
    let error = refused(folder.ensemble("seen", &["force", "torque"]));
    assert!(matches!(&error, PolicyError::MemberSpace { what: "observation", .. }), "{error}");
    assert!(matches!(refused(folder.ensemble("empty", &[])), PolicyError::Members { found: 0, .. }));
    for missing in ["nobody", "../choice", "", "."] {
        let error = refused(folder.ensemble("missing", &["choice", missing]));
        assert!(matches!(&error, PolicyError::NoMember(name) if name == missing), "{missing}: {error}");
    }
    folder.ensemble("b", &["choice", "a"]);
    let around = match refused(folder.ensemble("a", &["choice", "b"])) {
        PolicyError::In { source, .. } => match *source {
            PolicyError::In { source, .. } => *source,
            other => other,
        },
        other => other,
    };
    assert!(matches!(&around, PolicyError::Circle(names) if names == &["a", "b", "a"]), "{around}");
    assert_eq!(around.to_string(), "its members go in a circle: a has b has a");
    // Each has the one before it twice: 2^40 policies.
    folder.ensemble("e0", &["choice", "choice"]);
    for i in 1..40 {
        let before = format!("e{}", i - 1);
        folder.ensemble(&format!("e{i}"), &[&before, &before]);
    }
    let error = load_file(&folder.0.join("e39.json")).map(drop).unwrap_err().to_string();
    assert!(error.contains("1 to 64 members"), "{error}");
    assert!(load_folder(&folder.0).is_err());
}
