//! The arms of the experiment: one pretrained agent for each friction factor, and what is done with it on the plant.

use oto_agent::actor::explore::Exploration;
use oto_agent::config::{EvaluationConfig, StudentConfig, TransferConfig};
use oto_agent::learner::LearnerConfig;
use oto_agent::stage::{Ending, StagesConfig};
use oto_agent::virtual_time::{LineConfig, Setup};
use oto_rl::algorithms::AlgorithmConfig;
use oto_rl::algorithms::ddpg::DdpgConfig;
use oto_rl::replay::SamplerName;
use oto_rl::schedule::Linear;

/// The simulation's and the plant's largest voltage, the share of simulated episodes that start near upright, and exploration in the
/// simulation: docs/swing-up.md has the measurements behind them.
const VOLTAGE: f64 = 12.0;
const UPRIGHT: f64 = 0.6;
const NOISE: f64 = 0.6;
/// Correlation time of the noise: 0.2 s in steps.
const CORRELATION: f64 = 6.0;
/// Exploration on the plant decays over this number of steps, as in the authors' code.
const DECAY: u64 = 20_000;
const PLANT_NOISE: [f64; 2] = [0.3, 0.05];
/// Most transitions in the replay.
const BUFFER: usize = 1_000_000;
/// Microseconds of a local network.
const DELAY_US: u64 = 1_000;
/// Steps before the critic learns and before the actor learns (N_c and N_a of the paper).
const N_C: u64 = 3_500;
const N_A: u64 = 5_000;
/// The same in the simulation.
const SIMULATION_DELAYS: [u64; 2] = [1_000; 2];
/// The friction factor of all arms but those of the reality gap.
const K_F: f64 = 10.0;
/// Probability of a wild reading in a step.
const WILD: f64 = 0.01;

/// How much of the experiment runs. The default is the paper's.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Steps in the simulation.
    pub pretraining: u64,
    /// Training steps on the plant at most.
    pub steps: u64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch: usize,
    /// Only these parts; empty: all.
    pub parts: Vec<Part>,
    /// The kept runs alone; none is made.
    pub finished: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pretraining: 1_000_000,
            steps: 108_000,
            hidden: vec![256, 128, 64],
            batch: 128,
            parts: Vec::new(),
            finished: false,
        }
    }
}

/// A question of the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Friction of the simulation.
    Gap,
    /// Steps before critic and actor learn.
    Delays,
    /// Bandwidth from learner to edge.
    Bandwidth,
    /// Replay of the simulation, kept or not.
    Replay,
    /// Wild readings.
    Wild,
    /// Training at the edge, with the cloud's agent as a teacher, as a file, or both.
    Local,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 6] =
        [Part::Gap, Part::Delays, Part::Bandwidth, Part::Replay, Part::Wild, Part::Local];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Gap => "gap",
            Part::Delays => "delays",
            Part::Bandwidth => "bandwidth",
            Part::Replay => "replay",
            Part::Wild => "wild",
            Part::Local => "local",
        }
    }

    /// The part of this name.
    pub fn named(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// A configuration, tried on every seed.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Short name, part of file names.
    pub name: String,
    /// For tables and legends.
    pub title: String,
    /// The questions it is part of.
    pub parts: Vec<Part>,
    /// Friction factor of the simulation in which its agent was pretrained.
    pub k_f: f64,
    /// The learner on the plant.
    pub learner: LearnerConfig,
    /// The line and the ends of a run.
    pub setup: Setup,
    /// The plant.
    pub plant: String,
    /// The learner begins with the replay of the simulation.
    pub keeps_replay: bool,
    /// A student at the edge in the learner's place.
    pub local: Option<Local>,
}

impl Arm {
    /// All that makes its runs what they are, beside their seeds and the pretrained agent.
    pub fn text(&self) -> String {
        let Arm { learner, setup, plant, keeps_replay, local, .. } = self;
        let setup = serde_json::to_string(setup).unwrap_or_default();
        let local = local.as_ref().map_or(String::new(), |local| format!(" {}", local.text()));
        format!("{} {setup} {plant} {keeps_replay}{local}", oto_json::write(learner))
    }
}

/// A student that trains at the edge, in the learner's place.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its settings.
    pub student: StudentConfig,
    /// Whether it begins with the agent of the simulation.
    pub handed: bool,
    /// Whether that agent is its teacher.
    pub taught: bool,
}

