//! In place of [`crate::adapter`] where the feature `adapter` is off: a type without values, so that nothing of it is compiled.

use crate::student::TeacherSpaces;
use oto_env::Space;
use oto_proto::{Action, Adapter};
use oto_rl::replay::{Replay, SlotId};

pub(crate) enum Learner {}

/// Nothing is saved.
#[derive(Clone)]
pub(crate) struct State;

oto_json::json_object! { State: open {} }

impl Learner {
    pub fn new(_: &Space, _: &Space, _: &TeacherSpaces, _: u64) -> Result<Self, String> {
        Err("this program was built without the feature \"adapter\", it cannot learn one".into())
    }

    pub fn adapter(&self) -> Option<Adapter> {
        match *self {}
    }

    pub fn queries(&mut self, _: &Replay) -> std::ops::Range<u64> {
        match *self {}
    }

    pub fn query(&mut self, _: u64, _: &Replay) -> Option<&[f32]> {
        match *self {}
    }

    pub fn answer(&mut self, _: u64, _: Action<'_>, _: &Replay) -> Option<(SlotId, &[f32])> {
        match *self {}
    }

    pub fn is_due(&self, _: &Replay) -> bool {
        match *self {}
    }

    pub fn look(&mut self, _: &Replay, _: impl FnMut(&[f32], &mut [f32])) -> bool {
        match *self {}
    }

    pub fn save(&self) -> State {
        match *self {}
    }

    pub fn fits(&self, _: &State) -> bool {
        match *self {}
    }

    pub fn restore(&mut self, _: State) {
        match *self {}
    }
}
