//! Settings of `oto serve` from a TOML file and from the environment: each is a flag by another way, so that there is one list of
//! them, one check of their values and one help text. Flags go before the environment, the environment before the file.
//!
//! `port = 8080` is `--port 8080`, a list is a flag repeated, `true` a flag without a value; a table's name and a key join as
//! `[tls] cert = "..."` and `--tls-cert`. In the environment `OTO_SERVE_TLS_CERT` is the same, a list with commas.

use clap::{Arg, ArgAction, Command};
use oto_json::file;
use std::ffi::OsString;
use std::path::PathBuf;
use toml::{Table, Value};

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// It is no TOML.
    #[error("{}: {error}", path.display())]
    Toml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// No such setting.
    #[error("{}: there is no setting {key:?}; settings are the flags of `oto serve --help` without their dashes", path.display())]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Its name.
        key: String,
    },
    /// A value that no flag takes.
    #[error("{}: {key} is {got}, expected {expected}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// What came.
        got: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

/// A flag that is in neither: it names the file, or asks for help.
const FLAGS_ONLY: [&str; 4] = ["config", "check", "help", "version"];

/// The arguments of `oto serve` with what the file and the environment add to them; others as they are.
///
/// # Errors
/// See [`SettingsError`]. Values are checked where flags are.
pub fn expand(
    arguments: Vec<OsString>,
    serve: &Command,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>, SettingsError> {
    if arguments.get(1).is_none_or(|command| command != "serve") {
        return Ok(arguments);
    }
    let flags = &arguments[2..];
    let settable = |arg: &&Arg| arg.get_long().is_some_and(|long| !FLAGS_ONLY.contains(&long));
    let file = match value_of(flags, "config") {
        Some(path) => read(path.into(), serve)?,
        None => Vec::new(),
    };
    let mut more = Vec::new();
    for arg in serve.get_arguments().filter(settable) {
        let long = arg.get_long().unwrap_or_default();
        if given(flags, long) {
            continue;
        }
        match environment(&format!("OTO_SERVE_{}", long.to_uppercase().replace('-', "_"))) {
            Some(text) => add_text(arg, long, &text.to_string_lossy(), &mut more),
            None => {
                more.extend(file.iter().filter(|(key, _)| key == long).flat_map(|(_, flags)| flags.clone()))
            }
        }
    }
    Ok(arguments[..2].iter().cloned().chain(more).chain(flags.iter().cloned()).collect())
}

fn given(flags: &[OsString], long: &str) -> bool {
    let (plain, valued) = (format!("--{long}"), format!("--{long}="));
    flags.iter().any(|flag| *flag == *plain || flag.to_string_lossy().starts_with(&valued))
}

fn value_of(flags: &[OsString], long: &str) -> Option<OsString> {
    let (plain, valued) = (format!("--{long}"), format!("--{long}="));
    flags.iter().enumerate().find_map(|(i, flag)| match flag.to_str().and_then(|f| f.strip_prefix(&valued)) {
        Some(value) => Some(value.into()),
        None if *flag == *plain => flags.get(i + 1).cloned(),
        None => None,
    })
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// A flag from the environment.
fn add_text(arg: &Arg, long: &str, text: &str, out: &mut Vec<OsString>) {
    let flag = |value: &str| OsString::from(format!("--{long}={value}"));
    match arg.get_action() {
        ArgAction::SetTrue if ["", "0", "false", "no"].contains(&text) => {}
        ArgAction::SetTrue => out.push(format!("--{long}").into()),
        ArgAction::Append => out.extend(text.split(',').map(|value| flag(value.trim()))),
        _ => out.push(flag(text)),
    }
}

/// The flags that a file stands for, with their settings' names.
fn read(path: PathBuf, serve: &Command) -> Result<Vec<(String, Vec<OsString>)>, SettingsError> {
    match file::read_text(&path, file::MAX_SETTINGS) {
        Ok(text) => flags(path, &text, serve),
        Err(error) => Err(SettingsError::File { path, error }),
    }
}

/// The flags that a file's text stands for.
fn flags(path: PathBuf, text: &str, serve: &Command) -> Result<Vec<(String, Vec<OsString>)>, SettingsError> {
    let table: Table =
        text.parse().map_err(|error| SettingsError::Toml { path: path.clone(), error: Box::new(error) })?;
    let mut flat = Vec::new();
    flatten("", &table, &mut flat);
    let mut flags = Vec::new();
    for (key, value) in flat {
        let arg = serve.get_arguments().find(|arg| arg.get_long() == Some(&key));
        let Some(arg) = arg.filter(|_| !FLAGS_ONLY.contains(&key.as_str())) else {
            return Err(SettingsError::Unknown { path, key });
        };
        match as_flags(arg, &key, value) {
            Ok(found) => flags.push((key, found)),
            Err(expected) => return Err(SettingsError::Value { path, key, got: value.type_str(), expected }),
        }
    }
    Ok(flags)
}

fn flatten<'t>(prefix: &str, table: &'t Table, out: &mut Vec<(String, &'t Value)>) {
    for (key, value) in table {
        let key = format!("{prefix}{}", key.replace('_', "-"));
        match value {
            Value::Table(table) => flatten(&format!("{key}-"), table, out),
            value => out.push((key, value)),
        }
    }
}

/// What must hold of a file whatever its text is; `tests/fuzz` calls it, and learns whether it was accepted. Its settings are flags that there are, and clap has the last
/// word on their values.
#[doc(hidden)]
pub fn fuzz(text: &str, serve: &Command) -> bool {
    let Ok(settings) = flags(PathBuf::from("oto.toml"), text, serve) else { return false };
    let mut arguments = vec![OsString::from("serve")];
    for (key, flags) in settings {
        let prefix = format!("--{key}");
        assert!(flags.iter().all(|flag| flag.to_string_lossy().starts_with(&prefix)));
        arguments.extend(flags);
    }
    serve.clone().try_get_matches_from(arguments).is_ok()
}

/// A value as flags, or what was expected.
fn as_flags(arg: &Arg, key: &str, value: &Value) -> Result<Vec<OsString>, &'static str> {
    match (is_switch(arg), value) {
        (true, Value::Boolean(false)) => Ok(Vec::new()),
        (true, Value::Boolean(true)) => Ok(vec![format!("--{key}").into()]),
        (true, _) => Err("true or false"),
        (false, Value::Array(values)) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(|value| plain(key, value)).collect()
        }
        (false, value) => plain(key, value).map(|flag| vec![flag]),
    }
}

