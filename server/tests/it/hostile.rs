//! Hostile peers of each kind beside fifty students: the students are answered nearly as fast as without them, none of them loses its
//! connection, and the server's memory stays below what its limits amount to, within `ulimit -v` and `ulimit -n`.
//!
//! `OTO_HOSTILE_SECONDS` sets the time for each kind, `OTO_HOSTILE_ONLY` a part of a kind's name. Real attackers have machines of their
//! own. Here they share one with the server and the students, so they run in another process, which the system's scheduler gives only
//! time that nothing else wants (`SCHED_IDLE`). Peace and attack alternate. An attack lasts until the attackers have done a minimum.

use crate::policies::{boxed, sum};
use crate::process::{Process, announce};
use crate::security_options::sha256;
use crate::student::{hello, serve_on_all_cores, try_request};
use crate::submissions::Folder;
use oto_proto::{ClientMessage, Hello, Ids, ServerMessage, Space};
use oto_server::access::Access;
use oto_server::admin::Admin;
use oto_server::audit::{Audit, Rotation};
use oto_server::proxy::TrustedProxies;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

const POLICY: &str = "sum";

const STUDENTS: usize = 50;
const ATTACKERS: usize = 4;
/// From one request of a student to the next.
const PAUSE: Duration = Duration::from_millis(50);
/// The students' 99th percentile under attack is less than this many times the one in peace, or the floor, whichever is longer.
const RATIO: u32 = 5;
const FLOOR: Duration = Duration::from_millis(2);
/// Times of peace and of attack for each kind, and the longest of one.
const ROUNDS: u32 = 4;
const ROUND: Duration = Duration::from_secs(4);
/// Requests of a probe or an operator until one is answered, at most.
const TRIES: usize = 3;

/// What the server may have open, and map.
const FILES: u64 = 1024;
const ADDRESS_SPACE: u64 = 1536 << 20;
/// What all peers may have it hold, and what each connection has beside that: 48 KiB of messages and requests, 16 KiB of
/// headers, and what a connection is.
const MEMORY: u64 = 64 << 20;
const CONNECTION: u64 = 96 << 10;
/// Work that is under way, and what an allocator keeps for itself.
const WORK: u64 = 64 << 20;

const TOKEN: &str = "the secret of all students here";
const OPERATOR: &str = "the secret of the operator here";
const FRIEND: &str = "https://friend.example";

/// Who may use the server, and how peers reach it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Doors {
    /// Everyone.
    Open,
    /// Students with a token, pages with tickets.
    Access,
    /// The same behind a proxy, which says that each hostile connection is of one of many addresses.
    Proxied,
}

/// One kind of hostile peer.
struct Kind {
    name: &'static str,
    doors: Doors,
    /// What a thread does, one way or another, until it is told to stop or has nothing more to do.
    attack: fn(&Target, usize),
    /// How often it is done in each attack, at least.
    least: u64,
}

const KINDS: [Kind; 11] = [
    Kind { name: "connections", doors: Doors::Open, attack: connections, least: 200 },
    Kind { name: "tickets", doors: Doors::Access, attack: tickets, least: 200 },
    Kind { name: "tickets of many addresses", doors: Doors::Proxied, attack: tickets, least: 100 },
    Kind { name: "before hello", doors: Doors::Open, attack: before_hello, least: 10 },
    Kind { name: "halves of messages", doors: Doors::Open, attack: halves, least: 20 },
    Kind { name: "control", doors: Doors::Open, attack: control, least: 20 },
    Kind { name: "nonsense", doors: Doors::Open, attack: nonsense, least: 20 },
    Kind { name: "bodies", doors: Doors::Open, attack: bodies, least: 5 },
    Kind { name: "deaf", doors: Doors::Open, attack: deaf, least: 200 },
    Kind { name: "more than a quota", doors: Doors::Proxied, attack: quota, least: 20 },
    Kind { name: "operator's door", doors: Doors::Access, attack: operators_door, least: 100 },
];

/// The server, for those who attack it.
struct Target {
    address: SocketAddr,
    operators: SocketAddr,
    doors: Doors,
    /// Until when.
    going: AtomicBool,
    connections: AtomicU32,
    /// How often the attack was made.
    done: AtomicU64,
}

impl Target {
    fn goes_on(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    fn did(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection, of one of 500 addresses where there is a proxy.
    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
        stream.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed) % 500;
        let from = format!("10.66.{}.{}", number / 250, 1 + number % 250);
        introduce(self.doors, &stream, &from)?;
        Some(stream)
    }

