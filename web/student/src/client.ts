// The page's end of the wire to the worker: numbers the calls, matches the answers, and plays the page's environments.

import type { EnvironmentRequest, OwnEnvironments } from './environment.js';
import { ConfigError, EnvironmentError, WorkerError, reasonOf, toError, type ErrorMessage, type OtoError } from './errors.js';
import { GreedyEpisode, playEpisodes, type Act } from './greedy.js';
import type { Evaluation } from './metrics.js';
import type { Answer, Arguments, CallName, EnvironmentReply, ToPage, ToWorker } from './protocol.js';
import type { Scene } from './scene.js';

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
  /** There if the environment is the page's own. */
  readonly own: OwnEnvironments | undefined;
  #worker: Worker;
  #maxSteps: number;
  #calls = new Map<number, Pending>();
  /** What ends the waits for the page's environment. */
  #waits = new Set<(reason: WorkerError) => void>();
  #lastId = 0;
  /** Why nothing can be asked any more. */
  #ended: WorkerError | undefined;
  /** What the environment threw last, with the cause that cannot cross to the worker and back. */
  #environmentError: EnvironmentError | undefined;
  /** The evaluation that is played now; the next one waits for it. */
  #evaluation: Promise<unknown> = Promise.resolve();
  /** What is watched now, and the moment that is on its way. */
  #episode: GreedyEpisode | undefined;
  #moment: Promise<unknown> = Promise.resolve();
  #act: Act = (observation) => this.call('act', observation);

  /** `maxSteps`: how long an episode of an evaluation may be that the page plays. */
  constructor(worker: Worker, own: OwnEnvironments | undefined, maxSteps: number) {
    this.own = own;
    this.#worker = worker;
    this.#maxSteps = maxSteps;
    this.#worker.onmessage = ({ data }: MessageEvent<ToPage>) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const reason = event.message || NOT_LOADED;
      this.#end(new WorkerError(`the student's worker failed, and the student is gone: ${reason}`));
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
      try {
        this.#send({ type: 'call', id, name, args });
      } catch (cause) {
        // What cannot be copied to a worker.
        this.#calls.delete(id);
        reject(new ConfigError(`${name}() got what cannot be sent to the worker: ${reasonOf(cause)}`, undefined, { cause }));
      }
    });
  }

  /** Plays greedy episodes; training rests meanwhile, so that all are of one policy. */
  async evaluate(episodes: number): Promise<Evaluation> {
    if (this.own === undefined) return this.call('evaluate', episodes);
    const seed = await this.call('beginEvaluation');
    let returns: number[] | null = null;
    try {
      returns = await this.#unlessEnded(this.#play(episodes, seed ?? undefined));
    } finally {
      if (returns === null && !this.ended) await this.call('endEvaluation', null);
    }
    return (await this.call('endEvaluation', returns)) as Evaluation;
  }

  /** With a seed the first moment of its episode, without one the next step. */
  watch(seed: number | undefined): Promise<Scene> {
    const { own } = this;
    if (own === undefined) return this.call('watch', seed ?? null);
    const scene = this.#moment.then(async () => {
      if (seed === undefined) {
        if (this.#episode === undefined) throw new ConfigError('seed is missing: the first call of watch() begins an episode by its seed', 'seed');
        return this.#episode.step();
      }
      const env = this.#episode?.env ?? (await own.another());
      this.#episode = await GreedyEpisode.begin(env, this.#act, seed);
      return this.#episode.scene;
    });
    this.#moment = scene.catch(() => {});
    return this.#unlessEnded(scene);
  }

  /** What a promise brings, or why the worker ended if that comes first: the page's environment may never answer. */
  #unlessEnded<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) reject(this.#ended);
      this.#waits.add(reject);
      promise.then(resolve, reject).finally(() => this.#waits.delete(reject));
    });
  }

  /** Ends the worker; calls that wait fail. */
  dispose(): void {
    this.disposed = true;
    this.#end(new WorkerError('this student was disposed of'));
  }

  #receive(message: ToPage): void {
    if (message.type === 'environment') return void this.#answer(message.request);
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

  async #answer(request: EnvironmentRequest): Promise<void> {
    if (this.own === undefined) return;
    try {
      this.#send({ type: 'environment', answer: await this.#asked(this.own, request) });
    } catch (thrown) {
      const error = thrown instanceof EnvironmentError ? thrown : new EnvironmentError(reasonOf(thrown), undefined, { cause: thrown });
      this.#environmentError = error;
      this.#send({ type: 'environment-error', error: { kind: 'environment', message: error.message, field: error.field } });
    }
  }

  async #asked({ training }: OwnEnvironments, request: EnvironmentRequest): Promise<EnvironmentReply> {
    switch (request.kind) {
      case 'reset':
        return { observation: await training.reset(request.seed), reward: 0, terminated: false, truncated: false };
      case 'step':
        return training.step(request.action);
      case 'evaluate':
        return { returns: await this.#play(request.episodes, request.seed) };
    }
  }

  /** Plays greedy episodes in the environment for evaluations, after those that are played now. */
  #play(episodes: number, seed: number | undefined): Promise<number[]> {
    const env = this.own?.evaluation;
    if (env === undefined) {
      return Promise.reject(new ConfigError('env is one object, which training uses: give a function that makes environments, or play episodes with act()', 'env'));
    }
    const returns = this.#evaluation.then(() => playEpisodes(env, this.#act, episodes, seed, this.#maxSteps));
    this.#evaluation = returns.catch(() => {});
    return returns;
  }

  #send(message: ToWorker): void {
    if (this.#ended === undefined) this.#worker.postMessage(message);
  }

  #end(reason: WorkerError): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#worker.terminate();
    this.own?.release();
    for (const call of this.#calls.values()) call.reject(reason);
    this.#calls.clear();
    for (const end of this.#waits) end(reason);
    this.#waits.clear();
  }
}
