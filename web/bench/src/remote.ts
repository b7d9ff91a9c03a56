// The page's side of a peer in its worker.

import type { Answer, Request } from './worker';
import type { Workload } from './workload';

/** A peer that answers from another thread, one call at a time. */
export class RemotePeer {
  #worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });

  static async start(name: string, workload: Workload): Promise<RemotePeer> {
    const peer = new RemotePeer();
    try {
      await peer.#call({ call: 'init', peer: name, workload });
    } catch (error) {
      peer.dispose();
      throw error;
    }
    return peer;
  }

  /** Runs updates and returns the milliseconds they took. */
  step(updates: number): Promise<number> {
    return this.#call({ call: 'step', updates }) as Promise<number>;
  }

  loss(): Promise<number> {
    return this.#call({ call: 'loss' }) as Promise<number>;
  }

  parameters(): Promise<Map<string, Float32Array>> {
    return this.#call({ call: 'parameters' }) as Promise<Map<string, Float32Array>>;
  }

  dispose(): void {
    this.#worker.terminate();
  }

  #call(request: Request): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }: MessageEvent<Answer>) =>
        'error' in data ? reject(new Error(data.error)) : resolve(data.value);
      this.#worker.onerror = (event) => reject(new Error(event.message || 'the worker could not be loaded'));
      this.#worker.postMessage(request);
    });
  }
}
