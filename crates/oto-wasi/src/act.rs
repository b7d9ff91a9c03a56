//! An edge from the command line: what `oto act` does, as far as a WASI host can have it (built-in environments, one thread).

use oto_agent::actor::drive::ActorError;
use oto_agent::actor::one_thread;
use oto_agent::environments;
use oto_agent::link::tungstenite::AddressError;
use oto_cli::actor_options::{ActorOptions, EveryError, SaveError, show};
use oto_env::EnvError;

/// Why an edge ended.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// A flag.
    #[error(transparent)]
    Every(#[from] EveryError),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// The server's address, or the token.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The actor.
    #[error(transparent)]
    Actor(#[from] ActorError),
    /// Its policy.
    #[error(transparent)]
    Save(#[from] SaveError),
}

/// Acts until the steps are made.
///
/// # Errors
/// What cannot be used, and a learner that refuses for good.
pub fn act(options: &ActorOptions) -> Result<(), ActError> {
    let every = options.every()?;
    let mut env = environments::environment(&options.env)?;
    let mut socket = options.socket()?;
    let run = options.run(env.observation_space(), env.action_space());
    let last = one_thread::act(env.as_mut(), &mut socket, run, every, |report| {
        show(options.json, "progress", report);
        !oto_cli::output::closed()
    })?;
    Ok(options.end(&last)?)
}
