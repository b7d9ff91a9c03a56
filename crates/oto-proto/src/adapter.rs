//! Adapters: how a student's observations become the teacher's and the teacher's actions become the student's.
//!
//! An [`Adapter`] is data, declared in `hello`. The server checks it once against both pairs of spaces, which gives a
//! [`Plan`], and then runs the plan on every row without allocating. In-process teachers run the same plans.
//!
//! An observation is mapped by `teacher[i] = student[permutation[i]] * scale[i] + offset[i]`, in single precision, the
//! product rounded before the sum. Actions are mapped by one of the [`ActionMap`]s.

use crate::message::ErrorCode;
use crate::space::{Action, Space};
use thiserror::Error;

/// Both maps of a connection. What is absent is the identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapter {
    /// From the student's observation to the teacher's.
    pub observation: Option<ObservationMap>,
    /// From the teacher's action to the student's.
    pub action: Option<ActionMap>,
}

oto_json::json_object! { Adapter: open { observation omit none, action omit none } }

/// A re-ordering followed by a scale and an offset for each component of the teacher's observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservationMap {
    /// For each component of the teacher, the student's component it is taken from. May leave out and repeat.
    pub permutation: Option<Vec<usize>>,
    /// One factor for each component of the teacher.
    pub scale: Option<Vec<f32>>,
    /// One summand for each component of the teacher.
    pub offset: Option<Vec<f32>>,
}

oto_json::json_object! {
    ObservationMap: open { permutation omit none, scale omit none, offset omit none }
}

/// From the teacher's action to the student's.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ActionMap {
    /// As it is; a vector is clipped to the student's box.
    #[default]
    Identity,
    /// Continuous to discrete: below zero one choice, otherwise the other.
    Sign {
        /// The component of the teacher's action that is looked at.
        component: usize,
        /// The student's action where the component is below zero.
        negative: u32,
        /// The student's action otherwise.
        positive: u32,
    },
    /// Continuous to discrete: the number of thresholds that the component reaches, so 0 below all of them.
    Threshold {
        /// The component of the teacher's action that is looked at.
        component: usize,
        /// Thresholds, strictly ascending.
        at: Vec<f32>,
    },
    /// Continuous to continuous: `teacher[i] * scale[i] + offset[i]`, clipped to the student's box.
    Affine {
        /// One factor for each component.
        scale: Vec<f32>,
        /// One summand for each component.
        offset: Vec<f32>,
    },
    /// Discrete to discrete.
    Table {
        /// The student's action for each of the teacher's.
        map: Vec<u32>,
    },
    /// Discrete to continuous.
    Levels {
        /// The student's action, inside its box, for each of the teacher's.
        values: Vec<Vec<f32>>,
    },
}

oto_json::json_tagged! {
    ActionMap by "kind" {
        Identity = "identity" {},
        Sign = "sign" { component = 0, negative = 0, positive = 1 },
        Threshold = "threshold" { component = 0, at },
        Affine = "affine" { scale, offset },
        Table = "table" { map },
        Levels = "levels" { values },
    }
}

