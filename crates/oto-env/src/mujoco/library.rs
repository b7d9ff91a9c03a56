//! The few functions of MuJoCo's C library that an environment needs.
//!
//! States go through `mj_getState` and `mj_setState`, whose arrays are what the documentation says, so that no offset into a
//! structure of a certain version has to be known. Source: MuJoCo's `mujoco.h` and its API reference.

#![allow(unsafe_code)]

use libloading::Library;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Why there is no MuJoCo environment.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MujocoError {
    /// Nobody knows where the library or the models are.
    #[error(
        "expected MUJOCO_LIB (libmujoco) and OTO_MUJOCO_MODELS (the folder with Gymnasium's XML files), or a Python with \
         both packages ({python} -m pip install 'gymnasium[mujoco]'): {reason}"
    )]
    NotFound {
        /// The Python that was asked.
        python: String,
        /// What it said.
        reason: String,
    },
    /// The library cannot be loaded, or lacks a function.
    #[error("{}: {reason}", path.display())]
    Library {
        /// Its file.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// The library is older than what is known.
    #[error("MuJoCo {0} is too old, expected 3.0 or later")]
    Version(c_int),
    /// The model cannot be read.
    #[error("{}: {reason}", path.display())]
    Model {
        /// Its file.
        path: PathBuf,
        /// What MuJoCo said.
        reason: String,
    },
    /// The model is not the one that the environment's rules are of.
    #[error("{}: expected {expected}, got {got}", path.display())]
    Sizes {
        /// Its file.
        path: PathBuf,
        /// What the rules need.
        expected: String,
        /// What the model has.
        got: String,
    },
}

/// Where MuJoCo and Gymnasium's models are.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// `libmujoco.so`, `.dylib` or `mujoco.dll`.
    pub library: PathBuf,
    /// The folder with `half_cheetah.xml` and the others.
    pub models: PathBuf,
}

/// Prints the library's path and the models' folder, a line each.
const ASK: &str = "
import glob, importlib.util, os
folder = lambda name: os.path.dirname(importlib.util.find_spec(name).origin)
mujoco = folder('mujoco')
print(sorted(glob.glob(mujoco + '/libmujoco*') + glob.glob(mujoco + '/mujoco.dll'))[0])
print(os.path.join(folder('gymnasium'), 'envs', 'mujoco', 'assets'))
";

impl Files {
    /// From `MUJOCO_LIB` and `OTO_MUJOCO_MODELS`; what is not set, from the packages that this Python has.
    ///
    /// # Errors
    /// [`MujocoError::NotFound`].
    pub fn find(python: &Path) -> Result<Self, MujocoError> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let (library, models) = (variable("MUJOCO_LIB"), variable("OTO_MUJOCO_MODELS"));
        if let (Some(library), Some(models)) = (&library, &models) {
            return Ok(Self { library: library.clone(), models: models.clone() });
        }
        let refused = |reason: String| MujocoError::NotFound { python: python.display().to_string(), reason };
        let said = Command::new(python).args(["-c", ASK]).output().map_err(|e| refused(e.to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
        let answer = text(&said.stdout);
        match answer.split_once('\n').filter(|_| said.status.success()) {
            Some((lib, xml)) => {
                Ok(Self { library: library.unwrap_or(lib.into()), models: models.unwrap_or(xml.into()) })
            }
            // The last line of a traceback says what is wrong.
            None => Err(refused(text(&said.stderr).lines().last().unwrap_or("it said nothing").into())),
        }
    }
}

/// A part of the state, as `mjtState` numbers it: 0, 1 and 2 are the same in all versions.
const TIME: c_uint = 1 << 0;
const QPOS: c_uint = 1 << 1;
const QVEL: c_uint = 1 << 2;

/// The functions, and the library that they stay in.
struct Functions {
    load_xml: unsafe extern "C" fn(*const c_char, *const c_void, *mut c_char, c_int) -> *mut c_void,
    delete_model: unsafe extern "C" fn(*mut c_void),
    make_data: unsafe extern "C" fn(*const c_void) -> *mut c_void,
    delete_data: unsafe extern "C" fn(*mut c_void),
    reset_data: unsafe extern "C" fn(*const c_void, *mut c_void),
    forward: unsafe extern "C" fn(*const c_void, *mut c_void),
    step: unsafe extern "C" fn(*const c_void, *mut c_void),
    state_size: unsafe extern "C" fn(*const c_void, c_uint) -> c_int,
    get_state: unsafe extern "C" fn(*const c_void, *const c_void, *mut f64, c_uint),
    set_state: unsafe extern "C" fn(*const c_void, *mut c_void, *const f64, c_uint),
    _library: Library,
}

/// A model and its state.
pub struct Simulation {
    functions: Arc<Functions>,
    model: *mut c_void,
    data: *mut c_void,
    /// The part of the state that holds the controls.
    ctrl: c_uint,
}

/// How large a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Generalised positions.
    pub positions: usize,
    /// Generalised velocities.
    pub velocities: usize,
    /// Actuators.
    pub controls: usize,
}

