//! A deep alignment network at work ("Collaborative Deep Reinforcement Learning", Lin et al. 2017, section 4.2): it maps a teacher's logits
//! to a student's actions, and is trained by an optimiser of its own, so that what it gives resembles the student's (or an expert's) logits.

use crate::critics::{InitialParameters, initial};
use crate::distillation::{AlignmentConfig, DistillationConfig};
use crate::engine::{Engine, LearnError, Learner};
use crate::losses::collaborative::{AlignmentActivation, aligned, alignment_kl};
use crate::mlp::{Activation, Mlp};
use crate::optimiser::{Adam, mlp_parameters, orthogonal_layer};
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Trace};

/// Widths of the layers of an alignment network: from a teacher's actions to a student's.
fn widths(config: &AlignmentConfig, [from, to]: [usize; 2]) -> Vec<usize> {
    [&[from], &config.hidden[..], &[to]].concat()
}

/// One update of the alignment network from `rows` states: data `teacher` `[rows, from]`, `student` `[rows, to]`, `mask` `[rows]`
/// (1 where both are known) and `lr` `[]`.
///
/// # Panics
/// If the distillation has no alignment network.
pub fn program(config: &DistillationConfig, actions: [usize; 2], rows: usize) -> Program {
    let alignment = config.alignment.as_ref().expect("a distillation with an alignment network");
    let t = &Trace::new();
    let params = mlp_parameters(t, PREFIX, &widths(alignment, actions));
    let layers = params.chunks_exact(2).map(|pair| (pair[0].1, pair[1].1)).collect::<Vec<_>>();
    let teacher = t.data("teacher", &[rows, actions[0]]);
    let student = t.data("student", &[rows, actions[1]]);
    let aligned = aligned(&layers, teacher, alignment.activation);
    let each = alignment_kl(student, aligned, config.temperature, config.divergence);
    let loss = (each * t.data("mask", &[rows])).sum();
    let updates = Adam::step(alignment.adam, t, &params, loss, t.data("lr", &[]));
    t.finish(&updates, &[(LOSS, loss)])
}

/// The names of its parameters begin so.
const PREFIX: &str = "align.";
/// The program's output.
const LOSS: &str = "alignment_loss";

/// An alignment network: owns its parameters, improves them, maps logits.
pub struct Aligner {
    engine: Engine,
    widths: Vec<usize>,
    /// Each layer alone.
    layers: Vec<Mlp>,
    activation: AlignmentActivation,
    rate: f32,
    /// The numbers between two layers.
    between: Vec<f32>,
}

impl Aligner {
    /// A network from `from` logits to `to` logits, with parameters sampled from `rng`: orthogonal layers of gain sqrt 2, the last of 1.
    ///
    /// # Errors
    /// The backend's failure.
    ///
    /// # Panics
    /// If the distillation has no alignment network.
    pub fn new(
        config: &DistillationConfig,
        actions: [usize; 2],
        rows: usize,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let alignment = config.alignment.as_ref().expect("a distillation with an alignment network");
        let widths = widths(alignment, actions);
        let engine = Engine::new(program(config, actions, rows), PREFIX, backend)?;
        let layers = widths.windows(2).map(|pair| Mlp::zeros(pair, Activation::Identity)).collect();
        let (activation, rate) = (alignment.activation, alignment.learning_rate as f32);
        let mut aligner = Self { engine, widths, layers, activation, rate, between: Vec::new() };
        aligner.start_over(rng)?;
        Ok(aligner)
    }

