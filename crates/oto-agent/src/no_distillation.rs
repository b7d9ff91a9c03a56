//! A page's algorithms learn from no logits: see `distillation.rs`. Nothing of this is ever made.

use crate::config::ConfigError;
use crate::trainer::TrainError;
use oto_env::rng::Rng;
use oto_graph::Backend;
use oto_rl::algorithms::{AlgorithmConfig, Sizes};
use oto_rl::distillation::LogitTeacher;
use oto_rl::engine::{LearnError, NamedTensor};
use oto_rl::replay::Batch;

/// There is none.
pub enum Distillation {}

/// What a checkpoint would keep of a teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {}

oto_json::json_object! { Saved: open {} }

impl Distillation {
    pub(crate) fn new(
        _: &AlgorithmConfig,
        _: Sizes,
        _: u64,
        _: &dyn Backend,
    ) -> Result<Option<Box<Self>>, LearnError> {
        Ok(None)
    }

    pub(crate) fn attach(
        &mut self,
        _: Vec<Box<dyn LogitTeacher>>,
        _: Option<Box<dyn LogitTeacher>>,
    ) -> Result<(), ConfigError> {
        match *self {}
    }

    pub(crate) fn lacks(&self) -> bool {
        match *self {}
    }

    pub(crate) fn expert_steps(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn expert_action(&mut self, _: &[f32], _: &mut Rng, _: &mut [f32]) -> bool {
        match *self {}
    }

    pub(crate) fn fill(&mut self, _: &mut Batch, _: &[f32], _: u64, _: bool) -> Result<(), LearnError> {
        match *self {}
    }

    pub(crate) fn ask_peers(&mut self, _: &mut Batch, _: u64) {
        match *self {}
    }

    pub(crate) fn collect(&mut self) -> Result<(), LearnError> {
        match *self {}
    }

    pub(crate) fn behind(&mut self) -> u64 {
        match *self {}
    }

    pub(crate) fn sync(&mut self) -> Result<bool, LearnError> {
        match *self {}
    }

    pub(crate) fn began(&self) -> bool {
        match *self {}
    }

    pub(crate) fn numbers(&self) -> std::iter::Empty<(&'static str, f32)> {
        match *self {}
    }

    pub(crate) fn save(&self) -> Result<(Vec<Saved>, Vec<NamedTensor>), LearnError> {
        match *self {}
    }

    pub(crate) fn check(&self, _: &[Saved], _: impl Fn(&str) -> Option<Vec<f32>>) -> Result<(), TrainError> {
        match *self {}
    }

    pub(crate) fn restore(
        &mut self,
        _: &[Saved],
        _: impl Fn(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LearnError> {
        match *self {}
    }
}
