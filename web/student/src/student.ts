// The page's side of a student: every method is a message to its worker.

import { checkEnvironment, checkObservation, type Action } from './environment.js';
import { CheckpointError, ConfigError, OtoError, WorkerError } from './errors.js';
import type { Evaluation, Metrics } from './metrics.js';
import { checkKnown, ticketAddresses, toConfig, type StudentOptions } from './options.js';
import type { Spaces } from './protocol.js';
import type { Scene } from './scene.js';
import { WorkerClient } from './client.js';

/** What `train` does. */
export interface TrainOptions {
  /** Environment steps from now on; left out: to the end of the run. */
  steps?: number;
  /** News at most every so many milliseconds; 100 if left out. */
  interval?: number;
}

/** A student and its worker; `index.ts` and `cpu.ts` say which worker. */
export class WorkerStudent {
  /** The spaces of the student's environment. */
  readonly spaces: Spaces;
  #worker: WorkerClient;

  protected constructor(worker: WorkerClient, spaces: Spaces) {
    this.#worker = worker;
    this.spaces = spaces;
  }

  /** What `create` does, with the worker that `start` starts. */
  protected static async createOn(start: () => Worker, options: StudentOptions): Promise<WorkerStudent> {
    const env = typeof options?.env === 'object' && options.env !== null ? options.env : undefined;
    if (env !== undefined) checkEnvironment(env);
    const config = toConfig(options);
    const tickets = ticketAddresses(options);
    const worker = new WorkerClient(started(start), env);
    try {
      return new this(worker, await worker.call('create', config, tickets));
    } catch (error) {
      worker.dispose();
      throw error;
    }
  }

  /**
   * Trains, and yields what has happened since the last time. Nothing happens before the first of it is asked for, which
   * `for await` does. Training does not wait for the loop's body; leaving the loop stops it, and a later call goes on from there.
   *
   * @throws {ConfigError} an option that is unknown or out of its range
   * @throws {EnvironmentError} the page's environment broke its contract or threw; the episode is given up
   * @throws {TrainingError} the loss is no finite number any more
   */
  async *train(options: TrainOptions = {}): AsyncGenerator<Metrics, void, void> {
    checkKnown('train', options, ['steps', 'interval']);
    const { steps, interval = 100 } = options;
    if (steps !== undefined && !(Number.isSafeInteger(steps) && steps > 0)) {
      throw new ConfigError(`steps must be a whole number above 0, it is ${steps}`, 'steps');
    }
    if (!(interval >= 0 && interval <= 60_000)) {
      throw new ConfigError(`interval must be a time from 0 to 60000 milliseconds, it is ${interval}`, 'interval');
    }
    if (this.#worker.training) throw new OtoError('this student is training already');
    this.#worker.training = true;
    try {
      await this.#worker.call('start', steps ?? null, interval);
      for (;;) {
        const { metrics, over } = await this.#worker.call('next');
        yield metrics;
        if (over) return;
      }
    } catch (error) {
      if (!this.#worker.disposed) throw error;
    } finally {
      this.#worker.training = false;
      if (!this.#worker.ended) await this.#worker.call('stop');
    }
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
   * The greedy action for an observation: a number where actions are discrete, otherwise one for each component.
   *
   * @throws {EnvironmentError} an observation of another length, or with a number that is not finite
   */
  async act(observation: ArrayLike<number>): Promise<Action> {
    const { observationSpace } = this.spaces;
    const width = observationSpace.kind === 'box' ? observationSpace.low.length : 1;
    return this.#worker.call('act', checkObservation('act()', observation, width));
  }

  /**
   * Plays greedy episodes in a second copy of the built-in environment, 10 if left out.
   *
   * @throws {ConfigError} the environment is the page's own, of which there is no second copy
   */
  async evaluate(options: { episodes?: number } = {}): Promise<Evaluation> {
    checkKnown('evaluate', options, ['episodes']);
    const { episodes = 10 } = options;
    if (!(Number.isInteger(episodes) && episodes > 0 && episodes <= 10_000)) {
      throw new ConfigError(`episodes must be a whole number from 1 to 10000, it is ${episodes}`, 'episodes');
    }
    return this.#worker.call('evaluate', episodes);
  }

  /**
   * Greedy play to look at, in another copy of the built-in environment: with a seed the first moment of that seed's
   * episode, without one the next step. Training goes on meanwhile.
   *
   * @throws {ConfigError} the environment is the page's own, of which there is no second copy
   * @throws {EnvironmentError} the episode is over
   */
  async watch(seed?: number): Promise<Scene> {
    if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
      throw new ConfigError(`seed must be a whole number from 0, it is ${seed}`, 'seed');
    }
    return this.#worker.call('watch', seed ?? null);
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

/** A worker; what the browser throws instead of one is told as an error of this package. */
function started(start: () => Worker): Worker {
  try {
    return start();
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new WorkerError(`the student's worker could not be started: ${reason} A worker comes from the page's own origin: serve this package there`);
  }
}
