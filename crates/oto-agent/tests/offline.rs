//! Teachers from recorded episodes: what they learn, that slices and interruptions change nothing, and what is refused.

use oto_agent::checkpoint;
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::offline::{End, OfflineConfig, OfflineTrainer};
use oto_agent::recorded::{Recorded, RecordedError, Seen};
use oto_agent::student::{Environments, Student};
use oto_agent::trainer::{Source, TrainError};
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_env::{Action, Environment, Space, make};
use oto_rl::algorithms::Algorithm;
use oto_rl::algorithms::adaptive_bc::{AdaptiveBcConfig, AdaptiveCloning};
use oto_rl::algorithms::awac::{AdvantageWeighted, AwacConfig};
use oto_rl::algorithms::bc::{BcConfig, BehaviourCloning};
use oto_rl::algorithms::cal_ql::{CalQlConfig, CalibratedQLearning};
use oto_rl::algorithms::cql::{ConservativeQLearning, CqlConfig};
use oto_rl::algorithms::cql_ensemble::{ConservativeEnsemble, CqlEnsembleConfig};
use oto_rl::algorithms::edac::{DiversifiedEnsemble, EdacConfig};
use oto_rl::algorithms::gcql::{GcqlConfig, GreedyConservative};
use oto_rl::algorithms::gctd3bc::{Gctd3bcConfig, GreedyConstraint};
use oto_rl::algorithms::iql::{ImplicitQLearning, IqlConfig};
use oto_rl::algorithms::mopo::MopoConfig;
use oto_rl::algorithms::sac_ml::{MaximumLikelihood, SacMlConfig};
use oto_rl::algorithms::td3_bc::{BehaviourConstraint, Td3BcConfig};
use oto_rl::algorithms::td3_bc_refined::{RefinedConstraint, Td3BcRefinedConfig};
use oto_rl::algorithms::upq::{UncertaintyPessimism, UpqConfig};
use oto_rl::engine::LearnError;

const CQL: &dyn Algorithm = &ConservativeQLearning;
const BC: &dyn Algorithm = &BehaviourCloning;
const TD3_BC: &dyn Algorithm = &BehaviourConstraint;
const IQL: &dyn Algorithm = &ImplicitQLearning;
const AWAC: &dyn Algorithm = &AdvantageWeighted;
const EDAC: &dyn Algorithm = &DiversifiedEnsemble;
const CAL_QL: &dyn Algorithm = &CalibratedQLearning;
const ENSEMBLE: &dyn Algorithm = &ConservativeEnsemble;
const SAC_ML: &dyn Algorithm = &MaximumLikelihood;
const REFINED: &dyn Algorithm = &RefinedConstraint;
const ADAPTIVE_BC: &dyn Algorithm = &AdaptiveCloning;
const GCTD3BC: &dyn Algorithm = &GreedyConstraint;
const GCQL: &dyn Algorithm = &GreedyConservative;
const UPQ: &dyn Algorithm = &UncertaintyPessimism;

/// What an episode was.
#[derive(Default)]
struct Episode {
    observations: Vec<f32>,
    actions: Vec<f32>,
    rewards: Vec<f64>,
    terminated: bool,
}

impl Episode {
    fn recorded(&self) -> Recorded<'_> {
        let Episode { observations, actions, rewards, terminated } = self;
        Recorded { observations: Seen::Numbers(observations), actions, rewards, terminated: *terminated }
    }
}

