//! Tests of the learner: rows become transitions, updates are owed and made, and a restored learner equals one without interruption.

use super::*;
use oto_env::rng::Rng;
use oto_env::{Action, Environment, Space};
use oto_proto::stream::{Flags, Row, StreamId};
use serde_json::json;

const STREAM: StreamId = StreamId(7);

/// A small learner's settings, and these in place of its own.
fn config(changes: serde_json::Value) -> LearnerConfig {
    let mut settings = serde_json::json!({
        "env": "Pendulum-v1", "reward": "pendulum", "algorithm": { "name": "ddpg", "hidden": [16], "batch_size": 8 },
        "buffer": 200, "learning_starts": 4, "edges": 2
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    oto_json::read(&settings.to_string()).unwrap()
}

fn make(changes: serde_json::Value) -> Result<Learner, LearnerError> {
    let env = oto_env::make("Pendulum-v1").unwrap();
    Learner::new(&config(changes), env.observation_space(), env.action_space(), &oto_cpu::Cpu)
}

fn learner() -> Learner {
    make(json!({})).unwrap()
}

/// An edge that plays at random: its rows are those of a real environment.
struct Plant {
    env: Box<dyn Environment>,
    rng: Rng,
    observation: Vec<f32>,
    sequence: u64,
    first: bool,
    last: Flags,
}

impl Plant {
    fn new(seed: u64) -> Self {
        let mut env = oto_env::make("Pendulum-v1").unwrap();
        let mut observation = vec![0.0; 3];
        env.reset(Some(seed), &mut observation).unwrap();
        Plant { env, rng: Rng::new(seed), observation, sequence: 0, first: true, last: Flags::NONE }
    }

    /// Sends this number of rows.
    fn send_rows(&mut self, rows: usize, learner: &mut Learner, session: (&str, u32)) {
        for _ in 0..rows {
            self.send(learner, session, Flags::NONE);
        }
    }

    /// Sends a row, and steps. `more`: further flags.
    fn send(&mut self, learner: &mut Learner, session: (&str, u32), more: Flags) -> Option<Episode> {
        let action = [self.rng.uniform(-2.0, 2.0) as f32];
        let flags = if self.first { Flags::FIRST } else { Flags::NONE } | self.last | more;
        let action = if flags.ends() { [0.0] } else { action };
        let row = Row { sequence: self.sequence, observation: &self.observation, action: &action, flags };
        let (taken, episode) = learner.take(session, row).unwrap();
        assert!(taken);
        self.sequence += 1;
        self.first = flags.ends();
        self.last = Flags::NONE;
        if flags.ends() {
            self.env.reset(None, &mut self.observation).unwrap();
            return episode;
        }
        let step = self.env.step(Action::Continuous(&action), &mut self.observation).unwrap();
        if step.truncated {
            self.last = Flags::TRUNCATED;
        }
        episode
    }
}

#[test]
fn each_transition_owes_an_update() {
    let mut learner = learner();
    learner.join(("a", 1), STREAM, 0).unwrap();
    let mut plant = Plant::new(1);
    for _ in 0..10 {
        assert_eq!(plant.send(&mut learner, ("a", 1), Flags::NONE), None);
    }
    assert_eq!((learner.counts().rows, learner.counts().steps, learner.backlog()), (10, 9, 6));
    let mut updates = 0;
    while learner.work().unwrap() {
        updates += 1;
    }
    assert_eq!((updates, learner.updates(), learner.backlog()), (6, 6, 0));
}

/// An episode's last row has a state and no action; the next one's first state follows no other.
#[test]
fn episodes_end_and_evaluations_and_faults_are_left_out() {
    let mut learner = learner();
    learner.join(("a", 1), STREAM, 0).unwrap();
    let mut plant = Plant::new(2);
    let mut ended = Vec::new();
    for _ in 0..402 {
        ended.extend(plant.send(&mut learner, ("a", 1), Flags::NONE));
    }
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|e| e.length == 200 && e.score < -100.0 && !e.evaluation), "{ended:?}");
    assert_eq!(
        (learner.counts().steps, learner.transitions()),
        (400, 100),
        "half of the buffer is its share"
    );
    ended.clear();
    for _ in 0..201 {
        ended.extend(plant.send(&mut learner, ("a", 1), Flags::EVALUATION));
    }
    assert!(ended[0].evaluation && ended.len() == 1);
    assert_eq!((learner.counts().steps, learner.counts().evaluation), (400, 200));
    // A faulty state is in two transitions.
    plant.send(&mut learner, ("a", 1), Flags::NONE);
    plant.send(&mut learner, ("a", 1), Flags::FAULTY);
    plant.send(&mut learner, ("a", 1), Flags::NONE);
    plant.send(&mut learner, ("a", 1), Flags::NONE);
    assert_eq!((learner.counts().steps, learner.counts().faulty), (401, 2));
    learner.pause("a", true).unwrap();
    plant.send(&mut learner, ("a", 1), Flags::NONE);
    assert_eq!((learner.counts().steps, learner.edges()[0].next()), (401, 608));
}

