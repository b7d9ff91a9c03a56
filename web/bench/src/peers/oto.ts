// oto's own backends, the loop fused by hand, and candle, all from one WebAssembly module.

import init, { Session } from '../../wasm/oto_bench_web.js';
import type { Peer } from '../peer';
import { SEED, type Workload } from '../workload';

/** `oto-` names one of oto's backends; anything else is a name of its own. */
export class OtoPeer implements Peer {
  #runner: string;
  #session: Session | undefined;

  constructor(name: string) {
    this.#runner = name.replace(/^oto-/, '');
  }

  async init({ kind, shape }: Workload): Promise<void> {
    await init();
    this.#session = await Session.create(this.#runner, kind, shape.hidden, shape.quantiles, SEED);
  }

  async step(updates: number): Promise<void> {
    const session = this.#session!;
    session.begin(updates);
    while (!session.advance()) await otherEvents();
  }

  async loss(): Promise<number> {
    return this.#session!.loss();
  }

  async parameters(): Promise<Map<string, Float32Array>> {
    const session = this.#session!;
    while (!session.sync()) await otherEvents();
    return new Map(session.names().map((name) => [name, session.parameter(name)]));
  }
}

const channel = new MessageChannel();

/** Lets the browser's own events come, sooner than a timer would. */
function otherEvents(): Promise<void> {
  return new Promise((resolve) => {
    channel.port1.onmessage = () => resolve();
    channel.port2.postMessage(null);
  });
}