    /// A WebSocket that has said nothing.
    fn socket(&self) -> Option<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(upgrade(self.address, "").as_bytes()).ok()?;
        head(&mut stream)?.starts_with("HTTP/1.1 101").then_some(stream)
    }

    /// One that has its welcome, if that needs nothing.
    fn pupil(&self, ticket: Option<String>) -> Option<TcpStream> {
        let mut stream = self.socket()?;
        stream.write_all(&frame(0x81, greeting(ticket).encode().as_bytes())).ok()?;
        let mut some = [0; 4096];
        (stream.read(&mut some).ok()? > 0).then_some(stream)
    }

    fn ticket(&self) -> Option<String> {
        let mut stream = self.connect()?;
        stream.write_all(ask_ticket(self.address, FRIEND).as_bytes()).ok()?;
        let mut some = [0; 2048];
        let read = stream.read(&mut some).ok()?;
        let text = String::from_utf8_lossy(&some[..read]).into_owned();
        Some(text.split_once("\"ticket\":\"")?.1.split('"').next()?.to_owned())
    }
}

/// What a student says first.
fn greeting(ticket: Option<String>) -> ClientMessage {
    ClientMessage::Hello(Box::new(Hello { ticket, ..hello(POLICY, boxed(4), Space::Discrete { n: 2 }) }))
}

/// What a proxy says first, where there is one.
fn introduce(doors: Doors, mut stream: &TcpStream, from: &str) -> Option<()> {
    match doors {
        Doors::Proxied => stream.write_all(format!("PROXY TCP4 {from} 10.0.0.1 5 80\r\n").as_bytes()).ok(),
        Doors::Open | Doors::Access => Some(()),
    }
}

fn upgrade(host: SocketAddr, headers: &str) -> String {
    format!(
        "GET /v1/teach HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
        sec-websocket-protocol: oto.v1\r\n{headers}\r\n"
    )
}

fn ask_ticket(host: impl std::fmt::Display, origin: &str) -> String {
    format!("POST /v1/ticket HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\ncontent-length: 0\r\n\r\n")
}

/// The head of an answer.
fn head(stream: &mut TcpStream) -> Option<String> {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        all.push(byte[0]);
    }
    String::from_utf8(all).ok()
}

