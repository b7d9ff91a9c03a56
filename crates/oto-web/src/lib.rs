//! The browser face of the student.