/// Why an adapter was refused, or why it could not map a row.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AdapterError {
    /// A list with the wrong number of entries.
    #[error("adapter: \"{field}\" needs {expected} entries, one for each {of}, it has {found}")]
    Length {
        /// The field of the adapter.
        field: &'static str,
        /// What the entries belong to.
        of: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// An index beyond its space.
    #[error("adapter: \"{field}\" names {what} {found}, there are {count}")]
    Index {
        /// The field of the adapter.
        field: &'static str,
        /// What is counted.
        what: &'static str,
        /// The index.
        found: usize,
        /// How many there are.
        count: usize,
    },
    /// A NaN or an infinity in the adapter.
    #[error("adapter: \"{field}\" has an entry that is not a finite number, at {index}")]
    Number {
        /// The field of the adapter.
        field: &'static str,
        /// The entry, counted from 0.
        index: usize,
    },
    /// Thresholds that do not ascend.
    #[error("adapter: \"at\" must ascend, entry {0} does not lie above the one before it")]
    Order(usize),
    /// No thresholds, or more bins than the student has actions.
    #[error("adapter: {thresholds} thresholds make {bins} actions, the student has {n}; at least one threshold is needed", bins = .thresholds + 1)]
    Bins {
        /// The number of thresholds.
        thresholds: usize,
        /// The number of the student's actions.
        n: u32,
    },
    /// A level outside the student's action box.
    #[error("adapter: \"values\" entry {level} leaves the student's action box at component {component}")]
    Level {
        /// The entry, counted from 0.
        level: usize,
        /// Its component.
        component: usize,
    },
    /// An action map for other kinds of spaces.
    #[error(
        "adapter: the action map \"{map}\" leads from {from} to {to}, the teacher's action is {teacher} and the student's is {student}"
    )]
    Kinds {
        /// The name of the map.
        map: &'static str,
        /// The kind of teacher it is for.
        from: &'static str,
        /// The kind of student it is for.
        to: &'static str,
        /// The teacher's action space.
        teacher: String,
        /// The student's action space.
        student: String,
    },
    /// Spaces that do not fit as they are.
    #[error(
        "the student's {what} is {student} and the teacher's is {teacher}: declare an adapter that maps between them"
    )]
    Mismatch {
        /// Observation or action.
        what: &'static str,
        /// The student's space.
        student: String,
        /// The teacher's space.
        teacher: String,
    },
    /// An observation map between spaces that are not both boxes.
    #[error(
        "adapter: an observation map needs boxes, the student's observation is {student} and the teacher's is {teacher}"
    )]
    NotBoxes {
        /// The student's space.
        student: String,
        /// The teacher's space.
        teacher: String,
    },
    /// A mapped observation that overflowed or was not finite to begin with, or no index where one is needed.
    #[error("component {component} of the mapped observation is {}, which the teacher cannot take", oto_json::shown(.found))]
    Observation {
        /// The component of the teacher's observation.
        component: usize,
        /// What it would be.
        found: f32,
    },
    /// An answer that is not an action of the teacher.
    #[error("the teacher's answer is not a finite action of its space, which is {0}")]
    Answer(String),
    /// A row of another length than the spaces that were checked.
    #[error("a row of {what} has {expected} components, this one has {found}")]
    Row {
        /// Whose row.
        what: &'static str,
        /// The agreed length.
        expected: usize,
        /// The length that came.
        found: usize,
    },
}

impl AdapterError {
    /// The name of the reason, as in the test vectors.
    pub fn name(&self) -> &'static str {
        match self {
            AdapterError::Length { .. } => "length",
            AdapterError::Index { .. } => "index",
            AdapterError::Number { .. } => "number",
            AdapterError::Order(_) => "order",
            AdapterError::Bins { .. } => "bins",
            AdapterError::Level { .. } => "level",
            AdapterError::Kinds { .. } => "kinds",
            AdapterError::Mismatch { .. } => "mismatch",
            AdapterError::NotBoxes { .. } => "not_boxes",
            AdapterError::Observation { .. } => "observation",
            AdapterError::Answer(_) => "answer",
            AdapterError::Row { .. } => "row",
        }
    }

    /// The code that tells the peer.
    pub fn code(&self) -> ErrorCode {
        match self {
            AdapterError::Mismatch { .. } => ErrorCode::SpaceMismatch,
            AdapterError::Observation { found, .. } if found.is_finite() => ErrorCode::OutOfRange,
            AdapterError::Observation { .. } => ErrorCode::NotFinite,
            AdapterError::Answer(_) => ErrorCode::PolicyFailed,
            AdapterError::Row { .. } => ErrorCode::BadShape,
            _ => ErrorCode::BadAdapter,
        }
    }
}

/// A checked adapter between two particular pairs of spaces.
#[derive(Clone, Debug)]
pub struct Plan {
    student_observation: Space,
    student_action: Space,
    teacher_observation: Space,
    teacher_action: Space,
    adapter: Adapter,
}

