//! "Has anything changed since this step last succeeded?" Cargo knows for itself; for npm, TypeScript, Vite and
//! wasm-bindgen a stamp file under the target folder holds a hash of the step's inputs.

use crate::shell;
use anyhow::{Context, Result};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// A step's name and the hash of its inputs' names and contents.
pub struct Stamp {
    file: PathBuf,
    hash: String,
}

impl Stamp {
    /// Hashes `inputs`: files or folders, relative to the root. What is built or installed (`dist`, `node_modules`)
    /// is not followed inside a folder, only when named itself.
    pub fn of(step: &str, inputs: &[&Path]) -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        for input in inputs {
            hash_path(&shell::root().join(input), &mut hasher)
                .with_context(|| format!("cannot read {}", input.display()))?;
        }
        let hash = format!("{:016x}", hasher.finish());
        Ok(Self { file: shell::target_dir().join("xtask").join(step), hash })
    }

    /// Whether the step last succeeded with these inputs and what it makes is still there.
    pub fn is_current(&self, product: &Path) -> bool {
        shell::root().join(product).exists()
            && fs::read_to_string(&self.file).is_ok_and(|recorded| recorded == self.hash)
    }

    /// Records that the step has succeeded.
    pub fn record(&self) -> Result<()> {
        let folder = self.file.parent().expect("a stamp lies in a folder");
        fs::create_dir_all(folder)?;
        fs::write(&self.file, &self.hash).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

fn hash_path(path: &Path, hasher: &mut impl Hasher) -> Result<()> {
    path.hash(hasher);
    if !path.is_dir() {
        fs::read(path)?.hash(hasher);
        return Ok(());
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    entries.sort();
    for entry in entries {
        let skipped = entry.file_name().is_some_and(|name| name == "node_modules" || name == "dist");
        if !skipped {
            hash_path(&entry, hasher)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_an_input_changes() {
        let folder = std::env::temp_dir().join(format!("oto-stamp-{}", std::process::id()));
        fs::create_dir_all(folder.join("dist")).unwrap();
        fs::write(folder.join("a.txt"), "one").unwrap();
        let step = format!("test-stamp-{}", std::process::id());
        let stamp = || Stamp::of(&step, &[&folder]).unwrap();

        assert!(!stamp().is_current(&folder));
        stamp().record().unwrap();
        assert!(stamp().is_current(&folder));
        assert!(!stamp().is_current(&folder.join("missing")), "a product that is gone is made again");

        fs::write(folder.join("dist/built.txt"), "built").unwrap();
        assert!(stamp().is_current(&folder), "what is built is no input");
        fs::write(folder.join("a.txt"), "two").unwrap();
        assert!(!stamp().is_current(&folder));

        fs::remove_file(shell::target_dir().join("xtask").join(&step)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
