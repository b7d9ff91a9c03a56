// A WebSocket for one teacher link. The engine decides what is said and when to connect again; this file only carries
// events in and commands out.

import type { StudentCore } from '../wasm/oto_web.js';

/** What the engine wants done (see `crates/oto-web/src/link.rs`). */
export type LinkCommand =
  | { kind: 'connect'; url: string; protocol: string }
  | { kind: 'text'; text: string }
  | { kind: 'binary'; bytes: Uint8Array<ArrayBuffer> }
  | { kind: 'close'; code: number; reason: string };

/** Carries one teacher's link over WebSockets, one at a time. */
export class LinkDriver {
  #core: StudentCore;
  #teacher: number;
  #changed: () => void;
  #socket: WebSocket | undefined;

  /** `changed` is called after every event, so that the engine gets its turn. */
  constructor(core: StudentCore, teacher: number, changed: () => void) {
    this.#core = core;
    this.#teacher = teacher;
    this.#changed = changed;
  }

  /** Carries out everything the engine wants done now. */
  serve(): void {
    for (;;) {
      const command = this.#core.link_command(this.#teacher, performance.now()) as LinkCommand | undefined;
      if (command === undefined) return;
      this.#carryOut(command);
    }
  }

  /** Closes without a word to the engine, when the student is disposed of. */
  drop(): void {
    this.#forget()?.close(1000);
  }

  #carryOut(command: LinkCommand): void {
    switch (command.kind) {
      case 'connect':
        this.#forget()?.close();
        return this.#open(command.url, command.protocol);
      case 'text':
        return this.#socket?.send(command.text);
      case 'binary':
        return this.#socket?.send(command.bytes);
      case 'close':
        return this.#forget()?.close(command.code, command.reason);
    }
  }

  #open(url: string, protocol: string): void {
    let socket: WebSocket;
    try {
      socket = new WebSocket(url, protocol);
    } catch (thrown) {
      // An address that no browser would connect to; the engine backs off and reports it like any lost connection.
      this.#core.link_closed(this.#teacher, performance.now(), 1006, String(thrown));
      return;
    }
    socket.binaryType = 'arraybuffer';
    const event = (handle: (now: number) => void) => {
      if (this.#socket !== socket) return;
      handle(performance.now());
      this.#changed();
    };
    socket.onopen = () => event((now) => this.#core.link_opened(this.#teacher, now, socket.protocol));
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) =>
      event((now) => {
        if (typeof data === 'string') this.#core.link_text(this.#teacher, now, data);
        else this.#core.link_binary(this.#teacher, now, new Uint8Array(data));
      });
    socket.onclose = ({ code, reason }) =>
      event((now) => {
        this.#socket = undefined;
        this.#core.link_closed(this.#teacher, now, code, reason);
      });
    this.#socket = socket;
  }

  /** Lets go of the socket, so that its later events reach nobody. */
  #forget(): WebSocket | undefined {
    const socket = this.#socket;
    this.#socket = undefined;
    return socket;
  }
}
