//! Holds a build of oto against reference data.