/// Plays a rule whose number becomes an action, a share of the actions being drawn at random.
fn play(env: &str, episodes: u64, random: f64, rule: fn(&[f32]) -> f32) -> Vec<Episode> {
    let mut environment = make(env).unwrap();
    let mut rng = Rng::new(1);
    let mut one = |seed| {
        let mut seen = vec![0.0; environment.observation_space().width()];
        environment.reset(Some(seed), &mut seen).unwrap();
        let mut episode = Episode { observations: seen.clone(), ..Episode::default() };
        loop {
            let drawn = rng.f64() < random;
            let number = if drawn { rng.uniform(-3.0, 3.0) as f32 } else { rule(&seen) };
            let (index, row) = (u32::from(number > 0.0), [number]);
            let discrete = matches!(environment.action_space(), Space::Discrete { .. });
            let action = if discrete { Action::Discrete(index) } else { Action::Continuous(&row) };
            let step = environment.step(action, &mut seen).unwrap();
            episode.observations.extend(&seen);
            episode.actions.push(if discrete { index as f32 } else { number });
            episode.rewards.push(step.reward);
            if step.done() {
                episode.terminated = step.terminated;
                return episode;
            }
        }
    };
    (0..episodes).map(&mut one).collect()
}

/// Balances CartPole for all of its 500 steps.
fn lean(seen: &[f32]) -> f32 {
    seen[2] + 0.5 * seen[3] + 0.05 * seen[0] + 0.1 * seen[1]
}

fn small(algorithm: &dyn Algorithm, action: &Space) -> OfflineConfig {
    let config = OfflineConfig::of(algorithm, action);
    let continuous = matches!(action, Space::Box { .. });
    let cql = |cql: &mut CqlConfig| match continuous {
        true => (cql.hidden, cql.batch_size, cql.samples) = (vec![24], 32, 2),
        false => (cql.hidden, cql.quantiles) = (vec![32], 8),
    };
    let bc = |bc: &mut BcConfig| (bc.hidden, bc.batch_size) = (vec![32], 64);
    OfflineConfig {
        updates: 400,
        algorithm: config
            .algorithm
            .with(cql)
            .with(bc)
            .with(|one: &mut Td3BcConfig| (one.hidden, one.batch_size) = (vec![32], 64))
            .with(|one: &mut IqlConfig| (one.hidden, one.batch_size) = (vec![32], 64))
            .with(|one: &mut AwacConfig| (one.hidden, one.batch_size) = (vec![32], 64))
            .with(|one: &mut EdacConfig| (one.hidden, one.batch_size, one.critics) = (vec![24], 32, 3))
            .with(|one: &mut CalQlConfig| (one.hidden, one.batch_size, one.samples) = (vec![24], 32, 2))
            .with(|one: &mut MopoConfig| {
                (one.hidden, one.batch_size, one.models, one.model_hidden) = (vec![16], 32, 2, vec![16]);
                one.horizon = 2;
            })
            .with(|one: &mut SacMlConfig| (one.hidden, one.batch_size) = (vec![32], 64))
            .with(|one: &mut Gctd3bcConfig| (one.hidden, one.batch_size) = (vec![32], 64))
            .with(|one: &mut Td3BcRefinedConfig| (one.hidden, one.batch_size) = (vec![32], 64))
            .with(|one: &mut AdaptiveBcConfig| (one.hidden, one.batch_size, one.critics) = (vec![32], 64, 3))
            .with(|one: &mut GcqlConfig| {
                (one.hidden, one.batch_size, one.critics, one.conservative_samples) = (vec![24], 32, 3, 2);
            })
            .with(|one: &mut UpqConfig| {
                (one.hidden, one.batch_size, one.critics, one.conservative_samples) = (vec![24], 32, 3, 2);
            })
            .with(|one: &mut CqlEnsembleConfig| {
                (one.agents, one.hidden, one.batch_size, one.samples) = (2, vec![16], 32, 2);
            }),
        evaluation: EvaluationConfig { every: 100, episodes: 3 },
        ..config
    }
}

fn trainer(config: &OfflineConfig, env: &dyn Environment, data: &[Episode]) -> OfflineTrainer {
    let mut trainer = OfflineTrainer::new(config, env.observation_space(), env.action_space(), &Cpu).unwrap();
    for episode in data {
        trainer.add(&episode.recorded()).unwrap();
    }
    trainer
}

