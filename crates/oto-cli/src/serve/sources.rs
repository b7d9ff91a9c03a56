//! Sources of a server's policies: a folder, the program itself, another server, or a policy that learns here.

use super::{ServeError, ServeOptions, learners, of_folder};
use crate::{authorities, submitted, train};
use oto_agent::run::token;
use oto_policy::Loaded;
use oto_policy::bundled;
use oto_server::Policies;
use oto_server::agent::{Training, Waiting, start};
use oto_server::dataset::{self, DatasetStore};
use oto_server::follow::{FollowConfig, Follower, Following, Log};
use oto_server::learner::Prepared;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tracing::warn;

/// The policies and stores of a starting server.
pub(super) struct Sources {
    /// Policies, each with the number of its version.
    pub loaded: Vec<(Loaded, u32)>,
    /// Names of policies that will come from another server.
    pub to_come: Vec<String>,
    /// The names of all.
    pub names: Vec<String>,
    /// Where the transitions that students submit are kept, by policy.
    pub stores: HashMap<String, Arc<dyn DatasetStore>>,
    /// Learners that are ready to work.
    pub learners: Vec<Prepared>,
    /// What begins when the policies are hosted.
    pub later: Later,
}

/// Followers and trainings that have not begun.
pub(super) struct Later {
    followed: Vec<Follower>,
    trained: Vec<Waiting>,
}

impl Later {
    /// Begins them; they end when what this gives is dropped.
    pub fn begin(self, policies: &Policies) -> Result<(Vec<Following>, Vec<Training>), ServeError> {
        let follow = |follower: Follower| follower.follow(policies.clone(), log());
        let following = self.followed.into_iter().map(follow).collect::<Result<Vec<_>, _>>()?;
        let begin = |waiting: Waiting| waiting.begin(policies.clone());
        Ok((following, self.trained.into_iter().map(begin).collect()))
    }
}

/// Loads and opens all that the options name.
pub(super) fn gather(options: &ServeOptions) -> Result<Sources, ServeError> {
    let (mut followed, mut to_come) = (Vec::new(), Vec::new());
    // Each with the number of its version.
    let first = |loaded: Vec<Loaded>| loaded.into_iter().map(|loaded| (loaded, 1)).collect::<Vec<_>>();
    let mut loaded = match (&options.follow, &options.policies) {
        (Some(url), folder) => {
            let mut loaded = Vec::new();
            for (follower, first) in followers(url, options)? {
                match first {
                    Some(first) => loaded.push((first, follower.version())),
                    None => to_come.push(follower.policy().to_owned()),
                }
                followed.push(follower);
            }
            if let Some(folder) = folder {
                loaded.extend(first(of_folder(folder, options)?));
            }
            loaded
        }
        (None, None) => first(bundled::all()?),
        (None, Some(folder)) => first(of_folder(folder, options)?),
    };
    if let (true, Some(folder)) = (loaded.is_empty(), &options.policies) {
        return Err(ServeError::Empty(folder.clone()));
    }
    let jobs = options.train.iter().map(|flag| train::job(flag)).collect::<Result<Vec<_>, _>>()?;
    let others = jobs.iter().map(|(name, _)| name).chain(&to_come);
    let names: Vec<String> = loaded.iter().map(|(loaded, _)| &loaded.name).chain(others).cloned().collect();
    let stores = match &options.accept_replay {
        Some(folder) => stores(folder, &names, options.replay_bytes)?,
        None => HashMap::new(),
    };
    let mut trained = Vec::new();
    for (name, job) in jobs {
        let (store, said) = (stores.get(&name).cloned(), name.clone());
        let log = Box::new(move |event: oto_server::agent::Event| event.log(&said));
        let make = {
            let (name, job) = (name.clone(), job.clone());
            move || job.parts(&name, store)
        };
        let (first, waiting) = start(&name, job.stages.clone(), make, log)?;
        let metadata = train::metadata(&job, &first);
        let version = first.version;
        let loaded_first =
            Loaded { name, metadata, policy: first.policy, model: first.model, warnings: vec![] };
        loaded.push((loaded_first, version));
        trained.push(waiting);
    }
    let learners = learners(options)?;
    Ok(Sources { loaded, to_come, names, stores, learners, later: Later { followed, trained } })
}

