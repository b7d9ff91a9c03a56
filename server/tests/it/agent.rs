//! Offline agents: when they are published, what they refuse, and what of their students they learn from.

use crate::policies::{boxed, function};
use crate::student::{Server, hello, serve};
use crate::submissions::Folder;
use oto_env::{Action, EnvError, Environment, Snapshot, Step};
use oto_policy::{Loaded, Metadata};
use oto_proto::{BatchId, Space};
use oto_server::agent::{
    AgentConfig, AgentError, Ending, Event, Log, OfflineAgent, Parts, Stage, TrainingAgent, start,
};
use oto_server::dataset::{DatasetStore, LogStore, State, Submission};
use oto_server::{Policies, Release};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An agent that balances a pole by its angle and, the better it is, its angular velocity. Training makes it better at a
/// pace that its data give: rewards in what students submitted are added to it.
struct Balancer {
    skill: f32,
    pace: f32,
    updates: Arc<AtomicU64>,
    blocked: Arc<AtomicBool>,
}

impl Balancer {
    fn new(skill: f32, pace: f32) -> Self {
        Balancer { skill, pace, updates: Arc::default(), blocked: Arc::default() }
    }
}

impl TrainingAgent for Balancer {
    fn train(&mut self, updates: u64) -> Result<(), AgentError> {
        self.updates.fetch_add(updates, Ordering::SeqCst);
        while self.blocked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.skill += self.pace * updates as f32;
        Ok(())
    }

    fn policy(&mut self) -> Result<Release, AgentError> {
        let skill = self.skill;
        let lean = move |x: &[f32], to: &mut Vec<f32>| to.push(f32::from(x[2] + skill * x[3] > 0.0));
        let policy = function(boxed(4), Space::Discrete { n: 2 }, lean);
        Ok(Release { policy, model: Some(skill.to_le_bytes().to_vec()), version: 0 })
    }

    fn add(&mut self, submission: &Submission) -> Result<(), AgentError> {
        if submission.observation.len() != 4 * submission.rows() {
            return Err(AgentError::Training("expected observations of 4 numbers".into()));
        }
        self.pace += submission.reward.iter().sum::<f32>();
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>, AgentError> {
        Ok([self.skill, self.pace].map(f32::to_le_bytes).concat())
    }

    fn load(&mut self, _: &[u8]) -> Result<bool, AgentError> {
        unreachable!("nothing is kept in these tests")
    }

    fn fork(&mut self) -> Result<Box<dyn TrainingAgent>, AgentError> {
        let (updates, blocked) = (self.updates.clone(), self.blocked.clone());
        Ok(Box::new(Balancer { skill: self.skill, pace: self.pace, updates, blocked }))
    }
}

fn updates(n: u64) -> Ending {
    Ending { updates: Some(n), ..Ending::default() }
}

fn config() -> AgentConfig {
    AgentConfig {
        offline: updates(20),
        transfer: updates(20),
        online: updates(20),
        slice: 10,
        evaluate_every: 20,
        episodes: 5,
        trial_updates: 20,
        ..AgentConfig::default()
    }
}

/// An agent, the server that hosts its policy, and what it said.
struct School {
    server: Server,
    agent: OfflineAgent,
    said: Arc<Mutex<Vec<Event>>>,
}

fn parts(training: Balancer, folder: &Folder, store: Option<Arc<LogStore>>) -> Parts {
    let store = store.map(|store| store as Arc<dyn DatasetStore>);
    let environment = oto_env::make("CartPole-v1").unwrap();
    let refused = folder.0.join("refused");
    Parts { policy: "balancer".into(), training: Box::new(training), environment, store, refused, kept: None }
}

fn host(Release { policy, model, .. }: Release) -> Server {
    let metadata = Metadata { kind: "policy".into(), ..Metadata::default() };
    serve(vec![Loaded { name: "balancer".into(), metadata, policy, model, warnings: vec![] }], |_| {})
}

fn listen() -> (Log, Arc<Mutex<Vec<Event>>>) {
    let said: Arc<Mutex<Vec<Event>>> = Arc::default();
    let writer = said.clone();
    (Box::new(move |event| writer.lock().unwrap().push(event)), said)
}

fn school(config: AgentConfig, training: Balancer, folder: &Folder, store: Option<Arc<LogStore>>) -> School {
    let mut parts = parts(training, folder, store);
    let server = host(OfflineAgent::first(&mut parts).unwrap());
    let (log, said) = listen();
    let agent = OfflineAgent::new(config, parts, server.policies.clone(), log).unwrap();
    School { server, agent, said }
}

impl School {
    /// Trains to the end, or so many slices.
    fn advance(&mut self, slices: usize) {
        for _ in 0..slices {
            if !self.agent.advance(Duration::ZERO).unwrap() {
                return;
            }
        }
    }

