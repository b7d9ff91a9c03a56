//! The oto program.
