// oto-student/all: the same agent with every algorithm, with datasets, and with shared agents.

import { datasetOf } from './dataset.js';
import { KNOWN, type Known, type StudentOptions } from './options.js';
import { ALL_ALGORITHMS, ALL_REPLAY, type AnyAlgorithmName, type AnyAlgorithmOptions, type AnyReplayOptions } from './settings-all.js';
import type { Source } from './source.js';
import { WorkerStudent } from './student.js';

export * from './exports.js';
export type * from './settings-all.js';

/** The options of a student that may have any algorithm. */
export interface AnyStudentOptions extends Omit<StudentOptions, 'algorithm' | 'replay'> {
  /** An algorithm's name, or its name with settings. */
  algorithm?: AnyAlgorithmName | AnyAlgorithmOptions;
  /** The choice of transitions for an update. */
  replay?: AnyReplayOptions;
  /**
   * Recorded episodes that are mixed into every batch, as `replay.sampler` says: an HDF5 file in Minari's or D4RL's layout, as its address, a
   * file, or its bytes. Beside an address that ends in `main_data.hdf5`, Minari's `metadata.json` is read too.
   */
  dataset?: Source;
  /**
   * Work for an agent that a server shares (`oto serve --share`): this student plays rollouts of `a3c` and sends their gradients. It takes
   * the agent's parameters before each rollout. Not with `teachers`, `from` and `dataset`.
   */
  share?: ShareOptions;
}

/** A shared agent. */
export interface ShareOptions {
  /** `ws://` or `wss://` address of the server, or a path of the page's own server. The server must know the page's origin: `oto serve --origin`. */
  cloud: string;
  /** Name of the agent. */
  agent: string;
  /** Name of this worker; a later worker of the same name takes over. Default: a random name. */
  name?: string;
  /** The source of a ticket before each connection, for a server with tickets: `true` for that server, or an address. */
  ticket?: boolean | string;
}

const ALL: Known = { options: [...KNOWN.options, 'dataset', 'share'], algorithms: ALL_ALGORITHMS, replay: ALL_REPLAY, dataset: datasetOf };

/**
 * An agent that learns in a worker of its own, on the CPU, with any algorithm.
 *
 * ```ts
 * const from = '/runs/pendulum/checkpoint.safetensors';
 * const student = await Student.create({ env: 'Pendulum-v1', from, algorithm: 'pex' });
 * for await (const m of student.train({ steps: 5_000 })) console.log(m.step, m.lastEvaluation);
 * ```
 */
export class Student extends WorkerStudent {
  /**
   * Starts a worker with a new student in it.
   *
   * @throws {ConfigError} an option that is unknown or out of its range, or a dataset that cannot be used, by name
   * @throws {WorkerError} the worker or its WebAssembly could not be loaded
   */
  static create(options: AnyStudentOptions): Promise<Student> {
    const start = () => new Worker(new URL('./worker-all.js', import.meta.url), { type: 'module' });
    return Student.createOn(start, options as StudentOptions, ALL);
  }
}
