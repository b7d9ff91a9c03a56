//! Students that learn from rollouts: alone and taught, with and without auxiliary critics. The same seed gives the same
//! curve, a run resumed in the middle of a rollout is the uninterrupted one, and they get better.

use crate::allocations::allocations;
use oto_agent::config::{EvaluationConfig, Linear, StudentConfig};
use oto_agent::drive::{Driver, Wire};
use oto_agent::link::memory::{Memory, MemoryTeacher};
use oto_agent::presets;
use oto_agent::stage::StagesConfig;
use oto_agent::student::{Environments, Event, Student, TeacherConfig, Tick};
use oto_agent::trainer::Trainer;
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_env::{Action, EnvError, Environment, Snapshot, Space, Step};
use oto_rl::algorithms::a3c::{A3cConfig, AdvantageActorCritic};
use oto_rl::algorithms::ppo::PpoConfig;
use oto_rl::algorithms::sac::SoftActorCritic;
use oto_rl::distillation::{
    AlignmentConfig, DistillationConfig, DistillationHead, DistillationTeacher, LogitTeacher,
};

fn config(environment: &str) -> StudentConfig {
    StudentConfig {
        seed: 5,
        evaluation: EvaluationConfig { every: 250, episodes: 2 },
        algorithm: PpoConfig { hidden: vec![16], n_steps: 128, batch_size: 32, ..PpoConfig::default() }
            .into(),
        ..presets::on_policy(environment)
    }
}

fn fusion(environment: &str) -> StudentConfig {
    let usual = config(environment);
    let algorithm = usual.algorithm.clone().with(|ppo: &mut PpoConfig| ppo.fusion = true);
    StudentConfig { algorithm, ..usual }
}

/// A rule that swings Pendulum up by its energy and holds it there.
fn swing(x: &[f32]) -> f32 {
    let [cos, sin, speed] = [x[0], x[1], x[2]];
    let energy = 0.5 * speed * speed + 15.0 * (cos - 1.0);
    let torque = if cos > 0.9 { -8.0 * sin - 2.0 * speed } else { -0.5 * energy * speed };
    torque.clamp(-2.0, 2.0)
}

/// Knows Pendulum and CartPole.
fn memory(environment: &str) -> Memory {
    let bounds = |n: usize, b: f32| vec![b; n];
    let space = |n: usize| oto_proto::Space::Box {
        low: bounds(n, f32::NEG_INFINITY),
        high: bounds(n, f32::INFINITY),
    };
    let (observation, action) = match environment {
        "Pendulum-v1" => (space(3), oto_proto::Space::Box { low: vec![-2.0], high: vec![2.0] }),
        _ => (space(4), oto_proto::Space::Discrete { n: 2 }),
    };
    let width = if environment == "Pendulum-v1" { 3 } else { 4 };
    let act = move |x: &[f32], _: usize, out: &mut Vec<f32>| {
        out.extend(x.chunks_exact(width).map(|s| match width {
            3 => swing(s),
            _ => f32::from(u8::from(s[2] + 0.5 * s[3] > 0.0)),
        }));
        Ok(())
    };
    Memory::new(MemoryTeacher::new("rule", observation, action, Box::new(act)))
}

fn taught(config: &StudentConfig, environment: &str) -> (Student, Driver) {
    let teacher = TeacherConfig {
        url: "memory://".into(),
        policy: "rule".into(),
        adapter: None,
        learn_adapter: None,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        submit: false,
        weight: 1.0,
    };
    let driver = Driver::with(vec![Wire::Memory(Box::new(memory(environment)))]);
    let inside = Environments::built_in(environment).unwrap();
    (Student::new(config, inside, &[teacher], &Cpu, 0).unwrap(), driver)
}

fn alone(config: &StudentConfig, environment: &str) -> (Student, Driver) {
    let config = StudentConfig { stages: StagesConfig::SOLO, ..config.clone() };
    let inside = Environments::built_in(environment).unwrap();
    (Student::new(&config, inside, &[], &Cpu, 0).unwrap(), Driver::with(Vec::new()))
}

fn run(student: &mut Student, driver: &mut Driver, until: u64) -> Vec<Event> {
    let mut events = Vec::new();
    while student.trainer().steps() < until && driver.step(student).unwrap() != Tick::Done {
        events.extend(std::iter::from_fn(|| student.next_event()));
    }
    events
}

