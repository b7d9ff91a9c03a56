//! Runs that begin with another run: what is taken over, that both phases resume exactly, what is refused.

use oto_agent::checkpoint;
use oto_agent::config::{EvaluationConfig, Linear, StudentConfig};
use oto_agent::offline::{OfflineConfig, OfflineTrainer};
use oto_agent::recorded::{Recorded, Seen};
use oto_agent::stage::StagesConfig;
use oto_agent::student::{Environments, Student, Tick};
use oto_agent::trainer::{Source, TrainError, Trainer};
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_env::{Action, Environment, Space, make};
use oto_rl::algorithms::AlgorithmConfig;
use oto_rl::algorithms::bc::BcConfig;
use oto_rl::algorithms::cql::CqlConfig;
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use oto_rl::algorithms::sac::SacConfig;
use oto_rl::algorithms::td3::Td3Config;
use oto_rl::algorithms::td3_bc::Td3BcConfig;
use oto_rl::engine::NamedTensor;
use oto_rl::replay::{ReplayConfig, SamplerName};

/// An environment, an offline algorithm for it, and the online one that continues it.
struct Pair {
    env: &'static str,
    offline: AlgorithmConfig,
    online: AlgorithmConfig,
}

fn discrete() -> Pair {
    let cql = CqlConfig { hidden: vec![12], quantiles: 4, batch_size: 16, ..CqlConfig::default() };
    let qrdqn = QrDqnConfig {
        hidden: vec![12],
        quantiles: 4,
        batch_size: 16,
        act_with_target: cql.act_with_target,
        ..QrDqnConfig::default()
    };
    Pair { env: "CartPole-v1", offline: cql.into(), online: qrdqn.into() }
}

fn continuous() -> Pair {
    let cql = CqlConfig { hidden: vec![12], samples: 2, batch_size: 16, ..CqlConfig::default() };
    let sac = SacConfig { hidden: vec![12], samples: 2, batch_size: 16, ..SacConfig::default() };
    Pair { env: "Pendulum-v1", offline: cql.into(), online: sac.into() }
}

/// A teacher with an episode of random actions, or one that is still without data.
fn teacher(env: &str, algorithm: &AlgorithmConfig, with_data: bool) -> OfflineTrainer {
    let mut environment = make(env).unwrap();
    let (observation, action) = (environment.observation_space().clone(), environment.action_space().clone());
    let config = OfflineConfig {
        algorithm: algorithm.clone(),
        updates: 60,
        evaluation: EvaluationConfig { every: 20, episodes: 1 },
        ..OfflineConfig::of(algorithm.algorithm(), &action)
    };
    let mut trainer = OfflineTrainer::new(&config, &observation, &action, &Cpu).unwrap();
    if with_data {
        (0..4).for_each(|seed| record(&mut |episode| trainer.add(episode), &mut *environment, seed));
    }
    trainer
}

