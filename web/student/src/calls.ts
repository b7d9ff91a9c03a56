// Calls of a page to a worker: numbered, each answered once, refused once the worker has ended.

import { ConfigError, WorkerError, reasonOf, type ErrorMessage } from './errors.js';

interface Pending {
  resolve(value: unknown): void;
  reject(reason: unknown): void;
}

/** From the worker to the page, besides what a worker asks. */
export type Answered = { type: 'answer'; id: number; value: unknown } | { type: 'error'; id: number; error: ErrorMessage };

/** What a call fails with. */
type Thrown = (error: ErrorMessage) => Error;

/** One worker and the calls that it has not answered yet. */
export class WorkerCalls<Asked extends { type: string }> {
  /** Whether `dispose` was called. */
  disposed = false;
  #what: string;
  #worker: Worker;
  #calls = new Map<number, Pending>();
  #waits = new Set<(reason: WorkerError) => void>();
  #lastId = 0;
  #ended: WorkerError | undefined;
  #release: () => void;

  /** `what` runs in the worker, whose script is `script`; `asked` gets what the worker asks, and `release` runs at the worker's end. */
  constructor(what: string, script: string, worker: Worker, thrown: Thrown, asked: (message: Asked) => void, release: () => void) {
    this.#what = what;
    this.#worker = worker;
    this.#release = release;
    worker.onmessage = ({ data }: MessageEvent<Answered | Asked>) => {
      if (data.type !== 'answer' && data.type !== 'error') return asked(data as Asked);
      const message = data as Answered;
      const call = this.#calls.get(message.id);
      this.#calls.delete(message.id);
      if (message.type === 'answer') call?.resolve(message.value);
      else call?.reject(thrown(message.error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      const notLoaded =
        `its script could not be loaded. Is ${script} served where the package is, and does the Content-Security-Policy allow it? ` +
        'Some bundlers leave it out: see "With a bundler, or without" in its README';
      this.end(new WorkerError(`the ${what}'s worker failed, and the ${what} is gone: ${event.message || notLoaded}`));
    };
  }

  /** Why nothing can be asked any more: `dispose` was called or the worker died. */
  get ended(): WorkerError | undefined {
    return this.#ended;
  }

  /** Asks the worker; the promise fails with one of this package's errors. */
  call(name: string, args: unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended);
      const id = ++this.#lastId;
      this.#calls.set(id, { resolve, reject });
      try {
        this.send({ type: 'call', id, name, args });
      } catch (cause) {
        // What cannot be copied to a worker.
        this.#calls.delete(id);
        reject(new ConfigError(`${name}() got what cannot be sent to the worker: ${reasonOf(cause)}`, undefined, { cause }));
      }
    });
  }

  /** What a promise brings, or why the worker ended if that comes first. */
  unlessEnded<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) reject(this.#ended);
      this.#waits.add(reject);
      promise.then(resolve, reject).finally(() => this.#waits.delete(reject));
    });
  }

  /** Sends a message, if the worker is there. */
  send(message: object): void {
    if (this.#ended === undefined) this.#worker.postMessage(message);
  }

  /** Ends the worker; calls that wait fail. */
  dispose(): void {
    this.disposed = true;
    this.end(new WorkerError(`this ${this.#what} was disposed of`));
  }

  /** Ends the worker for a reason. */
  end(reason: WorkerError): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#worker.terminate();
    this.#release();
    for (const call of this.#calls.values()) call.reject(reason);
    this.#calls.clear();
    for (const end of this.#waits) end(reason);
    this.#waits.clear();
  }
}