impl Adapter {
    /// Checks that this adapter leads from the student's observations to the teacher's and from the teacher's actions
    /// to the student's.
    ///
    /// # Errors
    /// Says what does not fit. Bounds of observations are not compared: they differ between libraries for one and the
    /// same environment.
    pub fn check(
        &self,
        student_observation: &Space,
        student_action: &Space,
        teacher_observation: &Space,
        teacher_action: &Space,
    ) -> Result<Plan, AdapterError> {
        match &self.observation {
            None if one_hot(student_observation, teacher_observation) => {}
            None => check_same("observation", student_observation, teacher_observation)?,
            Some(map) => map.check(student_observation, teacher_observation)?,
        }
        match &self.action {
            None => check_same("action", student_action, teacher_action)?,
            Some(map) => map.check(teacher_action, student_action)?,
        }
        Ok(Plan {
            student_observation: student_observation.clone(),
            student_action: student_action.clone(),
            teacher_observation: teacher_observation.clone(),
            teacher_action: teacher_action.clone(),
            adapter: self.clone(),
        })
    }
}

/// Whether the student's observations may be one-hot vectors of the teacher's choices: environments show choices so, policies take
/// their index.
fn one_hot(student: &Space, teacher: &Space) -> bool {
    match (student, teacher) {
        (Space::Box { low, .. }, Space::Discrete { n }) => low.len() == *n as usize,
        _ => false,
    }
}

/// The index of a one-hot vector.
fn hot(row: &[f32]) -> Result<f32, AdapterError> {
    let index = row.iter().position(|found| *found != 0.0).unwrap_or(0);
    let wrong = |(i, found): (usize, &f32)| *found != f32::from(u8::from(i == index));
    match row.iter().enumerate().find(|entry| wrong(*entry)) {
        Some((component, found)) => Err(AdapterError::Observation { component, found: *found }),
        None => Ok(index as f32),
    }
}

/// The identity needs the same kind and the same size.
fn check_same(what: &'static str, student: &Space, teacher: &Space) -> Result<(), AdapterError> {
    let same = match (student, teacher) {
        (Space::Discrete { n: student }, Space::Discrete { n: teacher }) => student == teacher,
        (Space::Box { low: student, .. }, Space::Box { low: teacher, .. }) => student.len() == teacher.len(),
        _ => false,
    };
    if same {
        return Ok(());
    }
    Err(AdapterError::Mismatch { what, student: student.to_string(), teacher: teacher.to_string() })
}

fn check_length(
    field: &'static str,
    of: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), AdapterError> {
    if expected == found { Ok(()) } else { Err(AdapterError::Length { field, of, expected, found }) }
}

fn check_numbers(field: &'static str, numbers: &[f32]) -> Result<(), AdapterError> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(index) => Err(AdapterError::Number { field, index }),
        None => Ok(()),
    }
}

fn check_index(
    field: &'static str,
    what: &'static str,
    found: usize,
    count: usize,
) -> Result<(), AdapterError> {
    if found < count { Ok(()) } else { Err(AdapterError::Index { field, what, found, count }) }
}

impl ObservationMap {
    fn check(&self, student: &Space, teacher: &Space) -> Result<(), AdapterError> {
        let (Space::Box { .. }, Space::Box { .. }) = (student, teacher) else {
            return Err(AdapterError::NotBoxes {
                student: student.to_string(),
                teacher: teacher.to_string(),
            });
        };
        const OF: &str = "component of the teacher's observation";
        match &self.permutation {
            None => check_same("observation", student, teacher)?,
            Some(permutation) => {
                check_length("permutation", OF, teacher.width(), permutation.len())?;
                for &from in permutation {
                    check_index("permutation", "component", from, student.width())?;
                }
            }
        }
        for (field, numbers) in [("scale", &self.scale), ("offset", &self.offset)] {
            if let Some(numbers) = numbers {
                check_length(field, OF, teacher.width(), numbers.len())?;
                check_numbers(field, numbers)?;
            }
        }
        Ok(())
    }

    fn component(&self, student: &[f32], i: usize) -> f32 {
        let from = self.permutation.as_ref().map_or(i, |permutation| permutation[i]);
        let scale = self.scale.as_ref().map_or(1.0, |scale| scale[i]);
        let offset = self.offset.as_ref().map_or(0.0, |offset| offset[i]);
        student[from] * scale + offset
    }
}

