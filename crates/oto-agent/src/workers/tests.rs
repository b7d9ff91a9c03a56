//! Workers on threads: what they count, where they stop, what is refused.

use super::*;
use crate::config::{EvaluationConfig, StudentConfig};
use crate::drive::Driver;
use crate::presets;
use crate::run::{on_cpu, prepare, prepare_with};
use crate::student::Environments;
use oto_cpu::Cpu;
use oto_env::{Action, EnvError, Environment, Snapshot, Space, Step};
use oto_rl::algorithms::a3c::{A3cConfig, AdvantageActorCritic};

const ENVIRONMENT: &str = "CartPole-v1";

fn job(workers: usize, steps: u64) -> Job {
    let student = StudentConfig {
        seed: 5,
        steps,
        evaluation: EvaluationConfig { every: 200, episodes: 2 },
        algorithm: A3cConfig { hidden: vec![16], ..A3cConfig::default() }.into(),
        ..presets::learner(ENVIRONMENT, &AdvantageActorCritic)
    };
    let (env, teachers) = (ENVIRONMENT.into(), Vec::new());
    Job {
        env,
        student,
        teachers,
        defaults: None,
        from: None,
        dataset: None,
        workers,
        distill: None,
        peer: None,
    }
}

/// What an observer saw.
#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    metrics: Vec<Metrics>,
    checkpoint: Vec<u8>,
    stop_after: Option<u64>,
}

impl Observer for Seen {
    fn event(&mut self, event: &Event) -> Result<(), String> {
        self.events.push(event.clone());
        Ok(())
    }

    fn metrics(&mut self, metrics: &Metrics) -> Result<(), String> {
        self.metrics.push(metrics.clone());
        Ok(())
    }

    fn progress(&mut self, _: &Metrics) -> Result<(), String> {
        Ok(())
    }

