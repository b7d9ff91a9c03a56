//! The teachers of a run's distillation, from their files and from servers.

use oto_agent::run::Distill;
use oto_agent::served::address;
use oto_policy::PolicyError;
use oto_policy::logits::LogitPolicy;
use oto_rl::distillation::LogitTeacher;
use std::path::Path;

/// The teachers of a run, and its expert.
pub type LogitTeachers = (Vec<Box<dyn LogitTeacher>>, Option<Box<dyn LogitTeacher>>);

/// Loads the policies of a distillation; none of a run without one.
///
/// # Errors
/// A file that is no policy, or a policy without logits; a policy of a server.
pub fn load(distill: Option<&Distill>) -> Result<LogitTeachers, PolicyError> {
    load_with(distill, |url, _| {
        Err(PolicyError::Unsupported(format!("{url} is no file: only oto learn asks servers")))
    })
}

/// The same; `serve` connects to a policy of a server, by its address and its name.
///
/// # Errors
/// The same, and those of `serve`.
pub fn load_with<E: From<PolicyError>>(
    distill: Option<&Distill>,
    mut serve: impl FnMut(&str, &str) -> Result<Box<dyn LogitTeacher>, E>,
) -> Result<LogitTeachers, E> {
    let Some(distill) = distill else { return Ok((Vec::new(), None)) };
    let mut one = |path: &Path| match address(path) {
        Some((url, policy)) => serve(url, policy),
        None => Ok(LogitPolicy::load(path).map(|policy| Box::new(policy) as Box<dyn LogitTeacher>)?),
    };
    let teachers = distill.teachers.iter().map(|path| one(path)).collect::<Result<_, _>>()?;
    let expert = distill.expert.as_ref().map(|path| one(path)).transpose()?;
    Ok((teachers, expert))
}