#[test]
fn rows_count_once_in_their_order_and_for_their_session() {
    let mut learner = learner();
    learner.join(("a", 1), STREAM, 0).unwrap();
    let row = |sequence| Row { sequence, observation: &[1.0, 0.0, 0.5], action: &[0.0], flags: Flags::NONE };
    let mut take = |session, sequence| learner.take(("a", session), row(sequence)).unwrap().0;
    assert!(take(1, 0) && take(1, 1));
    assert!(!take(1, 0) && !take(1, 3), "twice, and beyond the next");
    learner.join(("a", 2), STREAM, 2).unwrap();
    assert!(!learner.take(("a", 1), row(2)).unwrap().0, "of the session before");
    assert!(learner.take(("a", 2), row(2)).unwrap().0);
    assert_eq!(learner.counts().steps, 2);
    learner.dropped(("a", 2), 8);
    assert_eq!((learner.counts().lost, learner.edges()[0].next()), (5, 8));
    assert!(learner.take(("a", 2), row(8)).unwrap().0);
    assert_eq!(learner.counts().steps, 2, "no transition across a gap");
    // A new instance of the edge begins its own stream.
    learner.join(("a", 3), StreamId(8), 0).unwrap();
    assert_eq!((learner.edges()[0].next(), learner.counts().lost), (0, 5));
    learner.join(("b", 1), STREAM, 0).unwrap();
    assert!(learner.join(("c", 1), STREAM, 0).unwrap_err().to_string().contains("at most 2 edges"));
    learner.drop_edge("a").unwrap();
    learner.join(("c", 1), STREAM, 0).unwrap();
    assert!(learner.drop_edge("a").is_err() && learner.pause("a", true).is_err());
}

/// The batches of two edges hold equal shares, however many rows each has.
#[test]
fn edges_have_equal_shares_of_a_batch() {
    let mut learner = learner();
    let sessions = [("a", 1), ("b", 1)];
    sessions.into_iter().for_each(|session| learner.join(session, STREAM, 0).unwrap());
    let (mut busy, mut lazy) = (Plant::new(3), Plant::new(4));
    busy.send_rows(90, &mut learner, sessions[0]);
    lazy.send_rows(6, &mut learner, sessions[1]);
    while learner.work().unwrap() {}
    assert_eq!(learner.updates(), 91);
    assert_eq!(learner.edges().iter().map(EdgeReplay::transitions).collect::<Vec<_>>(), [89, 5]);
}

/// Saved in the middle and loaded into a new one, a learner makes the same updates as one that was never saved.
#[test]
fn a_saved_learner_goes_on_as_if_nothing_had_happened() {
    let with = || make(json!({ "n_step": 3 })).unwrap();
    let (mut whole, mut plant) = (with(), Plant::new(5));
    whole.join(("a", 1), STREAM, 0).unwrap();
    plant.send_rows(50, &mut whole, ("a", 1));
    (0..20).for_each(|_| assert!(whole.work().unwrap()));
    let file = whole.save().unwrap();
    let mut parted = with();
    parted.load(&file).unwrap();
    assert_eq!((parted.backlog(), parted.counts()), (whole.backlog(), whole.counts()));
    for sequence in 50..80 {
        for learner in [&mut whole, &mut parted] {
            let x = sequence as f32 * 0.01;
            let row = Row { sequence, observation: &[x, -x, x], action: &[x], flags: Flags::NONE };
            assert!(learner.take(("a", 1), row).unwrap().0);
            while learner.work().unwrap() {}
        }
    }
    let weights = |learner: &Learner| {
        let mut weights = Vec::new();
        learner.weights(&mut weights);
        weights
    };
    assert_eq!(weights(&whole), weights(&parted));
    assert_eq!(whole.save().unwrap(), parted.save().unwrap());
    assert_eq!((parted.edges()[0].next(), parted.edges()[0].session()), (80, 1));
    // Damage is refused, and nothing changes.
    let saved = parted.save().unwrap();
    for at in (0..file.len()).step_by(97) {
        let mut bad = file.clone();
        bad[at] ^= 0x7f;
        let _ = parted.load(&bad);
    }
    parted.load(&saved).unwrap();
    let refused = |changes| make(changes).unwrap().load(&saved).unwrap_err().to_string();
    assert!(refused(json!({ "buffer": 10 })).contains("does not fit buffer and edges"));
    assert!(refused(json!({ "algorithm": { "name": "sac", "hidden": [16] } })).contains("expected"));
}

