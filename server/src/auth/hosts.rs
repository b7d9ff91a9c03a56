//! What a server is called. A page of a stranger can give the stranger's own name this server's address (DNS rebinding); its browser
//! then takes both for one site. The header `Host` still says the stranger's name, so a name that is not this server's is refused.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Uri, Version};
use std::net::IpAddr;

/// The names of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Only this machine reaches the server: beside `names` only those of the machine itself are its own, `localhost` and its like.
    pub loopback: bool,
    /// Names that people give it, with or without a port.
    pub names: Vec<String>,
}

/// The longest header `Host`: a name of 255 bytes and a port.
const LONGEST: usize = 261;
/// The longest header `Origin`.
const LONGEST_ORIGIN: usize = LONGEST + 16;

/// Why a request is not for this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongHost {
    /// No host, two, or something that is none.
    #[error("expected one header Host with the name of this server")]
    Unusable,
    /// Another one's.
    #[error("the header Host has a name that is not this server's: add the name with --name")]
    Other,
}

/// A host and a port, if one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// In lower case, without a dot at its end; an IPv6 address without brackets.
    name: String,
    port: Option<u16>,
}

impl Host {
    fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST || text.contains('@') {
            return None;
        }
        let authority: Authority = text.parse().ok()?;
        let host = authority.host();
        let name = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // What stands behind the host is a port, or nothing.
        let port = match &text[host.len()..] {
            "" | ":" => None,
            rest => Some(rest.strip_prefix(':')?.parse().ok()?),
        };
        (!name.is_empty()).then_some(Host { name, port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.name.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    }

    fn is_loopback(&self) -> bool {
        self.address().map_or_else(
            || self.name == "localhost" || self.name.ends_with(".localhost"),
            |address| address.is_loopback(),
        )
    }
}

/// An origin: its scheme, and its host with the port that the scheme has where none is named.
fn origin_of(text: &str) -> Option<(String, Host)> {
    if text.len() > LONGEST_ORIGIN {
        return None;
    }
    let (scheme, host) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let host = with_port(Host::read(host)?, &scheme);
    Some((scheme, host))
}

fn with_port(host: Host, scheme: &str) -> Host {
    let usual = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Host { port: host.port.or(usual), ..host }
}

/// Whether two origins are the same, however they are written.
pub(crate) fn same_origin(one: &str, other: &str) -> bool {
    let both = origin_of(one).zip(origin_of(other));
    both.map_or_else(
        || one.len() <= LONGEST_ORIGIN && one.eq_ignore_ascii_case(other),
        |(one, other)| one == other,
    )
}

impl Hosts {
    /// Whether each name is one.
    pub(crate) fn first_wrong(&self) -> Option<&str> {
        self.names.iter().map(String::as_str).find(|name| Host::read(name).is_none())
    }