fn last_evaluation(events: &[Event]) -> f64 {
    let mut means = events.iter().filter_map(|e| match e {
        Event::Evaluation { mean, .. } => Some(*mean),
        _ => None,
    });
    means.next_back().expect("there were evaluations")
}

#[test]
fn a_run_resumed_within_a_rollout_is_the_uninterrupted_one() {
    for (environment, config) in [
        ("CartPole-v1", config("CartPole-v1")),
        ("Pendulum-v1", config("Pendulum-v1")),
        ("CartPole-v1", fusion("CartPole-v1")),
        ("Pendulum-v1", fusion("Pendulum-v1")),
    ] {
        let (mut a, mut driver) = taught(&config, environment);
        let whole = run(&mut a, &mut driver, 1000);
        assert_eq!(a.trainer().updates(), 1000 / 128 * 4 * 10, "a round of updates for each whole rollout");
        assert!(a.metrics(0).labels > 900, "{} labels", a.metrics(0).labels);
        assert!(a.trainer().last_loss().unwrap().get("rkd_d").unwrap() > 0.0, "the last rollout had labels");

        let (mut b, mut driver) = taught(&config, environment);
        let mut parts = run(&mut b, &mut driver, 437);
        let file = b.save(true).unwrap();
        let (mut c, mut driver) = taught(&config, environment);
        c.load(&file, 0).unwrap();
        parts.extend(run(&mut c, &mut driver, 1000));
        assert_eq!(parts, whole);
        let state = |student: &mut Student| student.trainer().learner().engine().state().unwrap();
        assert_eq!(state(&mut a), state(&mut c));

        let (mut d, mut driver) = taught(&config, environment);
        d.load(&b.save(false).unwrap(), 0).unwrap();
        run(&mut d, &mut driver, 437 + 128);
        assert_eq!(d.trainer().updates(), (437 / 128 + 1) * 40, "without replay a rollout begins anew");
    }
}

/// An actor-critic in CartPole, recurrent with an LSTM layer.
fn actor_critic(lstm: Option<usize>) -> StudentConfig {
    StudentConfig {
        seed: 5,
        evaluation: EvaluationConfig { every: 250, episodes: 2 },
        algorithm: A3cConfig { hidden: vec![16], lstm, ..A3cConfig::default() }.into(),
        ..presets::learner("CartPole-v1", &AdvantageActorCritic)
    }
}

#[test]
fn an_actor_critic_resumed_within_a_rollout_is_the_uninterrupted_one() {
    [None, Some(8)].into_iter().for_each(resumed_within_a_rollout);
}

fn resumed_within_a_rollout(lstm: Option<usize>) {
    let (environment, config) = ("CartPole-v1", actor_critic(lstm));
    let (mut a, mut driver) = taught(&config, environment);
    let whole = run(&mut a, &mut driver, 1000);
    assert_eq!(a.trainer().updates(), 1000 / 20, "an update for each rollout");
    assert!(a.trainer().last_loss().unwrap().get("rkd_d").unwrap() > 0.0, "the last rollout had labels");

    let (mut b, mut driver) = taught(&config, environment);
    let mut parts = run(&mut b, &mut driver, 437);
    let file = b.save(true).unwrap();
    let (mut c, mut driver) = taught(&config, environment);
    c.load(&file, 0).unwrap();
    parts.extend(run(&mut c, &mut driver, 1000));
    assert_eq!(parts, whole);
    let state = |student: &mut Student| student.trainer().learner().engine().state().unwrap();
    assert_eq!(state(&mut a), state(&mut c));

    let (mut d, mut driver) = taught(&config, environment);
    d.load(&b.save(false).unwrap(), 0).unwrap();
    run(&mut d, &mut driver, 437 + 20);
    assert_eq!(d.trainer().updates(), 437 / 20 + 1, "without replay a rollout begins anew");
}

