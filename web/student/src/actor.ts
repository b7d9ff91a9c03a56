// oto-student/actor: an edge that acts in the page and is trained by a learner in the cloud.

import { readActorOptions, toActorConfig, type ActorOptions } from './actor-options.js';
import type { ActorMetrics } from './actor-settings.js';
import { WorkerCalls } from './calls.js';
import { OwnEnvironment, made, type EnvironmentName } from './environment.js';
import { ConfigError, EnvironmentError, OtoError, reasonOf, toError, type ErrorMessage } from './errors.js';
import { builtIn, checkKnown } from './options.js';
import type { ActorCalls, AskedOfPage, Spaces, ToWorker } from './protocol.js';
import type { Scene } from './scene.js';
import { checkInterval, checkSignal, checkSteps, orAborted, started } from './signal.js';
import { show } from './spaces.js';

export * from './exports.js';
export type { ActorOptions } from './actor-options.js';
export type * from './actor-settings.js';

/** Options of `run`. */
export interface ActOptions {
  /** Steps from now on. Default: until it is stopped. */
  steps?: number;
  /** Least time between two reports, in milliseconds. Default: 100. */
  interval?: number;
  /** Stops the actor immediately; the loop fails with the signal's reason. */
  signal?: AbortSignal;
}

/** A line to the learner that is worse than the real one, for demonstrations and tests. */
export interface LineOptions {
  /** Milliseconds that each message takes more, in each direction. Default: 0. */
  delay?: number;
  /** Mbit/s in each direction. Default: no limit. */
  bandwidth?: number;
}

/** How long `close` waits for the learner, in milliseconds. */
const PATIENCE = 10_000;

/**
 * An edge: it acts in the page with a network that a learner in the cloud trains. It runs in a worker of its own, at a fixed rate. A lost
 * connection does not stop it: it continues with the weights that it has, and sends its rows afterwards.
 *
 * ```ts
 * const actor = await Actor.create({ cloud: 'ws://127.0.0.1:8080', policy: 'pendulum', env: 'Pendulum-v1', hz: 30 });
 * for await (const m of actor.run()) console.log(m.steps, m.return, m.jitterUs.p99, m.staleness.p50);
 * ```
 */
export class Actor {
  /** The spaces of the actor's environment. */
  readonly spaces: Spaces;
  #calls: WorkerCalls<AskedOfPage>;
  #env: OwnEnvironment | undefined;
  #runs = false;
  /** What the environment threw last, with the cause that cannot cross to the worker and back. */
  #environmentError: EnvironmentError | undefined;

  private constructor(worker: Worker, env: OwnEnvironment | undefined) {
    this.#env = env;
    this.spaces = { observationSpace: env?.env.observationSpace, actionSpace: env?.env.actionSpace } as Spaces;
    this.#calls = new WorkerCalls('actor', 'worker-actor.js', worker, (error) => this.#asThrown(error), ({ request }) => void this.#answer(request), () => env?.release());
  }