    fn checkpoint(&mut self, student: &Student) -> Result<(), String> {
        self.checkpoint = student.save(true).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn stop(&self) -> bool {
        let last = self.metrics.last().map_or(0, |metrics| metrics.step);
        self.stop_after.is_some_and(|stop| last >= stop)
    }
}

fn shared(job: &Job, resume: Option<&[u8]>) -> Student {
    // One worker shares its agent, too: with itself.
    let environment = environments::of_student(&job.env, &job.student).unwrap();
    let mut student = Student::of(Part::Shared, &job.student, environment, &[], &Cpu, 0).unwrap();
    if let Some(file) = resume {
        student.load(file, 0).unwrap();
        student.set_steps(job.student.steps);
    }
    student
}

fn evaluations(events: &[Event]) -> Vec<(u64, f64)> {
    let of = |event: &Event| match event {
        Event::Evaluation { step, mean, .. } => Some((*step, *mean)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// The shared side and its only worker make the updates and evaluations of the plain run, bit by bit.
#[test]
fn one_worker_is_the_plain_run() {
    let job = job(1, 1000);
    let (mut plain, mut driver) = prepare(&job, on_cpu(Cpu), Driver::new(&[]).unwrap(), None).unwrap();
    let mut expected = Seen::default();
    crate::run::run(&mut plain, &mut driver, &mut expected).unwrap();
    let mut student = shared(&job, None);
    let mut seen = Seen::default();
    let last = run(&job, &mut student, &Cpu, &mut seen).unwrap();
    assert_eq!(evaluations(&seen.events), evaluations(&expected.events));
    assert_eq!(evaluations(&seen.events).len(), 5);
    let state = |student: &mut Student| student.trainer().learner().engine().state().unwrap();
    assert_eq!(state(&mut student), state(&mut plain));
    assert_eq!((last.step, last.updates, last.loss), (1000, 50, plain.metrics(0).loss));
    let workers = last.workers.unwrap();
    assert_eq!((workers[0].applied, workers[0].max_staleness), (50, 0));
}

#[test]
fn no_step_and_no_gradient_is_lost() {
    let job = job(4, 2_010);
    let mut student = shared(&job, None);
    let mut seen = Seen::default();
    let last = run(&job, &mut student, &Cpu, &mut seen).unwrap();
    let workers = last.workers.clone().unwrap();
    assert_eq!(workers.len(), 4);
    // The last ten steps are no whole rollout.
    assert_eq!(workers.iter().map(|counts| counts.sent()).sum::<u64>(), 100);
    assert_eq!(workers.iter().map(|counts| counts.applied).sum::<u64>(), last.updates);
    assert_eq!((last.step, student.trainer().steps(), last.done), (2_010, 2_010, true));
    let episodes = seen.events.iter().filter(|event| matches!(event, Event::Episode { .. })).count() as u64;
    assert_eq!(last.episodes, episodes);
    assert_eq!(evaluations(&seen.events).len(), 10);
    // The short rollout may come before the last whole one.
    let steps = seen.metrics.iter().map(|metrics| metrics.step).collect::<Vec<_>>();
    assert!(steps[..3] == [500, 1000, 1500] && steps.len() == 5 && steps[4] == 2010, "{steps:?}");
}

#[test]
fn a_stopped_run_continues_with_any_number_of_workers() {
    let mut job = job(3, 1_000_000);
    let mut student = shared(&job, None);
    let mut seen = Seen { stop_after: Some(1000), ..Seen::default() };
    let stopped = run(&job, &mut student, &Cpu, &mut seen).unwrap();
    assert!(stopped.step >= 1000 && !stopped.done, "{}", stopped.step);
    (job.workers, job.student.steps) = (2, stopped.step + 500);
    let mut student = shared(&job, Some(&seen.checkpoint));
    assert_eq!(student.trainer().updates(), stopped.updates);
    let last = run(&job, &mut student, &Cpu, &mut Seen::default()).unwrap();
    assert_eq!((last.step, last.updates), (job.student.steps, stopped.updates + 25));

    // One worker without a shared side continues it as well.
    let (mut plain, mut driver) =
        prepare(&Job { workers: 1, ..job.clone() }, on_cpu(Cpu), Driver::new(&[]).unwrap(), None).unwrap();
    plain.load(&seen.checkpoint, 0).unwrap();
    plain.set_steps(job.student.steps);
    let last = crate::run::run(&mut plain, &mut driver, &mut Seen::default()).unwrap();
    assert_eq!((last.step, last.updates), (job.student.steps, stopped.updates + 25));
}

#[test]
fn a_job_that_workers_cannot_run_is_refused() {
    let refused = |change: &dyn Fn(&mut Job)| {
        let mut job = job(2, 100);
        change(&mut job);
        check(&job).unwrap_err().to_string()
    };
    assert_eq!(refused(&|job| job.workers = 0), "expected 1 to 64 workers, got 0");
    assert_eq!(
        refused(&|job| job.workers = usize::MAX),
        format!("expected 1 to 64 workers, got {}", usize::MAX)
    );
    assert!(refused(&|job| job.student = presets::student(ENVIRONMENT)).contains("got \"qrdqn\""));
    assert!(refused(&|job| job.student.backend = "webgpu".into()).contains("backend"));
    assert!(refused(&|job| job.student.evaluate_between_episodes = true).contains("training environment"));
    assert!(refused(&|job| job.dataset = Some("d".into())).contains("dataset"));
    let mut one = job(1, 100);
    one.student = presets::student(ENVIRONMENT);
    assert!(check(&one).is_ok());
    let many = Job { workers: 65, ..job(1, 100) };
    let prepared = prepare(&many, on_cpu(Cpu), Driver::new(&[]).unwrap(), None);
    assert!(matches!(prepared.map(drop), Err(RunError::Workers(WorkersError::Count(65)))));
    let environment = environments::of_student(ENVIRONMENT, &one.student).unwrap();
    let part = Student::of(Part::Worker, &one.student, environment, &[], &Cpu, 0);
    assert!(part.err().unwrap().to_string().contains("asynchronous"));
}

/// An environment for evaluations that fails.
struct Broken(Box<dyn Environment>);

impl Environment for Broken {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn observation_space(&self) -> &Space {
        self.0.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.0.action_space()
    }

    fn max_episode_steps(&self) -> Option<u32> {
        self.0.max_episode_steps()
    }

    fn reset(&mut self, _: Option<u64>, _: &mut [f32]) -> Result<(), EnvError> {
        Err(EnvError::ActionRange { n: 2, got: 7 })
    }

    fn save(&self) -> Result<Snapshot, EnvError> {
        self.0.save()
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), EnvError> {
        self.0.restore(snapshot)
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Result<Step, EnvError> {
        self.0.step(action, observation)
    }
}

#[test]
fn a_failure_ends_all_workers_and_leaves_a_checkpoint() {
    let job = job(3, 100_000);
    let make = || oto_env::make(ENVIRONMENT).unwrap();
    let environment = Environments::Inside { train: make(), evaluate: Some(Box::new(Broken(make()))) };
    let prepared = prepare_with(environment, &job, on_cpu(Cpu), Driver::new(&[]).unwrap(), None, |_| Ok(()));
    let (mut student, _) = prepared.unwrap();
    let mut seen = Seen::default();
    let error = run(&job, &mut student, &Cpu, &mut seen).unwrap_err();
    assert!(matches!(error, RunError::Train(TrainError::Environment(_))), "{error}");
    assert!(student.trainer().steps() >= 200);
    assert!(!seen.checkpoint.is_empty());
}

/// Each worker keeps the state of its own episode.
#[test]
fn workers_share_a_recurrent_agent() {
    let mut job = job(2, 2_000);
    job.student.algorithm = A3cConfig { hidden: vec![16], lstm: Some(8), ..A3cConfig::default() }.into();
    let (mut student, mut seen) = (shared(&job, None), Seen::default());
    let last = run(&job, &mut student, &Cpu, &mut seen).unwrap();
    assert_eq!(last.step, 2_000);
    let applied = last.workers.unwrap().iter().map(|worker| worker.applied).sum::<u64>();
    assert!(applied >= 98, "{applied} gradients of rollouts of 20 steps");
    assert!(evaluations(&seen.events).len() >= 9);
    let mut again = shared(&job, Some(&seen.checkpoint));
    let state = |student: &mut Student| student.trainer().learner().engine().state().unwrap();
    assert_eq!(state(&mut student), state(&mut again));
}

/// The default run, as one worker has it. Ten runs of ten with two and four workers ended at 500.
#[test]
fn two_workers_solve_cart_pole() {
    let mut job = job(2, 200_000);
    job.student = StudentConfig {
        seed: 1,
        evaluation: EvaluationConfig { every: 200_000, episodes: 10 },
        ..presets::learner(ENVIRONMENT, &AdvantageActorCritic)
    };
    assert_eq!(job.student.steps, 200_000);
    let mut student = shared(&job, None);
    let last = run(&job, &mut student, &Cpu, &mut Seen::default()).unwrap();
    let score = last.last_evaluation.unwrap();
    assert!(score > 400.0, "{score}");
}