    /// What was published, by updates; and what was refused.
    fn published(&self) -> [Vec<u64>; 2] {
        let (mut published, mut refused) = (Vec::new(), Vec::new());
        for event in self.said.lock().unwrap().iter() {
            match event {
                Event::Published { updates, mean, before } => {
                    assert!(mean >= before);
                    published.push(*updates);
                }
                Event::Refused { updates, mean, serving, .. } => {
                    assert!(mean < serving);
                    refused.push(*updates);
                }
                _ => {}
            }
        }
        [published, refused]
    }

    /// How the policy answers to a pole that stands straight and falls to the right.
    fn answers(&self) -> Vec<Vec<f32>> {
        let (mut student, _) = self.server.student(hello("balancer", boxed(4), Space::Discrete { n: 2 }));
        student.ask(&[&[0.0, 0.0, -0.01, 0.2]]);
        student.answer().rows
    }
}

#[test]
fn the_inferring_agent_is_replaced_when_a_stage_begins() {
    let folder = Folder::new();
    let mut school = school(config(), Balancer::new(0.0, 0.01), &folder, None);
    assert_eq!(school.answers(), [[0.0]]);
    school.advance(1);
    assert_eq!((school.agent.stage(), school.published()), (Stage::Offline, [vec![], vec![]]));
    school.advance(1);
    assert_eq!((school.agent.stage(), school.published()), (Stage::Transfer, [vec![20], vec![]]));
    assert_eq!(school.answers(), [[1.0]], "it sees velocities now");
    school.advance(usize::MAX);
    assert_eq!(school.published(), [vec![20, 40, 60], vec![]]);
    assert!(matches!(school.said.lock().unwrap().last(), Some(Event::Done { updates: 60 })));
    school.answers();
    assert_eq!(school.server.policies.version("balancer"), Some(4));
    assert!(!school.agent.advance(Duration::ZERO).unwrap(), "and nothing more is done");
}

#[test]
fn a_worse_candidate_is_refused_kept_and_reported() {
    let folder = Folder::new();
    let mut school = school(config(), Balancer::new(0.4, -0.02), &folder, None);
    school.advance(2);
    assert_eq!(school.published(), [vec![], vec![20]]);
    let file = match &school.said.lock().unwrap()[..] {
        [.., Event::Refused { file: Some(file), .. }] => file.clone(),
        other => panic!("{other:?}"),
    };
    let kept = std::fs::read(&file).unwrap();
    assert!(f32::from_le_bytes(kept.try_into().unwrap()) < 0.1 && file.starts_with(&folder.0));
    assert_eq!(school.answers(), [[1.0]], "the first one goes on answering");
    assert_eq!(school.server.policies.version("balancer"), Some(1));
    // A margin wide enough lets it pass.
    let wide = AgentConfig { margin: 500.0, ..config() };
    let mut school = self::school(wide, Balancer::new(0.4, -0.02), &folder, None);
    for _ in 0..2 {
        school.agent.advance(Duration::ZERO).unwrap();
    }
    school.answers();
    assert_eq!(school.server.policies.version("balancer"), Some(2));
}

#[test]
fn stages_end_by_time_and_by_return() {
    let folder = Folder::new();
    let seconds = Ending { seconds: Some(5.0), ..Ending::default() };
    let good = Ending { return_at_least: Some(200.0), ..Ending::default() };
    let config = AgentConfig { offline: seconds, transfer: good, repeat: true, ..config() };
    let mut school = school(config, Balancer::new(0.0, 0.002), &folder, None);
    let mut at = |now: u64| {
        school.agent.advance(Duration::from_secs(now)).unwrap();
        school.agent.stage()
    };
    assert_eq!([at(100), at(104), at(105)], [Stage::Offline, Stage::Offline, Stage::Transfer]);
    let mut slices = 0;
    while at(105) == Stage::Transfer {
        slices += 1;
        assert!(slices < 100, "it is good at some time");
    }
    let evaluated = school.said.lock().unwrap().iter().rev().find_map(|event| match event {
        Event::Evaluated { mean, .. } => Some(*mean),
        _ => None,
    });
    assert!(evaluated.unwrap() >= 200.0);
    school.advance(2);
    assert_eq!(school.agent.stage(), Stage::Offline, "loop");
}

fn batch(name: u128, student: &str, width: usize, reward: f32) -> Submission {
    Submission {
        batch: BatchId(name),
        student: student.into(),
        observation: vec![0.0; 2 * width],
        action: vec![1.0; 2],
        reward: vec![reward; 2],
        next_observation: vec![0.0; 2 * width],
        terminated: vec![false; 2],
        truncated: vec![false; 2],
    }
}

#[test]
fn what_students_submitted_is_learned_from_once_it_passes() {
    let folder = Folder::new();
    let store = Arc::new(LogStore::open(&folder.0, 1 << 20).unwrap());
    for submission in [
        batch(1, "honest", 4, 0.001),
        batch(2, "poisoner", 4, -0.5),
        batch(3, "honest", 4, 0.001),
        batch(4, "stranger", 3, 0.0),
        batch(5, "torn", 4, 0.0),
    ] {
        store.put(&submission).unwrap();
    }
    let log = folder.0.join("000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(log, bytes).unwrap();
    let ids = |names: &[u128]| names.iter().copied().map(BatchId).collect::<Vec<_>>();
    let mut school = school(config(), Balancer::new(0.0, 0.002), &folder, Some(store.clone()));
    school.advance(5);
    assert_eq!(store.list(State::Quarantine).unwrap(), ids(&[1, 2, 3, 4, 5]), "not before Online ends");
    school.advance(1);
    assert_eq!(store.list(State::Accepted).unwrap(), ids(&[1, 3]));
    assert_eq!(store.list(State::Rejected).unwrap(), ids(&[2, 4, 5]));
    let mut reasons = Vec::new();
    for event in school.said.lock().unwrap().iter() {
        match event {
            Event::Accepted { student, batches, transitions, mean, serving, .. } => {
                assert_eq!((student.as_str(), *batches, *transitions), ("honest", 2, 4));
                assert!(mean >= serving);
            }
            Event::Rejected { student, reason, .. } => reasons.push((student.clone(), reason.clone())),
            _ => {}
        }
    }
    let reason = |student: &str| &reasons.iter().find(|(name, _)| name == student).unwrap().1;
    assert!(reason("poisoner").contains("mean return"), "{reasons:?}");
    assert!(reason("stranger").contains("4 numbers"), "{reasons:?}");
    assert!(school.published()[1].len() == 1, "the poisoned copy was kept");
    // What was accepted is learned again by the next process, and judged by nobody.
    drop((school, store));
    let store = Arc::new(LogStore::open(&folder.0, 1 << 20).unwrap());
    let mut school = self::school(config(), Balancer::new(0.0, 0.0), &folder, Some(store));
    school.advance(2);
    assert_eq!(school.published()[0], [20], "0.004 an update is enough to become better");
}

#[test]
fn students_are_answered_while_it_trains() {
    let folder = Arc::new(Folder::new());
    let (count, blocked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let (log, said) = listen();
    let make = {
        let (folder, updates, blocked) = (folder.clone(), count.clone(), blocked.clone());
        move || {
            let balancer = Balancer { updates, blocked, ..Balancer::new(0.0, 0.01) };
            Ok::<_, AgentError>(parts(balancer, &folder, None))
        }
    };
    let (first, waiting) = start("balancer", config(), make, log).unwrap();
    let server = host(first);
    let training = waiting.begin(server.policies.clone());
    while count.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // A slice that takes for ever: nobody waits for it.
    let (mut student, _) = server.student(hello("balancer", boxed(4), Space::Discrete { n: 2 }));
    for _ in 0..20 {
        student.ask(&[&[0.0, 0.0, -0.01, 0.2]]);
        assert_eq!(student.answer().rows, [[0.0]]);
    }
    blocked.store(false, Ordering::SeqCst);
    while !said.lock().unwrap().iter().any(|event| matches!(event, Event::Done { .. })) {
        std::thread::yield_now();
    }
    drop(training);
    // An endless one ends with its owner, and so does one that never began.
    let endless = AgentConfig { offline: Ending::default(), ..config() };
    for begins in [true, false] {
        let folder = folder.clone();
        let make = move || Ok::<_, AgentError>(parts(Balancer::new(0.0, 0.0), &folder, None));
        let (first, waiting) = start("balancer", endless.clone(), make, listen().0).unwrap();
        let server = host(first);
        if begins {
            drop(waiting.begin(server.policies.clone()));
        } else {
            drop(waiting);
        }
    }
    let nothing = || Err(AgentError::Training("no data".into()));
    let error = start("balancer", config(), nothing, listen().0).err().unwrap();
    assert_eq!(error.to_string(), "no data");
}

#[test]
fn settings_and_spaces_that_do_not_fit_are_named() {
    let spoil = |spoil: fn(&mut AgentConfig)| {
        let mut config = AgentConfig::default();
        spoil(&mut config);
        config.validate().unwrap_err().to_string()
    };
    assert!(spoil(|c| c.slice = 0).starts_with("slice: expected 1 to"));
    assert!(spoil(|c| c.margin = f64::NAN).contains("NaN"));
    assert!(spoil(|c| c.online.seconds = Some(-1.0)).contains("-1"));
    assert!(spoil(|c| c.transfer.return_at_least = Some(f64::INFINITY)).contains("inf"));
    assert!(serde_json::from_str::<AgentConfig>(r#"{"ofline":{}}"#).is_err());
    let config: AgentConfig = serde_json::from_str(r#"{"offline":{"updates":5},"loop":true}"#).unwrap();
    assert!(config.repeat && config.offline == updates(5) && config.episodes == 20);

    let environment = oto_env::make("Pendulum-v1").unwrap();
    let parts = Parts {
        policy: "balancer".into(),
        training: Box::new(Balancer::new(0.0, 0.0)),
        environment,
        store: None,
        refused: std::env::temp_dir(),
        kept: None,
    };
    let error = OfflineAgent::new(config, parts, Policies::new(Vec::new()).unwrap(), Box::new(drop)).err();
    assert!(matches!(error, Some(AgentError::Spaces { .. })));
}

/// An episode of one step, whose reward is the action.
struct Worth([oto_env::Space; 2]);

impl Worth {
    fn environment() -> Box<dyn Environment> {
        Box::new(Worth([1.0, 1000.0].map(|end| oto_env::Space::Box { low: vec![-end], high: vec![end] })))
    }
}

impl Environment for Worth {
    fn id(&self) -> &str {
        "Worth"
    }
    fn observation_space(&self) -> &oto_env::Space {
        &self.0[0]
    }
    fn action_space(&self) -> &oto_env::Space {
        &self.0[1]
    }
    fn max_episode_steps(&self) -> Option<u32> {
        Some(1)
    }
    fn reset(&mut self, _: Option<u64>, observation: &mut [f32]) -> Result<(), EnvError> {
        observation.fill(0.0);
        Ok(())
    }
    fn step(&mut self, action: Action<'_>, _: &mut [f32]) -> Result<Step, EnvError> {
        let Action::Continuous(value) = action else { panic!("it is a number") };
        Ok(Step { reward: f64::from(value[0]), terminated: true, truncated: false })
    }
    fn save(&self) -> Result<Snapshot, EnvError> {
        Err(EnvError::NotSaved { id: "Worth".into() })
    }
    fn restore(&mut self, _: &Snapshot) -> Result<(), EnvError> {
        Err(EnvError::NotSaved { id: "Worth".into() })
    }
}

/// An agent whose policy is worth what the newest batch that it learned from says, or the next of a list.
#[derive(Clone, Default)]
struct Rated {
    worth: f32,
    learned: Option<f32>,
    to_come: std::collections::VecDeque<f32>,
}

impl TrainingAgent for Rated {
    fn train(&mut self, _: u64) -> Result<(), AgentError> {
        self.worth = self.learned.take().or_else(|| self.to_come.pop_front()).unwrap_or(self.worth);
        Ok(())
    }

    fn policy(&mut self) -> Result<Release, AgentError> {
        let worth = self.worth;
        let action = Space::Box { low: vec![-1000.0], high: vec![1000.0] };
        let observation = Space::Box { low: vec![-1.0], high: vec![1.0] };
        let policy = function(observation, action, move |_, to: &mut Vec<f32>| to.push(worth));
        Ok(Release { policy, model: Some(worth.to_le_bytes().to_vec()), version: 0 })
    }

    fn add(&mut self, submission: &Submission) -> Result<(), AgentError> {
        self.learned = Some(submission.reward[0]);
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>, AgentError> {
        unreachable!("nothing is kept in these tests")
    }

    fn load(&mut self, _: &[u8]) -> Result<bool, AgentError> {
        unreachable!("nothing is kept in these tests")
    }

    fn fork(&mut self) -> Result<Box<dyn TrainingAgent>, AgentError> {
        Ok(Box::new(self.clone()))
    }
}

/// An agent of this worth that loops, and what it says. One slice is one stage.
fn rated(
    training: Rated,
    margin: f64,
    folder: &Folder,
    store: Option<Arc<LogStore>>,
) -> (OfflineAgent, Arc<Mutex<Vec<Event>>>) {
    let one = updates(1);
    let config = AgentConfig {
        offline: one,
        transfer: one,
        online: one,
        repeat: true,
        slice: 1,
        evaluate_every: 1000,
        episodes: 1,
        trial_updates: 1,
        margin,
        ..AgentConfig::default()
    };
    let store = store.map(|store| store as Arc<dyn DatasetStore>);
    let (refused, policy) = (folder.0.join("refused"), "rated".to_string());
    let mut parts = Parts {
        policy,
        training: Box::new(training),
        environment: Worth::environment(),
        store,
        refused,
        kept: None,
    };
    let Release { policy, model, .. } = OfflineAgent::first(&mut parts).unwrap();
    let metadata = Metadata { kind: "policy".into(), ..Metadata::default() };
    let hosted = Loaded { name: "rated".into(), metadata, policy, model, warnings: vec![] };
    let (log, said) = listen();
    (OfflineAgent::new(config, parts, Policies::new(vec![hosted]).unwrap(), log).unwrap(), said)
}

fn slices(agent: &mut OfflineAgent, count: usize) {
    (0..count).for_each(|_| assert!(agent.advance(Duration::ZERO).unwrap()));
}

/// The worths that were published.
fn worths(said: &Mutex<Vec<Event>>) -> Vec<f64> {
    let mean = |event: &Event| match event {
        Event::Published { mean, .. } => Some(*mean),
        _ => None,
    };
    said.lock().unwrap().iter().filter_map(mean).collect()
}

/// Two students submit, and what the copy learned of one is much better: that one answers, whoever came first.
#[test]
fn the_better_of_two_submissions_is_what_answers() {
    for order in [[500.0, 380.0], [380.0, 500.0]] {
        let folder = Folder::new();
        let store = Arc::new(LogStore::open(&folder.0, 1 << 20).unwrap());
        for (name, worth) in (1u128..).zip(order) {
            store.put(&batch(name, &format!("student {name}"), 1, worth)).unwrap();
        }
        let training = Rated { worth: 397.0, ..Rated::default() };
        let (mut agent, said) = rated(training, 150.0, &folder, Some(store.clone()));
        slices(&mut agent, 3);
        assert_eq!(store.list(State::Accepted).unwrap().len(), 2, "both are within the margin");
        assert_eq!(worths(&said).last(), Some(&500.0), "{order:?}");
    }
}

#[test]
fn a_margin_does_not_add_up() {
    let falls = [397.0, 380.0, 308.0, 369.0, 283.0, 251.0, 161.0, 247.0, 246.9, 420.0, 269.0, 270.0];
    let folder = Folder::new();
    let training = Rated { worth: 397.0, to_come: falls.into(), ..Rated::default() };
    let (mut agent, said) = rated(training, 150.0, &folder, None);
    for _ in falls {
        agent.advance(Duration::ZERO).unwrap();
    }
    let within = [397.0, 380.0, 308.0, 369.0, 283.0, 251.0, 247.0, 420.0, 270.0];
    assert_eq!(worths(&said), within, "never more than 150 below the best so far");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is learned, what answers is never worse than the best before it by more than the margin.
    #[test]
    fn what_answers_stays_within_the_margin_of_the_best(
        to_come in prop::collection::vec(-900.0f32..900.0, 1..30),
        margin in 0.0..300.0f64,
    ) {
        let folder = Folder::new();
        let mut best = to_come[0];
        let training = Rated { worth: best, to_come: to_come.clone().into(), ..Rated::default() };
        let (mut agent, said) = rated(training, margin, &folder, None);
        let mut expected = Vec::new();
        for worth in &to_come {
            agent.advance(Duration::ZERO).unwrap();
            if f64::from(*worth) - f64::from(best) >= -margin {
                expected.push(f64::from(*worth));
                best = best.max(*worth);
            }
        }
        prop_assert_eq!(worths(&said), expected);
    }
}

/// What is missing of the accepted transitions is told by number, once.
#[test]
fn a_dataset_that_is_removed_is_missed() {
    let folder = Folder::new();
    let removed = folder.0.join("replays");
    let open = || Arc::new(LogStore::open(&removed, 1 << 20).unwrap());
    let store = open();
    for name in 1..=3 {
        store.put(&batch(name, "student", 1, 400.0)).unwrap();
    }
    let training = Rated { worth: 397.0, ..Rated::default() };
    let (mut agent, said) = rated(training, 0.0, &folder, Some(store.clone()));
    slices(&mut agent, 3);
    assert_eq!(store.list(State::Accepted).unwrap().len(), 3);
    let missing = || {
        let said = said.lock().unwrap();
        let told = |event: &Event| match event {
            Event::Missing { accepted, found } => Some((*accepted, *found)),
            _ => None,
        };
        said.iter().filter_map(told).collect::<Vec<_>>()
    };
    assert_eq!(missing(), []);
    store.forget("student").unwrap();
    slices(&mut agent, 6);
    assert_eq!(missing(), [(6, 0)]);

    store.put(&batch(4, "another", 1, 400.0)).unwrap();
    slices(&mut agent, 3);
    std::fs::remove_dir_all(&removed).unwrap();
    slices(&mut agent, 3);
    assert_eq!(missing(), [(6, 0), (2, 0)], "also while it trains");
    let error = store.put(&batch(5, "another", 1, 400.0)).unwrap_err().to_string();
    assert!(error.contains("removed"), "nothing is acknowledged that would be lost: {error}");
}