/// The head of a frame, masked with zeros.
fn announced(first: u8, length: usize) -> Vec<u8> {
    let length = match length {
        0..126 => vec![0x80 | length as u8],
        126..0x1_0000 => [&[0x80 | 126], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[0x80 | 127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    [&[first], &length[..], &[0; 4]].concat()
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&announced(first, payload.len())[..], payload].concat()
}

/// States `[rows, 4]` as a frame of the first policy that a server has.
fn states(rows: u16) -> Vec<u8> {
    let header =
        [&[1, 1], &rows.to_le_bytes()[..], &1_u32.to_le_bytes(), &0_u32.to_le_bytes(), &[0; 4]].concat();
    frame(0x82, &[&header[..], &vec![0; 16 * usize::from(rows)]].concat())
}

/// Opens connections and keeps them, sends heads byte by byte, or comes and goes.
fn connections(target: &Target, way: usize) {
    let mut kept = Vec::new();
    while target.goes_on() {
        let Some(mut stream) = target.connect() else {
            sleep(Duration::from_millis(10));
            continue;
        };
        target.did();
        match way % 4 {
            0 | 1 if kept.len() < 600 => {
                drop(stream.write_all(b"GET /policies HTTP/1.1\r\nhost: "));
                kept.push(stream);
            }
            0 | 1 => {
                kept.retain_mut(|stream: &mut TcpStream| stream.write_all(b"x").is_ok());
                sleep(Duration::from_millis(10));
            }
            2 => drop(stream),
            _ => drop((stream.write_all(b"GET /policies HTTP/1.1\r\nhost: localhost\r\n\r\n"), stream)),
        }
    }
}

/// Asks for tickets, with long names and without, and uses none.
fn tickets(target: &Target, way: usize) {
    let long = "x".repeat(7000);
    let (host, origin) = match way % 2 {
        0 => (target.address.to_string(), FRIEND.to_owned()),
        _ => (long.clone(), format!("https://{long}")),
    };
    let asked = ask_ticket(host, &origin);
    let Some(mut stream) = target.connect() else { return };
    while target.goes_on() {
        let mut answer = [0; 4096];
        if stream.write_all(asked.as_bytes()).is_err() || stream.read(&mut answer).unwrap_or(0) == 0 {
            return;
        }
        target.did();
    }
}

/// Announces more than it sends, or says `hello` at great length.
fn before_hello(target: &Target, way: usize) {
    let mut kept = Vec::new();
    let long = greeting(Some("x".repeat((1 << 20) - 4096))).encode();
    while target.goes_on() {
        let Some(mut stream) = target.socket() else {
            sleep(Duration::from_millis(10));
            continue;
        };
        target.did();
        match way % 4 {
            0 => drop(stream.write_all(&[&announced(0x82, 2 << 20)[..], &vec![0; 1 << 20]].concat())),
            1 | 2 => {
                drop(stream.write_all(&[&announced(0x81, 1 << 20)[..], &vec![b' '; (1 << 20) - 1]].concat()))
            }
            _ => drop(stream.write_all(&frame(0x81, long.as_bytes()))),
        }
        kept.push(stream);
        if kept.len() > 150 {
            kept.clear();
        }
    }
}

/// Sends all of a large message but its end, and then pongs, or a message in parts of nothing.
fn halves(target: &Target, way: usize) {
    let mut kept: Vec<TcpStream> = Vec::new();
    while target.goes_on() {
        if kept.len() >= 150 {
            kept.retain_mut(|stream| stream.write_all(&frame(0x8a, b"")).is_ok());
            sleep(Duration::from_millis(20));
            continue;
        }
        let Some(mut stream) = target.pupil(None) else {
            sleep(Duration::from_millis(10));
            continue;
        };
        target.did();
        match way % 2 {
            0 => drop(stream.write_all(&[&announced(0x02, 1 << 20)[..], &vec![0; 1 << 20]].concat())),
            _ => {
                drop(stream.write_all(&frame(0x02, b"")));
                let parts = frame(0x00, b"").repeat(10_000);
                while target.goes_on() && stream.write_all(&parts).is_ok() {
                    target.did();
                }
            }
        }
        kept.push(stream);
    }
}

/// Says that it entered a stage, or pings, as often as it can.
fn control(target: &Target, way: usize) {
    let stage = |pad: usize| {
        let text = format!("{{\"type\":\"stage\",\"stage\":\"online\",\"step\":1}}{}", " ".repeat(pad));
        frame(0x81, text.as_bytes())
    };
    let flood = match way % 4 {
        0 => stage(4000).repeat(16),
        1 => stage((1 << 20) - 100),
        2 => frame(0x89, &[1; 125]).repeat(1000),
        _ => frame(0x89, b"").repeat(10_000),
    };
    let Some(mut stream) = target.pupil(None) else { return sleep(Duration::from_millis(10)) };
    while target.goes_on() && stream.write_all(&flood).is_ok() {
        target.did();
    }
}

/// Frames and messages that are none.
fn nonsense(target: &Target, way: usize) {
    let flood = match way % 4 {
        0 => frame(0x82, &[9; 64]).repeat(100),
        1 => frame(0x81, b"{\"type\":").repeat(100),
        2 => vec![0xff; 4096],
        _ => states(1).repeat(1000),
    };
    let Some(mut stream) = target.pupil(None) else { return sleep(Duration::from_millis(10)) };
    while target.goes_on() && stream.write_all(&flood).is_ok() {
        target.did();
    }
}

/// Large requests of KServe's, whole and not.
fn bodies(target: &Target, way: usize) {
    let numbers = vec!["0"; (1 << 20) - 200].join(",");
    let input = format!(r#"{{"name":"observation","shape":[1,4],"datatype":"FP32","data":[{numbers}]}}"#);
    let body = format!(r#"{{"inputs":[{input}]}}"#);
    let length = body.len();
    let asked = format!(
        "POST /v2/models/{POLICY}/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let end = if way.is_multiple_of(2) { asked.len() } else { asked.len() - 1 };
    let mut kept = Vec::new();
    while target.goes_on() {
        let Some(mut stream) = target.connect() else {
            sleep(Duration::from_millis(10));
            continue;
        };
        target.did();
        drop(stream.write_all(&asked.as_bytes()[..end]));
        match way % 2 {
            0 => drop(stream.read(&mut [0; 1024])),
            _ => kept.push(stream),
        }
        if kept.len() > 150 {
            kept.clear();
        }
    }
}

/// Asks about as many states as it may and never reads.
fn deaf(target: &Target, _: usize) {
    let mut kept: Vec<TcpStream> = Vec::new();
    let asked = states(4096);
    while target.goes_on() {
        if kept.len() < 100 {
            kept.extend(target.pupil(None));
        }
        for stream in &mut kept {
            stream.set_nonblocking(true).unwrap();
            // What the socket does not take is half a frame; that is another kind of attack.
            target.did();
            drop(stream.write(&asked));
        }
        sleep(Duration::from_millis(5));
    }
}

/// A new ticket for each request.
fn quota(target: &Target, _: usize) {
    let Some(ticket) = target.ticket() else { return sleep(Duration::from_millis(10)) };
    let Some(mut stream) = target.pupil(Some(ticket)) else { return };
    if stream.write_all(&states(4096)).is_ok() && stream.read(&mut [0; 8192]).is_ok() {
        target.did();
    }
}

/// Idle sockets and wrong tokens where only operators belong.
fn operators_door(target: &Target, way: usize) {
    let mut kept = Vec::new();
    while target.goes_on() {
        let Ok(mut stream) = TcpStream::connect(target.operators) else { continue };
        target.did();
        let guess = "GET /policies HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer a guess of some length\r\n\r\n";
        match way % 2 {
            0 => kept.push(stream),
            _ => drop((stream.write_all(guess.as_bytes()), stream.read(&mut [0; 512]))),
        }
        if kept.len() > 64 {
            kept.clear();
        }
    }
}

/// What is measured just now.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Nothing,
    Peace,
    Attack,
    End,
}

impl Phase {
    fn now(phase: &AtomicU8) -> Phase {
        [Phase::Nothing, Phase::Peace, Phase::Attack, Phase::End][usize::from(phase.load(Ordering::Relaxed))]
    }
}

/// Latencies in peace, and under attack.
type Measured = [Vec<Duration>; 2];

/// One student that asks about four states from time to time until the end.
fn study(address: SocketAddr, doors: Doors, number: usize, phase: &AtomicU8) -> Measured {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    introduce(doors, &stream, &format!("10.1.0.{}", 1 + number)).unwrap();
    let token =
        if doors == Doors::Open { String::new() } else { format!("authorization: Bearer {TOKEN}\r\n") };
    stream.write_all(upgrade(address, &token).as_bytes()).unwrap();
    assert!(head(&mut stream).unwrap().starts_with("HTTP/1.1 101"));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    let greeting = greeting(None);
    socket.send(Message::text(greeting.encode())).unwrap();
    let Message::Text(text) = socket.read().unwrap() else { panic!("expected a text") };
    let ServerMessage::Welcome(welcome) = ServerMessage::decode(&text).unwrap() else {
        panic!("a student is not welcome: {text}");
    };
    let ClientMessage::Hello(hello) = greeting else { unreachable!("it is one") };
    let mut measured = Measured::default();
    sleep(PAUSE.mul_f64(number as f64 / STUDENTS as f64));
    for request in 1.. {
        let before = Phase::now(phase);
        if before == Phase::End {
            break;
        }
        let took = ask(&mut socket, &hello, Ids { request, policy: welcome.policy_id, version: 0 });
        if before == Phase::now(phase) && matches!(before, Phase::Peace | Phase::Attack) {
            measured[usize::from(before == Phase::Attack)].push(took);
        }
        sleep(PAUSE.saturating_sub(took));
    }
    measured
}

/// How long an answer takes.
fn ask(socket: &mut WebSocket<TcpStream>, hello: &Hello, ids: Ids) -> Duration {
    let formats = hello.formats().unwrap();
    let mut frame = Vec::new();
    let mut writer = formats.states.writer(ids, &mut frame);
    (0..4).for_each(|_| writer.state(&[0.1; 4]).unwrap());
    writer.finish().unwrap();
    let asked = Instant::now();
    socket.send(Message::binary(frame)).unwrap();
    loop {
        match socket.read().unwrap() {
            Message::Binary(_) => return asked.elapsed(),
            Message::Ping(_) => {}
            other => panic!("a student got {other:?}"),
        }
    }
}

fn p99(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

/// What became of one kind.
struct Outcome {
    peace: Duration,
    attack: Duration,
    requests: usize,
    /// How often the attack was made, and in which time.
    done: u64,
    attacked: Duration,
    /// The most bytes that were in use, and mapped.
    resident: u64,
    mapped: u64,
}

/// No test by itself: a server in a process of its own.
#[test]
#[ignore = "runs as the child of another test"]
fn a_server_among_enemies() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let doors = variable("OTO_TEST_DOORS");
    let audit =
        Audit::open(&Path::new(&variable("OTO_TEST_FOLDER")).join("audit.jsonl"), Rotation::default());
    let audit = audit.unwrap();
    let server = serve_on_all_cores(vec![sum()], |config| {
        config.limits.bytes = MEMORY as usize;
        config.audit = Some(audit.clone());
        config.origins = vec![FRIEND.into()];
        let access = format!(
            r#"{{"machines": [{{"name": "class", "token_sha256": "{}"}}],
                "pages": {{"states_per_second": 200, "connections": 100}}}}"#,
            sha256(TOKEN)
        );
        if doors != "Open" {
            config.access = Some(serde_json::from_str::<Access>(&access).unwrap());
        }
        if doors == "Proxied" {
            config.proxies = TrustedProxies(vec!["127.0.0.1".parse().unwrap()]);
            config.limits.per_address = 64;
        }
    });
    let admin = Admin::new(server.policies.clone(), OPERATOR, Some(audit));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\noperators at {}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            admin.run(listener, std::future::pending()).await;
        });
    });
    announce(&server);
}

