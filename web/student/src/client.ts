// The page's end of the wire to the worker: numbers the calls, matches the answers, and plays the page's environment.

import { askEnvironment, type Environment, type EnvironmentRequest } from './environment.js';
import { EnvironmentError, WorkerError, toError, type ErrorMessage, type OtoError } from './errors.js';
import type { Answer, Arguments, CallName, ToPage, ToWorker } from './protocol.js';

/** What a browser does not say when a worker's script, or one that it imports, is not there. */
const NOT_LOADED =
  'its script could not be loaded. Is worker.js (worker-cpu.js) served where the package is, and does the Content-Security-Policy allow it? ' +
  'Some bundlers leave it out: see "With a bundler, or without" in its README';

interface Pending {
  resolve(value: unknown): void;
  reject(reason: unknown): void;
}

/** One worker and the calls that it has not answered yet. */
export class WorkerClient {
  /** Whether a training loop runs; there is one at a time. */
  training = false;
  /** Whether `dispose` was called. */
  disposed = false;
  #worker: Worker;
  #env: Environment | undefined;
  #calls = new Map<number, Pending>();
  #lastId = 0;
  /** Why nothing can be asked any more. */
  #ended: WorkerError | undefined;
  /** What the environment threw last, with the cause that cannot cross to the worker and back. */
  #environmentError: EnvironmentError | undefined;

  constructor(worker: Worker, env: Environment | undefined) {
    this.#env = env;
    this.#worker = worker;
    this.#worker.onmessage = ({ data }: MessageEvent<ToPage>) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const reason = event.message || NOT_LOADED;
      this.#end(new WorkerError(`the student's worker failed: ${reason}`));
    };
  }

  /** Whether nothing can be asked any more: `dispose` was called or the worker died. */
  get ended(): boolean {
    return this.#ended !== undefined;
  }

  /** Asks the worker; the promise fails with one of this package's errors. */
  call<N extends CallName>(name: N, ...args: Arguments<N>): Promise<Answer<N>> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended);
      const id = ++this.#lastId;
      this.#calls.set(id, { resolve: resolve as Pending['resolve'], reject });
      this.#send({ type: 'call', id, name, args });
    });
  }

  /** Ends the worker; calls that wait fail. */
  dispose(): void {
    this.disposed = true;
    this.#end(new WorkerError('this student was disposed of'));
  }

  #receive(message: ToPage): void {
    if (message.type === 'environment') return void this.#play(message.request);
    const call = this.#calls.get(message.id);
    this.#calls.delete(message.id);
    if (message.type === 'answer') call?.resolve(message.value);
    else call?.reject(this.#asThrown(message.error));
  }

  /** The page's own error object where the environment's failure comes back, so that its `cause` is kept. */
  #asThrown(message: ErrorMessage): OtoError {
    const own = this.#environmentError;
    return own !== undefined && own.message === message.message ? own : toError(message);
  }

  async #play(request: EnvironmentRequest): Promise<void> {
    if (this.#env === undefined) return;
    try {
      this.#send({ type: 'environment', answer: await askEnvironment(this.#env, request) });
    } catch (thrown) {
      const error = thrown instanceof EnvironmentError ? thrown : new EnvironmentError(String(thrown));
      this.#environmentError = error;
      this.#send({ type: 'environment-error', error: { kind: 'environment', message: error.message, field: error.field } });
    }
  }

  #send(message: ToWorker): void {
    if (this.#ended === undefined) this.#worker.postMessage(message);
  }

  #end(reason: WorkerError): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#worker.terminate();
    for (const call of this.#calls.values()) call.reject(reason);
    this.#calls.clear();
  }
}
