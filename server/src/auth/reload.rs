//! What a server can be given anew while it runs: who may use it.

use crate::auth::access::{Access, AccessError, Doorkeeper};
use std::sync::{Arc, PoisonError, RwLock};

/// The way to a server's doors; clones share it. A server takes it from its configuration.
#[derive(Clone, Default)]
pub struct Reload(Arc<RwLock<Option<Arc<Doorkeeper>>>>);

impl Reload {
    /// Lets in whom this describes from now on. Connections stay as they are. A machine whose entry is the same keeps what it has
    /// used up, and tickets that were given are good if their owners still have access.
    ///
    /// # Errors
    /// If the description cannot be used; then nothing changes. Nor does it where a server began without one.
    pub fn access(&self, access: &Access) -> Result<(), AccessError> {
        let Some(before) = self.doorkeeper() else { return Err(AccessError::Open) };
        self.set(access.doorkeeper(Some(&before))?);
        Ok(())
    }

    pub(crate) fn begin(&self, access: &Access) -> Result<(), AccessError> {
        self.set(access.doorkeeper(None)?);
        Ok(())
    }

    fn set(&self, doorkeeper: Doorkeeper) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(doorkeeper));
    }

    pub(crate) fn doorkeeper(&self) -> Option<Arc<Doorkeeper>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
