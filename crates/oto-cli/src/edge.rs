//! `oto edge`: what a running server's operator does about the edges of its learners.

use crate::policy::{PolicyCommandError, Request, ask};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::PathBuf;

/// Which server, and what to do there.
#[derive(Args, Clone, Debug)]
pub struct EdgeOptions {
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
    /// Print the edges of all learners as JSON
    List,
    /// Take an edge's rows and learn from none of them
    Pause {
        /// Learner
        learner: String,
        /// Edge
        edge: String,
        /// Learn from its rows again
        #[arg(long)]
        end: bool,
    },
    /// End an edge's session and forget the edge, with its share of the replay
    Drop {
        /// Learner
        learner: String,
        /// Edge
        edge: String,
    },
}

impl What {
    fn request(&self) -> Request<'_> {
        let name = |name: &String| utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        let of = |learner, edge| format!("/learners/{}/edges/{}", name(learner), name(edge));
        match self {
            What::List => Request { method: "GET", path: "/learners".into(), model: None },
            What::Pause { learner, edge, end } => {
                let what = if *end { "resume" } else { "pause" };
                Request { method: "POST", path: format!("{}/{what}", of(learner, edge)), model: None }
            }
            What::Drop { learner, edge } => {
                Request { method: "DELETE", path: of(learner, edge), model: None }
            }
        }
    }
}

/// Does it, and prints what the server says.
///
/// # Errors
/// What the server refuses, and a server that cannot be asked.
pub fn edge(options: &EdgeOptions) -> Result<(), PolicyCommandError> {
    ask(&options.admin, options.token.as_deref(), &options.what.request())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: EdgeOptions,
    }

    #[test]
    fn commands_become_requests() {
        for (args, expected) in [
            ("list", "GET /learners"),
            ("pause pole a/b", "POST /learners/pole/edges/a%2Fb/pause"),
            ("pause pole a --end", "POST /learners/pole/edges/a/resume"),
            ("drop pole a", "DELETE /learners/pole/edges/a"),
        ] {
            let options =
                Cli::try_parse_from(["oto"].into_iter().chain(args.split(' '))).ok().unwrap().options;
            let request = options.what.request();
            assert_eq!(format!("{} {}", request.method, request.path), expected);
        }
        assert!(Cli::try_parse_from(["oto", "drop", "pole"]).is_err());
    }
}