/// Greedy play has a state of its own: training does not depend on evaluations.
#[test]
fn evaluations_leave_the_state_of_a_recurrent_student_alone() {
    let episodes = |every| {
        let evaluation = EvaluationConfig { every, episodes: 2 };
        let (mut student, mut driver) =
            alone(&StudentConfig { evaluation, ..actor_critic(Some(8)) }, "CartPole-v1");
        let events = run(&mut student, &mut driver, 600);
        let ended = events.into_iter().filter(|event| matches!(event, Event::Episode { .. }));
        (ended.collect::<Vec<_>>(), student.trainer().learner().engine().state().unwrap())
    };
    let often = episodes(7);
    assert!(often.0.len() > 5);
    assert_eq!(often, episodes(500));
}

/// Shows a number at the first step, and rewards the same choice at the last one: only a policy that remembers can do better than chance.
struct Recall {
    spaces: [Space; 2],
    rng: Rng,
    shown: u32,
    step: u32,
}

impl Recall {
    const STEPS: u32 = 5;

    fn new() -> Box<Self> {
        let observation = Space::Box { low: vec![-1.0; 2], high: vec![1.0; 2] };
        Box::new(Self {
            spaces: [observation, Space::Discrete { n: 2 }],
            rng: Rng::new(0),
            shown: 0,
            step: 0,
        })
    }
}

impl Environment for Recall {
    fn id(&self) -> &str {
        "Recall"
    }

    fn observation_space(&self) -> &Space {
        &self.spaces[0]
    }

    fn action_space(&self) -> &Space {
        &self.spaces[1]
    }

    fn max_episode_steps(&self) -> Option<u32> {
        Some(Self::STEPS)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        (self.shown, self.step) = (self.rng.below(2), 0);
        observation.copy_from_slice(&[2.0 * self.shown as f32 - 1.0, 0.0]);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        self.step += 1;
        observation.copy_from_slice(&[0.0, f32::from(u8::from(self.step + 1 == Self::STEPS))]);
        let terminated = self.step == Self::STEPS;
        let right = action == Action::Discrete(self.shown);
        let reward = f64::from(u8::from(terminated)) * if right { 1.0 } else { -1.0 };
        Ok(Step { reward, terminated, truncated: false })
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        Err(EnvError::NotSaved { id: "Recall".into() })
    }

    fn restore(&mut self, _: &Snapshot) -> Result<(), EnvError> {
        Err(EnvError::NotSaved { id: "Recall".into() })
    }
}

/// Six seeds of six learned it in the same way.
#[test]
fn only_a_recurrent_actor_critic_remembers() {
    let score = |lstm, seed| {
        let config = StudentConfig {
            seed,
            steps: 24_000,
            learning_rate: Linear { start: 2e-3, end: 0.0, steps: 24_000 },
            evaluation: EvaluationConfig { every: 24_000, episodes: 50 },
            stages: StagesConfig::SOLO,
            ..actor_critic(lstm)
        };
        let environment = Environments::Inside { train: Recall::new(), evaluate: Some(Recall::new()) };
        let mut student = Student::new(&config, environment, &[], &Cpu, 0).unwrap();
        last_evaluation(&run(&mut student, &mut Driver::with(Vec::new()), 24_001))
    };
    for seed in [1, 2] {
        let (plain, recurrent) = (score(None, seed), score(Some(16), seed));
        assert!(
            recurrent > 0.9 && plain < 0.6,
            "seed {seed}: {recurrent} with an LSTM layer, {plain} without"
        );
    }
}

/// Steps and updates of a recurrent student, episodes that begin among them.
#[test]
fn a_recurrent_step_allocates_nothing() {
    let evaluation = EvaluationConfig { every: 0, episodes: 1 };
    // A buffer that is full grows no more.
    let config = StudentConfig { evaluation, buffer: 40, ..actor_critic(Some(8)) };
    let space = |n| Space::Box { low: vec![-1.0; n], high: vec![1.0; n] };
    let mut trainer = Trainer::new(&config, &space(4), &Space::Discrete { n: 2 }, 0, &Cpu).unwrap();
    let step = |trainer: &mut Trainer, i: u32| {
        if !trainer.running() {
            trainer.begin(&[0.1; 4]).unwrap();
        }
        trainer.act().unwrap();
        let observed =
            Step { reward: 1.0, terminated: i.is_multiple_of(33), truncated: i.is_multiple_of(47) };
        trainer.observe(observed, &[(i % 10) as f32 / 10.0; 4], |_, _| {}).unwrap();
    };
    (0..200).for_each(|i| step(&mut trainer, i));
    trainer.begin_greedy();
    trainer.greedy(&[0.2; 4]).unwrap();
    let before = allocations();
    (200..500).for_each(|i| step(&mut trainer, i));
    trainer.greedy(&[0.2; 4]).unwrap();
    assert_eq!(allocations() - before, 0);
    assert_eq!(trainer.updates(), 25);
}