    /// The student's logits `[rows, to]` that stand for a teacher's `[rows, from]`. Allocates only when `rows` grows.
    pub fn align(&mut self, logits: &[f32]) -> &[f32] {
        self.between.clear();
        self.between.extend_from_slice(logits);
        let last = self.layers.len() - 1;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let answer = layer.forward(&self.between);
            self.between.clear();
            self.between.extend_from_slice(answer);
            if i < last {
                self.activation.apply(&mut self.between);
            }
        }
        &self.between
    }

    /// One update from a teacher's logits `[rows, from]` and the logits that they should resemble `[rows, to]`; `mask` `[rows]`.
    ///
    /// # Errors
    /// The backend's failure; a loss that is not finite.
    pub fn learn(&mut self, teacher: &[f32], student: &[f32], mask: &[f32]) -> Result<(), LearnError> {
        let rate = [self.rate];
        let news = self.engine.update(|name| match name {
            "teacher" => Some(teacher),
            "student" => Some(student),
            "mask" => Some(mask),
            "lr" => Some(&rate[..]),
            _ => None,
        })?;
        if news { self.hand_over() } else { Ok(()) }
    }

    /// The loss of the newest update that is known.
    pub fn loss(&self) -> Option<f32> {
        self.engine.last_loss()?.get(LOSS)
    }
}

impl Learner for Aligner {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        let Self { engine, layers, .. } = self;
        layers.iter_mut().try_fold(0, |first, layer| engine.acting_layers(first, layer)).map(drop)
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let mut values = InitialParameters::new();
        for (i, pair) in self.widths.windows(2).enumerate() {
            let gain = if i + 2 == self.widths.len() { 1.0 } else { std::f64::consts::SQRT_2 };
            let (weight, bias) = orthogonal_layer(rng, pair[0], pair[1], gain);
            values.extend([(format!("{PREFIX}{i}.weight"), weight), (format!("{PREFIX}{i}.bias"), bias)]);
        }
        self.engine.start(|input| initial(&values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_cpu::Cpu;

    fn config(activation: AlignmentActivation) -> DistillationConfig {
        let alignment = AlignmentConfig {
            hidden: vec![16, 16],
            activation,
            learning_rate: 3e-3,
            ..AlignmentConfig::default()
        };
        DistillationConfig { alignment: Some(alignment), ..DistillationConfig::default() }
    }

    /// The teacher's three actions are the student's two: the first is the second, the others the first.
    #[test]
    fn it_learns_which_actions_are_the_same() {
        for activation in [AlignmentActivation::Relu, AlignmentActivation::Elu] {
            let mut aligner = Aligner::new(&config(activation), [3, 2], 8, &Cpu, &mut Rng::new(1)).unwrap();
            let teacher = (0..8).flat_map(|i| (0..3).map(move |a| if a == i % 3 { 3.0 } else { -3.0 }));
            let teacher = teacher.collect::<Vec<f32>>();
            let student = (0..8).flat_map(|i| if i % 3 == 0 { [-2.0, 2.0] } else { [2.0, -2.0] });
            let student = student.collect::<Vec<f32>>();
            aligner.learn(&teacher, &student, &[1.0; 8]).unwrap();
            let first = aligner.loss().unwrap();
            for _ in 0..400 {
                aligner.learn(&teacher, &student, &[1.0; 8]).unwrap();
            }
            assert!(aligner.loss().unwrap() < 0.05 * first, "{first} to {:?}", aligner.loss());
            let aligned = aligner.align(&teacher);
            for (row, (a, b)) in aligned.chunks_exact(2).zip(student.chunks_exact(2)).enumerate() {
                assert_eq!(a[0] > a[1], b[0] > b[1], "row {row}: {a:?}");
            }
        }
    }

    /// The plain numbers are the program's: with a rate of 0 the loss is that of the aligned logits.
    #[test]
    fn plain_and_recorded_networks_agree() {
        for activation in [AlignmentActivation::Relu, AlignmentActivation::Elu] {
            let mut config = config(activation);
            config.alignment.as_mut().unwrap().learning_rate = 0.0;
            let mut aligner = Aligner::new(&config, [2, 2], 2, &Cpu, &mut Rng::new(3)).unwrap();
            let teacher = [1.0, -0.5, 0.25, 2.0];
            let target = aligner.align(&teacher).to_vec();
            // The divergence from itself is 0, and so is what is masked.
            aligner.learn(&teacher, &target, &[1.0, 1.0]).unwrap();
            assert!(aligner.loss().unwrap().abs() < 1e-6, "{:?}", aligner.loss());
            aligner.learn(&teacher, &[9.0, 0.0, 0.0, 9.0], &[0.0, 0.0]).unwrap();
            assert_eq!(aligner.loss(), Some(0.0));
        }
    }
}