/// Does this when it is dropped.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// The attackers' process, which has what others leave of the processor.
struct Enemies {
    child: Child,
    orders: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Enemies {
    fn gather(kind: &Kind, target: SocketAddr, operators: SocketAddr) -> Self {
        const LAST: &str = "chrt --idle 0 true 2>/dev/null && exec chrt --idle 0 \"$0\" \"$@\"; exec nice -n 19 \"$0\" \"$@\"";
        let mut child = Command::new("sh")
            .args(["-c", LAST])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "hostile::enemies", "--ignored", "--nocapture", "--test-threads=1"])
            .env("OTO_TEST_KIND", kind.name)
            .env("OTO_TEST_TARGET", target.to_string())
            .env("OTO_TEST_OPERATORS", operators.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let reports = BufReader::new(child.stdout.take().unwrap()).lines();
        Enemies { child, orders, reports }
    }

    /// Gives an order, and says how often the attack was made until it was carried out.
    fn order(&mut self, order: &str) -> u64 {
        writeln!(self.orders, "{order}").unwrap();
        let mut done = (&mut self.reports)
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("done ")?.parse().ok());
        done.next().expect("the attackers' process has ended")
    }
}

impl Drop for Enemies {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// No test by itself: attackers in a process of their own, which take orders line by line.
#[test]
#[ignore = "runs as the child of another test"]
fn enemies() {
    oto_server::raise_open_files();
    let variable = |name: &str| std::env::var(name).unwrap();
    let kind = KINDS.iter().find(|kind| kind.name == variable("OTO_TEST_KIND")).unwrap();
    let target = Target {
        address: variable("OTO_TEST_TARGET").parse().unwrap(),
        operators: variable("OTO_TEST_OPERATORS").parse().unwrap(),
        doors: kind.doors,
        going: AtomicBool::new(false),
        connections: AtomicU32::new(0),
        done: AtomicU64::new(0),
    };
    let (end, busy) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for way in 0..ATTACKERS {
            let (target, end, busy) = (&target, &end, &busy);
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    busy.fetch_add(1, Ordering::SeqCst);
                    if target.goes_on() {
                        (kind.attack)(target, way);
                    }
                    busy.fetch_sub(1, Ordering::SeqCst);
                    if !target.goes_on() {
                        sleep(Duration::from_millis(2));
                    }
                }
            });
        }
        for order in std::io::stdin().lines() {
            match order.unwrap().as_str() {
                "attack" => target.going.store(true, Ordering::SeqCst),
                "report" => {}
                "rest" => {
                    target.going.store(false, Ordering::SeqCst);
                    while busy.load(Ordering::SeqCst) > 0 {
                        sleep(Duration::from_millis(1));
                    }
                }
                other => panic!("expected an order, got {other:?}"),
            }
            println!("\ndone {}", target.done.load(Ordering::Relaxed));
        }
        target.going.store(false, Ordering::SeqCst);
        end.store(true, Ordering::Relaxed);
    });
}

