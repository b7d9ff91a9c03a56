//! `oto serve`: hosts teachers, and the site.

use clap::Args;
use oto_policy::{Loaded, Metadata, PolicyError, load, load_folder};
use oto_server::{Assets, Policies, ServerConfig, ServerError, run};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

/// What to serve, and where.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port to listen on; 0 for any
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Folder of policies (MODEL with NAME.json beside it) instead of the bundled ones
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Origin of a page that may be taught from here, beside this server's own; repeat for more
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Vec<String>,
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The server's own failure.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// No policy at all.
    #[error("{} holds no policies: a policy is a model file with a NAME.json of kind \"policy\" beside it", .0.display())]
    Empty(PathBuf),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which address.
        address: std::net::SocketAddr,
        /// What happened.
        error: std::io::Error,
    },
    /// No runtime.
    #[error("cannot start: {0}")]
    Runtime(#[from] std::io::Error),
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

macro_rules! bundled {
    ($($name:literal),*) => {
        [$(($name,
            include_bytes!(concat!("../../../server/teachers/", $name, ".onnx")).as_slice(),
            include_bytes!(concat!("../../../server/teachers/", $name, ".json")).as_slice())),*]
    };
}

/// The teachers that come with the program.
pub fn bundled() -> Result<Vec<Loaded>, PolicyError> {
    let files = bundled![
        "ppo_cartpole_v1",
        "ppo_cartpole_v1_early",
        "ppo_mobile_lte",
        "sac_inverted_pendulum_v5",
        "sac_pendulum_v1"
    ];
    let loaded = files.into_iter().map(|(name, model, metadata)| {
        let mut metadata = Metadata::read(metadata)?;
        let policy = load(model, &metadata)?;
        metadata.observation_space = Some(policy.observation_space().clone());
        metadata.action_space = Some(policy.action_space().clone());
        Ok(Loaded { name: name.into(), metadata, policy })
    });
    loaded.collect()
}

/// Serves until Ctrl-C or a termination signal.
pub fn serve(options: &ServeOptions) -> Result<(), ServeError> {
    let loaded = match &options.policies {
        None => bundled()?,
        Some(folder) => load_folder(folder)?,
    };
    if let (true, Some(folder)) = (loaded.is_empty(), &options.policies) {
        return Err(ServeError::Empty(folder.clone()));
    }
    let names = loaded.iter().map(|l| l.name.clone()).collect::<Vec<_>>().join(", ");
    let mut config = ServerConfig::new(Policies::new(loaded)?);
    config.assets = Some(Arc::new(Site));
    config.origins = options.origin.clone();
    tokio::runtime::Runtime::new()?.block_on(async {
        let address = std::net::SocketAddr::new(options.host, options.port);
        let listen = |error| ServeError::Listen { address, error };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        println!("policies: {names}\nserving http://{address}  (students: ws://{address}/v1/teach)");
        Ok(run(listener, config, stopped()).await?)
    })
}

/// Done at Ctrl-C, and at a termination signal where there are such.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
