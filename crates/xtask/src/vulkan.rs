//! The driver that tests of the graphics backend run on: any Vulkan driver, or Mesa's for the processor.

use crate::debian;
use anyhow::{Result, bail};
use std::path::Path;

/// Where the loader looks for drivers.
const FOLDERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];

/// Makes sure that there is a driver: one that is there, or Debian's package of Mesa's, installed now (root only).
pub fn find_or_install() -> Result<()> {
    // Elsewhere the system has its own.
    if !cfg!(target_os = "linux") || has_driver() {
        return Ok(());
    }
    debian::install("mesa-vulkan-drivers")?;
    match has_driver() {
        true => Ok(()),
        false => bail!("no Vulkan driver found: install one (Debian: apt-get install mesa-vulkan-drivers)"),
    }
}

fn has_driver() -> bool {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].iter().any(|name| std::env::var_os(name).is_some());
    let files = |folder: &str| Path::new(folder).read_dir().is_ok_and(|mut files| files.next().is_some());
    named || FOLDERS.into_iter().any(files)
}
