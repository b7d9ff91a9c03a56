//! A student that sees only images: it learns a game, keeps little of what it saw, and goes on from a checkpoint as if it had never
//! stopped.

use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_env::{Action, EnvError, Environment, Phase, Snapshot, Space, Step};
use oto_rl::convolution::{Convolution, ConvolutionLayer};
use oto_rl::qrdqn::QrDqnConfig;
use oto_student::config::{EvaluationConfig, Linear, StudentConfig};
use oto_student::stage::StagesConfig;
use oto_student::student::{Student, Tick, World};
use oto_student::trainer::TrainError;

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
        let observation = Space::uniform(WIDTH, 0.0, 255.0);
        let action = Space::Discrete { n: 3 };
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
        let Action::Discrete(choice) = action else { unreachable!("it was checked") };
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

fn config() -> StudentConfig {
    let layer = ConvolutionLayer { channels: 8, kernel: 3, stride: 1 };
    StudentConfig {
        seed: 1,
        steps: 2_000,
        qrdqn: QrDqnConfig {
            convolution: Some(Convolution { shape: [2, SIDE, SIDE], layers: vec![layer] }),
            hidden: vec![32],
            quantiles: 4,
            batch_size: 32,
            ..QrDqnConfig::default()
        },
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
    let world = World::Inside { train: Catch::boxed(), evaluate: Catch::boxed() };
    Student::new(&config(), world, &[], &Cpu, 0).unwrap()
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
    let world = |observation| World::Outside { observation, action: Space::Discrete { n: 3 } };
    let made = |observation| Student::new(&config(), world(observation), &[], &Cpu, 0).err().unwrap();
    let floats = made(Space::uniform(WIDTH, 0.0, 1.0)).to_string();
    assert!(floats.contains("from 0 to 255"), "{floats}");
    let small = made(Space::uniform(9, 0.0, 255.0)).to_string();
    assert!(small.contains("[2, 6, 6]") && small.contains("has 9"), "{small}");
    let mut wrong = config();
    wrong.qrdqn.convolution = Some(Convolution::atari([4, 8, 8]));
    let wrong = wrong.validate().unwrap_err().to_string();
    assert!(wrong.contains("qrdqn.convolution") && wrong.contains("fit into"), "{wrong}");
}
