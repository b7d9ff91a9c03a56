//! The students of most pages work for no shared agent: see `share.rs`. Nothing of this is ever made.

use crate::error::CoreError;
use crate::sockets::Linked;
use oto_agent::link::Link;
use oto_agent::student::Student;
use oto_json::{Failure, Fields, Json};
use oto_rl::shared::Part;

/// The settings of a student.
pub const FIELDS: &[&str] = &["student", "env", "teachers"];

/// There is none.
#[derive(Clone, Debug)]
pub enum ShareConfig {}

impl ShareConfig {
    pub(crate) fn read(_: &Fields<'_>) -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    pub(crate) fn prepare(&self, _: &mut Vec<(String, Json)>, _: [bool; 2]) -> Result<(), CoreError> {
        match *self {}
    }

    pub(crate) fn part(&self) -> Part {
        match *self {}
    }

    pub(crate) fn url(self) -> String {
        match self {}
    }
}

/// There is none.
pub enum Share {}

impl Share {
    pub(crate) fn new(_: &mut Student, config: &ShareConfig) -> Result<Self, CoreError> {
        match *config {}
    }

    pub(crate) fn turn(&mut self, _: &mut Student) -> Result<Option<&'static str>, CoreError> {
        match *self {}
    }

    pub(crate) fn report(&self) -> Json {
        match *self {}
    }
}

impl Linked for Share {
    type Link<'a> = &'a mut Link;

    fn links(&mut self) -> impl Iterator<Item = &mut Link> {
        std::iter::empty()
    }

    fn turn(&mut self, _: u64) {}
}
