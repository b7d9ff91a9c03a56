//! Every order of three calls of the world `oto:edge/student` and of three turns of its host's environment, each outcome held to a
//! model: a result or one error of the world's own, and never a trap.

use oto_tests::edge::Instance;
use oto_tests::edge::bindings::exports::oto::edge::learner::{Action, Component, Error, Lengths, Progress};
use oto_tests::edge::bindings::oto::edge::environment::Space;
use oto_tests::edge::bindings::oto::edge::types::Bounds;

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Create,
    CreateBadly(Flaw),
    Train(u64),
    Status,
    Act(Sight),
    Save {
        replay: bool,
    },
    Load,
    LoadGarbage,
    /// Not a call: from now on the environment answers like this.
    Environment(Turn),
}
use Call::*;

/// What is wrong with a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Json,
    Setting,
    Address,
    Actions,
}

/// An observation that a host wants an action for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Sound,
    Infinite,
    Short,
}

/// What an environment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Sound,
    NanObservation,
    LongObservation,
    NanReward,
    Fails,
}

const CALLS: [Call; 21] = [
    Create,
    CreateBadly(Flaw::Json),
    CreateBadly(Flaw::Setting),
    CreateBadly(Flaw::Address),
    CreateBadly(Flaw::Actions),
    Train(0),
    Train(1),
    Train(60),
    Status,
    Act(Sight::Sound),
    Act(Sight::Infinite),
    Act(Sight::Short),
    Save { replay: true },
    Save { replay: false },
    Load,
    LoadGarbage,
    Environment(Turn::Sound),
    Environment(Turn::NanObservation),
    Environment(Turn::LongObservation),
    Environment(Turn::NanReward),
    Environment(Turn::Fails),
];

/// A student that is quick to make, and whose run ends within the exploration.
const STUDENT: &str = r#"{"student": {"steps": 150, "buffer": 64, "learning_starts": 4,
    "algorithm": {"hidden": [4], "batch_size": 4}}}"#;
const STEPS: u64 = 150;
const SOUND: [f32; 4] = [0.1, 0.2, -0.05, 0.3];

/// What a host may expect.
struct Model {
    created: bool,
    step: u64,
    turn: Turn,
    /// A saved file, and its step; what is not created has none.
    saved: Option<(Vec<u8>, u64)>,
}

/// The instance and the model, side by side.
struct Explorer {
    instance: Instance,
    model: Model,
}

impl Explorer {
    fn new(actions: &Space) -> Self {
        let mut instance = Instance::new();
        instance.store.data_mut().action_space = actions.clone();
        let model = Model { created: false, step: 0, turn: Turn::Sound, saved: None };
        Self { instance, model }
    }

    /// Makes a call and holds its outcome to the model.
    fn make(&mut self, call: Call) {
        match call {
            Create => {
                self.instance.create(STUDENT).unwrap();
                (self.model.created, self.model.step) = (true, 0);
            }
            CreateBadly(flaw) => self.create_badly(flaw),
            Train(steps) => self.train(steps),
            Status => {
                let status = self.instance.status();
                self.progress(status);
            }
            Act(sight) => self.act(sight),
            Save { replay } => {
                let file = self.instance.save(replay);
                if let Some(file) = self.after_create(file) {
                    self.model.saved = Some((file.unwrap(), self.model.step));
                }
            }
            Load => self.load(),
            LoadGarbage => {
                let loaded = self.instance.load(&[0x7f; 100]);
                let loaded = self.after_create(loaded);
                assert!(matches!(loaded, None | Some(Err(Error::Checkpoint(_)))));
            }
            Environment(turn) => self.turn(turn),
        }
    }

    /// A call's outcome, or none if it said rightly that there is no student yet.
    fn after_create<T>(&self, outcome: Result<T, Error>) -> Option<Result<T, Error>> {
        match (self.model.created, outcome) {
            (false, Err(Error::NotCreated)) => None,
            (false, _) => panic!("there is no student yet"),
            (true, outcome) => Some(outcome),
        }
    }

    fn progress(&self, outcome: Result<Progress, Error>) {
        if let Some(progress) = self.after_create(outcome) {
            let progress = progress.unwrap();
            assert_eq!((progress.step, progress.done), (self.model.step, self.model.step == STEPS));
        }
    }

