//! `cargo xtask demo`: build the page and a server of it and its teachers, then become the server. That server has few features, so that
//! a cold clone serves the page within minutes.

use crate::progress::Steps;
use crate::{program, shell, site};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub struct Options {
    /// Port on 127.0.0.1.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Open the page in the default browser once the server answers.
    #[arg(long)]
    open: bool,
}

/// Builds the page and the server, then serves until interrupted.
pub fn run(options: &Options) -> Result<()> {
    let mut steps = Steps::new(4);
    steps.begin("the student, as WebAssembly");
    site::build_modules()?;
    steps.begin("the page, with npm, TypeScript and Vite");
    site::build_scripts()?;
    steps.begin("the server");
    let server = program::build_server()?;
    steps.begin("serving; Ctrl-C ends it");
    if options.open {
        let port = options.port.to_string();
        Command::new(std::env::current_exe()?).args(["open", &port]).spawn()?;
    }
    become_server(Command::new(server).args(["serve", "--port", &options.port.to_string()]))
}

/// Replaces this process by the server, so that signals reach it directly.
#[cfg(unix)]
fn become_server(server: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    Err(server.exec()).with_context(|| format!("cannot start {}", server.get_program().display()))
}

#[cfg(not(unix))]
fn become_server(server: &mut Command) -> Result<()> {
    shell::run(server)
}

/// Polls the port for a minute, then hands the address to the system's opener.
pub fn open_when_ready(port: u16) -> Result<()> {
    let ready = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    if !ready {
        bail!("nothing answered on 127.0.0.1:{port} within a minute");
    }
    let address = format!("http://127.0.0.1:{port}/");
    let (program, arguments): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[&address])
    } else if cfg!(windows) {
        ("cmd", &["/C", "start", &address])
    } else {
        ("xdg-open", &[&address])
    };
    let status = shell::command(program, arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        bail!("cannot open a browser with `{program}`; the page is at {address}");
    }
    Ok(())
}
