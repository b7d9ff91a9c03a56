//! Damaged checkpoints: every tensor and every number of the metadata is changed in turn. A student refuses such a file and stays
//! as it was, or goes on with it; it never answers by a network that gives no numbers.

use oto_agent::config::{EvaluationConfig, PlateauDecay, StudentConfig};
use oto_agent::drive::{Driver, Wire};
use oto_agent::link::memory::{Memory, MemoryTeacher};
use oto_agent::student::{Environments, Student, TeacherConfig};
use oto_agent::trainer::TrainError;
use oto_cpu::Cpu;
use oto_json::{Json, Number};
use oto_rl::algorithms::ddpg::DdpgConfig;
use oto_rl::algorithms::ppo::PpoConfig;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::algorithms::sac::SacConfig;
use oto_rl::engine::LearnError;
use oto_rl::replay::{ReplayConfig, SamplerName};

fn config(environment: &str) -> StudentConfig {
    let plateau_decay = PlateauDecay { at_return: -1e4, factor: 0.9, floor: 0.1, setbacks: 2 };
    StudentConfig {
        seed: 3,
        steps: 400,
        buffer: 128,
        learning_starts: 32,
        plateau_decay: Some(plateau_decay),
        evaluation: EvaluationConfig { every: 40, episodes: 1 },
        ..oto_agent::presets::learner(environment, oto_rl::algorithms::find("qrdqn").unwrap())
    }
}

/// A student for each kind of network and of buffer: its environment and its configuration.
fn students() -> Vec<(&'static str, StudentConfig)> {
    let qrdqn = QrDqnConfig { hidden: vec![6], quantiles: 3, batch_size: 8, ..QrDqnConfig::default() };
    let sac = SacConfig { hidden: vec![6], batch_size: 8, samples: 2, ..SacConfig::default() };
    let ddpg = DdpgConfig { hidden: vec![6], batch_size: 8, correlation_time: 9.0, ..DdpgConfig::default() };
    let ppo = PpoConfig { hidden: vec![6], n_steps: 32, batch_size: 8, epochs: 2, ..PpoConfig::default() };
    let base = |environment| StudentConfig { n_step: 1, train_every: 1, ..config(environment) };
    let replay = ReplayConfig { sampler: SamplerName::Prioritised, ..ReplayConfig::default() };
    vec![
        ("CartPole-v1", StudentConfig { algorithm: qrdqn.into(), n_step: 3, ..base("CartPole-v1") }),
        ("CartPole-v1", StudentConfig { algorithm: sac.clone().into(), replay, ..base("CartPole-v1") }),
        ("Pendulum-v1", StudentConfig { algorithm: sac.into(), ..base("Pendulum-v1") }),
        ("Pendulum-v1", StudentConfig { algorithm: ddpg.into(), ..base("Pendulum-v1") }),
        ("CartPole-v1", StudentConfig { algorithm: ppo.clone().into(), ..base("CartPole-v1") }),
        ("Pendulum-v1", StudentConfig { algorithm: ppo.into(), ..base("Pendulum-v1") }),
    ]
}

fn taught(environment: &str, config: &StudentConfig) -> (Student, Driver) {
    let inside = Environments::built_in(environment).unwrap();
    let [observation, action] = <[_; 2]>::from(inside.spaces()).map(oto_env::Space::clone);
    let width = observation.width();
    let act = move |x: &[f32], _: usize, out: &mut Vec<f32>| {
        out.extend(x.chunks_exact(width).map(|_| 1.0));
        Ok(())
    };
    let memory = Memory::new(MemoryTeacher::new("one", observation, action, Box::new(act)));
    let teacher = TeacherConfig {
        url: "memory://".into(),
        policy: "one".into(),
        adapter: None,
        learn_adapter: None,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    };
    let student = Student::new(config, inside, &[teacher], &Cpu, 0).unwrap();
    (student, Driver::with(vec![Wire::Memory(Box::new(memory))]))
}

fn train(student: &mut Student, driver: &mut Driver, steps: u64) -> Result<(), TrainError> {
    for _ in 0..steps {
        driver.step(student)?;
        while student.next_event().is_some() {}
    }
    Ok(())
}

/// A file's header and its arrays.
fn parts(file: &[u8]) -> (Json, &[u8]) {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    (oto_json::parse(std::str::from_utf8(&file[8..8 + length]).unwrap()).unwrap(), &file[8 + length..])
}