/// A place for the submissions to each of these policies.
fn stores(
    folder: &str,
    names: &[String],
    bytes: u64,
) -> Result<HashMap<String, Arc<dyn DatasetStore>>, ServeError> {
    let mut stores: HashMap<String, Arc<dyn DatasetStore>> = HashMap::new();
    for name in names {
        let plain = Path::new(name).file_name().is_some_and(|file| file == name.as_str());
        if !plain || name.contains('\\') {
            return Err(ServeError::Folder(name.clone()));
        }
        let store = dataset::open(&format!("{}/{name}", folder.trim_end_matches('/')), bytes)?;
        for damage in store.damage() {
            let (segment, Range { start, end }) = (damage.segment, damage.bytes.clone());
            warn!(policy = name, segment, start, end, "bytes of a segment cannot be read");
        }
        for lost in store.lost() {
            let (student, batches, transitions) = (&*lost.student, lost.batches.len(), lost.transitions);
            let names = submitted::some_names(&lost.batches);
            warn!(
                policy = name,
                student,
                batches,
                transitions,
                names,
                "batches are damaged or gone, and taken when they come again"
            );
        }
        stores.insert(name.clone(), store);
    }
    Ok(stores)
}

/// Followers of a server in the cloud, each with its first version; it waits until one has one.
fn followers(url: &str, options: &ServeOptions) -> Result<Vec<(Follower, Option<Loaded>)>, ServeError> {
    let trusted = options.follow_ca.as_deref().map(authorities::read).transpose()?;
    let follower = |name: &String| {
        let (keep, trusted) = (options.follow_keep.clone(), trusted.clone());
        let mut config = FollowConfig { keep, trusted, ..FollowConfig::new(url, name) };
        token().map_or(Ok(()), |token| config.authorize(&token))?;
        Ok(Follower::new(config)?)
    };
    let mut followers = options.policy.iter().map(follower).collect::<Result<Vec<_>, ServeError>>()?;
    // No student waits long for one policy while another one can answer.
    let hurried = followers.iter().any(Follower::has_kept);
    if options.check {
        return checked(followers);
    }
    loop {
        let looks: Vec<_> = followers.iter_mut().map(|f| f.look_for_first(hurried, &mut log())).collect();
        if looks.iter().any(Result::is_ok) {
            return Ok(followers.into_iter().zip(looks.into_iter().map(Result::ok)).collect());
        }
        // Until there is something to serve, Ctrl-C ends the program itself.
        let pause = looks.into_iter().filter_map(Result::err).min();
        std::thread::sleep(pause.unwrap_or_default());
    }
}

/// Followers, each with what it could begin with now. Serving would wait for a first policy; a check does not.
fn checked(followers: Vec<Follower>) -> Result<Vec<(Follower, Option<Loaded>)>, ServeError> {
    let look = |mut follower: Follower| {
        let first = follower.look_now(&mut log());
        (follower, first)
    };
    let mut failure = None;
    let looks: Vec<_> = followers.into_iter().map(look).collect();
    let (mut found, mut any) = (Vec::new(), false);
    for (follower, first) in looks {
        any |= first.is_ok();
        let policy = follower.policy().to_owned();
        let first = first.map_err(|error| failure.get_or_insert(ServeError::Followed { policy, error })).ok();
        found.push((follower, first));
    }
    match failure {
        Some(failure) if !any => Err(failure),
        _ => Ok(found),
    }
}

fn log() -> Log {
    Box::new(|event| event.log())
}
