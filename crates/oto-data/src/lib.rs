//! Offline datasets: episodes that some policy played, for teachers that learn without an environment.
//!
//! - [`Dataset`] is plain memory: spaces and episodes. [`Dataset::check`] says whether a learner can take it,
//!   [`Dataset::fits`] whether it is for an environment.
//! - [`read_file`] reads two layouts of HDF5, [`read_bytes`] the same without a file system, and both treat what they read
//!   as hostile:
//!   - Minari's: `data/main_data.hdf5` has a group `episode_<i>` for each episode, with `observations` (one row more than
//!     steps), `actions`, `rewards`, `terminations`, `truncations`, and attributes `id`, `seed`, `total_steps`;
//!     `data/metadata.json` has the spaces. [Minari's documentation of datasets][minari], [its reader and writer][storage].
//!   - D4RL's: columns `observations`, `actions`, `rewards`, `terminals`, `timeouts` and perhaps `next_observations` of all
//!     steps; episodes end at terminals and timeouts. [D4RL's files][d4rl], [its `qlearning_dataset`][qlearning].
//! - [`write_folder`] writes Minari's layout, which Python's `minari` loads; with the feature `parquet` there is the same
//!   with a Parquet file for each episode.
//! - [`Recorder`] records what somebody plays, [`Recorded`] what is played in an environment; [`collect()`] plays a policy
//!   and records it.
//!
//! Observations and actions are flat: a box of any shape becomes a vector, in row-major order; dictionaries, tuples and several
//! choices become rows as `gymnasium.spaces.flatten` makes them ([`oto_env::SpaceTree`]). Images of bytes stay bytes ([`Rows`]).
//! HDF5 itself is read and written by `hdf5-pure`, in WebAssembly too.
//!
//! [minari]: https://minari.farama.org/content/dataset_standards/
//! [storage]: https://github.com/Farama-Foundation/Minari/blob/main/minari/dataset/_storages/hdf5_storage.py
//! [d4rl]: https://github.com/Farama-Foundation/D4RL/wiki/Tasks
//! [qlearning]: https://github.com/Farama-Foundation/D4RL/blob/master/d4rl/__init__.py
#![forbid(unsafe_code)]

mod collect;
mod d4rl;
mod dataset;
mod error;
mod files;
#[cfg(feature = "parquet")]
mod footer;
#[doc(hidden)]
pub mod fuzz;
mod gymnasium;
mod hdf5;
mod levels;
mod minari;
#[cfg(feature = "parquet")]
mod parquet;
mod recorded;
mod recorder;
mod rows;
mod summary;

pub use collect::{Collect, collect};
pub use dataset::{Clipped, Dataset, Episode, Metadata, Transition};
pub use error::DataError;
#[cfg(feature = "parquet")]
pub use files::write_parquet_folder;
pub use files::{MAX_FILE, check_target, read_bytes, read_file, write_folder};
pub use levels::{Level, Reference};
pub use recorded::Recorded;
pub use recorder::Recorder;
pub use rows::Rows;
pub use summary::Summary;