impl ActionMap {
    fn name(&self) -> &'static str {
        match self {
            ActionMap::Identity => "identity",
            ActionMap::Sign { .. } => "sign",
            ActionMap::Threshold { .. } => "threshold",
            ActionMap::Affine { .. } => "affine",
            ActionMap::Table { .. } => "table",
            ActionMap::Levels { .. } => "levels",
        }
    }

    fn check(&self, teacher: &Space, student: &Space) -> Result<(), AdapterError> {
        match (self, teacher, student) {
            (ActionMap::Identity, _, _) => check_same("action", student, teacher),
            (
                ActionMap::Sign { component, negative, positive },
                Space::Box { low, .. },
                Space::Discrete { n },
            ) => {
                check_index("component", "component", *component, low.len())?;
                check_index("negative", "action", *negative as usize, *n as usize)?;
                check_index("positive", "action", *positive as usize, *n as usize)
            }
            (ActionMap::Threshold { component, at }, Space::Box { low, .. }, Space::Discrete { n }) => {
                check_index("component", "component", *component, low.len())?;
                check_thresholds(at, *n)
            }
            (ActionMap::Affine { scale, offset }, Space::Box { .. }, Space::Box { .. }) => {
                check_same("action", student, teacher)?;
                for (field, numbers) in [("scale", scale), ("offset", offset)] {
                    check_length(field, "component of the action", student.width(), numbers.len())?;
                    check_numbers(field, numbers)?;
                }
                Ok(())
            }
            (ActionMap::Table { map }, Space::Discrete { n: teacher }, Space::Discrete { n: student }) => {
                check_length("map", "action of the teacher", *teacher as usize, map.len())?;
                map.iter().try_for_each(|&to| check_index("map", "action", to as usize, *student as usize))
            }
            (ActionMap::Levels { values }, Space::Discrete { n }, Space::Box { low, high }) => {
                check_length("values", "action of the teacher", *n as usize, values.len())?;
                check_levels(values, low, high)
            }
            _ => {
                let (from, to) = self.leads();
                let (teacher, student) = (teacher.to_string(), student.to_string());
                Err(AdapterError::Kinds { map: self.name(), from, to, teacher, student })
            }
        }
    }

    /// The kinds of space this map leads from and to. The identity never asks: it names a mismatch instead.
    fn leads(&self) -> (&'static str, &'static str) {
        match self {
            ActionMap::Identity | ActionMap::Affine { .. } => ("a box", "a box"),
            ActionMap::Sign { .. } | ActionMap::Threshold { .. } => ("a box", "a discrete space"),
            ActionMap::Table { .. } => ("a discrete space", "a discrete space"),
            ActionMap::Levels { .. } => ("a discrete space", "a box"),
        }
    }
}

fn check_thresholds(at: &[f32], n: u32) -> Result<(), AdapterError> {
    check_numbers("at", at)?;
    if let Some(before) = at.windows(2).position(|pair| pair[0] >= pair[1]) {
        return Err(AdapterError::Order(before + 1));
    }
    if at.is_empty() || at.len() >= n as usize {
        return Err(AdapterError::Bins { thresholds: at.len(), n });
    }
    Ok(())
}

fn check_levels(values: &[Vec<f32>], low: &[f32], high: &[f32]) -> Result<(), AdapterError> {
    for (level, value) in values.iter().enumerate() {
        check_length(
            "values",
            "component of the student's action, in each of its lists",
            low.len(),
            value.len(),
        )?;
        check_numbers("values", value)?;
        let outside = |c: &usize| value[*c] < low[*c] || value[*c] > high[*c];
        if let Some(component) = (0..value.len()).find(outside) {
            return Err(AdapterError::Level { level, component });
        }
    }
    Ok(())
}

impl Plan {
    /// The student's observation space.
    pub fn student_observation(&self) -> &Space {
        &self.student_observation
    }

    /// The student's action space.
    pub fn student_action(&self) -> &Space {
        &self.student_action
    }

    /// The teacher's observation space.
    pub fn teacher_observation(&self) -> &Space {
        &self.teacher_observation
    }

    /// The teacher's action space.
    pub fn teacher_action(&self) -> &Space {
        &self.teacher_action
    }

