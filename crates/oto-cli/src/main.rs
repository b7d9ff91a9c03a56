//! `oto`: serve teachers, train students, look at what came of it.
#![forbid(unsafe_code)]
// `output` writes every line.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use clap::{CommandFactory, Parser, Subcommand};
#[cfg(all(feature = "native", target_os = "linux"))]
use oto_cli::load;
#[cfg(feature = "native")]
use oto_cli::{act, algorithms, bench, dataset, edge, eval, learn_command, policy, report, teach, verify};
use oto_cli::{output, serve, settings};
#[cfg(not(feature = "native"))]
use std::ffi::OsString;
use std::process::ExitCode;

/// Reinforcement learning at the edge, taught over a WebSocket
#[derive(Parser)]
#[command(version)]
#[cfg_attr(not(feature = "native"), command(after_help = LEFT_OUT))]
struct Cli {
    #[cfg(feature = "native")]
    #[command(flatten)]
    gymnasium: Gymnasium,
    #[command(subcommand)]
    command: Command,
}

/// The help text of a build with few features.
#[cfg(not(feature = "native"))]
const LEFT_OUT: &str = "This build has `serve` alone, for policies that are no ONNX graphs, without TLS, --follow, --learn, --train and \
    --accept-replay. The default build has the rest: cargo build --release -p oto-cli";

/// How environments of Gymnasium's are run.
#[cfg(feature = "native")]
#[derive(clap::Args)]
struct Gymnasium {
    /// Python program for Gymnasium's environments (gym:...) [default: OTO_PYTHON, else python3]
    #[arg(long, global = true, value_name = "PROGRAM")]
    python: Option<std::path::PathBuf>,
    /// Time limit for the start of a Gymnasium environment
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    env_start_timeout: u64,
    /// Time limit for a reset or a step of a Gymnasium environment
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    env_timeout: u64,
}

#[cfg(feature = "native")]
impl Gymnasium {
    fn set(self) {
        if let Some(python) = self.python {
            oto_env::gymnasium::use_python(python);
        }
        let [start, answer] = [self.env_start_timeout, self.env_timeout].map(std::time::Duration::from_secs);
        oto_env::gymnasium::use_limits(oto_env::gymnasium::Limits { start, answer });
    }
}

#[derive(Subcommand)]
enum Command {
    /// Serve teachers to students, and the demo site
    Serve(Box<serve::ServeOptions>),
    #[cfg(feature = "native")]
    #[command(flatten)]
    More(Box<More>),
    /// A command that this build leaves out.
    #[cfg(not(feature = "native"))]
    #[command(external_subcommand)]
    LeftOut(Vec<OsString>),
}

/// The parts that a build with few features lacks.
#[cfg(feature = "native")]
#[derive(Subcommand)]
enum More {
    /// Publish, try out and roll back the policies of a running server
    Policy(policy::PolicyOptions),
    /// Act in an environment with the weights of a learner in the cloud, and send it what happens
    Act(Box<act::ActOptions>),
    /// List, pause and drop the edges of a running server's learners
    Edge(edge::EdgeOptions),
    /// Load a server with simulated students
    #[cfg(target_os = "linux")]
    Load(load::LoadOptions),
    /// Train a student
    Learn(Box<learn_command::LearnCommand>),
    /// List the algorithms: their spaces, data and papers
    Algorithms(algorithms::AlgorithmsOptions),
    /// Train a teacher from a dataset
    Teach(Box<teach::TeachOptions>),
    /// Play greedy policies and compare them
    Eval(eval::EvalOptions),
    /// Inspect, record and seal datasets
    #[command(subcommand)]
    Dataset(dataset::DatasetCommand),
    /// Run an experiment and write its report
    Report(report::ReportOptions),
    /// Measure the speed of updates
    Bench(bench::BenchOptions),
    /// Check this build against reference data
    Verify(verify::VerifyOptions),
}

#[cfg(feature = "native")]
impl More {
    fn run(self) -> Result<bool, Box<dyn std::error::Error>> {
        match self {
            More::Policy(options) => policy::policy(&options).map(|()| true).map_err(Into::into),
            More::Act(options) => act::act_command(&options).map(|()| true).map_err(Into::into),
            More::Edge(options) => edge::edge(&options).map(|()| true).map_err(Into::into),
            #[cfg(target_os = "linux")]
            More::Load(options) => load::load(&options).map(|()| true).map_err(Into::into),
            More::Learn(options) => learn_command::learn(&options).map(|()| true).map_err(Into::into),
            More::Algorithms(options) => {
                algorithms::algorithms(&options);
                Ok(true)
            }
            More::Teach(options) => teach::teach(&options).map(|()| true).map_err(Into::into),
            More::Eval(options) => eval::eval(&options).map(|()| true).map_err(Into::into),
            More::Dataset(command) => dataset::dataset(&command).map(|()| true).map_err(Into::into),
            More::Report(options) => report::report(&options).map(|()| true).map_err(Into::into),
            More::Bench(options) => bench::bench(&options).map(|()| true).map_err(Into::into),
            More::Verify(options) => Ok(verify::verify(&options)),
        }
    }
}

fn main() -> ExitCode {
    let cli = match arguments().map(Cli::try_parse_from) {
        Ok(Ok(cli)) => cli,
        Ok(Err(help)) => return explain(&help),
        Err(error) => {
            oto_cli::note!("oto: {error}");
            return ExitCode::from(2);
        }
    };
    #[cfg(feature = "native")]
    cli.gymnasium.set();
    let result: Result<bool, Box<dyn std::error::Error>> = match cli.command {
        Command::Serve(options) => serve::serve(&options).map(|()| true).map_err(Into::into),
        #[cfg(feature = "native")]
        Command::More(more) => more.run(),
        #[cfg(not(feature = "native"))]
        Command::LeftOut(words) => {
            Err(format!("this build has no {:?}. {LEFT_OUT}", words.first().cloned().unwrap_or_default())
                .into())
        }
    };
    match result {
        Ok(passed) => output::code().map_or(ExitCode::from(u8::from(!passed)), ExitCode::from),
        Err(error) => {
            oto_cli::note!("oto: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints the help, or the fault of a command line, and gives the exit code.
fn explain(help: &clap::Error) -> ExitCode {
    let printed = help.print();
    if !help.use_stderr() {
        output::keep(printed);
    }
    ExitCode::from(output::code().unwrap_or(if help.use_stderr() { 2 } else { 0 }))
}

/// The command line, and what a settings file and the environment add to it for `oto serve`.
fn arguments() -> Result<Vec<std::ffi::OsString>, settings::SettingsError> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("it is one of them");
    settings::expand(std::env::args_os().collect(), serve, |name| std::env::var_os(name))
}