/// A host's environment does not tell where its evaluation episodes begin.
#[test]
fn evaluations_of_a_recurrent_student_need_the_environment() {
    let environment = Environments::Outside {
        observation: Space::Box { low: vec![-1.0; 4], high: vec![1.0; 4] },
        action: Space::Discrete { n: 2 },
        evaluates: true,
    };
    let error = Student::new(&actor_critic(Some(8)), environment, &[], &Cpu, 0).err().unwrap().to_string();
    assert!(error.starts_with("evaluation.every is 250"), "{error}");
}

#[test]
fn an_lstm_layer_out_of_its_range_is_named() {
    for (change, named) in [
        ((|a3c| a3c.lstm = Some(0)) as fn(&mut A3cConfig), "algorithm.lstm is 0: 1 to 4096 units"),
        (|a3c| a3c.t_max = 257, "algorithm.t_max is 257: 1 to 256 steps with an LSTM layer"),
    ] {
        let usual = actor_critic(Some(8));
        let algorithm = usual.algorithm.clone().with(change);
        let error = StudentConfig { algorithm, ..usual }.validate().unwrap_err().to_string();
        assert!(error.starts_with(named), "{error}");
    }
}

#[test]
fn a_rollout_that_does_not_fit_is_refused() {
    let environment = "CartPole-v1";
    let (mut student, mut driver) = alone(&config(environment), environment);
    run(&mut student, &mut driver, 100);
    let file = student.save(true).unwrap();
    let usual = config(environment);
    let algorithm = usual.algorithm.clone().with(|ppo: &mut PpoConfig| ppo.n_steps = 64);
    let other = StudentConfig { algorithm, ..usual };
    let error = alone(&other, environment).0.load(&file, 0).unwrap_err().to_string();
    assert!(error.contains("\"n_steps\":128") && error.contains("\"n_steps\":64"), "{error}");
    let critics = alone(&fusion(environment), environment).0.load(&file, 0).unwrap_err().to_string();
    assert!(critics.contains("\"fusion\":true"), "{critics}");
}

#[test]
fn an_early_reset_ends_the_episode_in_the_rollout() {
    let environment = "CartPole-v1";
    let (mut student, mut driver) = alone(&config(environment), environment);
    run(&mut student, &mut driver, 10);
    student.give_up_episode().unwrap();
    run(&mut student, &mut driver, 300);
    assert_eq!(student.trainer().updates(), 80);
}

#[test]
fn soft_actor_critic_learns_to_balance_too() {
    let config = StudentConfig {
        seed: 1,
        evaluation: EvaluationConfig { every: 8_000, episodes: 10 },
        ..presets::learner("CartPole-v1", &SoftActorCritic)
    };
    let (mut student, mut driver) = alone(&config, "CartPole-v1");
    let score = last_evaluation(&run(&mut student, &mut driver, 8_001));
    assert!(score > 150.0, "{score}");
}

/// Random pushes balance for 22 steps on average; these seeds are not chosen.
#[test]
fn alone_it_learns_to_balance() {
    let config = StudentConfig {
        learning_rate: Linear::constant(1e-3),
        evaluation: EvaluationConfig { every: 12_000, episodes: 10 },
        ..presets::on_policy("CartPole-v1")
    };
    for seed in [1, 2] {
        let config = StudentConfig { seed, ..config.clone() };
        let (mut student, mut driver) = alone(&config, "CartPole-v1");
        let score = last_evaluation(&run(&mut student, &mut driver, 12_001));
        assert!(score > 150.0, "seed {seed}: {score}");
    }
}

