//! A WASI host for the command components: wasmtime, with as much of the machine as a test grants.

use crate::component::{self, VERIFY};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::sync::Command;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView, p2};

/// The most that a command may print.
const LONGEST_OUTPUT: usize = 1 << 24;

/// A run of the command: its arguments and what it is granted.
pub struct Run {
    artifact: &'static str,
    arguments: Vec<String>,
    network: bool,
    folders: Vec<(PathBuf, bool)>,
}

/// A run that goes on in a thread.
pub struct Running {
    out: MemoryOutputPipe,
    err: MemoryOutputPipe,
    thread: JoinHandle<bool>,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Whether its exit status was success.
    pub success: bool,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl Run {
    /// With these arguments, after the program's name, and nothing granted.
    pub fn new(arguments: &[&str]) -> Self {
        Self::of("oto-wasi.wasm", arguments)
    }

    /// The self-check instead.
    pub fn verify(arguments: &[&str]) -> Self {
        Self::of(VERIFY, arguments)
    }

    fn of(artifact: &'static str, arguments: &[&str]) -> Self {
        let arguments = [artifact].iter().chain(arguments).map(|a| a.to_string()).collect();
        Self { artifact, arguments, network: false, folders: Vec::new() }
    }

    /// Grants TCP to addresses of this machine.
    pub fn network(mut self) -> Self {
        self.network = true;
        self
    }

    /// Grants reading in a folder, which the command sees under its last name.
    pub fn read(mut self, folder: &Path) -> Self {
        self.folders.push((folder.into(), false));
        self
    }

    /// Grants reading and writing in a folder, which the command sees under its last name.
    pub fn write(mut self, folder: &Path) -> Self {
        self.folders.push((folder.into(), true));
        self
    }

    /// Starts it, once it is compiled.
    pub fn start(self) -> Running {
        compiled(self.artifact);
        let (out, err) = (MemoryOutputPipe::new(LONGEST_OUTPUT), MemoryOutputPipe::new(LONGEST_OUTPUT));
        let (to_out, to_err) = (out.clone(), err.clone());
        let thread =
            std::thread::spawn(move || execute(&self, to_out, to_err).expect("wasmtime runs the command"));
        Running { out, err, thread }
    }

    /// Runs it to its end.
    pub fn end(self) -> Ended {
        self.start().end()
    }
}

impl Running {
    /// Waits for its end.
    ///
    /// # Panics
    /// If the component trapped or could not be started.
    pub fn end(self) -> Ended {
        let text = |pipe: MemoryOutputPipe| String::from_utf8_lossy(&pipe.contents()).into_owned();
        let success = self.thread.join().expect("the command was run");
        Ended { success, out: text(self.out), err: text(self.err) }
    }
}

struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// The component, compiled once for all tests of a process.
fn compiled(artifact: &str) -> &'static (Engine, Component) {
    static STUDENT: OnceLock<(Engine, Component)> = OnceLock::new();
    static CHECK: OnceLock<(Engine, Component)> = OnceLock::new();
    let place = if artifact == VERIFY { &CHECK } else { &STUDENT };
    place.get_or_init(|| component::compiled(artifact))
}

/// True if the command ended with success.
fn execute(run: &Run, out: MemoryOutputPipe, err: MemoryOutputPipe) -> wasmtime::Result<bool> {
    let (engine, component) = compiled(run.artifact);
    let mut wasi = WasiCtx::builder();
    wasi.args(&run.arguments).stdout(out).stderr(err);
    if run.network {
        wasi.inherit_network().allow_tcp(true);
        wasi.socket_addr_check(|address, _| {
            Box::pin(async move { address.ip().is_loopback() || address.port() == 0 })
        });
    }
    for (folder, writable) in &run.folders {
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or(".");
        wasi.preopened_dir(folder, name, if *writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly })?;
    }
    let mut linker = Linker::new(engine);
    p2::add_to_linker_sync(&mut linker)?;
    let mut store = Store::new(engine, Host { wasi: wasi.build(), table: ResourceTable::new() });
    let command = Command::instantiate(&mut store, component, &linker)?;
    match command.wasi_cli_run().call_run(&mut store) {
        Ok(result) => Ok(result.is_ok()),
        // How a program that calls `exit` ends.
        Err(error) => match error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            Some(exit) => Ok(exit.0 == 0),
            None => Err(error),
        },
    }
}
