//! Runs with small networks: rows arrive, weights act, bandwidth and convergence are what they should be.

use super::*;
use crate::config::StudentConfig;
use crate::learner::LearnerConfig;
use crate::link::memory::MemoryTeacher;
use oto_env::{Action, Snapshot, Space, Step};

/// Pendulum-v1 whose evaluations succeed, or not.
struct Plant {
    inner: Box<dyn Environment>,
    succeeds: bool,
}

impl Environment for Plant {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn observation_space(&self) -> &Space {
        self.inner.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.inner.action_space()
    }

    fn max_episode_steps(&self) -> Option<u32> {
        self.inner.max_episode_steps()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        self.inner.reset(seed, observation)
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        self.inner.step(action, observation)
    }

    fn info(&self, name: &str) -> Option<f64> {
        match name {
            "success" => Some(f64::from(u8::from(self.succeeds))),
            "reset_steps" => Some(7.0),
            _ => None,
        }
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        self.inner.save()
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.inner.restore(snapshot)
    }
}

fn setup(steps: u64) -> Setup {
    Setup { steps, evaluate_every: 2, ..Setup::default() }
}

fn run(setup: Setup, succeeds: bool) -> (Outcome, Learner) {
    run_of(32, setup, succeeds)
}

/// A run with two hidden layers of this width.
fn run_of(hidden: usize, setup: Setup, succeeds: bool) -> (Outcome, Learner) {
    let text = r#"{"reward":"pendulum","algorithm":{"name":"ddpg","hidden":[WIDTH,WIDTH],"batch_size":8},
        "buffer":4000,"learning_starts":50,"learning_rate":1e-3,"exploration":{"noise":0.3,"correlation":6}}"#;
    let config: LearnerConfig = oto_json::read(&text.replace("WIDTH", &hidden.to_string())).unwrap();
    let plant = Plant { inner: oto_env::make("Pendulum-v1").unwrap(), succeeds };
    let learner =
        Learner::new(&config, plant.observation_space(), plant.action_space(), &oto_cpu::Cpu).unwrap();
    VirtualRun::new(setup, learner, Box::new(plant), 5).unwrap().run(|_, _| Ok(true)).unwrap()
}

fn slow(megabits: f64, encoding: &str) -> Setup {
    let down = LineConfig { delay_us: 1_000, bits_per_second: Some(megabits * 1e6) };
    Setup { down, encoding: encoding.into(), ..setup(600) }
}

#[test]
fn every_row_is_learned_from_once_and_weights_act_at_the_next_step() {
    let (outcome, learner) = run(setup(600), false);
    // Three episodes of 200 steps, an evaluation before them and one after two of them.
    assert_eq!((outcome.steps, outcome.episodes, outcome.evaluations.len()), (600, 3, 2));
    assert_eq!(outcome.evaluations[1].steps, 400);
    let counts = learner.counts();
    assert_eq!((counts.steps, counts.evaluation, counts.lost, counts.rows), (600, 400, 0, 5 * 201));
    assert_eq!((outcome.updates, outcome.backlog, outcome.safe), (551, 0, 0));
    assert_eq!(outcome.converged, None);
    // Without a delay the weights of a step act in the next one.
    assert_eq!(outcome.staleness[0], 0, "{outcome:?}");
    assert!(outcome.pushes > 540, "{outcome:?}");
    // 1,000 steps, the resets, and the beginning.
    assert!((1_000 + 5 * 7..1_060).contains(&outcome.periods), "{outcome:?}");
    assert_eq!(run(setup(600), false).0, outcome, "a run depends on its seed only");
}

#[test]
fn a_small_bandwidth_makes_weights_older_and_differences_take_less_of_it() {
    let fast = run(setup(600), false).0;
    let complete = run(slow(0.02, "f32"), false).0;
    let differences = run(slow(0.02, "delta"), false).0;
    assert!(complete.pushes < fast.pushes / 10, "{complete:?}");
    assert!(complete.staleness[0] > 10 + fast.staleness[0], "{complete:?}");
    assert!(differences.pushes > complete.pushes, "{differences:?}");
    let each = |outcome: &Outcome| outcome.push_bytes / outcome.pushes;
    assert!(each(&differences) < each(&complete) / 2, "{differences:?}");
    // The bucket lets no more through than its bandwidth.
    let seconds = complete.periods as f64 / HZ as f64;
    assert!((complete.bytes_down as f64) < seconds * 0.02e6 / 8.0 + 16_000.0, "{complete:?}");
    assert_eq!(complete.steps, 600, "the loop waits for nothing");
}

/// Weights take 27 seconds, and no row is answered meanwhile: the edge waits longer on each further connection, until they arrive.
#[test]
fn weights_that_take_longer_than_the_usual_answer_arrive() {
    let (outcome, learner) = run_of(200, Setup { steps: 3_000, ..slow(0.06, "f32") }, false);
    assert_eq!((outcome.steps, outcome.safe), (3_000, 0), "{outcome:?}");
    assert!((3..8).contains(&outcome.pushes), "{outcome:?}");
    assert!(outcome.push_bytes > 165_000 * outcome.pushes, "connections were lost: {outcome:?}");
    let counts = learner.counts();
    assert!(counts.lost == 0 && counts.steps > 2_000, "{counts:?}");
}

#[test]
fn a_slow_learner_owes_updates_and_makes_them_up_in_resets() {
    let up = LineConfig { delay_us: 2_000_000, bits_per_second: None };
    let (outcome, learner) = run(Setup { up, ..setup(600) }, false);
    // Rows come two seconds late: 60 periods.
    assert!(outcome.staleness[0] >= 60, "{outcome:?}");
    assert!(learner.counts().steps >= 600 - 62);
    let never = run(Setup { speed: 0, ..setup(300) }, false).0;
    assert_eq!((never.updates, never.pushes), (0, 1), "only the first weights act");
    assert_eq!(never.backlog, 251);
}

