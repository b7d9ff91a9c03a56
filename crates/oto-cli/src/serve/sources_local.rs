//! Where the policies of a server come from, in a build that neither follows nor trains policies: a folder, or the program itself.

use super::{ServeError, ServeOptions, learners, of_folder};
use oto_policy::Loaded;
use oto_policy::bundled;
use oto_server::Policies;
use oto_server::dataset::DatasetStore;
use oto_server::learner::Prepared;
use std::collections::HashMap;
use std::sync::Arc;

/// The policies and stores of a starting server.
pub(super) struct Sources {
    /// Policies, each with the number of its version.
    pub loaded: Vec<(Loaded, u32)>,
    /// None will come from another server.
    pub to_come: Vec<String>,
    /// The names of all.
    pub names: Vec<String>,
    /// No transitions are kept.
    pub stores: HashMap<String, Arc<dyn DatasetStore>>,
    /// Learners that are ready to work.
    pub learners: Vec<Prepared>,
    /// Nothing begins when the policies are hosted.
    pub later: Later,
}

/// Nothing.
pub(super) struct Later;

impl Later {
    /// Begins nothing.
    pub fn begin(self, _: &Policies) -> Result<Self, ServeError> {
        Ok(self)
    }
}

/// Loads the policies, and refuses what this build leaves out.
pub(super) fn gather(options: &ServeOptions) -> Result<Sources, ServeError> {
    let left_out = [
        ("--accept-replay", options.accept_replay.is_some()),
        ("--follow", options.follow.is_some()),
        ("--train", !options.train.is_empty()),
    ];
    if let Some((flag, _)) = left_out.into_iter().find(|(_, given)| *given) {
        return Err(ServeError::LeftOut(flag));
    }
    let loaded = match &options.policies {
        Some(folder) => of_folder(folder, options)?,
        None => bundled::all()?,
    };
    if let (true, Some(folder)) = (loaded.is_empty(), &options.policies) {
        return Err(ServeError::Empty(folder.clone()));
    }
    let names = loaded.iter().map(|loaded| loaded.name.clone()).collect();
    let loaded = loaded.into_iter().map(|loaded| (loaded, 1)).collect();
    Ok(Sources {
        loaded,
        to_come: Vec::new(),
        names,
        stores: HashMap::new(),
        learners: learners(options)?,
        later: Later,
    })
}