    /// Maps one observation of the student into `teacher`, one of the teacher.
    ///
    /// # Errors
    /// If a row has the wrong length or a mapped component is not finite (or, for discrete observations, no index).
    pub fn observation(&self, student: &[f32], teacher: &mut [f32]) -> Result<(), AdapterError> {
        check_row("the student's observation", self.student_observation.width(), student.len())?;
        check_row("the teacher's observation", self.teacher_observation.width(), teacher.len())?;
        match &self.adapter.observation {
            None if one_hot(&self.student_observation, &self.teacher_observation) => {
                teacher[0] = hot(student)?;
            }
            None => teacher.copy_from_slice(student),
            Some(map) => teacher.iter_mut().enumerate().for_each(|(i, to)| *to = map.component(student, i)),
        }
        let takes = |found: f32| match self.teacher_observation {
            Space::Discrete { n } => found >= 0.0 && f64::from(found) < f64::from(n) && found.fract() == 0.0,
            Space::Box { .. } => found.is_finite(),
        };
        match teacher.iter().position(|&found| !takes(found)) {
            Some(component) => Err(AdapterError::Observation { component, found: teacher[component] }),
            None => Ok(()),
        }
    }

    /// Maps one action of the teacher to one of the student. A continuous result is written into `scratch`, which is
    /// as long as a student's action (any length will do where the student's actions are discrete).
    ///
    /// # Errors
    /// If the answer is not an action of the teacher's space (its bounds aside: the result is clipped to the
    /// student's), or `scratch` has the wrong length.
    pub fn action<'s>(&self, answer: Action<'_>, scratch: &'s mut [f32]) -> Result<Action<'s>, AdapterError> {
        self.check_answer(answer)?;
        if let Space::Box { low, high } = &self.student_action {
            check_row("the student's action", low.len(), scratch.len())?;
            self.vector(answer, scratch);
            for (number, (low, high)) in scratch.iter_mut().zip(low.iter().zip(high)) {
                *number = number.max(*low).min(*high);
            }
            // A finite answer times a finite scale may overflow where no bound clips it.
            if scratch.iter().any(|number| !number.is_finite()) {
                return Err(AdapterError::Answer(self.teacher_action.to_string()));
            }
            return Ok(Action::Continuous(scratch));
        }
        Ok(Action::Discrete(self.index(answer)))
    }

    fn check_answer(&self, answer: Action<'_>) -> Result<(), AdapterError> {
        let fits = match (answer, &self.teacher_action) {
            (Action::Discrete(index), Space::Discrete { n }) => index < *n,
            (Action::Continuous(row), Space::Box { low, .. }) => {
                row.len() == low.len() && row.iter().all(|number| number.is_finite())
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(AdapterError::Answer(self.teacher_action.to_string())) }
    }

    /// The student's choice for a checked answer.
    fn index(&self, answer: Action<'_>) -> u32 {
        match (&self.adapter.action, answer) {
            (Some(ActionMap::Sign { component, negative, positive }), Action::Continuous(row)) => {
                if row[*component] < 0.0 { *negative } else { *positive }
            }
            (Some(ActionMap::Threshold { component, at }), Action::Continuous(row)) => {
                // Exact: there are fewer thresholds than the student has actions.
                at.iter().filter(|&&threshold| row[*component] >= threshold).count() as u32
            }
            (Some(ActionMap::Table { map }), Action::Discrete(index)) => map[index as usize],
            (_, Action::Discrete(index)) => index,
            (_, Action::Continuous(_)) => {
                unreachable!("`check` pairs a continuous teacher with a map to choices")
            }
        }
    }

    /// The student's vector for a checked answer, before clipping.
    fn vector(&self, answer: Action<'_>, out: &mut [f32]) {
        match (&self.adapter.action, answer) {
            (Some(ActionMap::Affine { scale, offset }), Action::Continuous(row)) => {
                for (i, number) in out.iter_mut().enumerate() {
                    *number = row[i] * scale[i] + offset[i];
                }
            }
            (Some(ActionMap::Levels { values }), Action::Discrete(index)) => {
                out.copy_from_slice(&values[index as usize]);
            }
            (_, Action::Continuous(row)) => out.copy_from_slice(row),
            (_, Action::Discrete(_)) => {
                unreachable!("`check` pairs a discrete teacher with a map to vectors")
            }
        }
    }
}

fn check_row(what: &'static str, expected: usize, found: usize) -> Result<(), AdapterError> {
    if expected == found { Ok(()) } else { Err(AdapterError::Row { what, expected, found }) }
}