    fn create_badly(&mut self, flaw: Flaw) {
        let actions = self.instance.store.data_mut().action_space.clone();
        let outcome = match flaw {
            Flaw::Json => self.instance.create("{\"student\": "),
            Flaw::Setting => self.instance.create(r#"{"student": {"buffer": 0}}"#),
            Flaw::Address => self.instance.create(r#"{"teachers": [{"url": "ftp://x", "policy": "p"}]}"#),
            Flaw::Actions => {
                self.instance.store.data_mut().action_space = Space::Discrete(0);
                self.instance.create(STUDENT)
            }
        };
        self.instance.store.data_mut().action_space = actions;
        let fits = match flaw {
            Flaw::Json | Flaw::Setting => matches!(outcome, Err(Error::Configuration(_))),
            Flaw::Address => matches!(outcome, Err(Error::Teacher(_))),
            Flaw::Actions => matches!(outcome, Err(Error::Space(_))),
        };
        assert!(fits, "{flaw:?}: {outcome:?}");
    }

    fn train(&mut self, steps: u64) {
        let outcome = self.instance.train(steps);
        let Some(outcome) = self.after_create(outcome) else { return };
        let end = STEPS.min(self.model.step + steps);
        let error = match outcome {
            Ok(progress) => {
                // Without a step the environment is not asked.
                assert!(self.model.turn == Turn::Sound || end == self.model.step, "{:?}", self.model.turn);
                self.model.step = end;
                return self.progress(Ok(progress));
            }
            Err(error) => error,
        };
        let fits = match (self.model.turn, &error) {
            (Turn::NanObservation, Error::ObservationValue(Component { index: 1, value })) => value.is_nan(),
            (Turn::LongObservation, Error::ObservationLength(Lengths { expected: 4, got: 5 })) => true,
            (Turn::NanReward, Error::Reward(reward)) => reward.is_nan(),
            (Turn::Fails, Error::Environment(text)) => text == "it fell over",
            _ => false,
        };
        assert!(fits, "{:?}: {error:?}", self.model.turn);
        // What the environment spoils is no step.
        let status = self.instance.status();
        self.progress(status);
    }

    fn act(&mut self, sight: Sight) {
        let outcome = match sight {
            Sight::Sound => self.instance.act(&SOUND),
            Sight::Infinite => self.instance.act(&[0.0, 0.0, f32::NEG_INFINITY, 0.0]),
            Sight::Short => self.instance.act(&SOUND[..3]),
        };
        let Some(outcome) = self.after_create(outcome) else { return };
        let fits = match (sight, &outcome, &self.instance.store.data().action_space) {
            (Sight::Sound, Ok(Action::Discrete(index)), Space::Discrete(n)) => index < n,
            (Sight::Sound, Ok(Action::Box(values)), Space::Box(Bounds { low, .. })) => {
                values.len() == low.len() && values.iter().all(|v| v.is_finite())
            }
            (Sight::Infinite, Err(Error::ObservationValue(Component { index: 2, .. })), _) => true,
            (Sight::Short, Err(Error::ObservationLength(Lengths { expected: 4, got: 3 })), _) => true,
            _ => false,
        };
        assert!(fits, "{sight:?}: {outcome:?}");
    }

    fn load(&mut self) {
        let Some((file, step)) = self.model.saved.clone() else { return };
        let loaded = self.instance.load(&file);
        if let Some(loaded) = self.after_create(loaded) {
            loaded.unwrap();
            self.model.step = step;
        }
    }

    fn turn(&mut self, turn: Turn) {
        self.model.turn = turn;
        let world = self.instance.store.data_mut();
        (world.observation, world.reward, world.failure) = (SOUND.into(), 1.0, None);
        match turn {
            Turn::Sound => {}
            Turn::NanObservation => world.observation[1] = f32::NAN,
            Turn::LongObservation => world.observation.push(0.0),
            Turn::NanReward => world.reward = f64::NAN,
            Turn::Fails => world.failure = Some("it fell over".into()),
        }
    }
}

/// A sequence in which every row of `length` of `symbols` symbols is there once (de Bruijn's, from Lyndon words).
fn every_order(symbols: usize, length: usize) -> Vec<usize> {
    let (mut word, mut sequence) = (vec![0; length + 1], Vec::new());
    fn extend(t: usize, p: usize, n: usize, k: usize, word: &mut [usize], sequence: &mut Vec<usize>) {
        if t > n {
            if n.is_multiple_of(p) {
                sequence.extend(&word[1..=p]);
            }
            return;
        }
        word[t] = word[t - p];
        extend(t + 1, p, n, k, word, sequence);
        for symbol in word[t - p] + 1..k {
            word[t] = symbol;
            extend(t + 1, t, n, k, word, sequence);
        }
    }
    extend(1, 1, length, symbols, &mut word, &mut sequence);
    sequence
}

/// Explores in an environment with these actions.
fn explore(actions: &Space) {
    // Before anything else: every order of two calls in an instance of its own, most of which has no student.
    for first in CALLS {
        for second in CALLS {
            let mut explorer = Explorer::new(actions);
            [first, second].into_iter().for_each(|call| explorer.make(call));
        }
    }
    let mut explorer = Explorer::new(actions);
    let orders = every_order(CALLS.len(), 3);
    assert_eq!(orders.len(), CALLS.len().pow(3));
    for call in orders {
        explorer.make(CALLS[call]);
    }
}

#[test]
fn every_order_of_calls_is_answered_with_discrete_actions() {
    explore(&Space::Discrete(2));
}

#[test]
fn every_order_of_calls_is_answered_with_continuous_actions() {
    explore(&Space::Box(Bounds { low: vec![-2.0], high: vec![2.0] }));
}

/// A host's remedy for an environment that never answers, or a call that takes too long: end the student and continue from a file.
#[test]
fn a_call_that_a_host_ends_ends_its_instance_and_the_file_goes_on_in_another() {
    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    let (engine, component) = oto_tests::component::compiled_for(config, "oto_edge.wasm");
    let endless = STUDENT.replace("150", "1000000000000");
    let new = || {
        let mut instance = Instance::made_of(&engine, &component, true);
        instance.create(&endless).unwrap();
        instance
    };
    let mut instance = new();
    instance.train(40).unwrap();
    let file = instance.save(true).unwrap();
    instance.store.set_epoch_deadline(1);
    let ticks = engine.clone();
    let ticker = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        ticks.increment_epoch();
    });
    let ended = instance.world.oto_edge_learner().call_train(&mut instance.store, u64::MAX);
    ticker.join().unwrap();
    assert!(ended.is_err(), "the call was ended");
    assert!(instance.world.oto_edge_learner().call_status(&mut instance.store).is_err(), "and its instance");
    let mut other = new();
    other.load(&file).unwrap();
    assert_eq!(other.train(10).unwrap().step, 50);
}