#[test]
fn a_run_ends_after_five_successes_in_a_row() {
    let (outcome, _) = run(setup(100_000), true);
    assert_eq!((outcome.converged, outcome.evaluations.len()), (Some(1_600), 5));
    assert_eq!(outcome.steps, 1_600);
}

#[test]
fn an_unknown_encoding_is_refused() {
    let text = r#"{"reward":"pendulum","algorithm":{"name":"ddpg","hidden":[8],"batch_size":8}}"#;
    let env = oto_env::make("Pendulum-v1").unwrap();
    let config: LearnerConfig = oto_json::read(text).unwrap();
    let learner = Learner::new(&config, env.observation_space(), env.action_space(), &oto_cpu::Cpu).unwrap();
    let error = VirtualRun::new(Setup { encoding: "f8".into(), ..setup(1) }, learner, env, 1).err().unwrap();
    assert!(error.to_string().contains("one of f32, f16 and delta, got \"f8\""), "{error}");
}

fn local(config: &str) -> StudentConfig {
    let text = r#"{"seed":5,"steps":600,"algorithm":{"name":"ddpg","hidden":[32,32],"batch_size":8,"exploration":0.3},
        "buffer":4000,"learning_starts":50,"learning_rate":{"start":1e-3,"end":1e-3,"steps":1},
        "epsilon":{"start":0,"end":0,"steps":1},"evaluation":{"every":0,"episodes":1}MORE}"#;
    oto_json::read(&text.replace("MORE", config)).unwrap()
}

fn run_locally(
    config: &StudentConfig,
    succeeds: bool,
    teacher: Option<MemoryTeacher>,
    agent: Option<&[u8]>,
) -> Outcome {
    let plant = Plant { inner: oto_env::make("Pendulum-v1").unwrap(), succeeds };
    let line = LineConfig { delay_us: 1_000, bits_per_second: None };
    let setup = Setup { up: line, down: line, ..setup(config.steps) };
    LocalRun::new(setup, config, Box::new(plant), teacher, agent, &oto_cpu::Cpu)
        .unwrap()
        .run(|_| true)
        .unwrap()
}

/// The same plant, steps, evaluations and updates as with a learner in the cloud; the answers alone cross the line.
#[test]
fn an_edge_trains_by_itself_with_a_teacher_and_without() {
    let learner = run(setup(300), false).1;
    let taught = local(r#","stages":{"transfer":{"steps":400},"online":{}}"#);
    let outcome = run_locally(&taught, false, Some(teacher(&learner).unwrap()), None);
    assert_eq!((outcome.steps, outcome.episodes, outcome.evaluations.len()), (600, 3, 2));
    assert_eq!((outcome.evaluations[1].steps, outcome.updates), (400, 551));
    assert!((1_000 + 5 * 7..1_060).contains(&outcome.periods), "{outcome:?}");
    // 50 requests of 8 states with 3 numbers each, and their answers of one number; headers and words beside.
    assert!((50 * 96..50 * 96 + 4_000).contains(&outcome.bytes_up), "{outcome:?}");
    assert!((50 * 32..50 * 32 + 4_000).contains(&outcome.bytes_down), "{outcome:?}");
    let teacher = Some(teacher(&learner).unwrap());
    assert_eq!(run_locally(&taught, false, teacher, None), outcome, "a run depends on its seed only");

    let alone = local(r#","stages":{"transfer":null,"online":{}}"#);
    let agent = learner.save_weights().unwrap();
    let handed = run_locally(&alone, false, None, Some(&agent));
    assert_eq!((handed.bytes_up, handed.bytes_down), (0, agent.len() as u64));
    // Its first evaluation is the learner's policy.
    let fresh = run_locally(&alone, false, None, None);
    assert_ne!(handed.evaluations[0].score, fresh.evaluations[0].score);
    let converged = run_locally(&StudentConfig { steps: 100_000, updates: 0, ..alone }, true, None, None);
    assert_eq!((converged.converged, converged.steps), (Some(1_600), 1_600));
}

/// The teacher answers what the learner's actor does; an agent of another network is refused.
#[test]
fn a_learner_teaches_what_its_actor_does() {
    let learner = run(setup(100), false).1;
    let mut teacher = teacher(&learner).unwrap();
    let (state, mut answer) = ([0.3, -0.9, 0.5, -1.0, 0.0, 2.0], Vec::new());
    (teacher.act)(&state, 2, &mut answer).unwrap();
    let mut network = network(&learner.model());
    let mut weights = Vec::new();
    learner.weights(&mut weights);
    let mut rest = weights.into_iter();
    network.parameters_mut().flatten().for_each(|to| *to = rest.next().unwrap());
    for (state, answer) in state.chunks(3).zip(&answer) {
        let expected = 2.0 * network.forward(state)[0].tanh();
        assert!((answer - expected).abs() < 1e-5, "{answer}, expected {expected}");
    }
    assert_eq!(answer.len(), 2);

    let env = || oto_env::make("Pendulum-v1").unwrap();
    let small = oto_json::read(r#"{"name":"ddpg","hidden":[8],"batch_size":8}"#).unwrap();
    let other = StudentConfig { algorithm: small, ..local("") };
    let agent = learner.save_weights().unwrap();
    for file in [&agent[..], &agent[..agent.len() / 2], b"no file"] {
        assert!(LocalRun::new(setup(1), &other, env(), None, Some(file), &oto_cpu::Cpu).is_err());
    }
}