fn withstand(kind: &Kind, time: Duration) -> Outcome {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let doors = format!("{:?}", kind.doors);
    let variables = [("OTO_TEST_DOORS", OsStr::new(&doors)), ("OTO_TEST_FOLDER", folder.0.as_os_str())];
    let server = Process::limited("hostile::a_server_among_enemies", &variables, FILES, ADDRESS_SPACE);
    let (address, operators) = (server.server.address, server.operators.unwrap());
    let began = server.memory("VmRSS");
    let mut enemies = Enemies::gather(kind, address, operators);
    let phase = AtomicU8::new(Phase::Nothing as u8);
    let enter = |next: Phase| phase.store(next as u8, Ordering::Relaxed);
    let rounds = ROUNDS.max((time / 2).div_duration_f64(ROUND).ceil() as u32);
    let (mut done, mut attacked) = (0, Duration::ZERO);
    let [mut peace, mut attack] = std::thread::scope(|scope| {
        let students: Vec<_> = (0..STUDENTS)
            .map(|number| {
                scope.spawn({
                    let phase = &phase;
                    move || study(address, kind.doors, number, phase)
                })
            })
            .collect();
        // They end after a failed assertion, too.
        let end = AtEnd(|| enter(Phase::End));
        sleep(Duration::from_millis(300));
        for _ in 0..rounds {
            enter(Phase::Peace);
            sleep(time / 2 / rounds);
            enter(Phase::Nothing);
            let before = enemies.order("attack");
            sleep(Duration::from_millis(50));
            enter(Phase::Attack);
            let start = Instant::now();
            sleep(time / 2 / rounds);
            // On a machine that is busy otherwise it takes longer.
            while enemies.order("report") < before + kind.least {
                assert!(start.elapsed() < Duration::from_secs(60), "{}: little is done", kind.name);
                sleep(Duration::from_millis(10));
            }
            attacked += start.elapsed();
            // A probe and an operator are answered meanwhile.
            let bearer = format!("authorization: Bearer {OPERATOR}\r\n");
            // Newer connections may displace theirs before it is read: they try again.
            let answered = |of: SocketAddr, path: &str| {
                let ask = || try_request(of, &format!("GET {path}"), &bearer, b"");
                let (head, _) = (0..TRIES).find_map(|_| ask()).expect("an answer");
                assert_eq!(&head[..12], "http/1.1 200", "{}: {path}", kind.name);
            };
            answered(operators, "/policies");
            if kind.doors != Doors::Proxied {
                answered(address, "/healthz");
            }
            enter(Phase::Nothing);
            done = enemies.order("rest");
            sleep(Duration::from_millis(100));
        }
        drop(end);
        let mut all = Measured::default();
        for student in students {
            let measured = student.join().expect("a student lost its connection");
            all.iter_mut().zip(measured).for_each(|(all, more)| all.extend(more));
        }
        all
    });
    let (resident, mapped) = (server.memory("VmHWM"), server.memory("VmPeak"));
    let bound = began + MEMORY + FILES * CONNECTION + WORK;
    assert!(resident < bound, "{}: {} MiB, expected at most {}", kind.name, resident >> 20, bound >> 20);
    let requests = peace.len() + attack.len();
    Outcome { peace: p99(&mut peace), attack: p99(&mut attack), requests, done, attacked, resident, mapped }
}

#[test]
fn fifty_students_are_taught_beside_hostile_peers_of_each_kind() {
    oto_server::raise_open_files();
    let seconds: f64 =
        std::env::var("OTO_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4.0);
    let only = std::env::var("OTO_HOSTILE_ONLY").unwrap_or_default();
    let time = Duration::from_secs_f64(seconds);
    let mut slow = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.name.contains(&only)) {
        let Outcome { peace, attack, requests, done, attacked, resident, mapped } = withstand(kind, time);
        let ratio = attack.as_secs_f64() / peace.as_secs_f64();
        println!(
            "hostile: {}: {done} times in {:.1} s; {requests} requests, 99 in 100 within {:.2} ms in peace, {:.2} ms under attack; \
            {} MiB in use at most, {} MiB mapped",
            kind.name,
            attacked.as_secs_f64(),
            peace.as_secs_f64() * 1e3,
            attack.as_secs_f64() * 1e3,
            resident >> 20,
            mapped >> 20,
        );
        if attack > RATIO * peace.max(FLOOR) {
            slow.push(format!("{}: {ratio:.1} times as long", kind.name));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}