impl Local {
    /// The learner's algorithm and settings, at the edge. A student with new parameters needs no delays: its teacher knows more than its own
    /// first weights.
    fn of(learner: &LearnerConfig, steps: u64, handed: bool, taught: bool) -> Self {
        let factor = PLANT_NOISE[1] / PLANT_NOISE[0];
        let first = learner.algorithm.batch_size() as u64;
        let algorithm = learner.algorithm.clone().with(|one: &mut DdpgConfig| {
            one.exploration = PLANT_NOISE[0];
            one.exploration_factor = Linear { start: 1.0, end: factor, steps: DECAY };
            one.correlation_time = CORRELATION;
            one.actor_starts = if handed { one.actor_starts } else { Some(first) };
        });
        let lessons = Ending { steps: Some(DECAY), ..Ending::default() };
        let stages = match taught {
            true => StagesConfig { transfer: Some(lessons), ..StagesConfig::default() },
            false => StagesConfig::SOLO,
        };
        let student = StudentConfig {
            steps,
            algorithm,
            gamma: learner.gamma,
            buffer: learner.buffer,
            replay: learner.replay,
            learning_starts: if handed { learner.learning_starts } else { first },
            learning_rate: learner.learning_rate,
            epsilon: Linear::constant(0.0),
            target_every: learner.target_every,
            target_tau: learner.target_tau,
            transfer: TransferConfig { learning_rate: None, ..TransferConfig::default() },
            stages,
            evaluation: EvaluationConfig { every: 0, episodes: 1 },
            ..StudentConfig::default()
        };
        Self { student, handed, taught }
    }

    fn text(&self) -> String {
        format!("{} {} {}", oto_json::write(&self.student), self.handed, self.taught)
    }
}

/// The simulation of a friction factor.
pub fn simulation(k_f: f64) -> String {
    format!("CartPoleSwingUp-v0?voltage_max={VOLTAGE}&upright={UPRIGHT}&k_f={k_f}")
}

/// The plant; its options are `more`.
fn plant(more: &str) -> String {
    format!("CartPoleSwingUpPlant-v0?voltage_max={VOLTAGE}{more}")
}

/// The learner in the simulation.
pub fn pretraining(settings: &Settings, k_f: f64, seed: u64) -> LearnerConfig {
    let noise = Linear { start: NOISE, end: NOISE / 2.0, steps: settings.pretraining };
    let exploration = Exploration { noise, correlation: CORRELATION, ..Exploration::none() };
    let config = learner(settings, SIMULATION_DELAYS, SamplerName::Uniform);
    LearnerConfig { seed, env: simulation(k_f), exploration, ..config }
}

fn ddpg(settings: &Settings, actor_starts: u64) -> DdpgConfig {
    DdpgConfig {
        hidden: settings.hidden.clone(),
        batch_size: settings.batch,
        actor_starts: Some(actor_starts),
        ..DdpgConfig::default()
    }
}

/// The learner on the plant.
fn learner(settings: &Settings, [n_c, n_a]: [u64; 2], sampler: SamplerName) -> LearnerConfig {
    let noise = Linear { start: PLANT_NOISE[0], end: PLANT_NOISE[1], steps: DECAY };
    let mut config = LearnerConfig {
        env: plant(""),
        reward: "cartpole_swing_up".into(),
        algorithm: AlgorithmConfig::from(ddpg(settings, n_a)),
        gamma: 0.99,
        buffer: BUFFER,
        learning_starts: n_c,
        learning_rate: Linear::constant(3e-4),
        target_every: 0,
        target_tau: 0.005,
        exploration: Exploration { noise, correlation: CORRELATION, ..Exploration::none() },
        hz: Some(30.0),
        ..LearnerConfig::default()
    };
    config.replay.sampler = sampler;
    config
}

/// The line from learner to edge.
fn line(megabits: Option<f64>) -> LineConfig {
    LineConfig { delay_us: DELAY_US, bits_per_second: megabits.map(|bits| bits * 1e6) }
}

