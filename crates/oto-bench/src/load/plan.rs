//! How many students ask how often about how much, and what they ask.

use super::tls::{Tls, Trust};
use super::{LoadError, Publish};
use oto_proto::Space;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// When a student asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many times in a second, whatever the answers do. Zero: never.
    Open(f64),
    /// As soon as one is answered, with so many on their way: how much a server can do, not how long it takes.
    Saturate(u16),
}

/// A load.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Students, each with a connection of its own.
    pub students: usize,
    /// When they ask.
    pub pace: Pace,
    /// States in a request.
    pub rows: u16,
    /// What is not measured, at the beginning.
    pub warm_up: Duration,
    /// What is measured.
    pub measured: Duration,
    /// For the last answers, at the end.
    pub patience: Duration,
    /// Of the students' times and states.
    pub seed: u64,
    /// What is published meanwhile.
    pub publish: Option<Publish>,
}

/// The shortest time between publications.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest measurement: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

impl Plan {
    /// Whether it can be carried out.
    ///
    /// # Errors
    /// [`LoadError::Plan`], which names what cannot be.
    pub fn check(&self) -> Result<(), LoadError> {
        let wrong = |what: String| Err(LoadError::Plan(what));
        if !(1..=100_000).contains(&self.students) {
            return wrong(format!("expected 1 to 100000 students, got {}", self.students));
        }
        if let Pace::Open(rate) = self.pace
            && !(0.0..=1e6).contains(&rate)
        {
            return wrong(format!("expected 0 to 1000000 requests a second, got {rate}"));
        }
        if self.rows == 0 || self.pace == Pace::Saturate(0) {
            return wrong("expected at least one state, and one request".into());
        }
        if let Some(publish) = &self.publish
            && publish.every < SHORTEST
        {
            return wrong(format!(
                "expected at least {SHORTEST:?} between publications, got {:?}",
                publish.every
            ));
        }
        if self.measured.is_zero() || self.measured.max(self.warm_up) > LONGEST {
            return wrong(format!("expected a measurement of up to a day, got {:?}", self.measured));
        }
        Ok(())
    }
}

/// A server and what its students introduce themselves with.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub host: String,
    /// The same as a number.
    pub address: SocketAddr,
    /// The policy that is asked; none asks an echo.
    pub policy: Option<PolicySpaces>,
    /// A bearer token for the handshake.
    pub token: Option<String>,
    /// TLS, if the server speaks it.
    pub tls: Option<Tls>,
}

/// What a policy observes and does.
#[derive(Clone, Debug)]
pub struct PolicySpaces {
    /// Its name.
    pub name: String,
    /// What it observes.
    pub observation: Space,
    /// What it does.
    pub action: Space,
}

impl Target {
    /// Asks a server what its policy observes and does: students here need no adapter. A server at `wss://` has to be one that is trusted.
    ///
    /// # Errors
    /// If the address is none, nobody answers, or there is no such policy.
    pub fn find(url: &str, policy: &str, token: Option<String>, trust: &Trust) -> Result<Self, LoadError> {
        let wrong = || LoadError::Address(url.to_owned());
        let (secure, host) = place(url).ok_or_else(wrong)?;
        let address = host.to_socket_addrs().ok().and_then(|mut all| all.next()).ok_or_else(wrong)?;
        let (name, _) = host.rsplit_once(':').ok_or_else(wrong)?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let tls = if secure { Some(Tls::new(name, trust)?) } else { None };
        let scheme = if secure { "https" } else { "http" };
        let list =
            trust.agent().get(format!("{scheme}://{host}/policies")).call()?.body_mut().read_to_string()?;
        let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap_or_default();
        let names = list.iter().filter_map(|entry| entry["name"].as_str());
        let space = |entry: &serde_json::Value| serde_json::from_value::<Space>(entry.clone()).ok();
        let found = list.iter().find(|entry| entry["name"] == policy).and_then(|entry| {
            let (observation, action) = (space(&entry["observation_space"])?, space(&entry["action_space"])?);
            Some(PolicySpaces { name: policy.to_owned(), observation, action })
        });
        let found = found.ok_or_else(|| LoadError::NoPolicy {
            name: policy.to_owned(),
            found: names.map(str::to_owned).collect(),
        })?;
        Ok(Target { host, address, policy: Some(found), token, tls })
    }

    /// A server that sends back what comes, without TLS, to be asked what this one is asked.
    pub fn echo(&self, address: SocketAddr) -> Self {
        Target { host: address.to_string(), address, tls: None, ..self.clone() }
    }
}

/// Whether a server's address says that it speaks TLS, and its `host:port`.
fn place(url: &str) -> Option<(bool, String)> {
    let (port, rest) = match url.split_once("://") {
        None => (None, url),
        Some(("ws", rest)) => (Some(80), rest),
        Some(("wss", rest)) => (Some(443), rest),
        Some(_) => return None,
    };
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let whole = if has_port { host.to_owned() } else { format!("{host}:{}", port?) };
    Some((port == Some(443), whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_and_whether_by_tls() {
        for (url, expected) in [
            ("127.0.0.1:8080", Some((false, "127.0.0.1:8080"))),
            ("ws://127.0.0.1:8080/v1/teach", Some((false, "127.0.0.1:8080"))),
            ("ws://teacher.example", Some((false, "teacher.example:80"))),
            ("wss://teacher.example/v1/teach", Some((true, "teacher.example:443"))),
            ("wss://[::1]", Some((true, "[::1]:443"))),
            ("wss://[::1]:8443", Some((true, "[::1]:8443"))),
            ("teacher.example", None),
            ("https://teacher.example", None),
            ("ws:///v1/teach", None),
        ] {
            assert_eq!(place(url), expected.map(|(secure, host)| (secure, host.to_owned())), "{url}");
        }
    }
}