type Add<'a> = &'a mut dyn FnMut(&Recorded<'_>) -> Result<usize, TrainError>;

/// Gives an episode of random actions to `add`.
fn record(add: Add<'_>, environment: &mut dyn Environment, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut seen = vec![0.0; environment.observation_space().width()];
    environment.reset(Some(seed), &mut seen).unwrap();
    let (mut observations, mut actions, mut rewards) = (seen.clone(), Vec::new(), Vec::new());
    loop {
        let number = rng.uniform(-2.0, 2.0) as f32;
        let row = [number];
        let (action, recorded) = match environment.action_space() {
            Space::Discrete { .. } => (Action::Discrete(u32::from(number > 0.0)), f32::from(number > 0.0)),
            Space::Box { .. } => (Action::Continuous(&row), number),
        };
        let step = environment.step(action, &mut seen).unwrap();
        observations.extend(&seen);
        actions.push(recorded);
        rewards.push(step.reward);
        if step.done() {
            let (observations, terminated) = (Seen::Numbers(&observations), step.terminated);
            let episode = Recorded { observations, actions: &actions, rewards: &rewards, terminated };
            add(&episode).unwrap();
            return;
        }
    }
}

fn student_config(algorithm: &AlgorithmConfig) -> StudentConfig {
    StudentConfig {
        seed: 5,
        steps: 120,
        algorithm: algorithm.clone(),
        learning_starts: 20,
        n_step: 1,
        epsilon: Linear::constant(0.05),
        stages: StagesConfig::SOLO,
        evaluation: EvaluationConfig { every: 40, episodes: 1 },
        ..StudentConfig::default()
    }
}

fn student(env: &str, algorithm: &AlgorithmConfig) -> Student {
    Student::new(&student_config(algorithm), Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap()
}

/// The same with the sampler that the algorithm needs.
fn student_of(env: &str, algorithm: &AlgorithmConfig) -> Student {
    let config = student_config(algorithm);
    let sampler = algorithm.sampler().unwrap_or(config.replay.sampler);
    let config = StudentConfig { replay: ReplayConfig { sampler, ..config.replay }, ..config };
    Student::new(&config, Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap()
}

fn advance(student: &mut Student, steps: u64) {
    while student.trainer().steps() < steps {
        assert_eq!(student.tick(0).unwrap(), Tick::Stepped);
    }
}

fn state(trainer: &mut Trainer) -> Vec<NamedTensor> {
    trainer.learner().engine().state().unwrap()
}

#[test]
fn a_run_of_a_dataset_goes_on_in_an_environment_with_all_its_state() {
    for Pair { env, offline, online } in [discrete(), continuous()] {
        let mut teacher = teacher(env, &offline, true);
        teacher.step(60).unwrap();
        let file = teacher.save().unwrap();
        let environment = make(env).unwrap();
        let (observation, action) = (environment.observation_space(), environment.action_space());
        let expected = state(&mut checkpoint::player(&file, observation, action, &Cpu).unwrap());

        let mut begun = student(env, &online);
        let adopted = checkpoint::adopt(begun.trainer(), &file).unwrap();
        assert!(adopted.fresh.is_empty() && adopted.copied.is_empty(), "{env}: {adopted:?}");
        assert_eq!(adopted.taken.len(), expected.len());
        assert_eq!(state(begun.trainer()), expected, "{env}: networks, targets, moments");
        let count = expected.iter().find(|tensor| tensor.name.starts_with("adam.t")).unwrap();
        assert_eq!(count.values, [60.0], "{env}: the optimiser goes on counting");
        let row = vec![0.1; observation.width()];
        let acts = |action: Action<'_>| format!("{action:?}");
        let greedy = acts(begun.trainer().greedy(&row).unwrap());
        let mut player = checkpoint::player(&file, observation, action, &Cpu).unwrap();
        assert_eq!(greedy, acts(player.greedy(&row).unwrap()), "{env}: it acts as the teacher does");
        assert_eq!((begun.trainer().steps(), begun.trainer().updates()), (0, 0), "counts are the new run's");
    }
}

#[test]
fn both_phases_go_on_after_an_interruption_as_if_there_had_been_none() {
    for Pair { env, offline, online } in [discrete(), continuous()] {
        let mut environment = make(env).unwrap();
        let mut whole = teacher(env, &offline, true);
        while whole.advance(&mut *environment, 7).unwrap().ended.is_none() {}
        let mut first = teacher(env, &offline, true);
        first.advance(&mut *environment, 20).unwrap();
        first.advance(&mut *environment, 11).unwrap();
        let mut second = teacher(env, &offline, true);
        assert!(second.load(&first.save().unwrap()).unwrap());
        while second.advance(&mut *environment, 7).unwrap().ended.is_none() {}
        let file = whole.save().unwrap();
        assert!(second.save().unwrap() == file, "{env}: the offline phase");

        let begin = || {
            let mut student = student(env, &online);
            checkpoint::adopt(student.trainer(), &file).unwrap();
            student
        };
        let mut whole = begin();
        advance(&mut whole, 120);
        // Right at the seam, and in the middle.
        for stop in [0, 53] {
            let mut first = begin();
            advance(&mut first, stop);
            let mut second = student(env, &online);
            second.load(&first.save(true).unwrap(), 0).unwrap();
            advance(&mut second, 120);
            assert!(second.save(true).unwrap() == whole.save(true).unwrap(), "{env}: stopped at step {stop}");
        }
    }
}

#[test]
fn a_run_of_an_environment_goes_on_with_a_dataset() {
    for Pair { env, offline, online } in [discrete(), continuous()] {
        let mut first = student(env, &online);
        advance(&mut first, 60);
        let expected = state(first.trainer());
        let mut second = teacher(env, &offline, true);
        let adopted = second.adopt(&first.save(true).unwrap()).unwrap();
        assert!(adopted.fresh.is_empty() && adopted.copied.is_empty(), "{env}: {adopted:?}");
        let file = second.save().unwrap();
        let environment = make(env).unwrap();
        let mut player =
            checkpoint::player(&file, environment.observation_space(), environment.action_space(), &Cpu)
                .unwrap();
        assert_eq!(state(&mut player), expected, "{env}");
        second.step(3).unwrap();
    }
}

#[test]
fn what_does_not_match_is_fresh_and_listed() {
    // One critic's width differs from the run's: the actor and the temperature match, the critics do not.
    let Pair { env, offline, .. } = continuous();
    let wider = SacConfig { hidden: vec![12, 12], samples: 2, batch_size: 16, ..SacConfig::default() };
    let mut teacher = teacher(env, &offline, true);
    teacher.step(5).unwrap();
    let mut student = student(env, &wider.into());
    let fresh = state(student.trainer());
    let adopted = checkpoint::adopt(student.trainer(), &teacher.save().unwrap()).unwrap();
    assert!(adopted.taken.contains(&"actor.0.weight".into()), "{adopted:?}");
    assert!(adopted.fresh.contains(&"actor.1.weight".into()), "{adopted:?}");
    assert!(adopted.fresh.contains(&"adam.t".into()), "the youngest moments begin at zero: {adopted:?}");
    for (before, after) in fresh.iter().zip(state(student.trainer())) {
        let kept = adopted.fresh.contains(&before.name);
        assert!(kept == (*before == after) || before.values == after.values, "{}", before.name);
    }
}

#[test]
fn runs_that_share_nothing_and_other_spaces_are_refused() {
    let Pair { env, offline, online } = continuous();
    let file = teacher(env, &offline, true).save().unwrap();
    let mut student_of_sac = student(env, &online);
    let before = student_of_sac.save(true).unwrap();
    let mut refused =
        |file: &[u8]| checkpoint::adopt(student_of_sac.trainer(), file).unwrap_err().to_string();

    let cloned = BcConfig { hidden: vec![12], ..BcConfig::default() };
    let cloned = teacher(env, &cloned.into(), false).save().unwrap();
    let error = refused(&cloned);
    assert!(error.contains("it is of bc, which has no network of sac"), "{error}");
    assert!(error.contains("expected at least one of actor.0.weight [12, 3]"), "{error}");

    let Pair { env: other, offline: q, .. } = discrete();
    let error = refused(&teacher(other, &q, false).save().unwrap());
    assert!(
        error.contains("observations of 4 numbers and the actions discrete with 2 choices; this one has 3"),
        "{error}"
    );

    for cut in [0, 9, file.len() / 2, file.len() - 1] {
        refused(&file[..cut]);
    }
    let text = String::from_utf8_lossy(&file).into_owned();
    assert!(text.contains(r#"name\":\"cql"#), "the algorithm's name is in the metadata");
    let at = file.windows(3).position(|bytes| bytes == b"cql").unwrap();
    let unknown = [&file[..at], b"cqx", &file[at + 3..]].concat();
    let error = refused(&unknown);
    assert!(error.contains("`cql`") && error.contains("name"), "{error}");
    assert!(student_of_sac.save(true).unwrap() == before, "nothing changed");
}

/// The registry's names are what a run is continued by: each offline algorithm's agent has tensors with names and shapes.
/// TD3 sees observations as they are; TD3+BC normalises them unless a setting says otherwise.
#[test]
fn networks_of_normalised_observations_do_not_see_others() {
    let offline = |normalise| -> AlgorithmConfig {
        Td3BcConfig { hidden: vec![12], batch_size: 16, normalise, ..Td3BcConfig::default() }.into()
    };
    let online: AlgorithmConfig =
        Td3Config { hidden: vec![12], batch_size: 16, ..Td3Config::default() }.into();
    let begin = |normalise, next: &AlgorithmConfig| {
        let mut teacher = teacher("Pendulum-v1", &offline(normalise), true);
        teacher.step(10).unwrap();
        let file = teacher.save().unwrap();
        let mut student = student("Pendulum-v1", next);
        let row = [0.5, -0.5, 2.0];
        let adopted = checkpoint::adopt(student.trainer(), &file).map_err(|error| error.to_string())?;
        let environment = make("Pendulum-v1").unwrap();
        let mut player =
            checkpoint::player(&file, environment.observation_space(), environment.action_space(), &Cpu)
                .unwrap();
        let acts = |action: Action<'_>| format!("{action:?}");
        let (expected, got) =
            (acts(player.greedy(&row).unwrap()), acts(student.trainer().greedy(&row).unwrap()));
        assert_eq!(got, expected);
        Ok::<_, String>(adopted.taken.len())
    };
    let error = begin(true, &online).unwrap_err();
    assert!(error.contains("normalised observations") && error.contains("td3-bc"), "{error}");
    let error = begin(false, &offline(true)).unwrap_err();
    assert!(error.contains("algorithm.normalise true"), "{error}");
    assert!(begin(false, &online).unwrap() > 10);
    assert!(begin(true, &offline(true)).unwrap() > 10);
}

#[test]
fn every_offline_algorithm_continues_itself() {
    for algorithm in oto_rl::algorithms::offline() {
        for env in ["CartPole-v1", "Pendulum-v1"] {
            let environment = make(env).unwrap();
            let seen = oto_rl::algorithms::Seen::actions(environment.action_space());
            if !algorithm.accepts(seen) {
                continue;
            }
            let settings = algorithm.defaults(seen).algorithm;
            let file = teacher(env, &settings, false).save().unwrap();
            let adopted = teacher(env, &settings, false).adopt(&file).unwrap();
            assert!(adopted.fresh.is_empty(), "{}: {adopted:?}", algorithm.name());
        }
    }
}

/// PPO's network differs from every other one: a clone of the same form becomes its policy.
#[test]
fn ppo_continues_a_clone_in_its_own_network() {
    let named = |text: &str| oto_json::read::<AlgorithmConfig>(text).unwrap();
    let ppo = named(r#"{"name":"ppo","hidden":[12],"n_steps":32,"batch_size":16}"#);
    let clone = |for_ppo: bool| {
        named(&format!(r#"{{"name":"bc","hidden":[12],"batch_size":16,"for_ppo":{for_ppo}}}"#))
    };
    for env in ["CartPole-v1", "Pendulum-v1"] {
        let mut cloned = teacher(env, &clone(true), true);
        cloned.step(60).unwrap();
        let file = cloned.save().unwrap();
        let mut student = student(env, &ppo);
        let adopted = checkpoint::adopt(student.trainer(), &file).unwrap();
        assert!(adopted.taken.contains(&"agent.policy.0.weight".into()), "{env}: {adopted:?}");
        assert!(adopted.fresh.contains(&"agent.value.0.weight".into()), "{env}: {adopted:?}");
        let environment = make(env).unwrap();
        let [observation, action] = [environment.observation_space(), environment.action_space()];
        let mut player = checkpoint::player(&file, observation, action, &Cpu).unwrap();
        let row = &[0.5, -0.5, 2.0, 0.1][..observation.width()];
        let acts = |trainer: &mut Trainer| format!("{:?}", trainer.greedy(row).unwrap());
        assert_eq!(acts(student.trainer()), acts(&mut player), "{env}");
        let before = state(student.trainer());
        advance(&mut student, 64);
        assert_ne!(state(student.trainer()), before, "{env}: it learns");

        let plain = teacher(env, &clone(false), true).save().unwrap();
        let error = checkpoint::adopt(student_of(env, &ppo).trainer(), &plain).unwrap_err().to_string();
        assert!(error.contains("it is of bc, which has no network of ppo"), "{env}: {error}");
    }
}

/// A student with recorded episodes in half of each batch.
fn mixed(env: &str, algorithm: &AlgorithmConfig, episodes: u64) -> Student {
    let mut student = student(env, algorithm);
    student.trainer().mix().unwrap();
    let mut environment = make(env).unwrap();
    (0..episodes)
        .for_each(|seed| record(&mut |episode| student.trainer().add(episode), &mut *environment, seed));
    student
}

#[test]
fn a_dataset_is_mixed_into_the_batches_of_an_environment_and_a_resume_needs_the_same_one() {
    for Pair { env, online, .. } in [discrete(), continuous()] {
        let mut whole = mixed(env, &online, 2);
        assert_eq!(whole.trainer().source(), Source::Mixed);
        advance(&mut whole, 120);
        let mut alone = student(env, &online);
        advance(&mut alone, 120);
        assert_ne!(state(whole.trainer()), state(alone.trainer()), "{env}: the recorded episodes matter");

        let mut first = mixed(env, &online, 2);
        advance(&mut first, 61);
        let file = first.save(true).unwrap();
        let mut second = mixed(env, &online, 2);
        second.load(&file, 0).unwrap();
        advance(&mut second, 120);
        assert!(second.save(true).unwrap() == whole.save(true).unwrap(), "{env}");

        let error = mixed(env, &online, 1).load(&file, 0).unwrap_err().to_string();
        assert!(error.contains("its run has another dataset"), "{error}");
        let error = student(env, &online).load(&file, 0).unwrap_err().to_string();
        assert!(error.contains("learned from an environment and a dataset"), "{error}");
        let origin = checkpoint::origin(&file).unwrap();
        assert_eq!((origin.source, origin.clock), (Source::Mixed, 61));
    }
}

/// An environment, an offline algorithm, the method that continues it there, and the sampler of its batches.
type Continued = (&'static str, AlgorithmConfig, AlgorithmConfig, SamplerName);

/// Each method of the survey after the offline algorithm that it continues: with recorded data in its batches where it wants them.
fn survey() -> Vec<Continued> {
    let settings = |text: &str| oto_json::read::<AlgorithmConfig>(text).unwrap();
    let small = r#""hidden":[8],"batch_size":8"#;
    let named = |name: &str, more: &str| settings(&format!(r#"{{"name":"{name}",{small}{more}}}"#));
    let (own, mixed_in) = (SamplerName::Uniform, SamplerName::Shares);
    let few = r#","critics":3,"policy_period":3"#;
    let cql = || named("cql", r#","samples":2"#);
    let adaptive = || named("adaptive-bc", r#","critics":3,"expert_return":100"#);
    let gcql = || named("gcql", r#","critics":3,"conservative_samples":2"#);
    let upq = || named("upq", r#","critics":3,"conservative_samples":2"#);
    let mopo = || named("mopo", r#","models":2,"model_hidden":[8],"horizon":2"#);
    let ensemble = || named("cql-ensemble", r#","agents":2,"samples":2"#);
    let balanced = || named("balanced-replay", r#","agents":2"#);
    let relaxed = r#","relax_steps":50"#;
    vec![
        ("InvertedPendulum-v5", cql(), named("redq", few), own),
        ("InvertedPendulum-v5", cql(), named("rlpd", &format!(r#"{few},"layer_norm":false"#)), mixed_in),
        ("InvertedPendulum-v5", cql(), named("wsrl", few), own),
        ("InvertedPendulum-v5", named("iql", ""), named("pex", ""), mixed_in),
        ("CartPole-v1", named("iql", ""), named("pex", ""), own),
        ("InvertedPendulum-v5", named("sac-ml", ""), named("aca", ""), own),
        ("InvertedPendulum-v5", named("sac-ml", ""), named("aca", ""), mixed_in),
        ("InvertedPendulum-v5", ensemble(), balanced(), SamplerName::Balanced),
        ("CartPole-v1", ensemble(), balanced(), SamplerName::Balanced),
        ("InvertedPendulum-v5", adaptive(), adaptive(), mixed_in),
        ("InvertedPendulum-v5", named("td3-bc-refined", ""), named("td3-bc-refined", relaxed), own),
        ("InvertedPendulum-v5", gcql(), gcql(), SamplerName::Whole),
        ("InvertedPendulum-v5", upq(), upq(), mixed_in),
        ("InvertedPendulum-v5", mopo(), mopo(), SamplerName::Forgetting),
        ("InvertedPendulum-v5", named("gctd3bc", ""), named("gctd3bc", ""), SamplerName::Whole),
    ]
}

/// Both phases resume exactly, in the middle of an episode.
#[test]
fn every_continued_method_resumes_in_each_phase_as_if_nothing_had_happened() {
    let own = SamplerName::Uniform;
    for (env, offline, online, sampler) in survey() {
        let what = format!("{} then {} in {env}", offline.name(), online.name());
        let mut environment = make(env).unwrap();
        let mut whole = teacher(env, &offline, true);
        whole.advance(&mut *environment, 20).unwrap();
        let mut first = teacher(env, &offline, true);
        first.advance(&mut *environment, 11).unwrap();
        let mut second = teacher(env, &offline, true);
        assert!(second.load(&first.save().unwrap()).unwrap());
        second.advance(&mut *environment, 9).unwrap();
        let file = whole.save().unwrap();
        assert!(second.save().unwrap() == file, "{what}: the offline phase");

        let fresh = || {
            let replay =
                ReplayConfig { sampler, own_from: 30, online_reference: 30, ..ReplayConfig::default() };
            let config = StudentConfig { replay, ..student_config(&online) };
            let mut student =
                Student::new(&config, Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap();
            if sampler != own {
                student.trainer().mix().unwrap();
                let mut environment = make(env).unwrap();
                let trainer = student.trainer();
                (0..2).for_each(|seed| record(&mut |episode| trainer.add(episode), &mut *environment, seed));
            }
            student
        };
        let begin = || {
            let mut student = fresh();
            let adopted = checkpoint::adopt(student.trainer(), &file).unwrap();
            assert!(adopted.shares_network, "{what}: {adopted:?}");
            student
        };
        let mut whole = begin();
        let before = state(whole.trainer());
        advance(&mut whole, 120);
        assert_ne!(state(whole.trainer()), before, "{what}: it learns");
        let mut first = begin();
        advance(&mut first, 53);
        let mut second = fresh();
        second.load(&first.save(true).unwrap(), 0).unwrap();
        advance(&mut second, 120);
        assert!(second.save(true).unwrap() == whole.save(true).unwrap(), "{what}: the online phase");
    }
}

/// One recorded transition, and no other: little to mix in, and no reason to fail.
#[test]
fn every_continued_method_goes_on_with_one_recorded_transition() {
    for (env, offline, online, sampler) in survey().into_iter().filter(|one| one.3 != SamplerName::Uniform) {
        let what = format!("{} then {} in {env}", offline.name(), online.name());
        let file = teacher(env, &offline, true).save().unwrap();
        for terminated in [true, false] {
            let replay =
                ReplayConfig { sampler, own_from: 1, online_reference: 1, ..ReplayConfig::default() };
            let config = StudentConfig { replay, ..student_config(&online) };
            let environments = Environments::built_in(env).unwrap();
            let mut student = Student::new(&config, environments, &[], &Cpu, 0).unwrap();
            let trainer = student.trainer();
            trainer.mix().unwrap();
            let observations = [0.1, 0.0, -0.1, 0.0, 0.2, 0.0, -0.2, 0.0];
            let observations = Seen::Numbers(&observations);
            trainer.add(&Recorded { observations, actions: &[1.0], rewards: &[2.0], terminated }).unwrap();
            checkpoint::adopt(trainer, &file).unwrap();
            let before = state(student.trainer());
            advance(&mut student, 60);
            let after = state(student.trainer());
            assert_ne!(after, before, "{what}: it learns");
            assert!(after.iter().all(|tensor| tensor.values.iter().all(|x| x.is_finite())), "{what}");
        }
    }
}

#[test]
fn a_run_of_another_algorithm_than_the_method_continues_is_refused() {
    let named = |name: &str| {
        let text = format!(r#"{{"name":"{name}","hidden":[8],"batch_size":8}}"#);
        oto_json::read::<AlgorithmConfig>(&text).unwrap()
    };
    for (offline, online, said) in [
        ("td3-bc", "pex", "algorithm.normalise"),
        ("awac", "pex", "pex continues a run of iql: value.0.weight is missing"),
        ("cql", "aca", "aca continues a run of sac-ml: residual.0.weight is missing"),
        ("cql", "balanced-replay", "it is of cql, which has no network of balanced-replay"),
        ("bc", "rlpd", "it is of bc, which has no network of rlpd"),
        ("td3-bc", "gctd3bc", ""),
        ("td3-bc", "adaptive-bc", "algorithm.normalise"),
    ] {
        let file = teacher("Pendulum-v1", &named(offline), false).save().unwrap();
        let mut student = student_of("Pendulum-v1", &named(online));
        let before = student.save(true).unwrap();
        match checkpoint::adopt(student.trainer(), &file) {
            Ok(_) => assert_eq!(said, "", "{offline} then {online}"),
            Err(error) => {
                assert!(
                    !said.is_empty() && error.to_string().contains(said),
                    "{offline} then {online}: {error}"
                );
                assert!(student.save(true).unwrap() == before, "nothing changed");
            }
        }
    }
}

#[test]
fn what_cannot_be_mixed_is_refused() {
    let Pair { env, online, .. } = continuous();
    let mut alone = student(env, &online);
    let numbers = [0.0; 6];
    let episode = Recorded {
        observations: Seen::Numbers(&numbers),
        actions: &[1.0],
        rewards: &[0.0],
        terminated: true,
    };
    let error = alone.trainer().add(&episode).unwrap_err().to_string();
    assert!(error.contains("mix recorded episodes in first"), "{error}");
    let ppo = oto_rl::algorithms::find("ppo").unwrap();
    let ppo = ppo.defaults(oto_rl::algorithms::Seen { continuous: true, images: None }).algorithm;
    let config = StudentConfig { algorithm: ppo, stages: StagesConfig::SOLO, ..StudentConfig::default() };
    let mut ppo = Student::new(&config, Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap();
    let error = ppo.trainer().mix().unwrap_err().to_string();
    assert!(error.contains("algorithm.name is \"ppo\"") && error.contains("a replay buffer"), "{error}");
    let mut config = alone.trainer().config().clone();
    config.replay.sampler = SamplerName::Prioritised;
    let mut prioritised = Student::new(&config, Environments::built_in(env).unwrap(), &[], &Cpu, 0).unwrap();
    let error = prioritised.trainer().mix().unwrap_err().to_string();
    assert!(error.contains("replay.sampler is \"prioritised\""), "{error}");
}
