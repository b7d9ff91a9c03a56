//! Students and teachers that see only images: they learn a game, alone and from what others played, keep little of what was seen,
//! and go on from a checkpoint as if they had never stopped.

use oto_agent::config::{EvaluationConfig, Linear, StudentConfig};
use oto_agent::offline::{OfflineConfig, OfflineTrainer};
use oto_agent::recorded::{Recorded, RecordedError, Seen};
use oto_agent::stage::StagesConfig;
use oto_agent::student::{Environments, Student, Tick};
use oto_agent::trainer::TrainError;
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_env::{Action, EnvError, Environment, Phase, Snapshot, Space, Step};
use oto_rl::algorithms::bc::{BcConfig, BehaviourCloning};
use oto_rl::algorithms::cql::{ConservativeQLearning, CqlConfig};
use oto_rl::algorithms::ppo::PpoConfig;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::algorithms::sac::SacConfig;
use oto_rl::algorithms::{Algorithm, Seen as Kind, find};
use oto_rl::convolution::{Convolution, ConvolutionLayer};

const SIDE: usize = 6;
const WIDTH: usize = 2 * SIDE * SIDE;

/// Catch (Mnih et al. 2014, "Recurrent models of visual attention"): a ball falls, a paddle below it moves left, stays or moves
/// right. The last two images are seen.
struct Catch {
    observation: Space,
    action: Space,
    /// The ball's row and column, the paddle's column, and the ball's row and the paddle's column before.
    state: [usize; 5],
    rng: Rng,
    phase: Phase,
}

impl Catch {
    fn boxed() -> Box<dyn Environment> {
        Self::with(Space::Discrete { n: 3 })
    }

    /// The same with a number from -1 to 1 as action, whose thirds are the three choices.
    fn smooth() -> Box<dyn Environment> {
        Self::with(Space::uniform(1, -1.0, 1.0))
    }

    fn with(action: Space) -> Box<dyn Environment> {
        let observation = Space::uniform(WIDTH, 0.0, 255.0);
        Box::new(Self { observation, action, state: [0; 5], rng: Rng::new(0), phase: Phase::New })
    }

    fn see(&self, observation: &mut [f32]) {
        let [ball, column, paddle, ball_before, paddle_before] = self.state;
        observation.fill(0.0);
        let images = observation.chunks_exact_mut(SIDE * SIDE);
        for (image, (ball, paddle)) in images.zip([(ball_before, paddle_before), (ball, paddle)]) {
            image[ball * SIDE + column] = 255.0;
            image[(SIDE - 1) * SIDE + paddle] = 128.0;
        }
    }
}

impl Environment for Catch {
    fn id(&self) -> &str {
        "Catch-v0"
    }

    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn max_episode_steps(&self) -> Option<u32> {
        None
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        let side = SIDE as u32;
        let (column, paddle) = (self.rng.below(side) as usize, self.rng.below(side) as usize);
        self.state = [0, column, paddle, 0, paddle];
        self.phase = Phase::Running;
        self.see(observation);
        Ok(())
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        self.action.check_action(action)?;
        let choice = match action {
            Action::Discrete(choice) => choice,
            Action::Continuous(number) => ((number[0] * 1.5).round().clamp(-1.0, 1.0) + 1.0) as u32,
        };
        let [ball, column, paddle, ..] = self.state;
        let moved = (paddle + choice as usize).saturating_sub(1).min(SIDE - 1);
        self.state = [ball + 1, column, moved, ball, paddle];
        self.see(observation);
        let terminated = ball + 2 == SIDE;
        let reward = match terminated {
            true if moved.abs_diff(column) <= 1 => 1.0,
            true => -1.0,
            false => 0.0,
        };
        Ok(Step { reward, terminated, truncated: false })
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        let state = self.state.map(|x| x as f64).to_vec();
        Ok(Snapshot {
            id: self.id().into(),
            state,
            elapsed_steps: 0,
            phase: self.phase,
            rng: self.rng.clone(),
        })
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.state = std::array::from_fn(|i| snapshot.state[i] as usize);
        (self.phase, self.rng) = (snapshot.phase, snapshot.rng.clone());
        Ok(())
    }
}

