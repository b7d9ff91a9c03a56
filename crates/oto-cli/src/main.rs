//! `oto`: serve teachers, train students, look at what came of it.
#![forbid(unsafe_code)]

use clap::{CommandFactory, Parser, Subcommand};
#[cfg(target_os = "linux")]
use oto_cli::load;
use oto_cli::{bench, dataset, eval, learn_command, policy, report, serve, settings, teach, verify};
use std::process::ExitCode;
use std::time::Duration;

/// Reinforcement learning at the edge, taught over a WebSocket
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Python for environments of Gymnasium's (gym:...); otherwise OTO_PYTHON or python3
    #[arg(long, global = true, value_name = "PROGRAM")]
    python: Option<std::path::PathBuf>,
    /// Seconds that an environment of Gymnasium's may take to start
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    env_start_timeout: u64,
    /// Seconds that a reset or a step of an environment of Gymnasium's may take
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    env_timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Host teachers for students, and the site
    Serve(Box<serve::ServeOptions>),
    /// Publish, try and take back the policies of a running server
    Policy(policy::PolicyOptions),
    /// Put many simulated students on a server
    #[cfg(target_os = "linux")]
    Load(load::LoadOptions),
    /// Train a student
    Learn(Box<learn_command::LearnCommand>),
    /// Make a teacher of a dataset
    Teach(Box<teach::TeachOptions>),
    /// Play a checkpoint's greedy policy
    Eval(eval::EvalOptions),
    /// Look into datasets, and make them
    #[command(subcommand)]
    Dataset(dataset::DatasetCommand),
    /// Run an experiment and write it up
    Report(report::ReportOptions),
    /// Measure how fast updates are
    Bench(bench::BenchOptions),
    /// Hold this build against reference data
    Verify(verify::VerifyOptions),
}

/// Whoever reads what a command prints may stop reading, as `head` does. That is no fault to tell of: the program ends as
/// a signal would have ended it.
fn leave_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if message.starts_with("failed printing to std") && message.contains("Broken pipe") {
            std::process::exit(141);
        }
        usual(panic);
    }));
}

fn main() -> ExitCode {
    leave_with_the_reader();
    let cli = match arguments() {
        Ok(arguments) => Cli::parse_from(arguments),
        Err(error) => {
            eprintln!("oto: {error}");
            return ExitCode::from(2);
        }
    };
    if let Some(python) = cli.python {
        oto_bridge::use_python(python);
    }
    let [start, answer] = [cli.env_start_timeout, cli.env_timeout].map(Duration::from_secs);
    oto_bridge::use_limits(oto_bridge::Limits { start, answer });
    let result: Result<bool, Box<dyn std::error::Error>> = match cli.command {
        Command::Serve(options) => serve::serve(&options).map(|()| true).map_err(Into::into),
        Command::Policy(options) => policy::policy(&options).map(|()| true).map_err(Into::into),
        #[cfg(target_os = "linux")]
        Command::Load(options) => load::load(&options).map(|()| true).map_err(Into::into),
        Command::Learn(options) => learn_command::learn(&options).map(|()| true).map_err(Into::into),
        Command::Teach(options) => teach::teach(&options).map(|()| true).map_err(Into::into),
        Command::Eval(options) => eval::eval(&options).map(|()| true).map_err(Into::into),
        Command::Dataset(command) => dataset::dataset(&command).map(|()| true).map_err(Into::into),
        Command::Report(options) => report::report(&options).map(|()| true).map_err(Into::into),
        Command::Bench(options) => bench::bench(&options).map(|()| true).map_err(Into::into),
        Command::Verify(options) => Ok(verify::verify(&options)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("oto: {error}");
            ExitCode::from(2)
        }
    }
}

/// The command line, and what a settings file and the environment add to it for `oto serve`.
fn arguments() -> Result<Vec<std::ffi::OsString>, settings::SettingsError> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("it is one of them");
    settings::expand(std::env::args_os().collect(), serve, |name| std::env::var_os(name))
}
