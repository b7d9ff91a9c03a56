//! The teacher server.
