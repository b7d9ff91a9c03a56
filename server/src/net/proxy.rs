//! Proxies before a server: who is behind them. A proxy that is trusted says so in the PROXY protocol (version 1 or 2) before a
//! connection's first byte, or in `Forwarded` (RFC 7239) or `X-Forwarded-For` of each request. The server believes no other peer.

use hyper::header::{self, HeaderMap};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A network, such as `10.0.0.0/8` or `fd00::/8`; an address alone is one of a single machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a network such as 10.0.0.0/8 or fd00::/8, or an address, got {0:?}")]
pub struct NoNetwork(String);

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let wrong = || NoNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits =
            |prefix: &str| prefix.parse().ok().filter(|_| prefix.bytes().all(|b| b.is_ascii_digit()));
        let prefix = prefix.map_or(Some(most), digits).filter(|prefix| *prefix <= most).ok_or_else(wrong)?;
        Ok(Network { address, prefix })
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
        self.address.is_ipv4() == address.is_ipv4() && (bits(self.address) ^ bits(address)) & mask == 0
    }
}

/// Proxies that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub Vec<Network>);

/// Headers that say different things, or nothing that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotForwarded {
    /// A proxy adds to one of them and lets the other pass as a client made it up.
    #[error("expected one of Forwarded and X-Forwarded-For, got both and they differ")]
    Differ,
}

impl TrustedProxies {
    /// Whether this is one of them.
    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.holds(address))
    }

    /// Who asks, if `peer` sent the request: itself, unless it is trusted and names somebody.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, NotForwarded> {
        if !self.holds(peer) {
            return Ok(peer);
        }
        let forwarded = self.rightmost(peer, &forwarded(headers));
        let x_forwarded_for = self.rightmost(peer, &x_forwarded_for(headers));
        match (forwarded, x_forwarded_for) {
            (Some(one), Some(other)) if one != other => Err(NotForwarded::Differ),
            (found, other) => Ok(found.or(other).unwrap_or(peer)),
        }
    }

    /// The rightmost address that is no trusted proxy. The entries to its left are only its claims. An entry that is no address ends the
    /// search at the proxy to its right.
    fn rightmost(&self, peer: IpAddr, named: &[Option<IpAddr>]) -> Option<IpAddr> {
        let mut last = peer;
        for address in named.iter().rev() {
            let Some(address) = address else { break };
            last = *address;
            if !self.holds(last) {
                break;
            }
        }
        (!named.is_empty()).then_some(last)
    }
}

/// The addresses of `X-Forwarded-For`, over all its lines.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.split(',')).map(|entry| node(entry.trim())).collect()
}

/// The addresses of `for=` in `Forwarded`, over all its lines.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all(header::FORWARDED).iter().map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| unquoted(line, ',')).map(element).collect()
}

/// The address of one element of `Forwarded`.
fn element(element: &str) -> Option<IpAddr> {
    let mut named = unquoted(element, ';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    let (value, None) = (named.next()?, named.next()) else { return None };
    node(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

/// The parts of a text between separators that do not stand in quotes.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let splits = c == separator && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        splits
    })
}

/// An address, perhaps with a port.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        return address.parse::<Ipv6Addr>().ok().filter(|_| port).map(|a| IpAddr::V6(a).to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    address.parse::<Ipv4Addr>().ok().filter(|_| port.parse::<u16>().is_ok()).map(IpAddr::V4)
}

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its end included.
const LONGEST_V1: usize = 107;
/// The most bytes after version 2's first sixteen; addresses of Unix sockets have 216, the rest is for extensions.
const LONGEST_V2: usize = 2048;

/// Reads what a proxy says before a connection's first byte. Gives the client's address, if it says one, and the stream without it.
pub(crate) async fn introduction<S: AsyncRead + Unpin>(
    mut stream: S,
) -> io::Result<(Option<IpAddr>, Behind<S>)> {
    let mut bytes = Vec::with_capacity(16);
    loop {
        let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
        let (one, two) = (begins(V1), begins(V2));
        if one && bytes.len() >= V1.len() {
            return Ok((line(&mut stream, bytes).await?, Behind { stream, bytes: Vec::new(), given: 0 }));
        }
        if two && bytes.len() >= V2.len() {
            return Ok((block(&mut stream, bytes).await?, Behind { stream, bytes: Vec::new(), given: 0 }));
        }
        if !one && !two {
            return Ok((None, Behind { stream, bytes, given: 0 }));
        }
        bytes.push(stream.read_u8().await?);
    }
}