/// The default run is of 200,000 steps, and ends at 500 with every seed of ten.
#[test]
fn an_actor_critic_learns_to_balance_from_short_rollouts() {
    let config = StudentConfig {
        evaluation: EvaluationConfig { every: 14_000, episodes: 10 },
        ..presets::learner("CartPole-v1", &AdvantageActorCritic)
    };
    for seed in [1, 2] {
        let config = StudentConfig { seed, ..config.clone() };
        let (mut student, mut driver) = alone(&config, "CartPole-v1");
        let score = last_evaluation(&run(&mut student, &mut driver, 14_001));
        assert!(score > 100.0, "seed {seed}: {score}");
    }
}

/// Alone it balances for some 50 steps by then.
#[test]
fn taught_it_follows_within_few_rollouts() {
    let environment = "CartPole-v1";
    let usual = StudentConfig {
        evaluation: EvaluationConfig { every: 3_000, episodes: 5 },
        ..presets::on_policy(environment)
    };
    for fusion in [false, true] {
        let algorithm = PpoConfig { n_steps: 256, fusion, ..PpoConfig::default() }.into();
        let (mut student, mut driver) = taught(&StudentConfig { algorithm, ..usual.clone() }, environment);
        let score = last_evaluation(&run(&mut student, &mut driver, 3_001));
        assert!(score > 120.0, "{score}, fusion: {fusion}");
    }
}

/// Answers CartPole's states with logits by a rule.
struct Rule {
    actions: usize,
    observation: usize,
    /// Says what is wrong with the answer to a state.
    spoil: fn(usize, &mut Vec<f32>) -> Result<(), String>,
    asked: usize,
}

impl Rule {
    fn new(actions: usize) -> Box<Self> {
        Box::new(Self { actions, observation: 4, spoil: |_, _| Ok(()), asked: 0 })
    }
}

impl LogitTeacher for Rule {
    fn observation(&self) -> usize {
        self.observation
    }

    fn actions(&self) -> usize {
        self.actions
    }

    /// The first action pushes to the left, the others to the right.
    fn logits(&mut self, observations: &[f32], _: usize, out: &mut Vec<f32>) -> Result<(), String> {
        out.clear();
        for s in observations.chunks_exact(self.observation) {
            let right = 12.0 * (s[2] + 0.5 * s[3]);
            out.extend((0..self.actions).map(|a| if a == 0 { -right } else { right }));
        }
        self.asked += 1;
        (self.spoil)(self.asked, out)
    }
}

fn distilling(distillation: DistillationConfig) -> StudentConfig {
    let usual = presets::learner("CartPole-v1", &AdvantageActorCritic);
    let algorithm =
        A3cConfig { hidden: vec![16], distillation: Some(distillation), ..A3cConfig::default() }.into();
    let evaluation = EvaluationConfig { every: 250, episodes: 2 };
    StudentConfig { seed: 5, evaluation, algorithm, ..usual }
}

fn teachers(actions: &[usize]) -> Vec<DistillationTeacher> {
    actions.iter().map(|actions| DistillationTeacher { actions: *actions, weight: 1.0 }).collect()
}

fn aligning(expert_steps: u64) -> DistillationConfig {
    let alignment = AlignmentConfig {
        hidden: vec![8, 8],
        learning_rate: 1e-3,
        expert_steps,
        ..AlignmentConfig::default()
    };
    let (t1, t2, end) = if expert_steps == 0 { (100, 300, Some(700)) } else { (0, 0, None) };
    DistillationConfig {
        teachers: teachers(&[3, 2]),
        to: DistillationHead::Head,
        alignment: Some(alignment),
        t1,
        t2,
        end,
        ..DistillationConfig::default()
    }
}

/// A student of the rule's logits, one teacher for each that its settings have.
fn distilled(distillation: &DistillationConfig) -> (Student, Driver) {
    let (mut student, driver) = alone(&distilling(distillation.clone()), "CartPole-v1");
    let rules = distillation.teachers.iter().map(|t| Rule::new(t.actions) as Box<dyn LogitTeacher>).collect();
    let expert = distillation.alignment.as_ref().filter(|alignment| alignment.expert_steps > 0);
    student.trainer().distill(rules, expert.map(|_| Rule::new(2) as Box<dyn LogitTeacher>)).unwrap();
    (student, driver)
}

