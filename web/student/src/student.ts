// The page's side of a student: every method is a message to its worker.

import { OwnEnvironments, type Action, type Environment } from './environment.js';
import { checkpointOf, copied } from './source.js';
import { CheckpointError, ConfigError, OtoError } from './errors.js';
import { checkInterval, checkSignal, checkSteps, orAborted, started } from './signal.js';
import type { Evaluation, Metrics } from './metrics.js';
import { KNOWN, checkKnown, maxSteps, readOptions, ticketAddresses, toConfig, type StudentOptions } from './options.js';
import type { Spaces } from './protocol.js';
import type { Scene } from './scene.js';
import { readObservation, readSpace, show, type EngineSpace, type Observation } from './spaces.js';
import { WorkerClient } from './client.js';

/** Options of `train`. */
export interface TrainOptions {
  /** Environment steps from now on. Default: to the end of the run. */
  steps?: number;
  /** Least time between two reports, in milliseconds. Default: 100. */
  interval?: number;
  /** Aborts the loop immediately; it fails with the signal's reason. */
  signal?: AbortSignal;
}

/** A student and its worker; `index.ts`, `cpu.ts` and `all.ts` say which worker. */
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

  /** What `create` does, with the worker that `start` starts and the module that has what is `known`. */
  protected static async createOn(start: () => Worker, given: StudentOptions, known = KNOWN): Promise<WorkerStudent> {
    const options = readOptions(given, known);
    const { env } = options;
    const signal = checkSignal('signal', options.signal);
    signal?.throwIfAborted();
    // What can be refused without an environment is refused before one is made.
    const [tickets, longest] = [ticketAddresses(options), maxSteps(options)];
    toConfig({ ...options, env: 'CartPole-v1' }, undefined, known);
    const checkpoint = await orAborted(signal, checkpointOf(options.from, signal));
    const dataset = await orAborted(signal, known.dataset?.(options.dataset, signal) ?? Promise.resolve(undefined));
    const isOwn = typeof env === 'function' || (typeof env === 'object' && env !== null);
    const own = isOwn ? await orAborted(signal, OwnEnvironments.of(env), (late) => late.release()) : undefined;
    let worker: WorkerClient | undefined;
    try {
      const page = own && { ...own.training.spaces, evaluates: own.evaluation !== undefined };
      const config = toConfig(options, page, known);
      worker = new WorkerClient(started('student', start), own, longest);
      const spaces = await orAborted(signal, worker.call('create', config, tickets, checkpoint, dataset));
      return new this(worker, own === undefined ? spaces : spacesOf(own.training.env));
    } catch (error) {
      worker?.dispose();
      own?.release();
      throw error;
    }
  }

  /**
   * Trains, and yields the progress since the last report. Training starts with the first request for a report, as by
   * `for await`. It does not wait for the loop's body. Leaving the loop, or `stop()`, stops it; a later call continues it.
   *
   * @throws {ConfigError} an option that is unknown or out of its range
   * @throws {EnvironmentError} the page's environment broke its contract or threw; the episode is abandoned
   * @throws {TrainingError} the loss is not finite, or there is no memory for another transition
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
    checkSteps(steps);
    checkInterval(interval);
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
   * Stops the loop of `train()` immediately, with one last report, even while it waits for its interval, an environment's step or a
   * teacher. The next `train()` uses a pending answer of the environment.
   */
  async stop(): Promise<void> {
    if (this.#worker.training && !this.#worker.ended) await this.#worker.call('stop');
  }

  /** Pauses training. Acting, saving and evaluating continue to work. */
  async pause(): Promise<void> {
    await this.#worker.call('pause', true);
  }

  /** Continues after `pause`. */
  async resume(): Promise<void> {
    await this.#worker.call('pause', false);
  }

  /** The progress since the last metrics, also without running training. */
  async metrics(): Promise<Metrics> {
    return this.#worker.call('metrics');
  }

  /**
   * Cuts the connection to all teachers, or to one (counted from 0), like a lost network. Training continues without
   * new labels. The link retries with growing pauses, without success until `connectTeachers`.
   */
  async disconnectTeachers(teacher?: number): Promise<void> {
    await this.#worker.call('connect', teacher ?? null, false);
  }

  /** Permits the next attempt to connect. */
  async connectTeachers(teacher?: number): Promise<void> {
    await this.#worker.call('connect', teacher ?? null, true);
  }

  /**
   * Sets the weight of a teacher (counted from 0), see `TeacherOptions.weight`. 0 switches the teacher off: no requests, and no use
   * of its labels. A weight above 0 switches it on again.
   *
   * @throws {ConfigError} there is no such teacher, or the weight is no number from 0 to 1e6
   */
  async setTeacherWeight(teacher: number, weight: number): Promise<void> {
    if (!(Number.isInteger(teacher) && teacher >= 0)) {
      throw new ConfigError(`a teacher is a whole number from 0, it is ${show(teacher)}`, 'teacher');
    }
    if (typeof weight !== 'number') throw new ConfigError(`weight must be a number, it is ${show(weight)}`, 'weight');
    await this.#worker.call('weigh', teacher, weight);
  }

  /**
   * The greedy action for an observation: a number for a choice, otherwise a number for each component.
   *
   * @throws {EnvironmentError} an observation outside its space
   * @throws {TrainingError} the network gives no finite number: training has diverged
   */
  async act(observation: Observation): Promise<Action> {
    return this.#worker.call('act', readObservation('act()', this.#observation, observation));
  }

  /**
   * Plays greedy episodes (default: 10) in an environment separate from the training environment. With the page's own environment,
   * training pauses meanwhile, and an episode is truncated after `evaluation.maxSteps`.
   *
   * @throws {ConfigError} the environment is a single object of the page
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
   * Plays greedily, for display, in an environment separate from the training environment. With a seed it returns the start of that
   * seed's episode, without one the next step. Training continues meanwhile. In a built-in environment one
   * policy plays the whole episode.
   *
   * @throws {ConfigError} the environment is a single object of the page
   * @throws {EnvironmentError} the episode is over, or the page's environment broke its contract or threw
   */
  async watch(seed?: number): Promise<Scene> {
    if (seed !== undefined && !(Number.isSafeInteger(seed) && seed >= 0)) {
      throw new ConfigError(`seed must be a whole number from 0, it is ${show(seed)}`, 'seed');
    }
    return this.#worker.watch(seed);
  }

  /**
   * The student as a safetensors file: parameters, optimiser and progress. With `replay` it also has transitions and
   * labels. Then a run in a built-in environment continues exactly.
   *
   * @throws {TrainingError} a parameter is no finite number: no file could be loaded that has it
   */
  async save(options: { replay?: boolean } = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkKnown('save', options, ['replay']);
    const { replay = false } = options;
    if (typeof replay !== 'boolean') throw new ConfigError(`replay must be true or false, it is ${show(replay)}`, 'replay');
    return this.#worker.call('save', replay);
  }

  /**
   * Restores the student from a file of `save`.
   *
   * @throws {CheckpointError} the bytes are no such file, or belong to a student of another shape
   */
  async load(bytes: Uint8Array | ArrayBuffer): Promise<void> {
    if (!(bytes instanceof Uint8Array || bytes instanceof ArrayBuffer)) {
      throw new CheckpointError(`load() takes a Uint8Array or an ArrayBuffer, as of a file's arrayBuffer(); it got ${Object.prototype.toString.call(bytes)}`);
    }
    await this.#worker.call('load', copied(bytes));
  }

  /** Ends the worker and all connections. A training loop ends; every other pending call fails. */
  dispose(): void {
    this.#worker.dispose();
  }
}

/** The spaces as the page wrote them. */
function spacesOf({ observationSpace, actionSpace }: Environment): Spaces {
  return { observationSpace, actionSpace };
}
