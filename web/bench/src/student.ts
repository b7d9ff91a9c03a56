// The npm package as anyone would use it: how long after navigation a student has made its first update, and how many
// updates `?students=20` make together in `?seconds=10`. The result is in `window.__result`; the students stay, paused.

import { Student, type Metrics } from 'oto-student';

/** What one load of the page measured. */
export interface StudentResult {
  students: number;
  /** Milliseconds from navigation until all students are there, and until each has made an update. */
  readyMs: number;
  firstUpdateMs: number;
  /** Updates and environment steps per second, all students together; only after `?seconds=`. */
  updatesPerSecond: number | null;
  stepsPerSecond: number | null;
}

const query = new URLSearchParams(location.search);
const count = Number(query.get('students') ?? 1);
const seconds = Number(query.get('seconds') ?? 0);

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Trains until the page goes, and keeps the newest metrics. */
class Learner {
  updated: Promise<void>;
  newest: Metrics | undefined;

  constructor(student: Student) {
    this.updated = new Promise((resolve, reject) => this.#train(student, resolve).catch(reject));
  }

  async #train(student: Student, updated: () => void): Promise<void> {
    for await (const metrics of student.train({ interval: 20 })) {
      this.newest = metrics;
      if (metrics.updates > 0) updated();
    }
  }
}

async function run(): Promise<StudentResult> {
  const create = (_: unknown, seed: number) => Student.create({ env: 'CartPole-v1', seed, steps: 1_000_000_000 });
  const students = await Promise.all(Array.from({ length: count }, create));
  const readyMs = performance.now();
  const learners = students.map((student) => new Learner(student));
  await Promise.all(learners.map(({ updated }) => updated));
  const firstUpdateMs = performance.now();
  const total = (of: 'updates' | 'step') => learners.reduce((sum, { newest }) => sum + newest![of], 0);
  let rates: [number, number] | undefined;
  if (seconds > 0) {
    await wait(2000);
    const [start, updates, steps] = [performance.now(), total('updates'), total('step')];
    await wait(seconds * 1000);
    const passed = (performance.now() - start) / 1000;
    rates = [(total('updates') - updates) / passed, (total('step') - steps) / passed];
  }
  await Promise.all(students.map((student) => student.pause()));
  return {
    students: count,
    readyMs,
    firstUpdateMs,
    updatesPerSecond: rates?.[0] ?? null,
    stepsPerSecond: rates?.[1] ?? null,
  };
}

const page = window as { __result?: unknown };
run().then(
  (result) => (page.__result = result),
  (error: unknown) => (page.__result = { error: String(error) }),
).then((result) => (document.getElementById('result')!.textContent = JSON.stringify(result, null, 1)));