fn convolution() -> Convolution {
    let layer = ConvolutionLayer { channels: 8, kernel: 3, stride: 1 };
    Convolution { shape: [2, SIDE, SIDE], layers: vec![layer] }
}

fn config() -> StudentConfig {
    StudentConfig {
        seed: 1,
        steps: 2_000,
        algorithm: QrDqnConfig {
            convolution: Some(convolution()),
            hidden: vec![32],
            quantiles: 4,
            batch_size: 32,
            ..QrDqnConfig::default()
        }
        .into(),
        n_step: 2,
        buffer: 1_000,
        learning_starts: 64,
        learning_rate: Linear::constant(1e-3),
        epsilon: Linear { start: 1.0, end: 0.1, steps: 1_000 },
        target_tau: 0.05,
        stages: StagesConfig::SOLO,
        evaluation: EvaluationConfig { every: 0, episodes: 20 },
        ..StudentConfig::default()
    }
}

fn student() -> Student {
    let environment = Environments::Inside { train: Catch::boxed(), evaluate: Some(Catch::boxed()) };
    Student::new(&config(), environment, &[], &Cpu, 0).unwrap()
}

fn run(student: &mut Student, to: u64) {
    while student.trainer().steps() < to {
        assert_eq!(student.tick(0).unwrap(), Tick::Stepped);
    }
}

#[test]
fn a_student_learns_from_images_alone() {
    let mut student = student();
    let before = student.evaluate(100).unwrap();
    run(&mut student, config().steps);
    let after = student.evaluate(100).unwrap();
    assert!(before < 0.5 && after > 0.9, "{before} before, {after} after");
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one() {
    let mut whole = student();
    run(&mut whole, 300);
    let file = whole.save(true).unwrap();
    run(&mut whole, 400);
    let mut resumed = student();
    resumed.load(&file, 0).unwrap();
    run(&mut resumed, 400);
    assert!(resumed.save(true).unwrap() == whole.save(true).unwrap());
}

#[test]
fn what_is_no_image_of_bytes_is_refused() {
    let mut student = student();
    student.tick(0).unwrap();
    let mut seen = vec![0.0; WIDTH];
    seen[3] = 0.5;
    let refused = student.trainer().begin(&seen);
    assert!(matches!(refused, Err(TrainError::Pixel { component: 3, .. })), "{refused:?}");
    seen[3] = 256.0;
    assert!(student.trainer().begin(&seen).is_err());
    let environment = |observation| Environments::Outside {
        observation,
        action: Space::Discrete { n: 3 },
        evaluates: false,
    };
    let made = |observation| Student::new(&config(), environment(observation), &[], &Cpu, 0).err().unwrap();
    let floats = made(Space::uniform(WIDTH, 0.0, 1.0)).to_string();
    assert!(floats.contains("from 0 to 255"), "{floats}");
    let small = made(Space::uniform(9, 0.0, 255.0)).to_string();
    assert!(small.contains("[2, 6, 6]") && small.contains("has 9"), "{small}");
    // No algorithm takes images for rows of numbers.
    for (name, action) in [
        ("qrdqn", Space::Discrete { n: 3 }),
        ("ppo", Space::Discrete { n: 3 }),
        ("sac", Space::uniform(1, -1.0, 1.0)),
    ] {
        let algorithm = find(name).unwrap().defaults(Kind::actions(&action)).algorithm;
        let flat = StudentConfig { algorithm, n_step: 1, buffer: 4_096, ..config() };
        let made = |numbers| {
            let observation = Space::uniform(numbers, 0.0, 255.0);
            let environment = Environments::Outside { observation, action: action.clone(), evaluates: false };
            Student::new(&flat, environment, &[], &Cpu, 0).map(drop).map_err(|error| error.to_string())
        };
        let refused = made(WIDTH).unwrap_err();
        assert!(refused.contains("72 numbers from 0 to 255") && refused.contains("scaled"), "{refused}");
        made(8).unwrap();
    }
    let mut wrong = config();
    let misfit = Some(Convolution::atari([4, 8, 8]));
    wrong.algorithm = wrong.algorithm.with(|q: &mut QrDqnConfig| q.convolution = misfit);
    let wrong = wrong.validate().unwrap_err().to_string();
    assert!(wrong.contains("algorithm.convolution") && wrong.contains("fit into"), "{wrong}");
}

/// An episode as bytes.
#[derive(Default)]
struct Episode {
    bytes: Vec<u8>,
    actions: Vec<f32>,
    rewards: Vec<f64>,
}

impl Episode {
    fn recorded(&self) -> Recorded<'_> {
        let (actions, rewards) = (&self.actions, &self.rewards);
        Recorded { observations: Seen::Bytes(&self.bytes), actions, rewards, terminated: true }
    }
}

