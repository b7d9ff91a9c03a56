// The page's end of the wire to a student's worker: its calls, and the page's environments, which it plays.

import type { EnvironmentRequest, OwnEnvironments } from './environment.js';
import { WorkerCalls } from './calls.js';
import { ConfigError, EnvironmentError, reasonOf, toError, type ErrorMessage, type OtoError } from './errors.js';
import { GreedyEpisode, playEpisodes, type Act } from './greedy.js';
import type { Evaluation } from './metrics.js';
import type { Answer, Arguments, AskedOfPage, CallName, EnvironmentReply, ToWorker } from './protocol.js';
import type { Scene } from './scene.js';

/** A student's worker. */
export class WorkerClient {
  /** Whether a training loop runs; there is one at a time. */
  training = false;
  /** There if the environment is the page's own. */
  readonly own: OwnEnvironments | undefined;
  #calls: WorkerCalls<AskedOfPage>;
  #maxSteps: number;
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
    this.#maxSteps = maxSteps;
    this.#calls = new WorkerCalls('student', 'worker.js (worker-cpu.js)', worker, (error) => this.#asThrown(error), ({ request }) => void this.#answer(request), () => own?.release());
  }

  /** Whether `dispose` was called. */
  get disposed(): boolean {
    return this.#calls.disposed;
  }

  /** Whether nothing can be asked any more: `dispose` was called or the worker died. */
  get ended(): boolean {
    return this.#calls.ended !== undefined;
  }

  /** Asks the worker; the promise fails with one of this package's errors. */
  call<N extends CallName>(name: N, ...args: Arguments<N>): Promise<Answer<N>> {
    return this.#calls.call(name, args) as Promise<Answer<N>>;
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

  /** The page's environment may never answer. */
  #unlessEnded<T>(promise: Promise<T>): Promise<T> {
    return this.#calls.unlessEnded(promise);
  }

  /** Ends the worker; calls that wait fail. */
  dispose(): void {
    this.#calls.dispose();
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
    this.#calls.send(message);
  }
}