/// Critics train from `learning_starts` on, the actor from `actor_starts` on: until then the weights that act stay.
#[test]
fn an_actor_starts_after_its_critics() {
    let algorithm = json!({ "name": "ddpg", "hidden": [16], "batch_size": 8, "actor_starts": 20 });
    let mut learner = make(json!({ "algorithm": algorithm })).unwrap();
    learner.join(("a", 1), STREAM, 0).unwrap();
    let (mut first, mut later, mut plant) = (Vec::new(), Vec::new(), Plant::new(6));
    learner.weights(&mut first);
    plant.send_rows(20, &mut learner, ("a", 1));
    while learner.work().unwrap() {}
    learner.weights(&mut later);
    assert_eq!((learner.updates(), &first), (16, &later));
    plant.send_rows(2, &mut learner, ("a", 1));
    while learner.work().unwrap() {}
    learner.weights(&mut later);
    assert_ne!(first, later);
    let early = json!({ "name": "ddpg", "hidden": [16], "actor_starts": 3 });
    let error = make(json!({ "algorithm": early })).err().unwrap().to_string();
    assert!(error.contains("actor_starts is 3"), "{error}");
}

/// Every algorithm that learns from replay may be a learner's.
#[test]
fn any_off_policy_algorithm_learns() {
    for (algorithm, env, reward, output) in [
        ("ddpg", "Pendulum-v1", "pendulum", "tanh"),
        ("td3", "Pendulum-v1", "pendulum", "tanh"),
        ("sac", "Pendulum-v1", "pendulum", "tanh"),
        ("qrdqn", "CartPole-v1", "cartpole", "argmax"),
    ] {
        let text = format!(
            r#"{{"algorithm":{{"name":"{algorithm}","batch_size":8,"hidden":[8]}},"reward":"{reward}","learning_starts":1}}"#
        );
        let config = oto_json::read::<LearnerConfig>(&text).unwrap();
        let env = oto_env::make(env).unwrap();
        let (observes, acts) = (env.observation_space(), env.action_space());
        let mut learner = Learner::new(&config, observes, acts, &oto_cpu::Cpu).unwrap();
        let model = learner.model();
        assert_eq!(oto_json::write(&model.output), format!("\"{output}\""));
        let (mut before, mut after) = (Vec::new(), Vec::new());
        learner.weights(&mut before);
        assert_eq!(before.len(), model.parameters as usize);
        let choices = match acts {
            Space::Discrete { n } => *n as usize,
            Space::Box { low, .. } => low.len(),
        };
        model.check(choices).unwrap();
        learner.join(("a", 1), STREAM, 0).unwrap();
        let observation = vec![0.1; observes.width()];
        for sequence in 0..4 {
            let row = Row { sequence, observation: &observation, action: &[1.0], flags: Flags::NONE };
            learner.take(("a", 1), row).unwrap();
        }
        while learner.work().unwrap() {}
        learner.weights(&mut after);
        assert!(before != after && learner.updates() == 3, "{algorithm}");
    }
}

#[test]
fn what_makes_no_learner_is_refused() {
    let refused = |changes| make(changes).err().unwrap().to_string();
    let error = refused(json!({ "reward": "swing" }));
    assert!(error.contains("expected one of cartpole_swing_up, pendulum"), "{error}");
    assert!(refused(json!({ "ring": 0 })).contains("ring is 0"));
    assert!(refused(json!({ "algorithm": { "name": "qrdqn" } })).contains("discrete"));
}

/// Training in simulation, then on a plant: parameters stay, steps and replay do not.
#[test]
fn weights_of_another_learner_begin_a_new_one() {
    let mut old = learner();
    old.join(("a", 1), STREAM, 0).unwrap();
    Plant::new(1).send_rows(30, &mut old, ("a", 1));
    while old.work().unwrap() {}
    let (file, mut new) = (old.save_weights().unwrap(), make(json!({ "seed": 9 })).unwrap());
    new.load_weights(&file).unwrap();
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    old.weights(&mut expected);
    new.weights(&mut got);
    assert_eq!(got, expected);
    assert_eq!(
        (new.updates(), new.transitions(), new.edges().len(), new.counts()),
        (0, 0, 0, Counts::default())
    );
    // The file without replay is a learner too.
    new.load(&file).unwrap();

    let wider = json!({ "algorithm": { "name": "ddpg", "hidden": [17], "batch_size": 8 } });
    let mut other = make(wider).unwrap();
    let mut before = Vec::new();
    other.weights(&mut before);
    for bad in [&file[..], &file[..40], b"", &[0xff; 64]] {
        assert!(other.load_weights(bad).is_err());
        other.weights(&mut got);
        assert_eq!(got, before, "nothing has changed");
    }
}