  /**
   * Starts a worker with a new actor in it. It connects to its learner at once, and acts from `run()` on.
   *
   * @throws {ConfigError} an option that is unknown or out of its range, by name
   * @throws {WorkerError} the worker or its WebAssembly could not be loaded
   */
  static async create(given: ActorOptions): Promise<Actor> {
    const options = readActorOptions(given);
    const { env } = options;
    const signal = checkSignal('signal', options.signal);
    signal?.throwIfAborted();
    // What can be refused without an environment is refused before one is made.
    toActorConfig({ ...options, env: 'CartPole-v1' });
    const isOwn = typeof env === 'function' || (typeof env === 'object' && env !== null);
    const make = async () => new OwnEnvironment(typeof env === 'function' ? await made(env) : env);
    const own = isOwn ? await orAborted(signal, make(), (late) => late.release()) : undefined;
    let actor: Actor | undefined;
    try {
      const { config, ticket } = toActorConfig(options, own && { ...own.spaces, evaluates: false });
      const start = () => new Worker(new URL('./worker-actor.js', import.meta.url), { type: 'module' });
      actor = new Actor(started('actor', start), own);
      const spaces = await orAborted(signal, actor.#call('create', config, ticket));
      if (own === undefined) Object.assign(actor.spaces, spaces);
      return actor;
    } catch (error) {
      actor?.dispose();
      own?.release();
      throw error;
    }
  }

  /**
   * Acts, and yields how it stands. Acting starts with the first request for a report, as by `for await`, and does not wait for the loop's
   * body. Leaving the loop, or `stop()`, ends the episode; a later call begins the next one.
   *
   * @throws {ConfigError} an option that is unknown or out of its range
   * @throws {EnvironmentError} the page's environment broke its contract or threw; the episode is abandoned
   * @throws {LearnerError} the learner refused for good, or another edge of the same name took over
   */
  run(options: ActOptions = {}): AsyncGenerator<ActorMetrics, void, void> {
    const loop = { runs: false };
    const acting = this.#run(options, loop);
    // A generator that waits for news would hear of its end only with the next of them.
    const end = acting.return.bind(acting);
    acting.return = async (value) => {
      if (loop.runs) await this.stop();
      return end(value);
    };
    return acting;
  }

  async *#run(options: ActOptions, loop: { runs: boolean }): AsyncGenerator<ActorMetrics, void, void> {
    checkKnown('run', options, ['steps', 'interval', 'signal']);
    const { steps, interval = 100 } = options;
    const signal = checkSignal('signal', options.signal);
    checkSteps(steps);
    checkInterval(interval);
    if (this.#runs) throw new OtoError('this actor is acting already');
    signal?.throwIfAborted();
    this.#runs = loop.runs = true;
    try {
      await orAborted(signal, this.#call('start', steps ?? null, interval));
      for (;;) {
        const { metrics, over } = await orAborted(signal, this.#call('next'));
        yield metrics;
        if (over) return;
      }
    } catch (error) {
      if (!this.#calls.disposed) throw error;
    } finally {
      this.#runs = loop.runs = false;
      if (this.#calls.ended === undefined) await this.#call('stop');
    }
  }

  /** Stops the loop of `run()` immediately, with one last report. The episode is cut off. Rows that are held are still sent. */
  async stop(): Promise<void> {
    if (this.#runs && this.#calls.ended === undefined) await this.#call('stop');
  }

  /** Pauses acting. The episode continues after `resume()`: for an environment that stands still meanwhile. */
  async pause(): Promise<void> {
    await this.#call('pause', true);
  }

  /** Continues after `pause`. */
  async resume(): Promise<void> {
    await this.#call('pause', false);
  }

  /** How the actor stands, also while it does not act. */
  async metrics(): Promise<ActorMetrics> {
    return this.#call('metrics');
  }

  /**
   * The present moment in a built-in environment; `trained` is null.
   *
   * @throws {ConfigError} the environment is the page's own
   */
  async scene(): Promise<Scene> {
    return this.#call('scene');
  }

  /**
   * Adds numbers to the state of a built-in environment, in the order of `scene().state`: a push. The actor sees it with its next
   * observation.
   *
   * @throws {ConfigError} what is no list of numbers; the environment is the page's own
   */
  async disturb(change: ArrayLike<number>): Promise<void> {
    if (typeof change !== 'object' || change === null || typeof change.length !== 'number') {
      throw new ConfigError(`change must be a list of numbers, it is ${show(change)}`, 'change');
    }
    await this.#call('disturb', Float64Array.from(change));
  }

  /**
   * Replaces the built-in environment by another one with the same spaces. The episode is cut off.
   *
   * @throws {ConfigError} an environment that is not built in, or has other spaces
   */
  async setEnvironment(env: EnvironmentName): Promise<void> {
    await this.#call('replace', builtIn(env));
  }

  /**
   * The network as a file, a policy that `oto eval` plays and `oto serve --policies` teaches with; `null` while there are no weights. With it as
   * the teacher a student continues after the learner is gone.
   */
  async policy(): Promise<Uint8Array<ArrayBuffer> | null> {
    return this.#call('policy');
  }

  /** Cuts the connection to the learner, like a lost network. The actor continues with the weights that it has. */
  async disconnect(): Promise<void> {
    await this.#call('connect', false);
  }

  /** Permits the next attempt to connect. */
  async connect(): Promise<void> {
    await this.#call('connect', true);
  }

  /**
   * Makes the line to the learner worse than it is.
   *
   * @throws {ConfigError} a delay that is not from 0 to 60,000 ms, a bandwidth below 0.0008 Mbit/s
   */
  async setLine(options: LineOptions): Promise<void> {
    checkKnown('line', options, ['delay', 'bandwidth']);
    const { delay = 0, bandwidth = Infinity } = options;
    for (const [name, value] of Object.entries({ delay, bandwidth })) {
      if (typeof value !== 'number') throw new ConfigError(`${name} must be a number, it is ${show(value)}`, name);
    }
    await this.#call('line', delay, bandwidth * 125_000);
  }

  /** Stops, sends the rows that are held (for at most 10 s), says goodbye to the learner, and ends the worker. The last report. */
  async close(): Promise<ActorMetrics> {
    const last = await this.#call('close', PATIENCE);
    this.dispose();
    return last;
  }

  /** Ends the worker and its connection. A loop of `run()` ends; every other pending call fails. Rows that are held are lost. */
  dispose(): void {
    this.#calls.dispose();
  }

  #call<N extends keyof ActorCalls>(name: N, ...args: Parameters<ActorCalls[N]>): Promise<ReturnType<ActorCalls[N]>> {
    return this.#calls.call(name, args) as Promise<ReturnType<ActorCalls[N]>>;
  }

  /** The page's own error object where the environment's failure comes back, so that its `cause` is kept. */
  #asThrown(message: ErrorMessage): OtoError {
    const own = this.#environmentError;
    return own !== undefined && own.message === message.message ? own : toError(message);
  }

  async #answer(request: AskedOfPage['request']): Promise<void> {
    const env = this.#env;
    if (env === undefined || request.kind === 'evaluate') return;
    let reply: ToWorker;
    try {
      const answer = request.kind === 'step' ? await env.step(request.action) : { observation: await env.reset(request.seed), reward: 0, terminated: false, truncated: false };
      reply = { type: 'environment', answer };
    } catch (thrown) {
      const error = thrown instanceof EnvironmentError ? thrown : new EnvironmentError(reasonOf(thrown), undefined, { cause: thrown });
      this.#environmentError = error;
      reply = { type: 'environment-error', error: { kind: 'environment', message: error.message, field: error.field } };
    }
    this.#calls.send(reply);
  }
}