fn plain(key: &str, value: &Value) -> Result<OsString, &'static str> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => return Err("a text or a number, or a list of them where a flag may be repeated"),
    };
    Ok(format!("--{key}={text}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve() -> Command {
        Command::new("serve")
            .arg(Arg::new("config").long("config"))
            .arg(Arg::new("port").long("port"))
            .arg(Arg::new("cert").long("tls-cert"))
            .arg(Arg::new("origin").long("origin").action(ArgAction::Append))
            .arg(Arg::new("share").long("share-weights").action(ArgAction::SetTrue))
    }

    fn expanded(
        file: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Vec<String>, SettingsError> {
        let path = std::env::temp_dir().join(format!(
            "oto-settings-{}-{:x}",
            std::process::id(),
            file.len() * 31 + flags.len()
        ));
        std::fs::write(&path, file).unwrap();
        let mut arguments =
            vec!["oto".into(), "serve".into(), "--config".into(), path.clone().into_os_string()];
        arguments.extend(flags.iter().map(OsString::from));
        let found = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        let all = expand(arguments, &serve(), found);
        std::fs::remove_file(path).unwrap();
        let keep = |flag: &OsString| !flag.to_string_lossy().contains("oto-settings") && *flag != "--config";
        Ok(all?[2..].iter().filter(|flag| keep(flag)).map(|f| f.to_string_lossy().into()).collect())
    }

    const FILE: &str =
        "port = 80\norigin = [\"https://a\", \"https://b\"]\nshare_weights = true\n[tls]\ncert = \"c.pem\"\n";

    #[test]
    fn a_file_stands_for_flags() {
        let flags = expanded(FILE, &[], &[]).unwrap();
        let expected =
            ["--port=80", "--tls-cert=c.pem", "--origin=https://a", "--origin=https://b", "--share-weights"];
        assert_eq!(flags, expected);
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
        let environment = [
            ("OTO_SERVE_PORT", "81"),
            ("OTO_SERVE_ORIGIN", "https://c, https://d"),
            ("OTO_SERVE_SHARE_WEIGHTS", "false"),
        ];
        let flags = expanded(FILE, &["--port=82"], &environment).unwrap();
        assert_eq!(flags, ["--tls-cert=c.pem", "--origin=https://c", "--origin=https://d", "--port=82"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (file, said) in [
            ("prot = 1", "there is no setting \"prot\""),
            ("config = \"other.toml\"", "there is no setting"),
            ("share-weights = \"yes\"", "share-weights is string, expected true or false"),
            ("port = [1, 2]", "port is array, expected a text or a number"),
            ("port = ", "line 1"),
        ] {
            let error = expanded(file, &[], &[]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let missing = ["oto", "serve", "--config=/nowhere.toml"].map(OsString::from).to_vec();
        assert!(matches!(expand(missing, &serve(), |_| None), Err(SettingsError::File { .. })));
        let other = ["oto", "learn", "--config", "x"].map(OsString::from).to_vec();
        assert_eq!(expand(other.clone(), &serve(), |_| None).unwrap(), other);
    }
}
