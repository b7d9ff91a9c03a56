//! The WebSockets of links: of a student's to its teachers, of an actor's to its learner. A link decides what is said and when to connect again. This file carries out its commands,
//! tells it what the browser reports, and gets the ticket that a server may want.

use crate::{host, values};
use js_sys::{ArrayBuffer, Error, Function, JsString, Uint8Array};
use oto_agent::link::{Conversation, Event, Output};
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::{Closure, wasm_bindgen};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    AbortSignal, BinaryType, CloseEvent, MessageEvent, RequestInit, Response, SecurityPolicyViolationEvent,
    WebSocket,
};

/// The subprotocol (`crates/oto-proto/PROTOCOL.md`).
const PROTOCOL: &str = "oto.v1";
/// Close codes of RFC 6455: nothing was said at the end; the message was too long.
const ABNORMAL: u16 = 1006;
const TOO_LONG: u16 = 1009;
/// For a ticket to come, in milliseconds.
const TICKET_TIME: u32 = 10_000;
/// There are no tickets, and none is needed.
const NO_TICKETS: u16 = 404;

/// A function that the browser calls with an event.
type Listener = Closure<dyn Fn(web_sys::Event)>;

thread_local! {
    /// The sockets in use, for [`close_sockets`].
    static OPEN: RefCell<Vec<WebSocket>> = const { RefCell::new(Vec::new()) };
}

/// Closes all sockets, after the student broke and can close none itself.
#[wasm_bindgen]
pub fn close_sockets() {
    OPEN.with(|open| {
        if let Ok(mut open) = open.try_borrow_mut() {
            open.drain(..).for_each(|socket| _ = socket.close());
        }
    });
}

/// What has links, in the order of their sockets.
pub trait Linked {
    /// A link as its socket sees it.
    type Link<'a>: Conversation
    where
        Self: 'a;

    /// The links.
    fn links(&mut self) -> impl Iterator<Item = Self::Link<'_>>;

    /// Time has passed: before the sockets carry out what the links want.
    fn turn(&mut self, now_ms: u64);
}

/// What the browser reports.
enum Report {
    /// An event of the socket of an attempt to connect.
    Socket { teacher: usize, attempt: u32, event: web_sys::Event },
    /// The ticket for an attempt to connect, or why there is none.
    Ticket { teacher: usize, attempt: u32, ticket: Result<Option<String>, String> },
    /// The page's policy forbids an address.
    Blocked(String),
}

/// Reports that the student has not seen.
struct Inbox {
    reports: RefCell<Vec<Report>>,
    /// Lets the worker call [`Sockets::serve`]; it catches what fails there.
    wake: Function,
}

impl Inbox {
    fn put(&self, report: Report) {
        self.reports.borrow_mut().push(report);
        self.wake();
    }

    fn wake(&self) {
        let _ = self.wake.call0(&JsValue::UNDEFINED);
    }
}

/// The sockets of all teachers.
pub struct Sockets {
    teachers: Vec<Teacher>,
    inbox: Rc<Inbox>,
    /// What calls the worker when a link's time has come, and the timer that is set.
    on_time: Closure<dyn Fn()>,
    timer: Option<i32>,
    _on_blocked: Option<Listener>,
}

impl Sockets {
    /// Sockets to these addresses. `tickets` has the address of each teacher's tickets, and `wake` is called when
    /// [`Self::serve`] is due.
    pub fn new(addresses: Vec<String>, tickets: Vec<Option<String>>, wake: Function) -> Self {
        let inbox = Rc::new(Inbox { reports: RefCell::default(), wake });
        let tickets = tickets.into_iter().chain(std::iter::repeat(None));
        let each = addresses.into_iter().zip(tickets).enumerate();
        let teachers = each.map(|(index, (url, tickets))| {
            let inbox = inbox.clone();
            Teacher { index, url, tickets, inbox, socket: None, attempt: 0, cut: false }
        });
        let teachers = teachers.collect::<Vec<_>>();
        let on_blocked = (!teachers.is_empty()).then(|| listen_for_blocked(inbox.clone()));
        let due = inbox.clone();
        let on_time = Closure::new(move || due.wake());
        Self { teachers, inbox, on_time, timer: None, _on_blocked: on_blocked }
    }

    /// Tells the links what the browser reported and that time has passed, and carries out what they want.
    pub fn serve(&mut self, linked: &mut impl Linked) {
        if self.teachers.is_empty() {
            return;
        }
        let now = host::now_ms();
        for report in self.inbox.reports.take() {
            self.tell(linked, report, now);
        }
        linked.links().for_each(|mut link| link.handle(Event::Tick, now));
        linked.turn(now);
        for (teacher, mut link) in self.teachers.iter_mut().zip(linked.links()) {
            teacher.carry_out(&mut link, now);
        }
        self.set_timer(linked.links().filter_map(|link| link.wake_at()).min(), now);
    }

