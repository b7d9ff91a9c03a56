// A WebSocket for one teacher's link. The engine decides what is said and when to connect again; this file only carries
// events in and commands out, and gets the ticket that a server may want.

import type { StudentCore } from '../wasm/oto_web.js';
import { reasonOf } from './errors.js';

/** The subprotocol (`crates/oto-proto/PROTOCOL.md`). */
const PROTOCOL = 'oto.v1';
/** Close codes of RFC 6455: nothing was said at the end; the message was too long. */
const ABNORMAL = 1006;
const TOO_LONG = 1009;
/** For a ticket to come, in milliseconds. */
const TICKET_TIME = 10_000;
/** There are no tickets, and none is needed. */
const NO_TICKETS = 404;

/** What the engine wants done: connect, send a text or bytes, close with a code, or nothing more. */
type Command = true | string | Uint8Array<ArrayBuffer> | number | undefined;

/** Carries one teacher's link over WebSockets, one at a time. */
export class LinkDriver {
  #core: StudentCore;
  #teacher: number;
  #tickets: string | null;
  #changed: () => void;
  #failed: (thrown: unknown) => void;
  #socket: WebSocket | undefined;
  /** The attempt to connect that counts; an earlier one may still wait for its ticket. */
  #attempt = 0;
  #cut = false;

  /** `tickets` is where they are given; `changed` is called after every event, so that the engine gets its turn, and `failed` where it fails. */
  constructor(core: StudentCore, teacher: number, tickets: string | null, changed: () => void, failed: (thrown: unknown) => void) {
    this.#core = core;
    this.#teacher = teacher;
    this.#tickets = tickets;
    this.#changed = changed;
    this.#failed = failed;
    addEventListener('securitypolicyviolation', ({ blockedURI }) => this.#blocked(blockedURI));
  }

  /** Carries out everything the engine wants done now. */
  serve(): void {
    for (;;) {
      const command = this.#core.link_command(this.#teacher) as Command;
      if (command === undefined) return;
      if (command === true) this.#open();
      else if (typeof command === 'number') this.#forget()?.close(command);
      else this.#send(command);
    }
  }

  /** Cuts the wire, or mends it. The engine sees a lost connection, and goes on trying. */
  cut(cut: boolean): void {
    this.#cut = cut;
    if (cut && this.#socket !== undefined) this.#lose('the page cut the connection');
  }

  /** The engine is gone: nobody listens any more. */
  end(): void {
    this.#forget()?.close();
  }

  #happened(carry: () => void): void {
    try {
      carry();
    } catch (thrown) {
      return this.#failed(thrown);
    }
    this.#changed();
  }

  #open(): void {
    this.#forget()?.close();
    if (this.#tickets === null || this.#cut) return this.#connect();
    const attempt = this.#attempt;
    const on = (carry: () => void) => {
      if (this.#attempt === attempt) this.#happened(carry);
    };
    takeTicket(this.#tickets).then(
      (ticket) =>
        on(() => {
          if (ticket !== undefined) this.#core.link_ticket(this.#teacher, ticket);
          this.#connect();
        }),
      (thrown) => on(() => this.#lose(`no ticket: ${reasonOf(thrown)}`)),
    );
  }

  #connect(): void {
    if (this.#cut) return this.#lose('the page keeps the connection cut');
    const url = this.#core.link_url(this.#teacher) ?? '';
    let socket: WebSocket;
    let opened = false;
    try {
      socket = new WebSocket(url, PROTOCOL);
    } catch (thrown) {
      return this.#lose(reasonOf(thrown));
    }
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    const on = (carry: () => void) => {
      // What an earlier connection still says is of no interest.
      if (this.#socket === socket) this.#happened(carry);
    };
    socket.onopen = () =>
      on(() => {
        opened = true;
        this.#core.link_opened(this.#teacher);
      });
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => on(() => this.#receive(data));
    const closed = (code: number, reason: string) =>
      on(() => {
        this.#socket = undefined;
        this.#core.link_closed(this.#teacher, code, opened ? reason : unopened(url));
      });
    socket.onclose = ({ code, reason }) => closed(code, reason);
    // Where the page's policy forbids an address this is all that comes.
    socket.onerror = () => !opened && closed(ABNORMAL, '');
  }

  /** The page's policy forbids an address. */
  #blocked(address: string): void {
    const socket = this.#socket;
    if (socket === undefined || address === '' || !socket.url.startsWith(address)) return;
    this.#happened(() => this.#lose(`the page's Content-Security-Policy (connect-src) does not allow ${socket.url}`));
  }

  #receive(data: string | ArrayBuffer): void {
    const length = typeof data === 'string' ? data.length : data.byteLength;
    if (length > this.#core.link_limit(this.#teacher)) this.#lose(`the server sent a message of ${length} bytes`, TOO_LONG);
    else if (typeof data === 'string') this.#core.link_text(this.#teacher, data);
    else this.#core.link_binary(this.#teacher, new Uint8Array(data));
  }

  #send(message: string | Uint8Array<ArrayBuffer>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(message);
  }

  /** Ends the connection from this side and tells the engine that it is lost. */
  #lose(reason: string, code = ABNORMAL): void {
    this.#forget()?.close();
    this.#core.link_closed(this.#teacher, code, reason);
  }

  /** Lets go of the socket, and of a ticket on its way, so that their later events reach nobody. */
  #forget(): WebSocket | undefined {
    this.#attempt += 1;
    const socket = this.#socket;
    this.#socket = undefined;
    return socket;
  }
}

/** A browser does not tell a page why a connection did not come about. */
function unopened(url: string): string {
  return `no connection to ${url}: no server is there, it has no teachers at this path, or it does not know pages of ${globalThis.origin} (oto serve --origin)`;
}

/** A ticket, or nothing where none is needed. */
async function takeTicket(address: string): Promise<string | undefined> {
  const answer = await fetch(address, { method: 'POST', signal: AbortSignal.timeout(TICKET_TIME) });
  if (answer.status === NO_TICKETS) return undefined;
  if (!answer.ok) throw new Error(`${address} answered ${answer.status}`);
  const { ticket } = (await answer.json()) as { ticket?: unknown };
  if (typeof ticket !== 'string') throw new Error(`${address} gave none`);
  return ticket;
}