/// All tensors of a checkpoint, alignment networks and replay included, by name.
fn tensors(student: &mut Student) -> Vec<(String, Vec<u8>)> {
    let file = student.save(true).unwrap();
    let read = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut all = read.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect::<Vec<_>>();
    all.sort();
    all
}

/// Before the alignment networks, while they learn, while the student learns from them, and after the end; or while the expert acts, and
/// after.
#[test]
fn a_distillation_resumed_in_any_phase_is_the_uninterrupted_one() {
    let direct = DistillationConfig {
        teachers: teachers(&[2, 3]),
        match_by_index: true,
        t2: 200,
        ..DistillationConfig::default()
    };
    for (config, stops) in
        [(aligning(0), &[50, 217, 437, 810][..]), (aligning(200), &[110, 199, 437]), (direct, &[437])]
    {
        let (mut a, mut driver) = distilled(&config);
        let whole = run(&mut a, &mut driver, 1000);
        let expected = tensors(&mut a);
        let count = (1000 - config.alignment.as_ref().map_or(0, |alignment| alignment.expert_steps)) / 20;
        assert_eq!(a.trainer().updates(), count);
        let report = a.trainer().report().unwrap();
        assert_eq!(report.get("distillation_refused"), Some(0.0));
        assert_eq!(report.get("agreement").is_some(), config.end.is_none(), "{report:?}");
        assert_eq!(report.get("alignment_loss"), None, "the networks stay as they are by then");
        assert_eq!(report.get("distillation_loss").unwrap() > 0.0, config.end.is_none(), "{report:?}");
        for stop in stops {
            let (mut b, mut driver) = distilled(&config);
            let mut parts = run(&mut b, &mut driver, *stop);
            let expert = config.alignment.as_ref().map_or(0, |alignment| alignment.expert_steps);
            let aligns = *stop < expert || (config.end.is_some() && (120..700).contains(stop));
            let report = b.trainer().report();
            assert_eq!(report.and_then(|report| report.get("alignment_loss")).is_some(), aligns);
            let file = b.save(true).unwrap();
            let (mut c, mut driver) = distilled(&config);
            c.load(&file, 0).unwrap();
            parts.extend(run(&mut c, &mut driver, 1000));
            assert_eq!(parts, whole, "stopped at {stop}");
            assert!(tensors(&mut c) == expected, "stopped at {stop}");
        }
    }
}

/// Labels of a served teacher and logits of another one in the same updates.
#[test]
fn aikd_and_distillation_are_had_in_one_run() {
    let distillation = DistillationConfig { teachers: teachers(&[2]), ..DistillationConfig::default() };
    let (mut student, mut driver) = taught(&distilling(distillation), "CartPole-v1");
    student.trainer().distill(vec![Rule::new(2)], None).unwrap();
    run(&mut student, &mut driver, 200);
    let report = student.trainer().report().unwrap();
    let [rkd, distilled] = ["rkd_d", "distillation_loss"].map(|name| report.get(name).unwrap());
    assert!(rkd > 0.0 && distilled > 0.0, "{report:?}");
}

/// Without the environment's terms, from the teacher alone; by an alignment network that an expert trained, too.
#[test]
fn a_student_learns_to_balance_from_logits_alone() {
    let alone =
        DistillationConfig { teachers: teachers(&[2]), task_weight: 0.0, ..DistillationConfig::default() };
    let alignment = AlignmentConfig {
        hidden: vec![32, 32],
        learning_rate: 3e-3,
        expert_steps: 2_000,
        ..AlignmentConfig::default()
    };
    let aligned =
        DistillationConfig { teachers: teachers(&[3]), alignment: Some(alignment), ..alone.clone() };
    for (config, steps) in [(alone, 4_000), (aligned, 6_000)] {
        let usual = distilling(config.clone());
        let config = StudentConfig { learning_rate: Linear::constant(4e-3), ..usual };
        let (mut student, mut driver) = self::alone(&config, "CartPole-v1");
        let config = config.algorithm.distillation().unwrap();
        let rule = Rule::new(config.teachers[0].actions);
        let expert = config.alignment.as_ref().map(|_| Rule::new(2) as Box<dyn LogitTeacher>);
        student.trainer().distill(vec![rule], expert).unwrap();
        let score = last_evaluation(&run(&mut student, &mut driver, steps + 1));
        assert!(score > 120.0, "{score}, {:?}", student.trainer().report());
        let agreement = student.trainer().report().unwrap().get("agreement").unwrap();
        assert!(agreement > 0.7, "{agreement}");
        // Two states that lean to the left, one that leans to the right.
        let states = [[0.0, 0.0, -0.1, 0.0], [0.0, 0.0, -0.2, 0.0], [0.0, 0.0, 0.1, 0.0]].concat();
        let chosen = student.trainer().probabilities(&states);
        assert_eq!((chosen.len(), chosen[0].student.len()), (1, 2));
        let aligns = config.alignment.is_some();
        assert_eq!((chosen[0].teacher.len(), chosen[0].aligned.is_some()), (2 + usize::from(aligns), aligns));
        let left = |p: &[f64]| p[0] > 0.5 && p.iter().sum::<f64>() < 1.000_001;
        assert!(left(&chosen[0].teacher) && chosen[0].aligned.as_ref().is_none_or(|p| left(p)), "{chosen:?}");
    }
}

