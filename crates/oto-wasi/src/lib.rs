//! The WASI face of the student.