/// Games of somebody who runs to where the ball will fall, a third of the steps by chance.
fn games(count: u64) -> Vec<Episode> {
    let mut environment = Catch::boxed();
    let mut rng = Rng::new(7);
    let mut game = |seed| {
        let mut seen = vec![0.0; WIDTH];
        environment.reset(Some(seed), &mut seen).unwrap();
        let bytes = |seen: &[f32]| seen.iter().map(|x| *x as u8).collect::<Vec<_>>();
        let mut episode = Episode { bytes: bytes(&seen), ..Episode::default() };
        loop {
            let column = |pixel| seen[SIDE * SIDE..].iter().rposition(|x| *x == pixel).unwrap() % SIDE;
            let (ball, paddle) = (column(255.0), column(128.0));
            let choice = match rng.below(3) {
                0 => rng.below(3),
                _ => 1 + u32::from(ball > paddle) - u32::from(ball < paddle),
            };
            let step = environment.step(Action::Discrete(choice), &mut seen).unwrap();
            episode.bytes.extend(bytes(&seen));
            episode.actions.push(choice as f32);
            episode.rewards.push(step.reward);
            if step.done() {
                return episode;
            }
        }
    };
    (0..count).map(&mut game).collect()
}

fn teacher(algorithm: &dyn Algorithm) -> OfflineConfig {
    let images = Kind { continuous: false, images: Some([2, SIDE, SIDE]) };
    let config = OfflineConfig::new(algorithm.defaults(images));
    let cql = |cql: &mut CqlConfig| {
        (cql.convolution, cql.hidden, cql.quantiles) = (Some(convolution()), vec![32], 4);
    };
    let bc = |bc: &mut BcConfig| (bc.convolution, bc.hidden) = (Some(convolution()), vec![32]);
    OfflineConfig {
        updates: 1_000,
        algorithm: config.algorithm.with(cql).with(bc),
        learning_rate: Linear::constant(1e-3),
        target_every: 50,
        evaluation: EvaluationConfig { every: 200, episodes: 50 },
        until_return: Some(0.9),
        ..config
    }
}

fn both() -> [&'static dyn Algorithm; 2] {
    [&ConservativeQLearning, &BehaviourCloning]
}

fn trainer(config: &OfflineConfig, data: &[Episode]) -> OfflineTrainer {
    let (observation, action) = (Space::uniform(WIDTH, 0.0, 255.0), Space::Discrete { n: 3 });
    let mut trainer = OfflineTrainer::new(config, &observation, &action, &Cpu).unwrap();
    data.iter().for_each(|episode| _ = trainer.add(&episode.recorded()).unwrap());
    trainer
}

#[test]
fn recorded_images_make_a_teacher() {
    let data = games(150);
    let played = data.iter().flat_map(|e| &e.rewards).sum::<f64>() / data.len() as f64;
    let mut environment = Catch::boxed();
    for algorithm in both() {
        let (config, name) = (teacher(algorithm), algorithm.name());
        let mut whole = trainer(&config, &data);
        while whole.advance(&mut *environment, 1_000).unwrap().ended.is_none() {}
        let best = whole.best().unwrap();
        assert!(best.mean > 0.85 && best.mean > played, "{name}: {} from data of {played}", best.mean);

        // Interrupted after its first evaluation.
        let mut first = trainer(&config, &data);
        first.advance(&mut *environment, 250).unwrap();
        let file = first.save().unwrap();
        let mut second = trainer(&config, &data);
        assert!(second.load(&file).unwrap());
        while second.advance(&mut *environment, 70).unwrap().ended.is_none() {}
        assert!(second.save().unwrap() == whole.save().unwrap(), "{name}");
    }
}

