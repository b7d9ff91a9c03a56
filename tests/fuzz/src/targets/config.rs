//! What operators and pages write down: who may use a server, its settings, and what a page's student is made of.

use super::settings;
use clap::{Arg, ArgAction, Command};
use oto_agent::config::StudentConfig;
use oto_web::config::CoreConfig;

/// The file of who may use a server.
pub fn access(bytes: &[u8]) -> bool {
    oto_server::access::fuzz(bytes)
}

/// The settings of `oto serve`: one flag of each sort.
pub fn toml(bytes: &[u8]) -> bool {
    let serve = Command::new("serve")
        .arg(Arg::new("config").long("config"))
        .arg(Arg::new("port").long("port").value_parser(clap::value_parser!(u16)))
        .arg(Arg::new("cert").long("tls-cert"))
        .arg(Arg::new("origin").long("origin").action(ArgAction::Append))
        .arg(Arg::new("share").long("share-weights").action(ArgAction::SetTrue));
    std::str::from_utf8(bytes).is_ok_and(|text| settings::fuzz(text, &serve))
}

/// A page's configuration: one that is accepted is the same when it is written again, and makes an environment or says why not.
pub fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(given) = oto_json::parse(text) else { return false };
    let Ok(config) = CoreConfig::read(&given, None) else { return false };
    let written = oto_json::write(&config.student);
    assert_eq!(oto_json::read::<StudentConfig>(&written).as_ref(), Ok(&config.student), "{written}");
    config.student.validate().is_ok() & config.environment().is_ok()
}
