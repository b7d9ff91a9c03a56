// The page's side of a student: every method is a message to its worker.

import { OwnEnvironments, type Action, type Environment } from './environment.js';
import { CheckpointError, ConfigError, OtoError, WorkerError, reasonOf } from './errors.js';
import type { Evaluation, Metrics } from './metrics.js';
import { checkKnown, maxSteps, readOptions, ticketAddresses, toConfig, type StudentOptions } from './options.js';
import type { Spaces } from './protocol.js';
import type { Scene } from './scene.js';
import { readObservation, readSpace, show, type EngineSpace, type Observation } from './spaces.js';
import { WorkerClient } from './client.js';

/** What `train` does. */
export interface TrainOptions {
  /** Environment steps from now on; left out: to the end of the run. */
  steps?: number;
  /** News at most every so many milliseconds; 100 if left out. */
  interval?: number;
  /** Ends the loop at once, which then fails with the signal's reason. */
  signal?: AbortSignal;
}

/** A student and its worker; `index.ts` and `cpu.ts` say which worker. */
export class WorkerStudent {
  /** The spaces of the student's environment. */
  readonly spaces: Spaces;
  #worker: WorkerClient;
  #observation: EngineSpace;

  /** Not for pages: `await Student.create(options)` makes a student. */
  protected constructor(worker: WorkerClient, spaces: Spaces) {
    if (!(worker instanceof WorkerClient)) {
      throw new ConfigError('a student is made by await Student.create(options), not by new Student()');
    }
    this.#worker = worker;
    this.#observation = worker.own?.training.spaces.observation ?? readSpace('spaces.observationSpace', spaces.observationSpace);
    this.spaces = spaces;
  }

  /** What `create` does, with the worker that `start` starts. */
  protected static async createOn(start: () => Worker, given: StudentOptions): Promise<WorkerStudent> {
    const options = readOptions(given);
    const { env } = options;
    const signal = checkSignal('signal', options.signal);
    signal?.throwIfAborted();
    // What can be refused without an environment is refused before one is made.
    const [tickets, longest] = [ticketAddresses(options), maxSteps(options)];
    toConfig({ ...options, env: 'CartPole-v1' });
    const isOwn = typeof env === 'function' || (typeof env === 'object' && env !== null);
    const own = isOwn ? await orAborted(signal, OwnEnvironments.of(env), (late) => late.release()) : undefined;
    let worker: WorkerClient | undefined;
    try {
      const page = own && { ...own.training.spaces, evaluates: own.evaluation !== undefined };
      const config = toConfig(options, page);
      worker = new WorkerClient(started(start), own, longest);
      const spaces = await orAborted(signal, worker.call('create', config, tickets));
      return new this(worker, own === undefined ? spaces : spacesOf(own.training.env));
    } catch (error) {
      worker?.dispose();
      own?.release();
      throw error;
    }
  }

  /**
   * Trains, and yields what has happened since the last time. Nothing happens before the first of it is asked for, which
   * `for await` does. Training does not wait for the loop's body; leaving the loop or `stop()` ends it, and a later call goes on
   * from there.
   *
   * @throws {ConfigError} an option that is unknown or out of its range
   * @throws {EnvironmentError} the page's environment broke its contract or threw; the episode is given up
   * @throws {TrainingError} the loss is no finite number any more, or there is no memory for another transition
   */
  train(options: TrainOptions = {}): AsyncGenerator<Metrics, void, void> {
    const loop = { runs: false };
    const training = this.#train(options, loop);
    // A generator that waits for news would hear of its end only with the next of them.
    const end = training.return.bind(training);
    training.return = async (value) => {
      if (loop.runs) await this.stop();
      return end(value);
    };
    return training;
  }

