//! `oto serve --group NAME=FILE`: a group whose members learn from each other's logits.

use oto_agent::group::{Group, GroupConfig};
use oto_json::file;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why there can be no such group.
#[derive(Debug, thiserror::Error)]
pub enum GroupFileError {
    /// A flag that names no group or no file.
    #[error("--group takes NAME=FILE, got {0:?}")]
    Flag(String),
    /// The file.
    #[error("{}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
}

/// The file of a group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupFile {
    /// The most members at once.
    members: Option<usize>,
    /// The most states that one member may ask about in a second.
    states_per_second: Option<f64>,
    /// The students of each teacher, by names; without it all teach all.
    teaches: Option<BTreeMap<String, Vec<String>>>,
}

/// Makes the group that a flag names.
///
/// # Errors
/// A file that cannot be read or describes no group.
pub fn group(flag: &str) -> Result<(String, Group), GroupFileError> {
    let (name, path) = flag.split_once('=').ok_or_else(|| GroupFileError::Flag(flag.into()))?;
    if name.is_empty() {
        return Err(GroupFileError::Flag(flag.into()));
    }
    let path = Path::new(path);
    let wrong = |error: String| GroupFileError::File { path: path.into(), error };
    let text = file::read_text(path, file::MAX_SETTINGS).map_err(|error| wrong(error.to_string()))?;
    let group = Group::new(parse(path, &text).map_err(wrong)?).map_err(|error| wrong(error.to_string()))?;
    Ok((name.into(), group))
}

/// Reads the file of a group: TOML, or JSON where its name ends so.
fn parse(path: &Path, text: &str) -> Result<GroupConfig, String> {
    let read: GroupFile = match path.extension().is_some_and(|extension| extension == "json") {
        true => serde_json::from_str(text).map_err(|error| error.to_string())?,
        false => toml::from_str(text).map_err(|error| error.to_string())?,
    };
    let usual = GroupConfig::default();
    Ok(GroupConfig {
        members: read.members.unwrap_or(usual.members),
        states_per_second: read.states_per_second.unwrap_or(usual.states_per_second),
        teaches: read.teaches,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_describes_a_group() {
        let read = |text: &str| parse(Path::new("games.toml"), text);
        assert_eq!(read("").unwrap(), GroupConfig::default());
        let config = read("members = 2\nstates_per_second = 100\n[teaches]\na = [\"b\"]").unwrap();
        assert_eq!((config.members, config.states_per_second), (2, 100.0));
        assert_eq!(config.teaches.unwrap()["a"], ["b"]);
        assert!(parse(Path::new("games.json"), "{\"members\": 3}").unwrap().members == 3);
        for (text, said) in
            [("member = 2", "member"), ("members = -1", "members"), ("teaches = 1", "teaches")]
        {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        for (flag, said) in
            [("games", "NAME=FILE"), ("=x", "NAME=FILE"), ("games=/nowhere.toml", "/nowhere.toml")]
        {
            assert!(group(flag).err().unwrap().to_string().contains(said));
        }
    }
}
