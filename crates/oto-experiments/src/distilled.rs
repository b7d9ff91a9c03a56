//! The teachers of a run's distillation, from their files.

use oto_agent::run::Distill;
use oto_policy::PolicyError;
use oto_policy::logits::LogitPolicy;
use oto_rl::distillation::LogitTeacher;

/// The teachers of a run, and its expert.
pub type LogitTeachers = (Vec<Box<dyn LogitTeacher>>, Option<Box<dyn LogitTeacher>>);

/// Loads the policies of a distillation; none of a run without one.
///
/// # Errors
/// A file that is no policy, or a policy without logits.
pub fn load(distill: Option<&Distill>) -> Result<LogitTeachers, PolicyError> {
    let Some(distill) = distill else { return Ok((Vec::new(), None)) };
    let one = |path| LogitPolicy::load(path).map(|policy| Box::new(policy) as Box<dyn LogitTeacher>);
    let teachers = distill.teachers.iter().map(|path| one(path)).collect::<Result<_, _>>()?;
    let expert = distill.expert.as_ref().map(|path| one(path)).transpose()?;
    Ok((teachers, expert))
}