    /// The host that a request names, if that is this server.
    pub(crate) fn of(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Host, WrongHost> {
        let host = named(version, uri, headers)?;
        if self.knows(&host) { Ok(host) } else { Err(WrongHost::Other) }
    }

    fn knows(&self, host: &Host) -> bool {
        self.is_named(host)
            || match (self.loopback, self.names.is_empty()) {
                (true, _) => host.is_loopback(),
                (false, true) => true,
                // A page of an address comes from the machine with that address.
                (false, false) => host.is_loopback() || host.address().is_some(),
            }
    }

    fn is_named(&self, host: &Host) -> bool {
        let names = self.names.iter().filter_map(|name| Host::read(name));
        names
            .into_iter()
            .any(|name| name.name == host.name && (name.port.is_none() || name.port == host.port))
    }

    /// Whether a page of this origin came from this server. A stranger's name cannot have a certificate for a server that speaks
    /// TLS, or whose proxy does. Without it, only names that are given and addresses are sure to be the server's.
    pub(crate) fn owns(&self, origin: &HeaderValue, host: &Host) -> bool {
        let Some((scheme, page)) = origin.to_str().ok().and_then(origin_of) else { return false };
        let sure = match scheme.as_str() {
            "https" => true,
            "http" => host.is_loopback() || host.address().is_some() || self.is_named(host),
            _ => false,
        };
        sure && page == with_port(host.clone(), &scheme)
    }
}

/// The host that a request names: in its target, if that has one, else in the header.
pub(crate) fn named(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Host, WrongHost> {
    let mut lines = headers.get_all(header::HOST).iter();
    let read = |text: &str| Host::read(text).ok_or(WrongHost::Unusable);
    let header = match (lines.next(), lines.next()) {
        (Some(line), None) => Some(read(line.to_str().map_err(|_| WrongHost::Unusable)?)?),
        // What came before HTTP 1.1 may leave it out.
        (None, _) if version < Version::HTTP_11 && uri.authority().is_some() => None,
        _ => return Err(WrongHost::Unusable),
    };
    let target = uri.authority().map(|authority| read(authority.as_str())).transpose()?;
    match (target, header) {
        (Some(target), Some(header)) if target != header => Err(WrongHost::Unusable),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(WrongHost::Unusable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(loopback: bool, names: &[&str]) -> Hosts {
        Hosts { loopback, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn of(hosts: &Hosts, lines: &[&str]) -> Result<Host, WrongHost> {
        let mut headers = HeaderMap::new();
        lines.iter().for_each(|line| _ = headers.append(header::HOST, line.parse().unwrap()));
        hosts.of(Version::HTTP_11, &Uri::from_static("/"), &headers)
    }

    #[test]
    fn on_loopback_only_the_names_of_the_machine_and_those_given_are_the_servers() {
        let hosts = hosts(true, &["my.page", "other.page:8443"]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1:8080",
            "127.3.2.1",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
            "my.page",
            "MY.page:99",
            "other.page:8443",
        ] {
            assert!(of(&hosts, &[host]).is_ok(), "{host}");
        }
        for host in [
            "evil.com",
            "evil.com:8080",
            "localhost.evil.com",
            "notlocalhost",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "0.0.0.0:8080",
            "[::]",
            "other.page",
            "other.page:1",
            "2130706433",
        ] {
            assert_eq!(of(&hosts, &[host]), Err(WrongHost::Other), "{host}");
        }
        let long = "a".repeat(8192);
        for host in
            ["", ":8080", "a b", "a/b", "user@localhost", "localhost:port", "localhost:99999", "[::1", &long]
        {
            assert_eq!(of(&hosts, &[host]), Err(WrongHost::Unusable), "{host}");
        }
        assert_eq!(of(&hosts, &[]), Err(WrongHost::Unusable));
        assert_eq!(of(&hosts, &["localhost", "localhost"]), Err(WrongHost::Unusable));
    }

    #[test]
    fn the_target_goes_before_the_header_and_they_agree() {
        let hosts = hosts(true, &[]);
        let with = |version, target: &str, host: Option<&str>| {
            let mut headers = HeaderMap::new();
            host.map(|host| headers.insert(header::HOST, host.parse().unwrap()));
            hosts.of(version, &target.parse().unwrap(), &headers)
        };
        assert!(with(Version::HTTP_11, "http://localhost:1/", Some("localhost:1")).is_ok());
        assert_eq!(with(Version::HTTP_11, "http://evil.com/", Some("evil.com")), Err(WrongHost::Other));
        assert_eq!(with(Version::HTTP_11, "http://evil.com/", Some("localhost")), Err(WrongHost::Unusable));
        assert_eq!(with(Version::HTTP_11, "http://localhost/", None), Err(WrongHost::Unusable));
        assert_eq!(with(Version::HTTP_10, "/", None), Err(WrongHost::Unusable));
        assert!(with(Version::HTTP_10, "http://localhost/", None).is_ok());
    }

    #[test]
    fn elsewhere_names_are_those_given_or_any() {
        let (open, named) = (hosts(false, &[]), hosts(false, &["my.page"]));
        for host in ["my.page", "10.0.0.1:8080", "[2001:db8::1]", "localhost"] {
            assert!(of(&open, &[host]).is_ok() && of(&named, &[host]).is_ok(), "{host}");
        }
        assert!(of(&open, &["evil.com"]).is_ok());
        assert_eq!(of(&named, &["evil.com"]), Err(WrongHost::Other));
    }

    #[test]
    fn a_page_is_the_servers_own_if_it_is_of_the_same_origin_and_nobody_elses() {
        let owns = |hosts: &Hosts, origin: &str, host: &str| {
            hosts.owns(&HeaderValue::from_str(origin).unwrap(), &of(hosts, &[host]).unwrap())
        };
        let (local, open, named) = (hosts(true, &["h"]), hosts(false, &[]), hosts(false, &["h"]));
        for (origin, host) in [
            ("https://h", "h:443"),
            ("https://h", "h"),
            ("https://h:443", "h"),
            ("HTTPS://H", "h:443"),
            ("https://h:8443", "h:8443"),
        ] {
            for hosts in [&local, &open, &named] {
                assert!(owns(hosts, origin, host), "{origin} {host}");
            }
        }
        for (origin, host) in [("http://h", "h:80"), ("http://h:8080", "h:8080")] {
            assert!(owns(&local, origin, host) && owns(&named, origin, host), "{origin} {host}");
            assert!(!owns(&open, origin, host), "it may be anyone's name: {origin} {host}");
        }
        assert!(owns(&open, "http://[::1]:8080", "[::1]:8080") && owns(&open, "http://10.0.0.1", "10.0.0.1"));
        for (origin, host) in [
            ("https://h", "h:80"),
            ("http://h", "h:443"),
            ("https://h:444", "h"),
            ("https://g", "h"),
            ("null", "h"),
            ("h", "h"),
            ("ftp://h", "h"),
            ("https://h/", "h"),
            ("https://h@g", "h"),
        ] {
            assert!(!owns(&named, origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn origins_are_the_same_however_they_are_written() {
        for (one, other) in [("https://a", "https://a:443"), ("HTTP://A", "http://a:80"), ("null", "null")] {
            assert!(same_origin(one, other), "{one} {other}");
        }
        for (one, other) in
            [("https://a", "http://a"), ("https://a", "https://a.b"), ("null", "https://null")]
        {
            assert!(!same_origin(one, other), "{one} {other}");
        }
    }
}