#[test]
fn answers_that_are_no_logits_are_refused_and_counted() {
    let (config, state) = (aligning(0), |s: &mut Student| s.trainer().learner().engine().state().unwrap());
    for (spoil, rows, problem) in [
        (
            (|_, out| {
                out.pop();
                Ok(())
            }) as fn(usize, &mut Vec<f32>) -> _,
            20,
            "59 logits came for 20 states",
        ),
        (
            |_, out| {
                out.extend([0.0; 20]);
                Ok(())
            },
            20,
            "80 logits came for 20 states, expected 3 for each",
        ),
        (
            |_, out| {
                out[4] = f32::NAN;
                Ok(())
            },
            1,
            "a logit is NaN",
        ),
        (
            |_, out| {
                out[0] = f32::INFINITY;
                out[7] = -3e38;
                Ok(())
            },
            2,
            "expected a number from -1e6 to 1e6",
        ),
        (|_, _| Err("it is away".into()), 20, "it is away"),
    ] {
        let (mut student, mut driver) = alone(&distilling(config.clone()), "CartPole-v1");
        let wrong = Box::new(Rule { spoil, ..*Rule::new(3) });
        student.trainer().distill(vec![wrong, Rule::new(2)], None).unwrap();
        run(&mut student, &mut driver, 600);
        let asked = (600 - 100) / 20 + 1;
        let told = student
            .trainer()
            .distillation()
            .unwrap()
            .teachers()
            .map(|(good, bad, why)| (good, bad, why.map(str::to_owned)));
        let told = told.collect::<Vec<_>>();
        assert_eq!((told[0].0, told[0].1), (asked * (20 - rows), asked * rows), "{told:?}");
        assert!(told[0].2.as_ref().unwrap().contains(problem), "{told:?}");
        assert_eq!((told[1].0, told[1].1, &told[1].2), (asked * 20, 0, &None));
        let report = student.trainer().report().unwrap();
        assert_eq!(report.get("distillation_refused"), Some((asked * rows) as f32));
        assert!(state(&mut student).iter().all(|tensor| tensor.values.iter().all(|x| x.is_finite())));
    }
}