/// All arms of the chosen parts.
pub fn arms(settings: &Settings) -> Vec<Arm> {
    let base = |name: &str, title: &str, parts: &[Part]| Arm {
        name: name.into(),
        title: title.into(),
        parts: parts.to_vec(),
        k_f: K_F,
        learner: learner(settings, [N_C, N_A], SamplerName::Combined),
        setup: Setup { up: line(None), down: line(None), steps: settings.steps, ..Setup::default() },
        plant: plant(""),
        keeps_replay: false,
        local: None,
    };
    let usual = [Part::Gap, Part::Delays, Part::Bandwidth, Part::Replay, Part::Local];
    let mut arms = vec![base("usual", "k_f 10, N_c 3500, N_a 5000, combined replay, no limit", &usual)];
    for k_f in [0.0, 5.0, 12.0, 16.0] {
        arms.push(Arm { k_f, ..base(&format!("friction-{k_f}"), &format!("k_f {k_f}"), &[Part::Gap]) });
    }
    for delays @ [n_c, n_a] in [[128, 128], [128, 3_500], [128, 5_000], [3_500, 3_500], [5_000, 5_000]] {
        let arm = base(&format!("delay-{n_c}-{n_a}"), &format!("N_c {n_c}, N_a {n_a}"), &[Part::Delays]);
        let delays = delays.map(|steps| steps.max(settings.batch as u64));
        arms.push(Arm { learner: learner(settings, delays, SamplerName::Combined), ..arm });
    }
    let mut td3 = base("delay-td3", "N_c 3500, TD3's delay of the actor", &[Part::Delays]);
    td3.learner.algorithm = AlgorithmConfig::from(DdpgConfig { policy_period: 2, ..ddpg(settings, N_C) });
    arms.push(td3);
    let uniform = learner(settings, [N_C, N_A], SamplerName::Uniform);
    let arm = base("uniform", "uniform replay, no limit", &[Part::Bandwidth]);
    arms.push(Arm { learner: uniform.clone(), ..arm });
    for megabits in BANDWIDTHS {
        let mut arm = |name: &str, title: &str, learner: Option<&LearnerConfig>, encoding: &str| {
            let title = format!("{title}, {megabits} Mbit/s");
            let mut arm = base(&format!("{name}-{megabits}"), &title, &[Part::Bandwidth]);
            arm.learner = learner.cloned().unwrap_or(arm.learner);
            (arm.setup.down, arm.setup.encoding) = (line(Some(megabits)), encoding.into());
            arms.push(arm);
        };
        arm("combined", "combined replay", None, "f32");
        arm("uniform", "uniform replay", Some(&uniform), "f32");
        arm("delta", "combined replay, differences", None, "delta");
    }
    // A full replay needs no delays: those of the simulation, which its file names.
    let kept = learner(settings, SIMULATION_DELAYS, SamplerName::Combined);
    let arm = base("kept", "replay of the simulation kept", &[Part::Replay]);
    arms.push(Arm { keeps_replay: true, learner: kept, ..arm });
    for (sampler, word) in [
        (SamplerName::Combined, "combined"),
        (SamplerName::Uniform, "uniform"),
        (SamplerName::Prioritised, "prioritised"),
    ] {
        for left_out in [false, true] {
            let (name, title) = match left_out {
                false => (format!("wild-{word}"), format!("wild readings, {word} replay")),
                true => (format!("wild-{word}-out"), format!("wild readings left out, {word} replay")),
            };
            let learner =
                LearnerConfig { leave_out_faulty: left_out, ..learner(settings, [N_C, N_A], sampler) };
            let plant = plant(&format!("&wild={WILD}"));
            arms.push(Arm { learner, plant, ..base(&name, &title, &[Part::Wild]) });
        }
    }
    for (name, title, handed, taught) in [
        ("taught", "the edge trains, new parameters, taught by the simulation's agent", false, true),
        ("handed", "the edge trains, begins with the simulation's agent, no teacher", true, false),
        ("handed-taught", "the edge trains, begins with the simulation's agent, taught by it", true, true),
    ] {
        let mut arm = base(name, title, &[Part::Local]);
        arm.local = Some(Local::of(&arm.learner, settings.steps, handed, taught));
        arms.push(arm);
    }
    let chosen =
        |arm: &Arm| settings.parts.is_empty() || arm.parts.iter().any(|part| settings.parts.contains(part));
    arms.into_iter().filter(chosen).collect()
}

/// Bandwidths from learner to edge, in Mbit/s; without a limit there are arms of their own.
pub const BANDWIDTHS: [f64; 6] = [0.06, 0.1, 0.5, 5.0, 10.0, 15.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_arms_are_valid_and_differ() {
        let all = arms(&Settings::default());
        assert_eq!(all.len(), 40);
        for arm in &all {
            arm.learner.validate().unwrap_or_else(|error| panic!("{}: {error}", arm.name));
            if let Some(Local { student, .. }) = &arm.local {
                student.validate().unwrap_or_else(|error| panic!("{}: {error}", arm.name));
            }
            oto_env::make(&arm.plant).unwrap_or_else(|error| panic!("{}: {error}", arm.name));
        }
        let mut texts: Vec<_> = all.iter().map(|arm| format!("{} {}", arm.k_f, arm.text())).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), all.len(), "two arms are the same");
        let few = arms(&Settings { parts: vec![Part::Gap], ..Settings::default() });
        assert_eq!(few.len(), 5);
        assert!(Part::ALL.into_iter().all(|part| Part::named(part.name()) == Some(part)));
    }
}
