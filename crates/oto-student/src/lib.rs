//! The student: teacher link, stages and the training loop.