#[test]
fn teachers_that_do_not_fit_are_named() {
    let environment = "CartPole-v1";
    let attach = |config: &DistillationConfig, rules: Vec<Box<Rule>>, expert: Option<Box<Rule>>| {
        let (mut student, _) = alone(&distilling(config.clone()), environment);
        let boxed = |rule: Box<Rule>| rule as Box<dyn LogitTeacher>;
        student
            .trainer()
            .distill(rules.into_iter().map(boxed).collect(), expert.map(boxed))
            .unwrap_err()
            .to_string()
    };
    let (online, offline) = (aligning(0), aligning(200));
    let both = || vec![Rule::new(3), Rule::new(2)];
    for (said, part) in [
        (attach(&online, vec![Rule::new(3)], None), "distill.teachers is 1: 2 teachers"),
        (
            attach(&online, vec![Rule::new(4), Rule::new(2)], None),
            "distill.teachers[0] is a policy of 4 actions",
        ),
        (
            attach(&online, vec![Rule::new(3), Box::new(Rule { observation: 5, ..*Rule::new(2) })], None),
            "distill.teachers[1] is a policy that sees 5 numbers",
        ),
        (attach(&online, both(), Some(Rule::new(2))), "distill.expert is given"),
        (attach(&offline, both(), None), "distill.expert is none"),
        (attach(&offline, both(), Some(Rule::new(3))), "distill.expert is a policy of 3 actions"),
    ] {
        assert!(said.contains(part), "{said}");
    }
    let refused = |config: DistillationConfig| {
        let inside = Environments::built_in(environment).unwrap();
        Student::new(&distilling(config), inside, &[], &Cpu, 0).err().unwrap().to_string()
    };
    let direct = |to| DistillationConfig { teachers: teachers(&[3]), to, ..DistillationConfig::default() };
    let said = refused(direct(DistillationHead::Policy));
    assert!(said.contains("has 3 actions, the student has 2") && said.contains("to=head"), "{said}");
    distilled(&direct(DistillationHead::Head));
    assert!(
        refused(DistillationConfig { t1: 5, t2: 4, ..online.clone() })
            .contains("algorithm.distillation.t2 is 4")
    );
    assert!(refused(DistillationConfig { temperature: 0.0, ..online.clone() }).contains("temperature is 0"));

    // An alignment network for other actions is one of other settings.
    let (mut student, mut driver) = distilled(&online);
    run(&mut student, &mut driver, 400);
    let file = student.save(true).unwrap();
    let other = DistillationConfig { teachers: teachers(&[4, 2]), ..online.clone() };
    let said = distilled(&other).0.load(&file, 0).unwrap_err().to_string();
    assert!(said.contains("\"actions\":3") && said.contains("\"actions\":4"), "{said}");
    // So is a damaged one.
    let mut damaged = file.clone();
    let name = b"alignment.0.align.1.weight";
    let at = damaged.windows(name.len()).position(|part| part == name).unwrap();
    damaged[at + 10] = b'7';
    let said = distilled(&online).0.load(&damaged, 0).unwrap_err().to_string();
    assert!(said.contains("the alignment network of teacher 0") && said.contains("align.1.weight"), "{said}");
}

/// A teacher with more channels than the student's images sees zeros there; one with fewer is refused.
#[cfg(feature = "minatar")]
#[test]
fn a_teacher_of_another_game_sees_a_padded_state() {
    use oto_rl::convolution::{Convolution, ConvolutionLayer};
    let layers = vec![ConvolutionLayer { channels: 2, kernel: 3, stride: 1 }];
    let student = |channels: usize| {
        let id = format!("MinAtar/Breakout-v1?images=true&channels={channels}");
        let convolution = Some(Convolution { shape: [channels, 10, 10], layers: layers.clone() });
        let distillation =
            Some(DistillationConfig { teachers: teachers(&[3]), ..DistillationConfig::default() });
        let algorithm =
            A3cConfig { convolution, hidden: vec![8], distillation, ..A3cConfig::default() }.into();
        let config = StudentConfig { algorithm, stages: StagesConfig::SOLO, ..distilling(aligning(0)) };
        let inside = Environments::built_in(&id).unwrap();
        (Student::new(&config, inside, &[], &Cpu, 0).unwrap(), Driver::with(Vec::new()))
    };
    let rule = |observation: usize| -> Box<dyn LogitTeacher> {
        let spoil: fn(usize, &mut Vec<f32>) -> _ = |_, _| Ok(());
        Box::new(Rule { observation, spoil, ..*Rule::new(3) })
    };
    let (mut seen, mut driver) = student(4);
    seen.trainer().distill(vec![rule(1000)], None).unwrap();
    run(&mut seen, &mut driver, 60);
    assert_eq!(seen.trainer().distillation().unwrap().teachers().next().unwrap().0, 60);
    for width in [300, 450] {
        let said = student(4).0.trainer().distill(vec![rule(width)], None).unwrap_err().to_string();
        assert!(said.contains("the student's 400 numbers") && said.contains("channels=10"), "{said}");
    }
    let (mut ten, _) = student(10);
    ten.trainer().distill(vec![rule(1000)], None).unwrap();
}