// SAFETY: MuJoCo keeps no state of a thread; model and data are only reached through the one value that owns them.
unsafe impl Send for Simulation {}

impl Functions {
    fn load(path: &Path) -> Result<Self, MujocoError> {
        let failed = |e: libloading::Error| MujocoError::Library { path: path.into(), reason: e.to_string() };
        // SAFETY: the types are those of mujoco.h, where mjtNum is double; a library that calls itself MuJoCo is believed.
        unsafe {
            let library = Library::new(path).map_err(failed)?;
            let version: unsafe extern "C" fn() -> c_int = *library.get(b"mj_version\0").map_err(failed)?;
            // 3.2.4 is 324 or 3002004: the numbering grew.
            let version = version();
            if version < 300 {
                return Err(MujocoError::Version(version));
            }
            Ok(Self {
                load_xml: *library.get(b"mj_loadXML\0").map_err(failed)?,
                delete_model: *library.get(b"mj_deleteModel\0").map_err(failed)?,
                make_data: *library.get(b"mj_makeData\0").map_err(failed)?,
                delete_data: *library.get(b"mj_deleteData\0").map_err(failed)?,
                reset_data: *library.get(b"mj_resetData\0").map_err(failed)?,
                forward: *library.get(b"mj_forward\0").map_err(failed)?,
                step: *library.get(b"mj_step\0").map_err(failed)?,
                state_size: *library.get(b"mj_stateSize\0").map_err(failed)?,
                get_state: *library.get(b"mj_getState\0").map_err(failed)?,
                set_state: *library.get(b"mj_setState\0").map_err(failed)?,
                _library: library,
            })
        }
    }
}

impl Simulation {
    /// Loads the library and a model of these sizes.
    pub fn new(files: &Files, file: &str, expected: Sizes) -> Result<Self, MujocoError> {
        let functions = Arc::new(Functions::load(&files.library)?);
        let path = files.models.join(file);
        let refused = |reason: String| MujocoError::Model { path: path.clone(), reason };
        let name = CString::new(path.to_string_lossy().as_bytes()).map_err(|e| refused(e.to_string()))?;
        let mut error = [0u8; 1024];
        // SAFETY: the name ends with 0, and MuJoCo writes at most the size that it is told.
        let model = unsafe {
            (functions.load_xml)(
                name.as_ptr(),
                std::ptr::null(),
                error.as_mut_ptr().cast(),
                error.len() as c_int,
            )
        };
        if model.is_null() {
            let end = error.iter().position(|byte| *byte == 0).unwrap_or(error.len());
            return Err(refused(String::from_utf8_lossy(&error[..end]).trim_end().into()));
        }
        // SAFETY: there is a model.
        let data = unsafe { (functions.make_data)(model) };
        let mut simulation = Self { functions, model, data, ctrl: 0 };
        if data.is_null() {
            return Err(refused("there is no memory for its state".into()));
        }
        let wrong = |got| MujocoError::Sizes { path: path.clone(), expected: format!("{expected:?}"), got };
        let size = |part| simulation.size(part);
        let (positions, velocities) = (size(QPOS), size(QVEL));
        // Newer versions have one part more before the controls; what stands beside them has the velocities' size in all of them.
        let parts = [1 << 5, 1 << 6];
        let sizes = parts.map(size);
        let found = match sizes {
            [a, b] if (a, b) == (expected.controls, velocities) => Some(parts[0]),
            [a, b] if (a, b) == (velocities, expected.controls) => Some(parts[1]),
            _ => None,
        };
        match found.filter(|_| (positions, velocities) == (expected.positions, expected.velocities)) {
            Some(part) => simulation.ctrl = part,
            None => return Err(wrong(format!("{positions} positions, {velocities} velocities, {sizes:?}"))),
        }
        Ok(simulation)
    }

