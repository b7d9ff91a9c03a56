//! Who reaches a server, and how: TLS, tokens and tickets, limits, and the operator's door. Flags of `oto serve`.

use clap::Args;
use oto_json::file;
use oto_server::access::{Access, AccessError, MIN_TOKEN_BYTES};
use oto_server::admin::Admin;
use oto_server::audit::{Audit, Rotation};
use oto_server::files::affordable;
use oto_server::hosts::Hosts;
use oto_server::proxy::{Network, TrustedProxies};
use oto_server::reload::Reload;
use oto_server::tls::{Tls, TlsError};
use oto_server::{LEAST_BYTES, Policies, ServerConfig};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;
use tracing::{info, warn};

/// Doors, and who may pass them.
#[derive(Args, Clone, Debug)]
pub struct DoorOptions {
    /// Certificate chain (PEM); reloaded after a change
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve without TLS on public addresses too, for a server behind a TLS proxy
    #[arg(long)]
    pub plain_http: bool,
    /// Host name of this server, as HOST or HOST:PORT; repeatable. On loopback all names but localhost need it
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// Trusted proxies: accept the client's address from the PROXY protocol, Forwarded or X-Forwarded-For; repeatable
    #[arg(long, value_name = "CIDR")]
    pub trusted_proxy: Vec<Network>,
    /// JSON file of access rights: machines with tokens, pages with tickets; see docs/serving.md
    #[arg(long, value_name = "FILE")]
    pub access: Option<PathBuf>,
    /// Audit log: one JSON object a line for each access decision
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Rotate the audit log to FILE.1 at this size; 0: never
    #[arg(long, value_name = "BYTES", default_value_t = Rotation::default().bytes)]
    pub audit_bytes: u64,
    /// Number of rotated audit logs to keep
    #[arg(long, value_name = "N", default_value_t = Rotation::default().keep, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub audit_keep: u32,
    /// Limit of concurrent connections; lower if the limit of open files requires it
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = at_least(1))]
    pub connections: usize,
    /// Memory for messages and requests of all connections, in bytes, beside 48 KiB for each; lower if the process has less
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20, value_parser = at_least(LEAST_BYTES))]
    pub memory: usize,
    /// Limit of concurrent connections from one address [default: 64 if other machines can connect]
    #[arg(long, value_name = "N", value_parser = at_least(1))]
    pub per_address: Option<usize>,
    /// Address of the admin interface, for `oto policy`; its token is in OTO_ADMIN_TOKEN or in --admin-token
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<SocketAddr>,
    /// File with the admin token
    #[arg(long, value_name = "FILE", requires = "admin")]
    pub admin_token: Option<PathBuf>,
}

/// A number of which fewer are of no use.
fn at_least(least: usize) -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(least as u64..)
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Others could listen.
    #[error(
        "{0} can be reached by others, without TLS: give --tls-cert and --tls-key, or --plain-http if a proxy speaks TLS"
    )]
    Plain(IpAddr),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Tokens and rights.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A file or a thread.
    #[error("{what}: {source}")]
    Io {
        /// Which one.
        what: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Two doors at one place.
    #[error("--admin {admin}: expected another port than the server's own, {own}")]
    AdminPort {
        /// The operator's door.
        admin: SocketAddr,
        /// Where students come.
        own: SocketAddr,
    },
    /// The operator's token.
    #[error(
        "the operator's door needs a token of at least {MIN_TOKEN_BYTES} bytes in OTO_ADMIN_TOKEN or in the file of --admin-token"
    )]
    Token,
}

/// The environment's operator token, here and for `oto policy`.
pub(crate) const ADMIN_TOKEN: &str = "OTO_ADMIN_TOKEN";
/// Connections from one address, where anyone can connect.
const PER_ADDRESS: usize = 64;
/// From one look at the certificate's files to the next.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(10);

/// What has to be kept while a server runs.
pub(crate) struct Doors {
    _certificate: Option<Sender<()>>,
    /// What is read anew when the program is told to.
    pub renewable: Renewable,
    /// The operator's door, not open yet.
    pub admin: Option<(SocketAddr, Admin)>,
}

/// Files that can be read anew while a server runs.
pub(crate) struct Renewable {
    tls: Option<Tls>,
    access: Option<PathBuf>,
    /// The names of all policies, where the file may name no others.
    policies: Option<Vec<String>>,
    reload: Reload,
}

