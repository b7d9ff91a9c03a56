// oto-student: an agent that learns in the browser and is taught over a WebSocket.

import type { StudentOptions } from './options.js';
import { WorkerStudent } from './student.js';

export * from './exports.js';

/**
 * An agent that learns in a worker of its own, so that the page is never blocked.
 *
 * ```ts
 * const student = await Student.create({ env: 'CartPole-v1', seed: 1 });
 * for await (const m of student.train({ steps: 10_000 })) console.log(m.step, m.lastEvaluation);
 * const action = await student.act([0, 0, 0.05, 0]);
 * student.dispose();
 * ```
 */
export class Student extends WorkerStudent {
  /**
   * Starts a worker with a new student in it.
   *
   * @throws {ConfigError} an option that is unknown or out of its range, by name
   * @throws {WorkerError} the worker or its WebAssembly could not be loaded
   */
  static create(options: StudentOptions): Promise<Student> {
    return Student.createOn(() => new Worker(new URL('./worker.js', import.meta.url), { type: 'module' }), options);
  }
}