#[test]
fn good_episodes_make_a_good_teacher() {
    let mut environment = make("CartPole-v1").unwrap();
    let data = play("CartPole-v1", 12, 0.2, lean);
    let mean = data.iter().map(|e| e.rewards.len()).sum::<usize>() / data.len();
    assert!((100..=500).contains(&mean), "{mean}");
    for algorithm in [BC, CQL, IQL, AWAC] {
        // The rates of IQL and AWAC are for a million updates.
        let small = small(algorithm, environment.action_space());
        let learning_rate = match algorithm.name() {
            "iql" | "awac" => oto_agent::config::Linear::constant(1e-3),
            _ => small.learning_rate,
        };
        let config = OfflineConfig { updates: 1500, until_return: Some(450.0), learning_rate, ..small };
        let mut trainer = trainer(&config, &*environment, &data);
        while trainer.advance(&mut *environment, 1000).unwrap().ended.is_none() {}
        let best = trainer.best().unwrap();
        assert_eq!(trainer.ended(), Some(End::Return), "{}: {}", algorithm.name(), best.mean);
        assert_eq!(trainer.updates(), best.step, "it ended there");
    }
}

/// The same for forces: methods that stay near the data are as good as its policy, whose actions were half random.
#[test]
fn methods_that_stay_near_the_data_are_as_good() {
    let mut environment = make("InvertedPendulum-v5").unwrap();
    let rule = |seen: &[f32]| (4.0 * lean(&[seen[0], seen[2], seen[1], seen[3]])).clamp(-3.0, 3.0);
    let data = play("InvertedPendulum-v5", 20, 0.5, rule);
    let mean = data.iter().map(|e| e.rewards.len()).sum::<usize>() as f64 / data.len() as f64;
    for algorithm in [TD3_BC, IQL, AWAC, SAC_ML, REFINED, ADAPTIVE_BC, GCTD3BC, GCQL, UPQ] {
        let small = small(algorithm, environment.action_space());
        let rate = oto_agent::config::Linear::constant(1e-3);
        let config = OfflineConfig { updates: 2000, until_return: Some(mean), learning_rate: rate, ..small };
        let mut trainer = trainer(&config, &*environment, &data);
        while trainer.advance(&mut *environment, 1000).unwrap().ended.is_none() {}
        let best = trainer.best().unwrap();
        assert_eq!(trainer.ended(), Some(End::Return), "{}: {}, {mean}", algorithm.name(), best.mean);
    }
}

#[test]
fn slices_and_interruptions_change_nothing() {
    for (env, algorithm) in [
        ("CartPole-v1", CQL),
        ("InvertedPendulum-v5", CQL),
        ("InvertedPendulum-v5", BC),
        ("InvertedPendulum-v5", TD3_BC),
        ("InvertedPendulum-v5", IQL),
        ("CartPole-v1", IQL),
        ("InvertedPendulum-v5", AWAC),
        ("CartPole-v1", AWAC),
        ("InvertedPendulum-v5", EDAC),
        ("InvertedPendulum-v5", CAL_QL),
        ("CartPole-v1", CAL_QL),
        ("InvertedPendulum-v5", ENSEMBLE),
        ("InvertedPendulum-v5", SAC_ML),
        ("InvertedPendulum-v5", ADAPTIVE_BC),
        ("InvertedPendulum-v5", GCQL),
    ] {
        let mut environment = make(env).unwrap();
        let data = play(env, 4, 0.5, |seen| lean(&[seen[0], seen[2], seen[1], seen[3]]).clamp(-3.0, 3.0));
        let config = OfflineConfig { patience: 0, ..small(algorithm, environment.action_space()) };
        let run = |trainer: &mut OfflineTrainer, environment: &mut dyn Environment, slice, until| {
            let mut evaluations = Vec::new();
            while trainer.updates() < until {
                evaluations.extend(trainer.advance(environment, slice).unwrap().evaluation);
            }
            evaluations
        };
        let mut whole = trainer(&config, &*environment, &data);
        let expected = run(&mut whole, &mut *environment, 1000, 400);
        assert_eq!(expected.iter().map(|e| e.step).collect::<Vec<_>>(), [100, 200, 300, 400]);

        let mut first = trainer(&config, &*environment, &data);
        let mut got = run(&mut first, &mut *environment, 7, 210);
        let file = first.save().unwrap();
        let origin = checkpoint::origin(&file).unwrap();
        assert_eq!(
            (origin.source, origin.clock, origin.updates),
            (Source::Dataset, first.updates(), first.updates())
        );
        let saved = checkpoint::config(&file).unwrap();
        assert_eq!((saved.algorithm, saved.steps), (config.algorithm.clone(), config.updates));
        let mut second = trainer(&config, &*environment, &data);
        assert!(second.load(&file).unwrap());
        got.extend(run(&mut second, &mut *environment, 3, 400));
        assert_eq!(got, expected, "{env} {}", algorithm.name());
        assert_eq!(second.save().unwrap(), whole.save().unwrap(), "{env} {}", algorithm.name());
        assert_eq!(second.ended(), Some(End::Updates));

        let mut other = trainer(&config, &*environment, &data[1..]);
        assert!(!other.load(&file).unwrap(), "it was saved with other data");
    }
}