impl Renewable {
    /// Reads them. What cannot be used changes nothing.
    pub(crate) fn renew(&self) {
        let path = self.access.as_deref().map(|path| path.to_string_lossy().into_owned());
        let renew = |path: &Path| {
            let access = Access::read(path)?;
            self.policies.as_ref().map_or(Ok(()), |known| access.check_policies(known))?;
            self.reload.access(&access)
        };
        let access = self.access.as_deref().map(renew);
        match access {
            Some(Ok(())) => info!(path, "the file of who may is read anew"),
            Some(Err(error)) => {
                warn!(path, error = error.to_string(), "what is in it is refused, what was before stays")
            }
            None => {}
        }
        if let Some(tls) = &self.tls {
            tls.renew().log();
        }
    }
}

impl DoorOptions {
    /// Puts locks on a server that will listen at `own`. `names` are those of all policies, where the file of rights may name no others.
    pub(crate) fn set(
        &self,
        own: SocketAddr,
        config: &mut ServerConfig,
        policies: &Policies,
        names: Option<&[String]>,
    ) -> Result<Doors, DoorError> {
        if let Some(admin) = self.admin.filter(|admin| same_place(*admin, own)) {
            return Err(DoorError::AdminPort { admin, own });
        }
        let host = own.ip();
        let others =
            [Some(host), self.admin.map(|admin| admin.ip())].into_iter().flatten().find(|a| !a.is_loopback());
        let admin_plain = self.admin.is_some_and(|admin| !admin.ip().is_loopback());
        if let Some(address) = others.filter(|_| !self.plain_http && (self.tls_cert.is_none() || admin_plain))
        {
            return Err(DoorError::Plain(address));
        }
        let io = |what: &Path| {
            let what = what.display().to_string();
            move |source| DoorError::Io { what, source }
        };
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            config.tls = Some(Tls::open(certificate, key)?);
        }
        let watch = |tls: &Tls| tls.watch(CERTIFICATE_LOOK, |event| event.log());
        let certificate =
            config.tls.as_ref().map(watch).transpose().map_err(io(Path::new("the certificate")))?;
        config.access = self.access.as_deref().map(Access::read).transpose()?;
        if let (Some(access), Some(names)) = (&config.access, names) {
            access.check_policies(names)?;
        }
        let rotation = Rotation { bytes: self.audit_bytes, keep: self.audit_keep };
        config.audit = match &self.audit {
            Some(path) => Some(Audit::open(path, rotation).map_err(io(path))?),
            None => None,
        };
        config.hosts = Hosts { loopback: host.is_loopback(), names: self.name.clone() };
        config.proxies = TrustedProxies(self.trusted_proxy.clone());
        config.limits.connections = self.connections;
        config.limits.bytes = affordable(self.memory);
        let anyone = if host.is_loopback() { usize::MAX } else { PER_ADDRESS };
        config.limits.per_address = self.per_address.unwrap_or(anyone);
        let admin = |address| {
            let token = admin_token(self.admin_token.as_deref())?;
            let admin = Admin::new(policies.clone(), &token, config.audit.clone());
            Ok::<_, DoorError>((address, admin.with_learners(config.learners.clone())))
        };
        let (tls, access, reload) = (config.tls.clone(), self.access.clone(), config.reload.clone());
        let renewable = Renewable { tls, access, policies: names.map(<[_]>::to_vec), reload };
        Ok(Doors { _certificate: certificate, renewable, admin: self.admin.map(admin).transpose()? })
    }

    /// How students and pages begin the server's address.
    pub(crate) fn schemes(&self) -> [&'static str; 2] {
        if self.tls_cert.is_some() { ["https", "wss"] } else { ["http", "ws"] }
    }
}

/// Whether two listeners would use one port of one address.
fn same_place(one: SocketAddr, other: SocketAddr) -> bool {
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (all || one.ip() == other.ip())
}

/// The operator's token, from a file or from the environment.
pub(crate) fn admin_token(file: Option<&Path>) -> Result<String, DoorError> {
    let token = match file {
        Some(path) => file::read_text(path, file::MAX_TOKEN)
            .map_err(|source| DoorError::Io { what: path.display().to_string(), source })?,
        None => std::env::var(ADMIN_TOKEN).unwrap_or_default(),
    };
    let token = token.trim();
    if token.len() < MIN_TOKEN_BYTES { Err(DoorError::Token) } else { Ok(token.to_owned()) }
}
