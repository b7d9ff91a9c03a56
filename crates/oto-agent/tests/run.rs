//! Whole runs with a teacher in memory: the same seed gives the same curve, a resumed run is the uninterrupted one, and no
//! teacher, environment or file can stop a student without a sentence that says why.

use oto_agent::config::{Clock, EvaluationConfig, Linear, PlateauDecay, StudentConfig};
use oto_agent::drive::{Driver, Wire};
use oto_agent::link::memory::{Fault, Memory, MemoryTeacher};
use oto_agent::presets;
use oto_agent::stage::{Change, Ending, GiveUp, Stage, StagesConfig};
use oto_agent::student::{Environments, Event, Need, Student, TeacherConfig, Tick};
use oto_cpu::Cpu;
use oto_env::{Action, EnvError, Environment, Snapshot, Space, Step};
use oto_proto::BatchId;
use oto_rl::algorithms::ddpg::DdpgConfig;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::algorithms::sac::SacConfig;
use oto_rl::replay::{ReplayConfig, SamplerName};
use std::collections::BTreeMap;
use std::time::Duration;

fn config() -> StudentConfig {
    StudentConfig {
        seed: 3,
        steps: 900,
        algorithm: QrDqnConfig { hidden: vec![16], quantiles: 4, batch_size: 16, ..QrDqnConfig::default() }
            .into(),
        evaluation: EvaluationConfig { every: 300, episodes: 2 },
        ..StudentConfig::default()
    }
}

/// Pushes the cart to where the pole leans, in InvertedPendulum's order and units.
fn memory() -> Memory {
    let bounds = |b: f32| vec![b; 4];
    let observation = oto_proto::Space::Box { low: bounds(f32::NEG_INFINITY), high: bounds(f32::INFINITY) };
    let action = oto_proto::Space::Box { low: vec![-3.0], high: vec![3.0] };
    let act = |x: &[f32], _: usize, out: &mut Vec<f32>| {
        out.extend(x.chunks_exact(4).map(|s| (s[1] + s[3]).clamp(-3.0, 3.0)));
        Ok(())
    };
    Memory::new(MemoryTeacher::new("inverted_pendulum_lean", observation, action, Box::new(act)))
}

fn teacher() -> TeacherConfig {
    let policy = "inverted_pendulum_lean";
    TeacherConfig {
        url: "memory://".into(),
        policy: policy.into(),
        adapter: presets::adapter("CartPole-v1", policy),
        learn_adapter: None,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    }
}

fn taught(config: &StudentConfig, memory: Memory) -> (Student, Driver) {
    let driver = Driver::with(vec![Wire::Memory(Box::new(memory))]);
    let environment = Environments::built_in("CartPole-v1").unwrap();
    (Student::new(config, environment, &[teacher()], &Cpu, 0).unwrap(), driver)
}

fn run(student: &mut Student, driver: &mut Driver, until: u64) -> Vec<Event> {
    let mut events = Vec::new();
    while student.trainer().steps() < until && driver.step(student).unwrap() != Tick::Done {
        events.extend(std::iter::from_fn(|| student.next_event()));
    }
    events
}