/// Version 1: `PROXY TCP4 FROM TO PORT PORT`, or `PROXY UNKNOWN`.
async fn line<S: AsyncRead + Unpin>(stream: &mut S, mut bytes: Vec<u8>) -> io::Result<Option<IpAddr>> {
    while !bytes.ends_with(b"\r\n") {
        if bytes.len() >= LONGEST_V1 {
            return Err(ErrorKind::InvalidData.into());
        }
        bytes.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| ErrorKind::InvalidData)?.trim_end();
    let parts: Vec<&str> = text.split(' ').collect();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, one, two] => {
            let address = |text: &str| {
                let address: Option<IpAddr> = text.parse().ok();
                address.filter(|a| a.is_ipv4() == (family == "TCP4")).ok_or(ErrorKind::InvalidData)
            };
            let ports = [one, two].iter().all(|port| port.parse::<u16>().is_ok());
            let (from, _) = (address(from)?, address(to)?);
            if ports { Ok(Some(from.to_canonical())) } else { Err(ErrorKind::InvalidData.into()) }
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// Version 2: twelve bytes that are always the same, version and command, family, length, addresses.
async fn block<S: AsyncRead + Unpin>(stream: &mut S, _: Vec<u8>) -> io::Result<Option<IpAddr>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[0] >> 4 != 2 || length > LONGEST_V2 {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (head[0] & 0x0f, head[1] >> 4) {
        // The proxy speaks for itself, as for a probe.
        (0, _) => Ok(None),
        (1, 1) => match rest.first_chunk::<4>() {
            Some(address) if length >= 12 => Ok(Some(IpAddr::from(*address))),
            _ => Err(ErrorKind::InvalidData.into()),
        },
        (1, 2) => match rest.first_chunk::<16>() {
            Some(address) if length >= 36 => Ok(Some(IpAddr::from(*address).to_canonical())),
            _ => Err(ErrorKind::InvalidData.into()),
        },
        (1, 0 | 3) => Ok(None),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// A stream of which some bytes were read already.
pub(crate) struct Behind<S> {
    stream: S,
    bytes: Vec<u8>,
    given: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Behind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.given..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let here = left.len().min(buf.remaining());
        buf.put_slice(&left[..here]);
        self.given += here;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Behind<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"].map(|text| text.parse().unwrap()).into())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "200.1.2.3", "::1"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("192.168.4.128/25", "192.168.4.129", "192.168.4.1"),
            ("fd00::/8", "fd12::1", "fe00::1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.holds(address(inside)) && !network.holds(address(outside)), "{network:?}");
        }
        for wrong in
            ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "a/8", "10.0.0.0/8/8"]
        {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert!(trusted().holds(address("::ffff:10.0.0.1")), "however it is written");
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        let client = |peer: &str, lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|(name, line)| _ = headers.append(*name, line.parse().unwrap()));
            trusted().client(address(peer), &headers).map(|client| client.to_string())
        };
        let (x, f) = ("x-forwarded-for", "forwarded");
        for (peer, lines, expected) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &[(x, "1.2.3.4")], "1.2.3.4"),
            ("9.9.9.9", &[(x, "1.2.3.4"), (f, "for=5.6.7.8")], "9.9.9.9"),
            ("10.0.0.1", &[(x, "6.6.6.6, 1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(x, "6.6.6.6, 1.2.3.4, 10.0.0.2,127.0.0.1")], "1.2.3.4"),
            ("10.0.0.1", &[(x, "6.6.6.6"), (x, "1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(x, "1.2.3.4:567")], "1.2.3.4"),
            ("10.0.0.1", &[(x, "2001:db8::1")], "2001:db8::1"),
            ("10.0.0.1", &[(x, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1", &[(x, "1.2.3.4, unknown")], "10.0.0.1"),
            ("10.0.0.1", &[(x, "1.2.3.4, garbage, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[(x, "")], "10.0.0.1"),
            ("::ffff:10.0.0.1", &[(x, "::ffff:1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(f, "for=192.0.2.60;proto=http;by=203.0.113.43")], "192.0.2.60"),
            ("10.0.0.1", &[(f, "For=\"[2001:db8:cafe::17]:4711\"")], "2001:db8:cafe::17"),
            ("10.0.0.1", &[(f, "for=6.6.6.6, for=\"1.2.3.4:80\";host=\"a,b;c\", for=10.0.0.2")], "1.2.3.4"),
            ("10.0.0.1", &[(f, "for=1.2.3.4, for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[(f, "for=1.2.3.4;for=5.6.7.8")], "10.0.0.1"),
            ("10.0.0.1", &[(f, "for=1.2.3.4"), (x, "1.2.3.4")], "1.2.3.4"),
        ] {
            assert_eq!(client(peer, lines).as_deref(), Ok(expected), "{peer} {lines:?}");
        }
        let both = &[(f, "for=6.6.6.6"), (x, "1.2.3.4")];
        assert_eq!(client("10.0.0.1", both), Err(NotForwarded::Differ), "one of them is a client's");
    }

    fn introduced(bytes: &[u8]) -> Result<(Option<String>, Vec<u8>), ErrorKind> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (client, mut behind) = introduction(bytes).await.map_err(|error| error.kind())?;
            let mut rest = Vec::new();
            behind.read_to_end(&mut rest).await.unwrap();
            Ok((client.map(|client| client.to_string()), rest))
        })
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [V2, &[0x20 | command, family], &(rest.len() as u16).to_be_bytes(), rest, b"GET /"].concat()
    }

    #[test]
    fn a_proxy_introduces_its_client() {
        let some = |client: &str| Ok((Some(client.to_owned()), b"GET /".to_vec()));
        let none = Ok((None, b"GET /".to_vec()));
        assert_eq!(introduced(b"PROXY TCP4 1.2.3.4 10.0.0.1 5 80\r\nGET /"), some("1.2.3.4"));
        assert_eq!(introduced(b"PROXY TCP6 2001:db8::1 ::1 5 80\r\nGET /"), some("2001:db8::1"));
        assert_eq!(introduced(b"PROXY UNKNOWN\r\nGET /"), none);
        assert_eq!(introduced(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\nGET /"), none);
        let four = [1, 2, 3, 4, 10, 0, 0, 1, 0, 5, 0, 80];
        assert_eq!(introduced(&v2(1, 0x11, &four)), some("1.2.3.4"));
        assert_eq!(
            introduced(&v2(1, 0x11, &[&four[..], &[3, 0, 1, 7]].concat())),
            some("1.2.3.4"),
            "with extensions"
        );
        let six = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 20]].concat();
        assert_eq!(introduced(&v2(1, 0x21, &six)), some("2001:db8::1"));
        assert_eq!(introduced(&v2(0, 0, &[])), none, "a probe of the proxy's own");
        assert_eq!(introduced(&v2(1, 0x31, &[0; 216])), none, "a Unix socket");
        for other in [
            &b"GET / HTTP/1.1"[..],
            b"P",
            b"POST /",
            b"PROXY",
            b"\r\n\r\n\0\r\nQUI_",
            b"\x16\x03\x01",
            b"PROX / HTTP",
        ] {
            match introduced(other) {
                Ok(found) => assert_eq!(found, (None, other.to_vec())),
                Err(kind) => assert_eq!((kind, V1.starts_with(other)), (ErrorKind::UnexpectedEof, true)),
            }
        }
    }

    #[test]
    fn an_introduction_that_is_none_ends_the_connection() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200], b"\r\n"].concat();
        for wrong in [
            &b"PROXY TCP4 1.2.3.4 10.0.0.1 5\r\n"[..],
            b"PROXY TCP4 2001:db8::1 ::1 5 80\r\n",
            b"PROXY TCP4 1.2.3.4 10.0.0.1 5 99999\r\n",
            b"PROXY TCP9 1.2.3.4 10.0.0.1 5 80\r\n",
            b"PROXY \xff\r\n",
            &long,
            &v2(2, 0x11, &[0; 12]),
            &v2(1, 0x11, &[0; 11]),
            &v2(1, 0x21, &[0; 35]),
            &v2(1, 0x41, &[0; 12]),
            &v2(1, 0x11, &[0; 2049]),
            &[V2, &[0x11, 0x11, 0, 12], &[0; 12]].concat(),
        ] {
            assert_eq!(introduced(wrong), Err(ErrorKind::InvalidData), "{wrong:?}");
        }
        assert_eq!(introduced(&v2(1, 0x11, &[0; 12])[..20]), Err(ErrorKind::UnexpectedEof));
    }

    proptest! {
        /// Whatever headers say, the client is the peer or an address that stands in them, and never one before another that is not trusted.
        #[test]
        fn nobody_makes_up_an_address(entries in prop::collection::vec(prop_oneof![
            Just("10.0.0.2".to_owned()), Just("6.6.6.6".to_owned()), Just("7.7.7.7".to_owned()), "[ -~]{0,12}".prop_map(|s| s.replace(',', ""))
        ], 0..6), garbage in "[ -~]{0,40}") {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", format!("{}, 1.2.3.4, 10.0.0.9", entries.join(",")).parse().unwrap());
            prop_assert_eq!(trusted().client(address("10.0.0.1"), &headers), Ok(address("1.2.3.4")));
            headers.insert(header::FORWARDED, garbage.parse().unwrap());
            let client = trusted().client(address("10.0.0.1"), &headers);
            prop_assert!(client.is_err() || client == Ok(address("1.2.3.4")));
        }

        #[test]
        fn an_introduction_of_any_bytes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), begin in 0usize..3) {
            let bytes = [[&b""[..], V1, V2][begin], &bytes].concat();
            drop(introduced(&bytes));
        }
    }
}