fn joined(header: &Json, data: &[u8]) -> Vec<u8> {
    let mut header = oto_json::write(header);
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// The places of the numbers in a tree, as paths of indices; of a list only the first three elements. Configurations are left out:
/// a student goes by its own.
fn numbers(tree: &Json, path: &mut Vec<usize>, found: &mut Vec<(Vec<usize>, String)>, name: &str) {
    match tree {
        Json::Number(_) => found.push((path.clone(), name.to_string())),
        Json::List(list) => {
            for (i, inner) in list.iter().enumerate().take(3) {
                path.push(i);
                numbers(inner, path, found, &format!("{name}[{i}]"));
                path.pop();
            }
        }
        Json::Object(entries) => {
            for (i, (key, inner)) in entries.iter().enumerate().filter(|(_, (key, _))| key != "config") {
                path.push(i);
                numbers(inner, path, found, &format!("{name}.{key}"));
                path.pop();
            }
        }
        _ => {}
    }
}

fn at<'t>(tree: &'t mut Json, path: &[usize]) -> &'t mut Json {
    path.iter().fold(tree, |tree, i| match tree {
        Json::List(list) => &mut list[*i],
        Json::Object(entries) => &mut entries[*i].1,
        _ => panic!("a path leads through lists and objects"),
    })
}

/// A student that has a file of its own, and is given damaged ones.
struct Patient {
    environment: &'static str,
    config: StudentConfig,
    good: Vec<u8>,
    refused: usize,
    used: usize,
}

impl Patient {
    fn new(environment: &'static str, config: StudentConfig) -> Self {
        let (mut student, mut driver) = taught(environment, &config);
        train(&mut student, &mut driver, 170).unwrap();
        let good = student.save(true).unwrap();
        assert!(student.metrics(0).labels > 50 && student.trainer().updates() > 20, "{environment}");
        Self { environment, config, good, refused: 0, used: 0 }
    }

    fn try_file(&mut self, what: &str, file: &[u8]) {
        let what = format!("{} in {}: {what}", self.config.algorithm.name(), self.environment);
        let (mut student, mut driver) = taught(self.environment, &self.config);
        student.load(&self.good, 0).unwrap();
        let before = student.save(true).unwrap();
        match student.load(file, 0) {
            Err(error) => {
                assert!(
                    matches!(error, TrainError::Checkpoint(_) | TrainError::Environment(_)),
                    "{what}: {error}"
                );
                assert!(student.save(true).unwrap() == before, "{what}: refused, and yet something changed");
                self.refused += 1;
            }
            Ok(()) => {
                self.used += 1;
                self.answers(&what, &mut student);
                let _ = train(&mut student, &mut driver, 50);
                self.answers(&what, &mut student);
                match student.save(true) {
                    Ok(saved) => {
                        student.load(&saved, 0).unwrap_or_else(|e| panic!("{what}: its own file: {e}"))
                    }
                    Err(error) => assert!(is_not_finite(&error), "{what}: {error}"),
                }
            }
        }
    }

    /// An answer is one of a network that gives numbers.
    fn answers(&self, what: &str, student: &mut Student) {
        let width = student.trainer().observation().len();
        for i in 0..8 {
            let observation = (0..width).map(|j| ((i * 7 + j * 3) as f32).sin()).collect::<Vec<_>>();
            let answered = student.trainer().greedy(&observation).is_ok();
            let mut network = student.trainer().learner().policy();
            let is_number = network.forward(&observation).iter().all(|x| !x.is_nan());
            assert!(!answered || is_number, "{what}: answers by a network that gives no numbers");
        }
    }
}

/// Whether a file was not written because parameters have diverged.
fn is_not_finite(error: &TrainError) -> bool {
    matches!(error, TrainError::Learn(LearnError::NotFinite(_)))
}

#[test]
fn every_damaged_tensor_is_refused_or_harmless() {
    for (environment, config) in students() {
        let mut patient = Patient::new(environment, config);
        let good = patient.good.clone();
        let (header, data) = parts(&good);
        let Json::Object(entries) = &header else { panic!("a header is an object") };
        for (name, entry) in entries.iter().filter(|(name, _)| name != "__metadata__") {
            let offsets = oto_json::from_tree::<(usize, usize)>(entry.get("data_offsets").unwrap()).unwrap();
            if offsets.0 == offsets.1 {
                continue;
            }
            for bad in [f32::NAN, f32::INFINITY, -5.0, 0.5, 99.0, 3e38] {
                let mut data = data.to_vec();
                data[offsets.0..offsets.0 + 4].copy_from_slice(&bad.to_le_bytes());
                let refused = patient.refused;
                patient.try_file(&format!("{name}[0] = {bad}"), &joined(&header, &data));
                assert!(bad.is_finite() || patient.refused > refused, "{name}[0] = {bad} was taken");
            }
            // One number less, and another type.
            let mut short = header.clone();
            let entry = at(&mut short, &[entries.iter().position(|(n, _)| n == name).unwrap()]);
            entry.set("dtype".into(), Json::Text("I32".into()));
            patient.try_file(&format!("{name} of whole numbers"), &joined(&short, data));
        }
        assert!(patient.refused > 50 && patient.used > 20, "{} and {}", patient.refused, patient.used);
    }
}