    fn size(&self, part: c_uint) -> usize {
        // SAFETY: the model lives as long as this.
        usize::try_from(unsafe { (self.functions.state_size)(self.model, part) }).unwrap_or(0)
    }

    fn get(&self, part: c_uint, values: &mut [f64]) {
        assert_eq!(values.len(), self.size(part), "room for this part of the state");
        // SAFETY: model and data live as long as this, and there is room.
        unsafe { (self.functions.get_state)(self.model, self.data, values.as_mut_ptr(), part) }
    }

    fn set(&mut self, part: c_uint, values: &[f64]) {
        assert_eq!(values.len(), self.size(part), "all of this part of the state");
        // SAFETY: model and data live as long as this, and all numbers are there.
        unsafe { (self.functions.set_state)(self.model, self.data, values.as_ptr(), part) }
    }

    /// Everything back to the model's own state.
    pub fn reset(&mut self) {
        // SAFETY: model and data live as long as this.
        unsafe { (self.functions.reset_data)(self.model, self.data) }
    }

    /// Computes everything that follows from the state.
    pub fn forward(&mut self) {
        // SAFETY: model and data live as long as this.
        unsafe { (self.functions.forward)(self.model, self.data) }
    }

    /// So many steps of time with these controls.
    pub fn step(&mut self, controls: &[f64], times: u32) {
        self.set(self.ctrl, controls);
        for _ in 0..times {
            // SAFETY: model and data live as long as this.
            unsafe { (self.functions.step)(self.model, self.data) }
        }
    }

    /// Seconds since the reset.
    pub fn time(&self) -> f64 {
        let mut time = [0.0];
        self.get(TIME, &mut time);
        time[0]
    }

    /// Positions, then velocities.
    pub fn read(&self, state: &mut [f64]) {
        self.get(QPOS | QVEL, state);
    }

    /// The other way.
    pub fn write(&mut self, state: &[f64]) {
        self.set(QPOS | QVEL, state);
    }

    /// All parts of the state that one step leaves to the next.
    fn whole(&self) -> c_uint {
        2 * self.ctrl - 1
    }

    /// All that it takes to go on from here.
    pub fn save(&self) -> Vec<f64> {
        let mut state = vec![0.0; self.size(self.whole())];
        self.get(self.whole(), &mut state);
        state
    }

    /// How many numbers [`Self::save`] gives.
    pub fn saved(&self) -> usize {
        self.size(self.whole())
    }

    /// Goes on from what was saved; `state` has [`Self::saved`] numbers.
    pub fn restore(&mut self, state: &[f64]) {
        self.set(self.whole(), state);
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // SAFETY: both were made by MuJoCo, which takes null, and nobody has them after this.
        unsafe {
            (self.functions.delete_data)(self.data);
            (self.functions.delete_model)(self.model);
        }
    }
}