    /// Cuts the wire to a teacher, or to all, or mends it. The links see lost connections, and go on trying.
    pub fn cut(&mut self, linked: &mut impl Linked, teacher: Option<usize>, cut: bool) {
        let now = host::now_ms();
        let all = self.teachers.iter_mut().zip(linked.links());
        for (one, mut link) in all.filter(|(one, _)| teacher.is_none_or(|teacher| teacher == one.index)) {
            one.cut = cut;
            if cut && one.socket.is_some() {
                one.lose(&mut link, "the page cut the connection", ABNORMAL, now);
            }
        }
    }

    fn tell(&mut self, linked: &mut impl Linked, report: Report, now: u64) {
        let mut all = self.teachers.iter_mut().zip(linked.links());
        match report {
            Report::Socket { teacher, attempt, event } => {
                if let Some((teacher, mut link)) = all.nth(teacher).filter(|(one, _)| one.attempt == attempt)
                {
                    teacher.handle(&mut link, &event, now);
                }
            }
            Report::Ticket { teacher, attempt, ticket } => {
                if let Some((teacher, mut link)) = all.nth(teacher).filter(|(one, _)| one.attempt == attempt)
                {
                    teacher.use_ticket(&mut link, ticket, now);
                }
            }
            Report::Blocked(address) => {
                for (teacher, mut link) in all {
                    teacher.blocked(&mut link, &address, now);
                }
            }
        }
    }

    fn set_timer(&mut self, due: Option<u64>, now: u64) {
        let scope = host::scope();
        if let Some(timer) = self.timer.take() {
            scope.clear_timeout_with_handle(timer);
        }
        let Some(due) = due else { return };
        let wait = due.saturating_sub(now).clamp(1, i32::MAX as u64) as i32;
        let on_time = self.on_time.as_ref().unchecked_ref();
        self.timer = scope.set_timeout_with_callback_and_timeout_and_arguments_0(on_time, wait).ok();
    }
}

/// A browser reports here which addresses the page's policy forbids.
fn listen_for_blocked(inbox: Rc<Inbox>) -> Listener {
    let listener = Listener::new(move |event: web_sys::Event| {
        let event: SecurityPolicyViolationEvent = event.unchecked_into();
        inbox.put(Report::Blocked(event.blocked_uri()));
    });
    let function = listener.as_ref().unchecked_ref();
    // It fails for what is no function.
    let _ = host::scope().add_event_listener_with_callback("securitypolicyviolation", function);
    listener
}

/// A teacher's address, and its socket while there is one.
struct Teacher {
    index: usize,
    url: String,
    tickets: Option<String>,
    inbox: Rc<Inbox>,
    socket: Option<Socket>,
    /// The attempt to connect that counts; an earlier one may still wait for its ticket or report events.
    attempt: u32,
    cut: bool,
}

impl Teacher {
    fn carry_out(&mut self, link: &mut impl Conversation, now: u64) {
        while let Some(command) = link.poll_output() {
            match command {
                Output::Connect => self.open(link, now),
                Output::Text(text) => self.send(|socket| socket.send_with_str(&text)),
                Output::Binary(bytes) => self.send(|socket| socket.send_with_u8_array(&bytes)),
                Output::Close(code) => {
                    if let Some(socket) = self.forget() {
                        // A code that no page may use closes without one.
                        let _ = socket.socket.close_with_code(code);
                    }
                }
            }
        }
    }

    fn open(&mut self, link: &mut impl Conversation, now: u64) {
        self.forget();
        let Some(address) = self.tickets.clone().filter(|_| !self.cut) else {
            return self.connect(link, now);
        };
        let (inbox, teacher, attempt) = (self.inbox.clone(), self.index, self.attempt);
        spawn_local(async move {
            let ticket = take_ticket(&address).await.map_err(|thrown| reason_of(&thrown));
            inbox.put(Report::Ticket { teacher, attempt, ticket });
        });
    }

    fn use_ticket(&mut self, link: &mut impl Conversation, ticket: Result<Option<String>, String>, now: u64) {
        match ticket {
            Ok(ticket) => {
                if let Some(ticket) = ticket {
                    link.set_ticket(ticket);
                }
                self.connect(link, now);
            }
            Err(reason) => self.lose(link, &format!("no ticket: {reason}"), ABNORMAL, now),
        }
    }

    fn connect(&mut self, link: &mut impl Conversation, now: u64) {
        if self.cut {
            return self.lose(link, "the page keeps the connection cut", ABNORMAL, now);
        }
        let (inbox, teacher, attempt) = (self.inbox.clone(), self.index, self.attempt);
        let listener = move |event| inbox.put(Report::Socket { teacher, attempt, event });
        match Socket::open(&self.url, Listener::new(listener)) {
            Ok(socket) => self.socket = Some(socket),
            Err(thrown) => self.lose(link, &reason_of(&thrown), ABNORMAL, now),
        }
    }