#[test]
fn every_damaged_number_of_the_metadata_is_refused_or_harmless() {
    for (environment, config) in students() {
        let mut patient = Patient::new(environment, config);
        let good = patient.good.clone();
        let (header, data) = parts(&good);
        let Some(Json::Object(texts)) = header.get("__metadata__").cloned() else { panic!("there is one") };
        let (key, Json::Text(text)) = &texts[0] else { panic!("its entry is a text") };
        let metadata = oto_json::parse(text).unwrap();
        let mut found = Vec::new();
        numbers(&metadata, &mut Vec::new(), &mut found, "");
        assert!(found.len() > 30, "{} numbers", found.len());
        for (path, name) in found {
            let bad = [
                Number::Negative(-5),
                Number::Unsigned(10u64.pow(15)),
                Number::Real(0.5),
                Number::Real(1e300),
            ];
            for bad in bad.into_iter().chain([Number::Unsigned(u64::MAX)]) {
                let mut metadata = metadata.clone();
                *at(&mut metadata, &path) = Json::Number(bad);
                let text = Json::Text(oto_json::write(&metadata));
                let mut header = header.clone();
                header.set("__metadata__".into(), Json::Object(vec![(key.clone(), text)]));
                patient.try_file(&format!("{name} = {bad:?}"), &joined(&header, data));
            }
        }
        assert!(patient.refused > 50 && patient.used > 10, "{} and {}", patient.refused, patient.used);
    }
}

#[test]
fn damage_that_once_ruined_a_student_is_named() {
    let (environment, config) = students().remove(0);
    let mut patient = Patient::new(environment, config);
    let good = patient.good.clone();
    let (header, data) = parts(&good);
    for (name, bad, says) in [
        ("adam.t", -5.0, "a whole number from 0"),
        ("adam.v.q.0.weight", -1.0, "a number from 0"),
        ("good.q.0.bias", f32::NAN, "good"),
        ("replay.reward", f32::NAN, "a finite number"),
        ("replay.observation", f32::NAN, "a finite number"),
        ("replay.action", 99.0, "an action"),
        ("replay.action", -1.0, "an action"),
        ("replay.action", 0.5, "an action"),
        ("replay.label", 99.0, "an answer of a teacher"),
        ("replay.discount", 5.0, "from 0 to 1"),
        ("observation", f32::NAN, "observation[0]"),
    ] {
        let entry = header.get(name).and_then(|entry| entry.get("data_offsets")).expect(name);
        let offsets = oto_json::from_tree::<(usize, usize)>(entry).unwrap();
        let mut data = data.to_vec();
        data[offsets.0..offsets.0 + 4].copy_from_slice(&bad.to_le_bytes());
        let file = joined(&header, &data);
        let (mut student, _) = taught(environment, &patient.config);
        let error = student.load(&file, 0).unwrap_err();
        assert!(matches!(error, TrainError::Checkpoint(_)), "{name}: {error}");
        assert!(error.to_string().contains(says), "{name} = {bad}: {error}");
        patient.try_file(name, &file);
    }
}

/// Rewards that no loss survives: the student says so, answers by its last good network or not at all, and writes no file that it
/// could not read.
#[test]
fn a_student_that_diverges_neither_answers_nor_saves_nonsense() {
    for (environment, config) in students() {
        let rates = oto_agent::config::Linear { start: 10.0, end: 10.0, steps: 1 };
        let config = StudentConfig { learning_rate: rates, target_tau: 1.0, plateau_decay: None, ..config };
        let inside = Environments::built_in(environment).unwrap();
        let mut student = Student::new(&config, inside, &[], &Cpu, 0).unwrap();
        let patient = Patient { environment, config, good: Vec::new(), refused: 0, used: 0 };
        let width = student.trainer().observation().len();
        let mut failed = None;
        for i in 0..400u32 {
            if !student.trainer().running() {
                student.trainer().begin(&vec![0.1; width]).unwrap();
            }
            let step = oto_env::Step { reward: 3e38, terminated: i % 9 == 0, truncated: false };
            let acted = student.trainer().act();
            let next = vec![(i as f32).sin(); width];
            let stepped = acted.and_then(|()| student.trainer().observe(step, &next, |_, _| {}).map(drop));
            if let Err(error) = stepped {
                failed = Some(error);
                break;
            }
        }
        let failed = failed.expect("such rewards end in an error");
        assert!(matches!(failed, TrainError::Learn(_)), "{failed}");
        patient.answers("after divergence", &mut student);
        match student.save(true) {
            Ok(saved) => student.load(&saved, 0).unwrap(),
            Err(error) => assert!(is_not_finite(&error), "{error}"),
        }
    }
}