  async *#train(options: TrainOptions, loop: { runs: boolean }): AsyncGenerator<Metrics, void, void> {
    checkKnown('train', options, ['steps', 'interval', 'signal']);
    const { steps, interval = 100 } = options;
    const signal = checkSignal('signal', options.signal);
    if (steps !== undefined && !(Number.isSafeInteger(steps) && steps > 0)) {
      throw new ConfigError(`steps must be a whole number above 0, it is ${show(steps)}`, 'steps');
    }
    if (!(typeof interval === 'number' && interval >= 0 && interval <= 60_000)) {
      throw new ConfigError(`interval must be a time from 0 to 60000 milliseconds, it is ${show(interval)}`, 'interval');
    }
    if (this.#worker.training) throw new OtoError('this student is training already');
    signal?.throwIfAborted();
    this.#worker.training = loop.runs = true;
    try {
      await orAborted(signal, this.#worker.call('start', steps ?? null, interval));
      for (;;) {
        const { metrics, over } = await orAborted(signal, this.#worker.call('next'));
        yield metrics;
        if (over) return;
      }
    } catch (error) {
      if (!this.#worker.disposed) throw error;
    } finally {
      this.#worker.training = loop.runs = false;
      if (!this.#worker.ended) await this.#worker.call('stop');
    }
  }

  /**
   * Ends the loop of `train()` at once, with one more report, whatever it waits for: its interval, an environment's step, a
   * teacher. An answer that an environment still owes counts when `train()` is called again.
   */
  async stop(): Promise<void> {
    if (this.#worker.training && !this.#worker.ended) await this.#worker.call('stop');
  }

  /** Holds training where it is; acting, saving and evaluating go on. */
  async pause(): Promise<void> {
    await this.#worker.call('pause', true);
  }

  /** Goes on after `pause`. */
  async resume(): Promise<void> {
    await this.#worker.call('pause', false);
  }

  /** What has happened since metrics were last taken, also while no training is under way. */
  async metrics(): Promise<Metrics> {
    return this.#worker.call('metrics');
  }

  /**
   * Cuts the connection to all teachers, or to one (counted from 0), as a lost network would: learning goes on without
   * new labels, and the link tries again with growing pauses, in vain until `connectTeachers`.
   */
  async disconnectTeachers(teacher?: number): Promise<void> {
    await this.#worker.call('connect', teacher ?? null, false);
  }

  /** Lets the next attempt to connect through again. */
  async connectTeachers(teacher?: number): Promise<void> {
    await this.#worker.call('connect', teacher ?? null, true);
  }

  /**
   * How much a teacher (counted from 0) counts from now on, see `TeacherOptions.weight`: 0 switches it off, it is asked no
   * more and its labels rest; a weight above 0 switches it on again.
   *
   * @throws {ConfigError} there is no such teacher, or the weight is no number from 0 to 1e6
   */
  async setTeacherWeight(teacher: number, weight: number): Promise<void> {
    if (!(Number.isInteger(teacher) && teacher >= 0)) {
      throw new ConfigError(`a teacher is a whole number from 0, it is ${teacher}`, 'teacher');
    }
    await this.#worker.call('weigh', teacher, weight);
  }

  /**
   * The greedy action for an observation: a number where actions are choices, otherwise one for each component.
   *
   * @throws {EnvironmentError} an observation that its space does not have
   */
  async act(observation: Observation): Promise<Action> {
    return this.#worker.call('act', readObservation('act()', this.#observation, observation));
  }

  /**
   * Plays greedy episodes, 10 if left out, in an environment apart from the one that trains. Where that is the page's own,
   * training rests meanwhile, and an episode is cut short after `evaluation.maxSteps`.
   *
   * @throws {ConfigError} the environment is one object of the page's, of which there is no second one
   * @throws {EnvironmentError} the page's environment broke its contract or threw
   */
  async evaluate(options: { episodes?: number } = {}): Promise<Evaluation> {
    checkKnown('evaluate', options, ['episodes']);
    const { episodes = 10 } = options;
    if (!(Number.isInteger(episodes) && episodes > 0 && episodes <= 10_000)) {
      throw new ConfigError(`episodes must be a whole number from 1 to 10000, it is ${show(episodes)}`, 'episodes');
    }
    return this.#worker.evaluate(episodes);
  }

  /**
   * Greedy play to look at, in an environment apart from the one that trains: with a seed the first moment of that seed's
   * episode, without one the next step. Training goes on meanwhile. In a built-in environment the
   * policy that began an episode plays it to its end.
   *
   * @throws {ConfigError} the environment is one object of the page's, of which there is no second one
   * @throws {EnvironmentError} the episode is over, or the page's environment broke its contract or threw
   */
  async watch(seed?: number): Promise<Scene> {
    if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
      throw new ConfigError(`seed must be a whole number from 0, it is ${show(seed)}`, 'seed');
    }
    return this.#worker.watch(seed);
  }

  /**
   * The student as a safetensors file: parameters, optimiser and progress; with `replay` also its transitions and
   * labels, so that a built-in environment's run goes on exactly where it was.
   */
  async save(options: { replay?: boolean } = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkKnown('save', options, ['replay']);
    return this.#worker.call('save', options.replay ?? false);
  }

  /**
   * Goes on from a file that `save` gave.
   *
   * @throws {CheckpointError} the bytes are no such file, or of a student of another shape
   */
  async load(bytes: Uint8Array | ArrayBuffer): Promise<void> {
    if (!(bytes instanceof Uint8Array || bytes instanceof ArrayBuffer)) {
      throw new CheckpointError(`load() takes a Uint8Array or an ArrayBuffer, as of a file's arrayBuffer(); it got ${Object.prototype.toString.call(bytes)}`);
    }
    await this.#worker.call('load', bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
  }

  /** Ends the worker and all connections. A training loop ends; every other call that waits fails. */
  dispose(): void {
    this.#worker.dispose();
  }
}

/** The spaces as the page wrote them. */
function spacesOf({ observationSpace, actionSpace }: Environment): Spaces {
  return { observationSpace, actionSpace };
}

function checkSignal(field: string, signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw new ConfigError(`${field} must be an AbortSignal, it is ${show(signal)}`, field);
}

/** What a promise brings, or the signal's reason if that comes first; then `late` gets what nobody waits for any more. */
function orAborted<T>(signal: AbortSignal | undefined, promise: Promise<T>, late: (value: T) => void = () => {}): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => {
      promise.then(late, () => {});
      reject(signal.reason);
    };
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** A worker; what the browser throws instead of one is told as an error of this package. */
function started(start: () => Worker): Worker {
  try {
    return start();
  } catch (thrown) {
    throw new WorkerError(`the student's worker could not be started: ${reasonOf(thrown)} A worker comes from the page's own origin: serve this package there`);
  }
}