    /// Tells the link of an event. What a socket reports after its end is of no interest.
    fn handle(&mut self, link: &mut impl Conversation, event: &web_sys::Event, now: u64) {
        let Some(socket) = &mut self.socket else { return };
        match event.type_().as_str() {
            "open" => {
                socket.opened = true;
                link.handle(Event::Connected, now);
            }
            "message" => self.receive(link, &event.unchecked_ref::<MessageEvent>().data(), now),
            "close" => {
                let event = event.unchecked_ref::<CloseEvent>();
                self.closed(link, event.code(), &event.reason(), now);
            }
            // Where the page's policy forbids an address this is all that comes.
            _ if !socket.opened => self.closed(link, ABNORMAL, "", now),
            _ => {}
        }
    }

    fn receive(&mut self, link: &mut impl Conversation, data: &JsValue, now: u64) {
        let text = data.dyn_ref::<JsString>();
        let length = match text {
            Some(text) => text.length(),
            None => data.unchecked_ref::<ArrayBuffer>().byte_length(),
        };
        if length as usize > link.max_message_bytes() {
            return self.lose(link, &format!("the server sent a message of {length} bytes"), TOO_LONG, now);
        }
        match text {
            Some(text) => link.handle(Event::Text(&String::from(text)), now),
            None => link.handle(Event::Binary(&Uint8Array::new(data).to_vec()), now),
        }
    }

    fn closed(&mut self, link: &mut impl Conversation, code: u16, reason: &str, now: u64) {
        let opened = self.socket.take().is_some_and(|socket| socket.opened);
        let unopened;
        let reason = if opened {
            reason
        } else {
            // A browser does not tell a page why a connection did not come about.
            let (url, origin) = (&self.url, host::scope().origin());
            unopened = format!(
                "no connection to {url}: no server is there, it has no teachers at this path, or it does not know pages of {origin} (oto serve --origin)"
            );
            &unopened
        };
        link.handle(Event::Closed { code: Some(code), reason }, now);
    }

    fn blocked(&mut self, link: &mut impl Conversation, address: &str, now: u64) {
        let Some(url) = self.socket.as_ref().map(|socket| socket.socket.url()) else { return };
        if !address.is_empty() && url.starts_with(address) {
            let reason = format!("the page's Content-Security-Policy (connect-src) does not allow {url}");
            self.lose(link, &reason, ABNORMAL, now);
        }
    }

    fn send(&self, send: impl FnOnce(&WebSocket) -> Result<(), JsValue>) {
        if let Some(Socket { socket, .. }) = &self.socket
            && socket.ready_state() == WebSocket::OPEN
        {
            // It fails for a socket that is not open yet.
            let _ = send(socket);
        }
    }

    /// Ends the connection from this side and tells the link that it is lost.
    fn lose(&mut self, link: &mut impl Conversation, reason: &str, code: u16, now: u64) {
        self.forget();
        link.handle(Event::Closed { code: Some(code), reason }, now);
    }

    /// Lets go of the socket, and of a ticket on its way, so that their later events count no more.
    fn forget(&mut self) -> Option<Socket> {
        self.attempt = self.attempt.wrapping_add(1);
        self.socket.take()
    }
}

/// An open socket, or one that opens. It is closed with its end.
struct Socket {
    socket: WebSocket,
    opened: bool,
    _listener: Listener,
}

impl Socket {
    fn open(url: &str, listener: Listener) -> Result<Self, JsValue> {
        let socket = WebSocket::new_with_str(url, PROTOCOL)?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        Self::listen(&socket, Some(listener.as_ref().unchecked_ref()));
        OPEN.with_borrow_mut(|open| open.push(socket.clone()));
        Ok(Self { socket, opened: false, _listener: listener })
    }

    fn listen(socket: &WebSocket, listener: Option<&Function>) {
        socket.set_onopen(listener);
        socket.set_onmessage(listener);
        socket.set_onclose(listener);
        socket.set_onerror(listener);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        Self::listen(&self.socket, None);
        let _ = self.socket.close();
        OPEN.with_borrow_mut(|open| open.retain(|one| *one != self.socket));
    }
}

/// A ticket, or nothing where none is needed.
async fn take_ticket(address: &str) -> Result<Option<String>, JsValue> {
    let request = RequestInit::new();
    request.set_method("POST");
    request.set_signal(Some(&AbortSignal::timeout_with_u32(TICKET_TIME)));
    let answer = JsFuture::from(host::scope().fetch_with_str_and_init(address, &request)).await?;
    let answer: Response = answer.unchecked_into();
    if answer.status() == NO_TICKETS {
        return Ok(None);
    }
    if !answer.ok() {
        return Err(format!("{address} answered {}", answer.status()).into());
    }
    let given = values::take(JsFuture::from(answer.json()?).await?).map_err(|error| error.message)?;
    match given.get("ticket") {
        Some(oto_json::Json::Text(ticket)) => Ok(Some(ticket.clone())),
        _ => Err(format!("{address} gave none").into()),
    }
}

/// Why something was thrown, in words; anything can be.
fn reason_of(thrown: &JsValue) -> String {
    let message = thrown.dyn_ref::<Error>().map(|error| String::from(error.message()));
    message.or_else(|| thrown.as_string()).unwrap_or_else(|| "something that cannot be shown".into())
}