#[test]
fn it_ends_when_nothing_gets_better() {
    let mut environment = make("CartPole-v1").unwrap();
    let data = play("CartPole-v1", 4, 1.0, lean);
    let config = OfflineConfig {
        learning_rate: oto_agent::config::Linear::constant(0.0),
        patience: 2,
        ..small(BC, environment.action_space())
    };
    let mut trainer = trainer(&config, &*environment, &data);
    while trainer.advance(&mut *environment, 1000).unwrap().ended.is_none() {}
    assert_eq!((trainer.ended(), trainer.updates()), (Some(End::NoImprovement), 300));
    assert_eq!(trainer.best().unwrap().step, 100, "the first of equals");
}

#[test]
fn data_that_do_not_fit_are_refused() {
    let environment = make("InvertedPendulum-v5").unwrap();
    let config = small(CQL, environment.action_space());
    let mut trainer = trainer(&config, &*environment, &[]);
    assert!(matches!(trainer.step(1), Err(TrainError::Recorded(RecordedError::Empty))));
    let good = Episode {
        observations: vec![0.5; 12],
        actions: vec![3.0, -3.0],
        rewards: vec![1.0, 1.0],
        terminated: true,
    };
    let mut refused = |change: fn(&mut Episode)| {
        let (observations, actions) = (good.observations.clone(), good.actions.clone());
        let mut bad = Episode { observations, actions, rewards: good.rewards.clone(), terminated: true };
        change(&mut bad);
        trainer.add(&bad.recorded()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(|e| e.rewards.push(1.0)),
        "an episode of 3 steps needs 16 numbers as observations, got 12"
    );
    assert_eq!(refused(|e| e.actions.truncate(1)), "an episode of 2 steps needs 2 numbers as actions, got 1");
    assert!(refused(|e| e.rewards[1] = f64::NAN).starts_with("step 1: the reward holds NaN"));
    assert!(refused(|e| e.rewards[0] = 1e300).starts_with("step 0: the reward holds 1"));
    assert!(refused(|e| e.observations[9] = f32::INFINITY).starts_with("step 2: the observation holds inf"));
    assert_eq!(refused(|e| e.actions[1] = 3.5), "step 1: [3.5] is no action of the space");
    assert_eq!(trainer.transitions(), 0, "nothing was added");
    assert_eq!(trainer.add(&good.recorded()).unwrap(), 2);

    let spaces = |observation, action| {
        OfflineTrainer::new(&config, &observation, &action, &Cpu).map(drop).unwrap_err().to_string()
    };
    let (line, choice) = (Space::uniform(1, -1.0, 1.0), Space::Discrete { n: 2 });
    assert!(spaces(choice.clone(), choice).contains("discrete"));
    assert!(spaces(line, Space::uniform(1, 0.0, f32::INFINITY)).contains("finite range"));
    let mut other = make("CartPole-v1").unwrap();
    assert!(matches!(trainer.evaluate(&mut *other), Err(TrainError::Space(_))));
}

/// One transition, and rewards that are all alike: little to learn, and no reason to fail.
#[test]
fn every_algorithm_learns_from_one_transition_and_from_constant_rewards() {
    for algorithm in oto_rl::algorithms::offline() {
        for (env, steps) in [("CartPole-v1", 1), ("InvertedPendulum-v5", 1), ("InvertedPendulum-v5", 40)] {
            let environment = make(env).unwrap();
            if !algorithm.accepts(oto_rl::algorithms::Seen::actions(environment.action_space())) {
                continue;
            }
            let config = small(algorithm, environment.action_space());
            for terminated in [true, false] {
                let observations = (0..4 * (steps + 1)).map(|i| (i % 7) as f32 / 7.0).collect();
                let (actions, rewards) = (vec![1.0; steps], vec![2.0; steps]);
                let data = [Episode { observations, actions, rewards, terminated }];
                let mut trainer = trainer(&config, &*environment, &data);
                trainer.step(12).unwrap();
                let state = trainer.policy();
                assert!(
                    state.parameters().all(|part| part.iter().all(|x| x.is_finite())),
                    "{}",
                    algorithm.name()
                );
                trainer.save().unwrap();
            }
        }
    }
}

#[test]
fn a_diverging_run_says_so_and_keeps_what_was_good() {
    let mut environment = make("InvertedPendulum-v5").unwrap();
    let data = play("InvertedPendulum-v5", 4, 1.0, |_| 0.0);
    let config = small(CQL, environment.action_space());
    let mut trainer = trainer(&config, &*environment, &data);
    trainer.advance(&mut *environment, 100).unwrap();
    let file = trainer.save().unwrap();
    let rewards = vec![3e38; 500];
    let (observations, actions) = (vec![0.1; 501 * 4], vec![1.0; 500]);
    let observations = Seen::Numbers(&observations);
    let poison = Recorded { observations, actions: &actions, rewards: &rewards, terminated: true };
    trainer.add(&poison).unwrap();
    let error = loop {
        if let Err(error) = trainer.step(1) {
            break error;
        }
        assert!(trainer.updates() < 1000, "such rewards cannot be learned");
    };
    assert!(matches!(error, TrainError::Learn(LearnError::Diverged { .. })), "{error}");
    assert!(matches!(trainer.save(), Err(TrainError::Learn(LearnError::NotFinite(_)))));
    assert_eq!(trainer.best().unwrap().step, 100);
    assert!(!trainer.load(&file).unwrap(), "other data");
    assert_eq!(trainer.updates(), 100);
    trainer.save().unwrap();
}

#[test]
fn foreign_and_broken_checkpoints_are_refused() {
    let mut environment = make("CartPole-v1").unwrap();
    let data = play("CartPole-v1", 2, 1.0, lean);
    let config = small(BC, environment.action_space());
    let mut one = trainer(&config, &*environment, &data);
    one.advance(&mut *environment, 100).unwrap();
    let file = one.save().unwrap();
    for cut in [0, 7, 8, 100, file.len() / 2, file.len() - 1] {
        assert!(matches!(one.load(&file[..cut]), Err(TrainError::Checkpoint(_))), "cut to {cut} bytes");
    }
    let foreign = one.policy_file(&one.policy(), "CartPole-v1");
    let error = one.load(&foreign).unwrap_err().to_string();
    assert!(error.contains("oto.checkpoint.v4"), "{error}");
    for before in ["oto.offline.v1", "oto.offline.v2", "oto.checkpoint.v1", "oto.checkpoint.v3"] {
        let header = format!(r#"{{"__metadata__":{{"{before}":"{{}}"}}}}"#);
        let old = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        let error = one.load(&old).unwrap_err().to_string();
        assert!(
            error.contains(&format!("in the format {before}")) && error.contains("begin it anew"),
            "{error}"
        );
    }
    let algorithm = config.algorithm.clone().with(|bc: &mut BcConfig| bc.hidden = vec![33]);
    let wider = OfflineConfig { algorithm, ..config.clone() };
    let error = trainer(&wider, &*environment, &data).load(&file).unwrap_err().to_string();
    assert!(error.contains("[32]") && error.contains("[33]"), "{error}");
    let environment = Environments::built_in("CartPole-v1").unwrap();
    let mut student = Student::new(&StudentConfig::default(), environment, &[], &Cpu, 0).unwrap();
    let error = student.load(&file, 0).unwrap_err().to_string();
    assert!(error.contains("learned from a dataset, this one learns from an environment"), "{error}");
    assert_eq!(one.save().unwrap(), file, "nothing changed");
}

/// Best policies are part of a checkpoint; numbers that are not finite are refused with the tensor's name.
#[test]
fn a_tensor_that_is_not_finite_is_named() {
    let mut environment = make("CartPole-v1").unwrap();
    let data = play("CartPole-v1", 2, 1.0, lean);
    let config = small(BC, environment.action_space());
    let mut one = trainer(&config, &*environment, &data);
    one.advance(&mut *environment, 100).unwrap();
    let file = one.save().unwrap();
    for name in ["bc.0.weight", "adam.v.bc.0.bias", "best.1.bias"] {
        let error = one.load(&with_nan(&file, name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("not a finite number"), "{error}");
    }
    let adopted = trainer(&config, &*environment, &data).adopt(&with_nan(&file, "bc.0.weight"));
    assert!(
        adopted.unwrap_err().to_string().contains("bc.0.weight holds a value that is not a finite number")
    );
    assert_eq!(one.save().unwrap(), file, "nothing changed");
}

/// A file whose tensor of this name begins with NaN.
fn with_nan(file: &[u8], name: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let at = 8 + length + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    [&file[..at], &f32::NAN.to_le_bytes(), &file[at + 4..]].concat()
}

#[test]
fn settings_out_of_range_are_named() {
    let with = |json: &str| {
        let config = config_of(json);
        config.validate().unwrap_err().to_string()
    };
    assert!(with(r#"{"backend":"webgpu"}"#).starts_with("backend is \"webgpu\""));
    assert!(with(r#"{"updates":0}"#).starts_with("updates is 0"));
    let of = |name: &str, setting: &str| with(&format!(r#"{{"algorithm":{{"name":"{name}",{setting}}}}}"#));
    assert!(of("bc", r#""hidden":[]"#).starts_with("algorithm.hidden"));
    assert!(of("bc", r#""batch_size":0"#).starts_with("algorithm.batch_size is 0"));
    assert!(of("cql", r#""weight":-1"#).starts_with("algorithm.weight is -1"));
    assert!(of("cql", r#""weight":1e9"#).starts_with("algorithm.weight is"));
    assert!(of("iql", r#""expectile":1"#).starts_with("algorithm.expectile is 1"));
    assert!(of("awac", r#""temperature":0"#).starts_with("algorithm.temperature is 0"));
    assert!(of("edac", r#""critics":1"#).starts_with("algorithm.critics is 1: two critics or more"));
    assert!(of("cal-ql", r#""samples":0"#).starts_with("algorithm.samples is 0"));
    assert!(of("cql-ensemble", r#""agents":1"#).starts_with("algorithm.agents is 1: 2 to 64 agents"));
    assert!(of("td3-bc", r#""alpha":-1"#).starts_with("algorithm.alpha is -1"));
    assert!(with(r#"{"algorithm":"ppo"}"#).contains("ppo needs an environment to learn in"));
    let old = serde_json::from_str::<OfflineConfig>(r#"{"method":"bc","bc":{"hidden":[7]}}"#).unwrap_err();
    assert!(old.to_string().contains("format 1"), "{old}");
    let config = OfflineConfig::of(BC, &Space::Discrete { n: 2 });
    config.validate().unwrap();
    assert_eq!(config_of(&serde_json::to_string(&config).unwrap()), config);
    assert!(
        serde_json::from_str::<OfflineConfig>(r#"{"gama":0.9}"#).is_err(),
        "a misspelt setting is refused"
    );
}

fn config_of(json: &str) -> OfflineConfig {
    serde_json::from_str(json).unwrap()
}
