//! `oto serve`: hosts teachers, and the site.

#[cfg(feature = "native")]
mod sources;
#[cfg(not(feature = "native"))]
#[path = "sources_local.rs"]
mod sources;

#[cfg(feature = "native")]
use crate::authorities::AuthorityError;
use crate::group::{GroupFileError, group};
use crate::learner;
use crate::log::LogOptions;
use crate::security_options::{DoorError, DoorOptions};
use crate::share::{self, ShareFileError};
use crate::signals;
#[cfg(feature = "native")]
use crate::train::TrainError;
use clap::Args;
use oto_policy::device::{Device, DeviceError, use_device};
use oto_policy::load::{RUN_NEWEST, RUN_POLICY, load_each_with};
use oto_policy::{Loaded, PolicyError};
#[cfg(feature = "native")]
use oto_server::dataset::StoreError;
#[cfg(feature = "native")]
use oto_server::follow::FollowError;
use oto_server::learner::Prepared;
use oto_server::{
    Assets, Collecting, Groups, Policies, ServerConfig, ServerError, check_address, folder, raise_open_files,
    run,
};
use sources::Sources;
use std::borrow::Cow;
use std::future::Future;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tracing::{info, warn};

/// What to serve, and where.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// TOML file with settings, named as these flags; environment variables (OTO_SERVE_PORT, ...) override it, flags override both
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Load and check everything without opening a port, and report whether the server would start
    #[arg(long)]
    pub check: bool,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port to listen on; 0 for any
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Folder of policies (each a MODEL with NAME.json beside it); without it the bundled ones
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Serve the newest policies of run folders instead of the best ones
    #[arg(long, requires = "policies", conflicts_with = "watch")]
    pub newest: bool,
    /// Device of the policies' networks: cpu; or cuda or metal, a graphics card, in a build with the cargo feature of that name. On the
    /// cpu a large network is timed when it is loaded, on oto's layers and on candle's; see docs/serving.md
    #[arg(long, value_parser = Device::NAMES, default_value = "cpu")]
    pub device: String,
    /// Skip policies of the folder that cannot be loaded, with a warning, instead of refusing to start
    #[arg(long, requires = "policies")]
    pub skip_bad: bool,
    /// Check the folder every SECONDS, and publish replaced models
    #[arg(long, value_name = "SECONDS", requires = "policies")]
    pub watch: Option<u32>,
    /// Additional origin of pages that may connect; repeatable
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
    /// Accept replay submissions from students, and store them in DIR, one folder for each policy; DIR may be s3://BUCKET/PREFIX
    #[arg(long, value_name = "DIR")]
    pub accept_replay: Option<String>,
    /// Limit of the stored submissions for each policy, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub replay_bytes: u64,
    /// Share the models' bytes with everyone who can reach this server, so that other servers can follow it
    #[arg(long)]
    pub share_weights: bool,
    /// Keep training policy NAME, as configured in FILE, while it answers; repeatable; see docs/stages.md
    #[arg(long, value_name = "NAME=FILE")]
    pub train: Vec<String>,
    /// Host learner NAME, as configured in FILE (TOML or JSON): it trains from the rows of edges (`oto act`) and sends them weights;
    /// repeatable; see docs/cloud-edge.md. Without it, and with the bundled policies, the learner of the demo
    #[arg(long, value_name = "NAME=FILE")]
    pub learn: Vec<String>,
    /// Share agent NAME, as configured in FILE (TOML or JSON), with asynchronous workers (`oto learn --share`): they fetch its parameters and
    /// send gradients; repeatable; see docs/workers.md
    #[arg(long, value_name = "NAME=FILE")]
    pub share: Vec<String>,
    /// Group NAME, as configured in FILE (TOML or JSON): its members (`oto learn --peer`) learn from each other's logits; repeatable; see
    /// docs/distillation.md
    #[arg(long, value_name = "NAME=FILE")]
    pub group: Vec<String>,
    /// Follow another server (wss://host): download its published policies and serve them here
    #[arg(long, value_name = "URL", requires = "policy")]
    pub follow: Option<String>,
    /// Policy to follow; repeatable
    #[arg(long, value_name = "NAME", requires = "follow")]
    pub policy: Vec<String>,
    /// Store the last version of each followed policy in DIR, and serve it after a restart until the followed server answers
    #[arg(long, value_name = "DIR", requires = "follow")]
    pub follow_keep: Option<PathBuf>,
    /// File of trusted certificates (PEM) for wss://, in place of Mozilla's authorities
    #[arg(long, value_name = "FILE", requires = "follow")]
    pub follow_ca: Option<PathBuf>,
    /// Doors.
    #[command(flatten)]
    pub doors: DoorOptions,
    /// The log.
    #[command(flatten)]
    pub log: LogOptions,
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The device cannot be used.
    #[error("--device: {0}")]
    Device(#[from] DeviceError),
    /// Policies of the folder cannot be used.
    #[error("{}", listed(.0))]
    Policies(Vec<PolicyError>),
    /// The server's own failure.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A folder of submissions cannot be used.
    #[cfg(feature = "native")]
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name of a policy is none for a folder.
    #[cfg(feature = "native")]
    #[error("submissions to {0:?} need a folder of that name, which cannot be: rename the policy")]
    Folder(String),
    /// A policy that was to be trained.
    #[cfg(feature = "native")]
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A learner that was to be hosted.
    #[error(transparent)]
    Learn(#[from] crate::learner::LearnFileError),
    /// An agent that was to be shared.
    #[error(transparent)]
    Share(#[from] ShareFileError),
    /// A group.
    #[error(transparent)]
    Group(#[from] GroupFileError),
    /// The server to follow cannot be.
    #[cfg(feature = "native")]
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A policy to follow.
    #[cfg(feature = "native")]
    #[error("--policy {policy}: {error}")]
    Followed {
        /// Its name.
        policy: String,
        /// Why there is no version of it.
        error: FollowError,
    },
    /// Whom a follower is to trust.
    #[cfg(feature = "native")]
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A flag whose work this build leaves out.
    #[error(
        "this build has no {0}: build with the cargo feature `native`, which is a part of the default ones"
    )]
    LeftOut(&'static str),
    /// A door cannot be opened.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// No policy at all.
    #[error("{} holds no policies: a policy is a model file with a NAME.json of kind \"policy\" beside it", .0.display())]
    Empty(PathBuf),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What happened.
        error: std::io::Error,
    },
    /// No runtime.
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
}

fn listed(errors: &[PolicyError]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The policies of a folder; the log says which one of each run it is. All that cannot be used are named, and may be left out.
fn of_folder(folder: &Path, options: &ServeOptions) -> Result<Vec<Loaded>, ServeError> {
    let run = if options.newest { RUN_NEWEST } else { RUN_POLICY };
    let loaded = sound(load_each_with(folder, run)?, options.skip_bad)?;
    for Loaded { name, metadata, warnings, .. } in &loaded {
        let runs = [folder.join(name), folder.to_owned()];
        if runs.iter().any(|folder| folder.join(run).is_file()) {
            info!(policy = name, run = metadata.description, newest = options.newest, "the policy of a run");
        }
        warnings.iter().for_each(|warning| warn!(policy = name, "{warning}"));
    }
    Ok(loaded)
}

/// Those that could be loaded. `skip_bad`: the others are left out with a warning.
fn sound(found: Vec<Result<Loaded, PolicyError>>, skip_bad: bool) -> Result<Vec<Loaded>, ServeError> {
    let (mut loaded, mut bad) = (Vec::new(), Vec::new());
    for found in found {
        match found {
            Ok(policy) => loaded.push(policy),
            Err(error) => bad.push(error),
        }
    }
    match bad.is_empty() || skip_bad {
        true => bad.iter().for_each(|error| warn!(%error, "a policy is left out")),
        false => return Err(ServeError::Policies(bad)),
    }
    Ok(loaded)
}

/// The site as it was built, carried in the program.
#[derive(rust_embed::Embed)]
#[folder = "../../web/demo/dist"]
#[allow_missing = true]
struct Site;

impl Assets for Site {
    fn get(&self, path: &str) -> Option<Cow<'static, [u8]>> {
        <Site as rust_embed::Embed>::get(path).map(|file| file.data)
    }
}

/// Whether the server has the bundled teachers alone: then it has the demo's learner and shared agent, too.
fn is_demo(options: &ServeOptions) -> bool {
    options.policies.is_none() && options.follow.is_none() && options.train.is_empty()
}

/// The learners that the options name; beside the bundled teachers alone the bundled learner.
fn learners(options: &ServeOptions) -> Result<Vec<Prepared>, ServeError> {
    if options.learn.is_empty() && is_demo(options) {
        return Ok(learner::bundled()?);
    }
    Ok(options.learn.iter().map(|flag| learner::learner(flag)).collect::<Result<_, _>>()?)
}

/// Serves until Ctrl-C or a termination signal.
pub fn serve(options: &ServeOptions) -> Result<(), ServeError> {
    let _log = options.log.start()?;
    use_device(options.device.parse()?)?;
    let Sources { loaded, to_come, names, stores, learners, later } = sources::gather(options)?;
    let mut config = ServerConfig::new(Policies::numbered(loaded, &to_come)?);
    config.assets = Some(Arc::new(Site));
    config.origins = options.origin.clone();
    config.share_weights = options.share_weights;
    config.collecting = Collecting::new(stores);
    let policies = config.policies.clone();
    let trained = learners.iter().map(|one| one.name().to_owned()).collect::<Vec<_>>();
    // They end, and save themselves, when this function does.
    let (learners, _learning) = oto_server::learner::start(learners, &policies)?;
    config.learners = learners;
    let mut shared = options.share.iter().map(|flag| share::share(flag)).collect::<Result<Vec<_>, _>>()?;
    if shared.is_empty() && is_demo(options) {
        shared.push(share::bundled()?);
    }
    let groups = options.group.iter().map(|flag| group(flag)).collect::<Result<Vec<_>, _>>()?;
    let names = names
        .into_iter()
        .chain(trained)
        .chain(groups.iter().map(|(name, _)| name.clone()))
        .chain(shared.iter().map(|one| one.name().into()))
        .collect::<Vec<String>>();
    let (shares, keeping) = share::start(shared, &policies)?;
    config.shares = shares;
    config.groups = Groups::new(groups, &policies)?;
    let own = SocketAddr::new(options.host, options.port);
    // With --skip-bad, policies that the file of rights names may have been left out.
    let known = (!options.skip_bad).then_some(&names[..]);
    let doors = options.doors.set(own, &mut config, &policies, known)?;
    config.check()?;
    for address in iter::once(own).chain(options.doors.admin) {
        check_address(address).map_err(|error| ServeError::Listen { address, error })?;
    }
    if config.lacks_site() {
        warn!("this build has no site: / answers 404; cargo xtask demo builds site and server");
    }
    if options.check {
        crate::out!("fine: {}", names.join(", "));
        return Ok(());
    }
    let _keeping = keeping.begin(&config.shares)?;
    let _running = later.begin(&policies)?;
    let watched =
        options.policies.as_deref().zip(options.watch.map(|s| Duration::from_secs(s.max(1).into())));
    let watch = |(path, every)| folder::watch(path, policies.clone(), every, |event| event.log());
    let _watching = watched.map(watch).transpose()?;
    // Who does not watch the folder all the time may still have it looked at when the program is told to.
    let unwatched = options.policies.as_deref().filter(|_| options.watch.is_none());
    let mut look = unwatched.map(|path| folder::look(path, policies.clone(), |event| event.log()));
    raise_open_files();
    let (count, names) = (names.len(), names.join(", "));
    tokio::runtime::Runtime::new()?.block_on(async {
        let (listener, address) = listen(own).await?;
        let operators = match doors.admin {
            Some((address, admin)) => Some((listen(address).await?, admin)),
            None => None,
        };
        // A signal counts before the address is announced.
        let mut stopping = Box::pin(signals::told());
        let listening = |context: &mut Context<'_>| Poll::Ready(stopping.as_mut().poll(context).is_ready());
        if std::future::poll_fn(listening).await {
            return Ok(());
        }
        let [http, ws] = options.doors.schemes();
        crate::out!("policies: {names}\nserving {http}://{address}  (students: {ws}://{address}/v1/teach)");
        info!(%address, policies = count, version = env!("CARGO_PKG_VERSION"), "serving");
        // Ends with the runtime.
        if let Some(((listener, address), admin)) = operators {
            crate::out!("operators: http://{address}  (oto policy --admin {address})");
            info!(%address, "operators may come");
            tokio::spawn(admin.run(listener, std::future::pending()));
        }
        tokio::spawn(signals::each_hangup(move || {
            doors.renewable.renew();
            if let Some(look) = &mut look {
                look();
            }
        }));
        Ok(run(listener, config, stopping).await?)
    })
}

async fn listen(address: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), ServeError> {
    let failed = |error| ServeError::Listen { address, error };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    use oto_policy::load_each;

    #[test]
    fn all_policies_that_cannot_be_used_are_named_and_may_be_left_out() {
        let folder = std::env::temp_dir().join(format!("oto-serve-bad-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("good.json", r#"{"kind":"policy","model":"scripted:random","env":"CartPole-v1"}"#);
        write("a.json", r#"{"kind":"policy","model":"absent.onnx"}"#);
        write("b.json", r#"{"kind":"policy","model":"../b.onnx"}"#);
        let error = sound(load_each(&folder).unwrap(), false).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("absent.onnx") && error.contains("b.json") && error.lines().count() == 2,
            "{error}"
        );
        let names: Vec<_> =
            sound(load_each(&folder).unwrap(), true).unwrap().into_iter().map(|policy| policy.name).collect();
        assert_eq!(names, ["good"]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