#[test]
fn the_same_seed_gives_the_same_curve_and_a_resumed_run_is_the_uninterrupted_one() {
    let (mut student, mut driver) = taught(&config(), memory());
    run(&mut student, &mut driver, 900);
    assert!(student.metrics(0).labels > 800, "{} labels", student.metrics(0).labels);
    resumed_is_uninterrupted(|| taught(&config(), memory()));
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_with_every_sampler() {
    for sampler in [SamplerName::Combined, SamplerName::Shares, SamplerName::Prioritised] {
        let replay =
            ReplayConfig { sampler, beta: Linear { start: 0.0, end: 1.0, steps: 800 }, ..Default::default() };
        // Transitions are overwritten.
        let config = StudentConfig { replay, buffer: 300, n_step: 2, ..config() };
        resumed_is_uninterrupted(|| taught(&config, memory()));
    }
}

#[test]
fn samplers_and_algorithms_that_do_not_fit_are_named() {
    let with = |json: &str| {
        let config = serde_json::from_str::<StudentConfig>(json);
        config.map_err(|e| e.to_string()).and_then(|c| c.validate().map_err(|e| e.to_string())).unwrap_err()
    };
    for (json, said) in [
        (
            r#"{"replay":{"sampler":"newest"}}"#,
            "`uniform`, `combined`, `shares`, `prioritised`, `whole`, `balanced` or `forgetting`",
        ),
        (r#"{"replay":{"sampler":"uniform","power":1}}"#, "power"),
        (r#"{"replay":{"recorded_share":1.5}}"#, "replay.recorded_share is 1.5"),
        (r#"{"replay":{"alpha":-1}}"#, "replay.alpha is -1"),
        (r#"{"replay":{"beta":{"start":0.4,"end":2,"steps":10}}}"#, "replay.beta is 2"),
        (r#"{"replay":{"epsilon":0}}"#, "replay.epsilon is 0"),
        (r#"{"algorithm":"ppo","replay":{"sampler":"prioritised"}}"#, "replay.sampler is \"prioritised\""),
    ] {
        let error = with(json);
        assert!(error.contains(said), "{json}: {error}");
    }
}

/// A student that explores with correlated noise, and whose actor starts after its critics.
#[test]
fn a_resumed_run_has_the_uninterrupted_ones_noise() {
    let algorithm = DdpgConfig {
        hidden: vec![16],
        batch_size: 16,
        exploration: 0.8,
        exploration_factor: Linear { start: 1.0, end: 0.1, steps: 700 },
        correlation_time: 9.0,
        actor_starts: Some(500),
        ..DdpgConfig::default()
    };
    let config = StudentConfig {
        algorithm: algorithm.into(),
        epsilon: Linear::constant(0.0),
        replay: ReplayConfig { sampler: SamplerName::Combined, ..ReplayConfig::default() },
        ..config()
    };
    let student = || {
        let environment = Environments::built_in("Pendulum-v1").unwrap();
        (Student::new(&config, environment, &[], &Cpu, 0).unwrap(), Driver::with(Vec::new()))
    };
    resumed_is_uninterrupted(student);
    let actor = |steps| {
        let (mut student, mut driver) = student();
        run(&mut student, &mut driver, steps);
        let state = student.trainer().learner().engine().state().unwrap();
        state.into_iter().filter(|tensor| tensor.name.starts_with("actor.")).collect::<Vec<_>>()
    };
    assert_eq!(actor(128), actor(499), "the actor waits for its start");
    assert_ne!(actor(499), actor(500));
}

fn resumed_is_uninterrupted(student: impl Fn() -> (Student, Driver)) {
    let (mut a, mut driver) = student();
    let whole = run(&mut a, &mut driver, 900);
    assert_eq!(a.metrics(0).transitions_sent, 0);

    let (mut b, mut driver) = student();
    // In the middle of an episode, a batch of states and a request.
    let mut parts = run(&mut b, &mut driver, 437);
    let file = b.save(true).unwrap();
    let (mut c, mut driver) = student();
    c.load(&file, 0).unwrap();
    parts.extend(run(&mut c, &mut driver, 900));
    assert_eq!(parts, whole);
    // Not the whole files: the seconds spent in a stage are real ones.
    assert_eq!(c.trainer().replay().save(), a.trainer().replay().save());
    assert_eq!(
        a.trainer().learner().engine().state().unwrap(),
        c.trainer().learner().engine().state().unwrap()
    );
}

#[test]
fn a_teacher_that_never_comes_changes_nothing_but_the_labels() {
    let config = config();
    let mut gone = memory();
    gone.set_present(false, 0);
    let (mut a, mut driver) = taught(&config, gone);
    let alone = run(&mut a, &mut driver, 900);
    assert_eq!((a.trainer().steps(), a.metrics(0).labels), (900, 0));
    let mut other = memory();
    other.set_present(false, 0);
    let (mut b, mut driver) = taught(&config, other);
    assert_eq!(run(&mut b, &mut driver, 900), alone);
}

#[test]
fn a_faulty_teacher_slows_and_never_stops() {
    for fault in
        [Fault::Garbage, Fault::WrongCount, Fault::BadAction, Fault::Stale, Fault::Cut, Fault::Refused]
    {
        let config = StudentConfig { steps: 400, clock: Clock::Async, ..config() };
        let mut bad = memory();
        bad.disturb(5, (0, 0), vec![(fault, 0.3)]);
        let (mut student, mut driver) = taught(&config, bad);
        run(&mut student, &mut driver, 400);
        assert_eq!(student.trainer().steps(), 400, "{fault:?}");
        assert!(student.trainer().updates() > 200, "{fault:?}");
    }
}

#[test]
fn stages_follow_one_another_and_the_last_ends_the_run() {
    let steps = |n| Some(Ending { steps: Some(n), ..Ending::default() });
    let stages = StagesConfig { offline: steps(100), transfer: steps(200), online: steps(50), repeat: false };
    let config = StudentConfig { stages, ..config() };
    let (mut student, mut driver) = taught(&config, memory());
    let events = run(&mut student, &mut driver, 900);
    let entered = events.iter().filter_map(|e| match e {
        Event::Stage { step, stage } => Some((*step, *stage)),
        _ => None,
    });
    assert_eq!(entered.collect::<Vec<_>>(), [(100, Stage::Transfer), (300, Stage::Online)]);
    assert_eq!(student.trainer().steps(), 350);
    let labels = student.metrics(0).labels;
    assert!((150..=200).contains(&labels), "only the Transfer stage asks: {labels} labels");
}

fn outside() -> Student {
    let observation = Space::Box { low: vec![-1.0; 2], high: vec![1.0; 2] };
    let environment =
        Environments::Outside { observation, action: Space::Discrete { n: 3 }, evaluates: false };
    Student::new(&config(), environment, &[], &Cpu, 0).unwrap()
}

#[test]
fn an_environment_outside_is_asked_for_and_its_numbers_are_checked() {
    let mut student = outside();
    let step = |reward, terminated| Step { reward, terminated, truncated: false };
    assert!(student.stepped(step(1.0, false), &[0.0, 0.0], 0).is_err(), "nothing was asked for");
    assert_eq!(student.need(0).unwrap(), Need::Reset(Some(3)));
    let wrong = student.began(&[0.0]).unwrap_err().to_string();
    assert!(wrong.contains("1 numbers") && wrong.contains("2"), "{wrong}");
    student.began(&[0.0, 0.5]).unwrap();
    assert_eq!(student.need(0).unwrap(), Need::Step);
    assert!(matches!(student.action(), Action::Discrete(0..3)));
    assert_eq!(student.need(0).unwrap(), Need::Step, "the same until it is answered");
    let nan = student.stepped(step(1.0, false), &[f32::NAN, 0.0], 0).unwrap_err().to_string();
    assert!(nan.contains("observation[0]") && nan.contains("NaN"), "{nan}");
    let reward = student.stepped(step(f64::INFINITY, false), &[0.0, 0.0], 0).unwrap_err().to_string();
    assert!(reward.contains("reward"), "{reward}");
    student.stepped(step(1.0, true), &[0.1, 0.2], 0).unwrap();
    assert_eq!(student.need(0).unwrap(), Need::Reset(None));
}

#[test]
fn foreign_and_broken_checkpoints_are_named_and_refused() {
    let (mut student, mut driver) = taught(&config(), memory());
    run(&mut student, &mut driver, 200);
    let file = student.save(true).unwrap();
    let before = student.trainer().learner().engine().state().unwrap();
    for cut in [0, 7, 8, 100, file.len() / 2, file.len() - 1] {
        assert!(student.load(&file[..cut], 0).is_err(), "cut to {cut} bytes");
    }
    let foreign = std::fs::read("../../tests/fixtures/teacher_ppo_cartpole_v1.safetensors").unwrap();
    let error = student.load(&foreign, 0).unwrap_err().to_string();
    assert!(error.contains("oto.checkpoint.v4"), "{error}");
    let algorithm = config().algorithm.with(|q: &mut QrDqnConfig| q.hidden = vec![17]);
    let wider = StudentConfig { algorithm, ..config() };
    let error = taught(&wider, memory()).0.load(&file, 0).unwrap_err().to_string();
    assert!(error.contains("[16]") && error.contains("[17]"), "{error}");
    // The name has as many bytes, so that all else in the file stays where it is.
    let old = replaced(&file, "oto.checkpoint.v4", "oto.checkpoint.v3");
    let error = student.load(&old, 0).unwrap_err().to_string();
    assert!(error.contains("oto.checkpoint.v3") && error.contains("begin it anew"), "{error}");
    assert_eq!(student.trainer().learner().engine().state().unwrap(), before, "nothing changed");
}

/// A file with one text in the place of another one of the same length.
fn replaced(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = file.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
    [&file[..at], to.as_bytes(), &file[at + from.len()..]].concat()
}

#[test]
fn a_policy_that_was_good_and_is_lost_comes_back() {
    let plateau_decay = Some(PlateauDecay { at_return: 475.0, factor: 0.5, floor: 0.1, setbacks: 2 });
    let config = StudentConfig {
        plateau_decay,
        evaluation: EvaluationConfig { every: 10_000, episodes: 1 },
        ..config()
    };
    let mut student = taught(&config, memory());
    let learn = |student: &mut (Student, Driver)| {
        for _ in 0..150 {
            student.1.step(&mut student.0).unwrap();
        }
        student.0.trainer().learner().engine().state().unwrap()
    };
    let good = learn(&mut student);
    let evaluated = |student: &mut (Student, Driver), mean| {
        student.0.trainer().advance_stage(0.0, Some(mean)).unwrap();
        student.0.trainer().learner().engine().state().unwrap()
    };
    assert_eq!(evaluated(&mut student, 480.0), good);
    assert_ne!(learn(&mut student), good);
    assert_eq!(evaluated(&mut student, 100.0), good, "once");
    // What is remembered is part of a checkpoint.
    let file = student.0.save(true).unwrap();
    let mut resumed = taught(&config, memory());
    resumed.0.load(&file, 0).unwrap();
    for student in [&mut student, &mut resumed] {
        assert_ne!(learn(student), good);
        assert_eq!(evaluated(student, 100.0), good, "twice");
        let lost = learn(student);
        assert_eq!(evaluated(student, 100.0), lost, "the environment may be another now");
        assert_eq!(evaluated(student, 500.0), lost, "a new start to count from");
        learn(student);
        assert_eq!(evaluated(student, 100.0), lost);
    }
}

/// A student that submits, and a teacher that collects and loses every third connection right after it kept a batch.
fn sharing(config: &StudentConfig, cuts: f64) -> (Student, Driver) {
    let mut memory = memory();
    memory.collect();
    memory.disturb(1, (0, 0), vec![(Fault::Cut, cuts)]);
    let driver = Driver::with(vec![Wire::Memory(Box::new(memory))]);
    let teacher = TeacherConfig { submit: true, ..teacher() };
    let environment = Environments::built_in("CartPole-v1").unwrap();
    (Student::new(config, environment, &[teacher], &Cpu, 0).unwrap(), driver)
}

/// The rows of each batch that a teacher kept, in the order of their names; a batch that came twice came the same.
fn kept(driver: &Driver) -> BTreeMap<BatchId, Vec<Vec<f32>>> {
    let [Wire::Memory(memory)] = driver.wires() else { panic!() };
    let mut kept = BTreeMap::new();
    for (name, rows) in memory.collected() {
        assert_eq!(kept.entry(*name).or_insert(rows.clone()), rows, "{name}");
    }
    kept
}

#[test]
fn the_replay_is_submitted_once_whatever_breaks() {
    let steps = |n| Some(Ending { steps: Some(n), ..Ending::default() });
    let stages = StagesConfig { offline: None, transfer: steps(250), online: steps(200), repeat: true };
    let config = StudentConfig { stages, steps: 1000, ..config() };
    let (mut student, mut driver) = sharing(&config, 0.3);
    run(&mut student, &mut driver, 440);
    assert_eq!((kept(&driver).len(), student.metrics(0).transitions_sent), (0, 0), "not before Online ends");
    run(&mut student, &mut driver, 1000);
    assert!(driver.submit_rest(&mut student, Duration::from_secs(60)));
    let batches = kept(&driver);
    let rows: Vec<_> = batches.values().flatten().collect();
    assert_eq!((batches.len(), rows.len(), student.metrics(0).transitions_kept), (3, 1000, 1000));
    assert!(student.metrics(0).transitions_sent >= 1000);
    let replay = student.trainer().replay();
    let mut room = Default::default();
    for (slot, row) in (0..1000).zip(&rows) {
        let stored = replay.transition(slot, &mut room).unwrap();
        let numbers = [stored.observation, stored.action, &[stored.reward], stored.next_observation].concat();
        assert_eq!((&row[..10], row[10] == 1.0), (&numbers[..], stored.discount == 0.0));
    }
    let ends = rows.iter().filter(|row| row[10] == 1.0).count();
    assert!(ends >= 5, "{ends} episodes of CartPole end by falling");
    for pair in rows.windows(2) {
        let goes_on = pair[0][6..10] == pair[1][..4];
        assert_eq!(goes_on, pair[0][10..] == [0.0, 0.0], "an end is where the next row is from elsewhere");
    }
}

#[test]
fn a_checkpoint_knows_what_was_submitted() {
    let stages = StagesConfig {
        offline: None,
        transfer: Some(Ending { steps: Some(100), ..Ending::default() }),
        online: Some(Ending { steps: Some(100), ..Ending::default() }),
        repeat: true,
    };
    let config = StudentConfig { stages, steps: 400, ..config() };
    let (mut first, mut driver) = sharing(&config, 0.0);
    run(&mut first, &mut driver, 260);
    let before = kept(&driver);
    assert_eq!(before.values().map(Vec::len).sum::<usize>(), 200);
    let (mut second, mut driver) = sharing(&config, 0.0);
    second.load(&first.save(true).unwrap(), 0).unwrap();
    run(&mut second, &mut driver, 400);
    assert!(driver.submit_rest(&mut second, Duration::from_secs(60)));
    let after = kept(&driver);
    assert_eq!(after.values().map(Vec::len).sum::<usize>(), 200, "what was acknowledged is not sent again");
    assert!(before.keys().all(|name| !after.contains_key(name)));
    assert_eq!(second.metrics(0).transitions_kept, 400);

    // A batch on its way is on its way again, under the same name.
    let (mut cut, mut driver) = sharing(&config, 1.0);
    run(&mut cut, &mut driver, 230);
    while kept(&driver).is_empty() {
        driver.pump(&mut cut);
        cut.submit(driver.now_ms());
    }
    let on_its_way = kept(&driver);
    assert_eq!((on_its_way.len(), cut.metrics(0).transitions_kept), (1, 0));
    let (mut resumed, mut driver) = sharing(&config, 0.0);
    resumed.load(&cut.save(true).unwrap(), 0).unwrap();
    run(&mut resumed, &mut driver, 240);
    assert!(driver.submit_rest(&mut resumed, Duration::from_secs(60)));
    assert_eq!(kept(&driver), on_its_way);
}

#[test]
fn what_is_overwritten_before_it_is_acknowledged_is_not_submitted() {
    let online = Some(Ending { steps: Some(300), ..Ending::default() });
    let stages = StagesConfig { offline: None, transfer: None, online, repeat: true };
    let config = StudentConfig { stages, buffer: 200, steps: 550, ..config() };
    let mut memory = memory();
    memory.collect();
    memory.set_present(false, 0);
    let teacher = TeacherConfig { submit: true, ..teacher() };
    let environment = Environments::built_in("CartPole-v1").unwrap();
    let mut student = Student::new(&config, environment, &[teacher], &Cpu, 0).unwrap();
    let mut driver = Driver::with(vec![Wire::Memory(Box::new(memory))]);
    run(&mut student, &mut driver, 550);
    let [Wire::Memory(memory)] = driver.wires_mut() else { panic!() };
    memory.set_present(true, 0);
    assert!(driver.submit_rest(&mut student, Duration::from_secs(60)));
    // The last 250 steps, of which 200 are held; of the 300 before nothing.
    assert_eq!(student.metrics(0).transitions_kept, 200);
    let oldest = student.trainer().replay().oldest_slot();
    let mut room = Default::default();
    let stored = student.trainer().replay().transition(oldest, &mut room).unwrap();
    assert_eq!(kept(&driver).values().next().unwrap()[0][..4], *stored.observation);
}

#[test]
fn what_cannot_be_submitted_is_said() {
    let environment = || Environments::built_in("CartPole-v1").unwrap();
    let teacher = || [TeacherConfig { submit: true, ..teacher() }];
    let config = StudentConfig { n_step: 3, ..config() };
    let error = Student::new(&config, environment(), &teacher(), &Cpu, 0).err().expect("refused").to_string();
    assert!(error.contains("n_step is 3"), "{error}");
    // A teacher that does not want it is no reason to wait.
    let config = StudentConfig { n_step: 1, steps: 150, ..config };
    let mut student = Student::new(&config, environment(), &teacher(), &Cpu, 0).unwrap();
    let mut driver = Driver::with(vec![Wire::Memory(Box::new(memory()))]);
    run(&mut student, &mut driver, 150);
    assert!(!driver.submit_rest(&mut student, Duration::from_secs(60)));
    assert_eq!(student.metrics(0).transitions_sent, 0);
}

/// An environment that draws all it shows: a walk of its own random numbers.
struct Walk {
    rng: oto_env::rng::Rng,
    spaces: [Space; 2],
    left: u32,
}

impl Walk {
    fn new() -> Self {
        let observation = Space::Box { low: vec![-1.0; 2], high: vec![1.0; 2] };
        Walk { rng: oto_env::rng::Rng::new(0), spaces: [observation, Space::Discrete { n: 3 }], left: 0 }
    }

    fn draw(&mut self, observation: &mut [f32]) {
        observation.iter_mut().for_each(|x| *x = self.rng.uniform(-1.0, 1.0) as f32);
    }
}

impl Environment for Walk {
    fn id(&self) -> &str {
        "Walk"
    }
    fn observation_space(&self) -> &Space {
        &self.spaces[0]
    }
    fn action_space(&self) -> &Space {
        &self.spaces[1]
    }
    fn max_episode_steps(&self) -> Option<u32> {
        None
    }
    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        seed.iter().for_each(|seed| self.rng = oto_env::rng::Rng::new(*seed));
        self.left = 5 + self.rng.below(20);
        self.draw(observation);
        Ok(())
    }
    fn step(&mut self, _: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        self.draw(observation);
        self.left -= 1;
        Ok(Step { reward: self.rng.f64(), terminated: self.left == 0, truncated: false })
    }
    fn save(&self) -> Result<Snapshot, EnvError> {
        Err(EnvError::NotSaved { id: "Walk".into() })
    }
    fn restore(&mut self, _: &Snapshot) -> Result<(), EnvError> {
        Err(EnvError::NotSaved { id: "Walk".into() })
    }
}

/// Evaluations take nothing from training: neither the environment's random numbers nor the student's.
#[test]
fn evaluations_leave_training_as_it_is() {
    let built_in = oto_env::IDS.iter().map(|id| Some(*id));
    for id in built_in.chain([None]) {
        let environment = || match id {
            Some(id) => Environments::built_in(id).unwrap(),
            None => {
                Environments::Inside { train: Box::new(Walk::new()), evaluate: Some(Box::new(Walk::new())) }
            }
        };
        let learnt = |every: u64| {
            let usual = presets::student(id.unwrap_or("Walk"));
            let config = StudentConfig {
                seed: 11,
                steps: 260,
                buffer: 1000,
                learning_starts: 50,
                algorithm: usual
                    .algorithm
                    .clone()
                    .with(|q: &mut QrDqnConfig| (q.hidden, q.quantiles, q.batch_size) = (vec![8], 4, 8))
                    .with(|sac: &mut SacConfig| (sac.hidden, sac.batch_size) = (vec![8], 8)),
                // What follows evaluations is meant to change what is learnt.
                plateau_decay: None,
                stages: StagesConfig::SOLO,
                evaluation: EvaluationConfig { every, episodes: 2 },
                ..usual
            };
            let mut student = Student::new(&config, environment(), &[], &Cpu, 0).unwrap();
            let mut driver = Driver::with(Vec::new());
            let events = run(&mut student, &mut driver, 260);
            let evaluations = events.iter().filter(|e| matches!(e, Event::Evaluation { .. })).count();
            let trainer = student.trainer();
            let state = trainer.learner().engine().state().unwrap();
            (trainer.replay().save(), state, evaluations as u64)
        };
        let (replay, state, none) = learnt(0);
        assert_eq!(none, 0);
        for every in [7, 100] {
            let (evaluated_replay, evaluated_state, evaluations) = learnt(every);
            assert_eq!(evaluations, 260 / every, "{id:?}");
            assert!(evaluated_replay == replay, "{id:?}: other transitions");
            assert!(evaluated_state == state, "{id:?}: other parameters");
        }
    }
}

/// A stage that was good twice goes on with what it taught; one that led nowhere leaves the student with nothing of it.
#[test]
fn what_a_teacher_taught_is_kept_where_it_was_good() {
    let give_up = Some(GiveUp { after_steps: 3, below_return: 475.0 });
    let transfer = Some(Ending { give_up, ..Ending::default() });
    let stages = StagesConfig { transfer, ..StagesConfig::default() };
    let evaluation = EvaluationConfig { every: 10_000, episodes: 1 };
    let config = StudentConfig { stages, evaluation, ..config() };
    for good in [true, false] {
        let (mut student, mut driver) = taught(&config, memory());
        // The steps so far count, and none of them was evaluated.
        run(&mut student, &mut driver, 150);
        let state = |student: &mut Student| student.trainer().learner().engine().state().unwrap();
        let taught = state(&mut student);
        if good {
            for _ in 0..2 {
                assert_eq!(student.trainer().advance_stage(0.0, Some(480.0)).unwrap(), Change::None);
            }
            (0..4)
                .for_each(|_| assert_eq!(student.trainer().advance_stage(0.0, None).unwrap(), Change::None));
        }
        let change = student.trainer().advance_stage(0.0, Some(100.0)).unwrap();
        assert_eq!(change, if good { Change::None } else { Change::GivenUp });
        assert_eq!(student.trainer().stages().stage() == Stage::Transfer, good);
        assert_eq!(state(&mut student) == taught, good);
    }
}

/// The best evaluation and the student's name are part of a checkpoint.
#[test]
fn a_resumed_student_knows_its_best_and_its_name() {
    let (mut first, mut driver) = taught(&config(), memory());
    let events = run(&mut first, &mut driver, 900);
    let best = first.best().unwrap();
    let means = events.iter().filter_map(|event| match event {
        Event::Evaluation { mean, .. } => Some(*mean),
        _ => None,
    });
    assert_eq!(best.mean, means.fold(f64::MIN, f64::max));
    let policy = first.best_policy("CartPole-v1").unwrap();
    assert!(policy != first.policy("CartPole-v1"), "they describe themselves");
    let name = first.name().unwrap().to_owned();
    let (mut second, mut driver) = taught(&config(), memory());
    second.load(&first.save(true).unwrap(), 0).unwrap();
    driver.pump(&mut second);
    assert_eq!((second.best(), second.name()), (Some(best), Some(&*name)));
    assert_eq!(second.best_policy("CartPole-v1"), Some(policy));
    let (mut third, mut driver) = taught(&config(), memory());
    driver.pump(&mut third);
    assert_ne!(third.name(), Some(&*name));
    let named = StudentConfig { name: Some("ada".into()), ..config() };
    let (mut fourth, mut driver) = taught(&named, memory());
    fourth.load(&first.save(true).unwrap(), 0).unwrap();
    driver.pump(&mut fourth);
    assert_eq!(fourth.name(), Some("ada"));
    for name in [String::new(), "x".repeat(257)] {
        let error = StudentConfig { name: Some(name), ..config() }.validate().unwrap_err().to_string();
        assert!(error.starts_with("name is "), "{error}");
    }
}
