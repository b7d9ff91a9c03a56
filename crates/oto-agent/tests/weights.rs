//! How many bytes a push of weights takes: differences between versions of an actor of 44,033 parameters that DDPG trains on
//! Pendulum, with a delay of five actions in its observation.

use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_env::{Action, Environment};
use oto_proto::weights::{Encoding, write_complete, write_delta};
use oto_proto::{Ids, WEIGHTS_BYTES, Weights};
use oto_rl::actions::Actions;
use oto_rl::algorithms::ddpg::DdpgConfig;
use oto_rl::algorithms::{Agent, Settings, Sizes};

const BATCH: usize = 128;
const PARAMETERS: usize = 44_033;
/// The most bytes of a push after 120 updates.
const MOST: usize = 45_000;

/// What the actor sees: the pendulum and its last five actions.
fn seen(pendulum: &[f32; 3], past: &[f32; 5]) -> [f32; 10] {
    let [cos, sin, speed] = *pendulum;
    let speed = speed / 8.0;
    let [a, b, c, d, e] = *past;
    [cos, sin, speed, cos * speed, sin * speed, a, b, c, d, e]
}

struct Training {
    agent: Box<dyn Agent>,
    environment: Box<dyn Environment>,
    rng: Rng,
    lr: f32,
    pendulum: [f32; 3],
    past: [f32; 5],
    steps: usize,
    observations: Vec<[f32; 10]>,
    next: Vec<[f32; 10]>,
    actions: Vec<f32>,
    rewards: Vec<f32>,
}

impl Training {
    fn new(lr: f32) -> Training {
        let config = DdpgConfig { hidden: vec![256, 128, 64], batch_size: BATCH, ..DdpgConfig::default() };
        let sizes = Sizes { observation: 10, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        let mut rng = Rng::new(5);
        let mut environment = oto_env::make("Pendulum-v1").unwrap();
        let mut pendulum = [0.0; 3];
        environment.reset(Some(1), &mut pendulum).unwrap();
        let agent = config.agent(sizes, &Cpu, &mut rng).unwrap();
        let mut training = Training {
            agent,
            environment,
            rng,
            lr,
            pendulum,
            past: [0.0; 5],
            steps: 0,
            observations: Vec::new(),
            next: Vec::new(),
            actions: Vec::new(),
            rewards: Vec::new(),
        };
        (0..500).for_each(|_| training.step(true));
        training
    }

    fn step(&mut self, random: bool) {
        let state = seen(&self.pendulum, &self.past);
        let mut action = [0.0];
        self.agent.act(&state, &mut action);
        let noise = self.rng.uniform(-1.0, 1.0) as f32;
        let action = if random { noise } else { (action[0] + 0.2 * noise).clamp(-1.0, 1.0) };
        let step = self.environment.step(Action::Continuous(&[2.0 * action]), &mut self.pendulum).unwrap();
        self.past.rotate_right(1);
        self.past[0] = action;
        self.observations.push(state);
        self.next.push(seen(&self.pendulum, &self.past));
        self.actions.push(action);
        self.rewards.push(step.reward as f32 / 10.0);
        self.steps += 1;
        if self.steps.is_multiple_of(200) {
            self.environment.reset(None, &mut self.pendulum).unwrap();
            self.past = [0.0; 5];
        }
    }

    /// A step in the environment, and an update.
    fn update(&mut self) {
        self.step(false);
        let drawn: Vec<usize> =
            (0..BATCH).map(|_| self.rng.below(self.actions.len() as u32) as usize).collect();
        let gather = |from: &[[f32; 10]]| drawn.iter().flat_map(|&i| from[i]).collect::<Vec<f32>>();
        let pick = |from: &[f32]| drawn.iter().map(|&i| from[i]).collect::<Vec<f32>>();
        let (observation, next) = (gather(&self.observations), gather(&self.next));
        let (action, reward) = (pick(&self.actions), pick(&self.rewards));
        let noise: Vec<f32> = (0..BATCH).map(|_| self.rng.uniform(-1.7, 1.7) as f32).collect();
        let data = |name: &str| match name {
            "observation" => Some(&observation[..]),
            "next_observation" => Some(&next[..]),
            "action" => Some(&action[..]),
            "reward" => Some(&reward[..]),
            "discount" => Some(&[0.99; BATCH][..]),
            "next_noise" => Some(&noise[..]),
            "lr" => Some(std::slice::from_ref(&self.lr)),
            "target_mix" => Some(&[0.005][..]),
            "alpha_aikd" | "delta" | "eta" => Some(&[0.0][..]),
            // Weights of losses and of what else an update may be told.
            _ => Some(&[1.0][..]),
        };
        self.agent.engine_mut().update(data).unwrap();
        self.agent.hand_over().unwrap();
    }

    fn weights(&self) -> Vec<f32> {
        self.agent.policy().parameters().flatten().copied().collect()
    }
}

/// Bytes of a difference, and its largest error as a part of the changes' root mean square.
fn push(before: &[f32], after: &[f32]) -> (usize, f64) {
    let (ids, mut frame) = (Ids { request: 1, policy: 1, version: 2 }, Vec::new());
    let (mut there, mut here) = (before.to_vec(), before.to_vec());
    write_delta(ids, 1, &mut there, after, &mut frame).unwrap();
    Weights::read(&frame, before.len()).unwrap().apply(1, &mut here, &mut Vec::new()).unwrap();
    assert!(here.iter().zip(&there).all(|(a, b)| a.to_bits() == b.to_bits()), "both sides hold the same");
    let changes: f64 = before.iter().zip(after).map(|(a, b)| f64::from(b - a).powi(2)).sum();
    let rms = (changes / before.len() as f64).sqrt();
    let largest = here.iter().zip(after).fold(0.0, |most: f64, (a, b)| most.max(f64::from(b - a).abs()));
    (frame.len(), largest / rms)
}

#[test]
fn a_push_after_120_updates_is_small_and_exact_enough() {
    for lr in [3e-4, 1e-3] {
        let mut training = Training::new(lr);
        let first = training.weights();
        assert_eq!(first.len(), PARAMETERS);
        let mut complete = Vec::new();
        write_complete(Ids::default(), Encoding::F32, &first, &mut complete).unwrap();
        assert_eq!(complete.len(), WEIGHTS_BYTES + 4 * PARAMETERS);
        for updates in 1..=120 {
            training.update();
            if ![1, 10, 30, 60, 120].contains(&updates) {
                continue;
            }
            let weights = training.weights();
            let (bytes, error) = push(&first, &weights);
            println!(
                "learning rate {lr}: {updates} updates since the base: {bytes} bytes, largest error {error:.4}"
            );
            assert!(bytes <= MOST && error < 0.03, "{bytes} bytes after {updates} updates, {error}");
        }
        let base = training.weights();
        (0..120).for_each(|_| training.update());
        let (bytes, error) = push(&base, &training.weights());
        println!("learning rate {lr}: updates 121 to 240: {bytes} bytes, largest error {error:.4}");
        assert!(bytes <= MOST && error < 0.03, "{bytes} bytes, {error}");
    }
}
