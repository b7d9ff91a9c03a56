//! `oto policy`: what a running server's operator does about its policies.

use crate::security_options::{DoorError, admin_token};
use clap::{Args, Subcommand};
use oto_policy::PolicyError;
use oto_policy::load::read_model;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::{Path, PathBuf};

/// Which server, and what to do there.
#[derive(Args, Clone, Debug)]
pub struct PolicyOptions {
    /// Address of the server's admin interface (its --admin)
    #[arg(long, global = true, value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    admin: String,
    /// File with the admin token [default: the variable OTO_ADMIN_TOKEN]
    #[arg(long, global = true, value_name = "FILE")]
    token: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Print versions, trials and queue lengths as JSON
    List,
    /// Publish a model as the new version
    Publish {
        /// Policy
        name: String,
        /// Model
        file: PathBuf,
    },
    /// Return to the previous version, under a new number
    Rollback {
        /// Policy
        name: String,
    },
    /// Serve a model to a share of the students
    Canary {
        /// Policy
        name: String,
        /// Model
        #[arg(required_unless_present_any = ["promote", "end"])]
        file: Option<PathBuf>,
        /// Share of the students, in percent
        #[arg(long, default_value_t = 5.0)]
        percent: f32,
        /// Publish the canary for all students
        #[arg(long, conflicts_with_all = ["file", "end"])]
        promote: bool,
        /// End the canary
        #[arg(long, conflicts_with = "file")]
        end: bool,
    },
    /// Query a model with the policy's requests and compare, without sending its answers; `list` prints the comparison
    Shadow {
        /// Policy
        name: String,
        /// Model
        #[arg(required_unless_present = "end")]
        file: Option<PathBuf>,
        /// End the comparison
        #[arg(long, conflicts_with = "file")]
        end: bool,
    },
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum PolicyCommandError {
    /// The operator's token.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The model cannot be read.
    #[error(transparent)]
    Read(#[from] PolicyError),
    /// The server cannot be asked.
    #[error("cannot ask the server at {address}: {source}")]
    Http {
        /// Where.
        address: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// It refused.
    #[error("the server refused: {0}")]
    Refused(String),
}

/// A request to the operator's interface.
pub(crate) struct Request<'a> {
    /// GET, POST or DELETE.
    pub method: &'static str,
    /// The path and the query.
    pub path: String,
    /// The model that is sent along.
    pub model: Option<&'a Path>,
}

/// The path of the operator's door at which something is done about a policy.
pub(crate) fn path(policy: &str, what: &str) -> String {
    format!("/policies/{}/{what}", utf8_percent_encode(policy, NON_ALPHANUMERIC))
}

impl What {
    fn wanted(&self) -> Request<'_> {
        let of = |method, name: &str, what: &str, model| Request { method, path: path(name, what), model };
        match self {
            What::List => Request { method: "GET", path: "/policies".into(), model: None },
            What::Publish { name, file } => of("POST", name, "publish", Some(file)),
            What::Rollback { name } => of("POST", name, "rollback", None),
            What::Canary { name, promote: true, .. } => of("POST", name, "promote", None),
            What::Canary { name, end: true, .. } => of("DELETE", name, "canary", None),
            What::Canary { name, file, percent, .. } => {
                of("POST", name, &format!("canary?percent={percent}"), file.as_deref())
            }
            What::Shadow { name, end: true, .. } => of("DELETE", name, "shadow", None),
            What::Shadow { name, file, .. } => of("POST", name, "shadow", file.as_deref()),
        }
    }
}

/// Does it, and prints what the server says.
pub fn policy(options: &PolicyOptions) -> Result<(), PolicyCommandError> {
    ask(&options.admin, options.token.as_deref(), &options.what.wanted())
}

/// Sends a request to the operator's interface, and prints the answer.
pub(crate) fn ask(
    address: &str,
    token: Option<&Path>,
    wanted: &Request<'_>,
) -> Result<(), PolicyCommandError> {
    let token = admin_token(token)?;
    let model = match wanted.model {
        Some(path) => read_model(path)?,
        None => Vec::new(),
    };
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("http://{address}{}", wanted.path);
    let authorization = format!("Bearer {token}");
    let answer = match wanted.method {
        "GET" => agent.get(url).header("authorization", authorization).call(),
        "DELETE" => agent.delete(url).header("authorization", authorization).call(),
        _ => agent.post(url).header("authorization", authorization).send(&model),
    };
    let failed = |source| PolicyCommandError::Http { address: address.into(), source: Box::new(source) };
    let mut answer = answer.map_err(failed)?;
    let text = answer.body_mut().read_to_string().map_err(failed)?;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or(text.clone().into());
    if !answer.status().is_success() {
        let why = json["error"].as_str().map_or(text, str::to_owned);
        return Err(PolicyCommandError::Refused(why));
    }
    crate::out!("{json:#}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_no_model() {
        let error = read_model(std::path::Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(error, PolicyError::NoFile { .. }), "{error}");
    }

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: PolicyOptions,
    }

    fn request(args: &str) -> Option<(String, bool)> {
        let args = ["oto"].into_iter().chain(args.split(' '));
        let options = Cli::try_parse_from(args).ok()?.options;
        let wanted = options.what.wanted();
        Some((format!("{} {}", wanted.method, wanted.path), wanted.model.is_some()))
    }

    #[test]
    fn commands_become_requests() {
        for (args, expected, model) in [
            ("list", "GET /policies", false),
            ("publish a_b m.onnx", "POST /policies/a%5Fb/publish", true),
            ("rollback a", "POST /policies/a/rollback", false),
            ("canary a m.onnx --percent 12.5", "POST /policies/a/canary?percent=12.5", true),
            ("canary a --promote", "POST /policies/a/promote", false),
            ("canary a --end", "DELETE /policies/a/canary", false),
            ("shadow a m.onnx", "POST /policies/a/shadow", true),
            ("shadow a --end", "DELETE /policies/a/shadow", false),
        ] {
            assert_eq!(request(args), Some((expected.into(), model)), "{args}");
        }
        for wrong in
            ["canary a", "shadow a", "publish a", "canary a m.onnx --promote", "canary a --promote --end"]
        {
            assert_eq!(request(wrong), None, "{wrong}");
        }
    }
}
