//! The learner: the role of a server that trains from the rows of actors and sends them weights.

pub mod session;

pub use session::{Accepted, Edge, LearnerSession, Offer, Refusal};
