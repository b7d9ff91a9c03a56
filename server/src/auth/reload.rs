//! What a server can be given anew while it runs: who may use it.

use crate::auth::access::{Access, AccessError, Authenticator};
use std::sync::{Arc, PoisonError, RwLock};

/// The way to a server's doors; clones share it. A server takes it from its configuration.
#[derive(Clone, Default)]
pub struct Reload(Arc<RwLock<Option<Arc<Authenticator>>>>);

impl Reload {
    /// Lets in whom this describes from now on. Connections stay as they are. A machine whose entry is the same keeps what it has
    /// used up, and tickets that were given are good if their owners still have access.
    ///
    /// # Errors
    /// If the description cannot be used; then nothing changes. Nor does it where a server began without one.
    pub fn access(&self, access: &Access) -> Result<(), AccessError> {
        let Some(before) = self.authenticator() else { return Err(AccessError::Open) };
        self.set(access.authenticator(Some(&before))?);
        Ok(())
    }

    pub(crate) fn begin(&self, access: &Access) -> Result<(), AccessError> {
        self.set(access.authenticator(None)?);
        Ok(())
    }

    fn set(&self, authenticator: Authenticator) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(authenticator));
    }

    pub(crate) fn authenticator(&self) -> Option<Arc<Authenticator>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