/// Actor and critics of soft actor-critic share convolutions, for discrete and continuous actions.
#[test]
fn soft_actor_critic_learns_from_images() {
    let algorithm = SacConfig {
        convolution: Some(convolution()),
        hidden: vec![32],
        batch_size: 32,
        initial_alpha: 0.1,
        ..SacConfig::default()
    };
    let config = StudentConfig {
        steps: 3_000,
        algorithm: algorithm.into(),
        n_step: 1,
        learning_rate: Linear::constant(1e-3),
        epsilon: Linear { start: 1.0, end: 0.0, steps: 500 },
        ..config()
    };
    for environment in [Catch::boxed, Catch::smooth] {
        let student = || {
            let environment = Environments::Inside { train: environment(), evaluate: Some(environment()) };
            Student::new(&config, environment, &[], &Cpu, 0).unwrap()
        };
        let mut whole = student();
        let before = whole.evaluate(100).unwrap();
        run(&mut whole, 300);
        let file = whole.save(true).unwrap();
        run(&mut whole, 400);
        let policy = whole.policy("Catch-v0");
        assert!(policy.windows(9).any(|part| part == b".encoder."), "its policy has the convolutions");
        let mut second = student();
        second.load(&file, 0).unwrap();
        run(&mut second, 400);
        assert!(second.policy("Catch-v0") == policy, "a resumed run equals the uninterrupted one");
        run(&mut whole, config.steps);
        let after = whole.evaluate(100).unwrap();
        assert!(before < 0.5 && after > 0.7, "{before} before, {after} after");
    }
}

/// PPO has convolutions of its own for policy and value function, and its rollouts of images keep no more than the buffer does.
#[test]
fn ppo_learns_from_images_and_goes_on_from_a_checkpoint() {
    let algorithm = PpoConfig {
        convolution: Some(convolution()),
        hidden: vec![32],
        n_steps: 256,
        batch_size: 64,
        epochs: 4,
        entropy_weight: 0.01,
        ..PpoConfig::default()
    };
    let config = StudentConfig {
        steps: 8_000,
        algorithm: algorithm.into(),
        n_step: 1,
        buffer: 256,
        learning_rate: Linear::constant(1e-3),
        epsilon: Linear::constant(0.0),
        ..config()
    };
    let student = || {
        let environment = Environments::Inside { train: Catch::boxed(), evaluate: Some(Catch::boxed()) };
        Student::new(&config, environment, &[], &Cpu, 0).unwrap()
    };
    let mut whole = student();
    let before = whole.evaluate(100).unwrap();
    run(&mut whole, 300);
    let file = whole.save(true).unwrap();
    run(&mut whole, config.steps);
    let after = whole.evaluate(100).unwrap();
    assert!(before < 0.5 && after > 0.8, "{before} before, {after} after");
    let mut second = student();
    second.load(&file, 0).unwrap();
    run(&mut second, 600);
    let mut again = student();
    run(&mut again, 600);
    let policy = again.policy("Catch-v0");
    assert!(second.policy("Catch-v0") == policy, "a resumed run equals the uninterrupted one");
    assert!(policy.windows(9).any(|part| part == b".encoder."), "its policy has the convolutions");
    let fusion = PpoConfig { fusion: true, convolution: Some(convolution()), ..PpoConfig::default() };
    let refused = StudentConfig { algorithm: fusion.into(), ..config.clone() }.validate().unwrap_err();
    assert!(refused.to_string().starts_with("algorithm.fusion"), "{refused}");
}

#[test]
fn data_that_are_no_images_make_no_teacher() {
    let config = teacher(&ConservativeQLearning);
    let mut trainer = trainer(&config, &[]);
    let mut numbers = vec![0.0; 2 * WIDTH];
    numbers[WIDTH + 3] = 0.5;
    let observations = Seen::Numbers(&numbers);
    let refused = trainer.add(&Recorded { observations, actions: &[1.0], rewards: &[0.0], terminated: true });
    assert!(
        matches!(refused, Err(TrainError::Recorded(RecordedError::Pixel { step: 1, value: 0.5 }))),
        "{refused:?}"
    );
    let short = Recorded {
        observations: Seen::Bytes(&[0; WIDTH]),
        actions: &[1.0],
        rewards: &[0.0],
        terminated: true,
    };
    assert!(matches!(
        trainer.add(&short),
        Err(TrainError::Recorded(RecordedError::Length { what: "observations", .. }))
    ));

    let made = |config: &OfflineConfig, observation: Space, action: Space| {
        OfflineTrainer::new(config, &observation, &action, &Cpu).map(drop).unwrap_err().to_string()
    };
    let choices = || Space::Discrete { n: 3 };
    assert!(made(&config, Space::uniform(WIDTH, 0.0, 1.0), choices()).contains("from 0 to 255"));
    assert!(made(&config, Space::uniform(9, 0.0, 255.0), choices()).contains("has 9"));
    let continuous = made(&config, Space::uniform(WIDTH, 0.0, 255.0), Space::uniform(1, -1.0, 1.0));
    assert!(continuous.contains("algorithm.convolution"), "{continuous}");
    for algorithm in both() {
        let flat = OfflineConfig::of(algorithm, &choices());
        let refused = made(&flat, Space::uniform(WIDTH, 0.0, 255.0), choices());
        assert!(refused.contains("it has no convolution"), "{refused}");
    }
    let mut misfit = teacher(&BehaviourCloning);
    misfit.algorithm =
        misfit.algorithm.with(|bc: &mut BcConfig| bc.convolution = Some(Convolution::atari([4, 8, 8])));
    let wrong = made(&misfit, Space::uniform(WIDTH, 0.0, 255.0), choices());
    assert!(wrong.starts_with("algorithm.convolution") && wrong.contains("fit into"), "{wrong}");
}

#[test]
#[cfg(feature = "minatar")]
fn games_are_seen_as_images_where_they_show_them() {
    use oto_agent::environments::{check_pixels, images, seen};
    let (rows, shown) = ("MinAtar/Breakout-v1", "MinAtar/Breakout-v1?images=true");
    assert_eq!(images(shown), Ok(Some([4, 10, 10])));
    assert_eq!(seen(shown), Ok(Kind { continuous: false, images: Some([4, 10, 10]) }));
    assert_eq!(seen(rows), Ok(Kind { continuous: false, images: None }));
    let (own, _) = Convolution::usual([4, 10, 10]).unwrap();
    let (other, _) = Convolution::usual([7, 10, 10]).unwrap();
    let said = |env, convolution| check_pixels(env, convolution, "a3c", true).map_err(|e| e.to_string());
    assert_eq!([said(shown, Some(&own)), said(rows, None)], [Ok(()), Ok(())]);
    assert!(said(shown, Some(&other)).unwrap_err().contains("the convolution sees [7, 10, 10]"));
    assert!(said(shown, None).unwrap_err().contains("leave out images=true"));
    assert!(said(rows, Some(&own)).unwrap_err().contains("images=true makes them images"));
}

/// Both networks of an actor-critic play a game.
#[test]
#[cfg(feature = "minatar")]
fn an_actor_critic_plays_a_game_from_images_and_from_rows() {
    for (env, sees) in [("MinAtar/Breakout-v1?images=true", true), ("MinAtar/Freeway-v1", false)] {
        let usual = oto_agent::presets::learner(env, find("a3c").unwrap());
        assert_eq!(usual.algorithm.convolution().is_some(), sees);
        let config = StudentConfig {
            evaluation: EvaluationConfig { every: 0, episodes: 1 },
            stages: StagesConfig::SOLO,
            ..usual
        };
        let mut student = Student::new(&config, Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap();
        let before = student.trainer().learner().engine().state().unwrap();
        while student.trainer().steps() < 205 && student.tick(0).unwrap() != Tick::Done {}
        assert_eq!(student.trainer().updates(), 10);
        let after = student.trainer().learner().engine().state().unwrap();
        let moved = |name: &str| {
            let of = |state: &[oto_rl::engine::NamedTensor]| {
                state.iter().find(|tensor| tensor.name == name).unwrap().values.clone()
            };
            of(&before) != of(&after)
        };
        let first = if sees { "agent.trunk.encoder.0.weight" } else { "agent.trunk.0.weight" };
        assert!(["agent.policy.0.weight", "agent.value.0.weight", first].into_iter().all(moved), "{env}");
    }
}
