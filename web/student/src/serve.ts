// What a worker does: one student's engine and the loop that trains. The page talks to it through `protocol.ts`. The engine holds the
// teachers' WebSockets.

import type { StudentCore, close_sockets } from '../wasm/oto_web.js';
import { ConfigError, WorkerError, isExpected, reasonOf, toMessage, type ErrorMessage } from './errors.js';
import type { Metrics } from './metrics.js';
import type { DatasetFiles } from './options.js';
import type { Answer, Arguments, CallName, EnvironmentReply, News, ToPage, ToWorker } from './protocol.js';

/** How long the engine trains before events and calls get their turn, in milliseconds. */
const SLICE_MS = 8;

/** What a worker uses of the engine's module. */
export interface EngineModule {
  create(...given: [...Parameters<typeof StudentCore.create>, dataset: DatasetFiles | undefined]): Promise<StudentCore>;
  closeSockets: typeof close_sockets;
}

/** The part of a worker's global scope used here; `lib.dom` describes a page's. */
interface WorkerScope {
  postMessage(message: ToPage, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
}

/** Training under way, from `start` to `stop` or its end. */
interface Run {
  /** News at most every so many milliseconds. */
  interval: number;
  lastNews: number;
  /** The call to `next` that waits. */
  waiting: Waiting<News> | undefined;
  over: boolean;
  /** What ended the training, if it was no end or stop. */
  failure: unknown;
}

interface Waiting<T> {
  resolve(value: T): void;
  reject(reason: unknown): void;
}

const scope = globalThis as unknown as WorkerScope;
/** There once it is loaded. */
let module: Promise<EngineModule>;
let core: StudentCore | undefined;
/** Why there is no engine any more. */
let gone: WorkerError | undefined;
let run: Run | undefined;
let training: Promise<void> = Promise.resolve();
let paused = false;
/** Evaluations that the page plays now: training rests for them. */
let held = 0;
/** The question to the page's environment that is not answered yet, and what becomes of its answer. */
let question: Waiting<EnvironmentReply> | undefined;
let asked: Promise<void> | undefined;
/** Ends the training loop's wait for that answer, which may never come. */
let leave = (): void => {};
/** The failure of an answer that came after its run had stopped: the next run begins with it. */
let late: { failure: unknown } | undefined;
/** How often the student was replaced by a file's; an answer to one before is of no use to it. */
let loads = 0;
/** Wakes the training loop when it sleeps. */
let wake = (): void => {};

const handlers: { [N in CallName]: (...args: Arguments<N>) => Answer<N> | Promise<Answer<N>> } = {
  async create(config, tickets, from, dataset) {
    core = await (await module).create(config, tickets, serveLinks, from, dataset);
    serveLinks();
    const unused = core.unused();
    if (unused !== undefined) console.warn(`oto-student: ${unused}`);
    return core.spaces();
  },

  async start(steps, interval) {
    await training;
    engine().train(steps ?? undefined);
    run = { interval, lastNews: performance.now(), waiting: undefined, over: false, failure: undefined };
    training = train(run);
  },

  next() {
    const current = run;
    if (current === undefined) throw new Error('no training is under way');
    return new Promise((resolve, reject) => {
      current.waiting = { resolve, reject };
      const due = current.lastNews + current.interval - performance.now();
      if (current.over) tell(current);
      else setTimeout(tell, due, current);
    });
  },

  async stop() {
    if (run !== undefined) finish(run);
    leave();
    wake();
    await training;
  },

  pause(value) {
    paused = value;
    wake();
  },

  connect(teacher, on) {
    const teachers = engine().teachers();
    if (teacher !== null && !(Number.isInteger(teacher) && teacher >= 0 && teacher < teachers)) {
      throw new ConfigError(`there are ${teachers} teachers, counted from 0, and no ${teacher}`, 'teacher');
    }
    engine().connect(teacher, on);
    serveLinks();
  },

  weigh: (teacher, weight) => engine().set_teacher_weight(teacher, weight),
  metrics: () => takeMetrics(),
  act: (observation) => engine().act(observation),
  evaluate: (episodes) => engine().evaluate(episodes),
  beginEvaluation() {
    held += 1;
    return engine().evaluation_seed() ?? null;
  },
  endEvaluation(returns) {
    held -= 1;
    wake();
    return returns === null ? null : engine().record_evaluation(Float64Array.from(returns));
  },
  watch: (seed) => engine().watch(seed),
  async save(replay) {
    while (!engine().sync()) await otherEvents();
    return engine().save(replay) as Uint8Array<ArrayBuffer>;
  },
  load(bytes) {
    engine().load(bytes);
    loads += 1;
    late = undefined;
  },
};

/** Trains in slices until the run is over. Waits for environments and teachers without blocking the worker. */
async function train(current: Run): Promise<void> {
  try {
    const owed = late;
    late = undefined;
    if (owed !== undefined) throw owed.failure;
    while (!current.over) {
      const rests = paused || held > 0;
      const turn = rests ? 'wait' : engine().advance(SLICE_MS);
      serveLinks();
      if (turn === 'environment') await askPage();
      else if (turn === 'wait') await (!rests && engine().learning() ? otherEvents() : sleep());
      else if (turn === 'end') finish(current);
      else await otherEvents();
    }
  } catch (thrown) {
    current.failure = explained(thrown);
    finish(current);
  }
}

/** Ends a run and answers the call that waits for its news. */
function finish(current: Run): void {
  current.over = true;
  tell(current);
}

/** Answers the call to `next` that waits, if one does. */
function tell(current: Run): void {
  const waiting = current.waiting;
  if (waiting === undefined) return;
  current.waiting = undefined;
  current.lastNews = performance.now();
  if (current.failure !== undefined) return waiting.reject(current.failure);
  try {
    waiting.resolve({ metrics: takeMetrics(), over: current.over });
  } catch (thrown) {
    waiting.reject(thrown);
  }
}

/** Until the page's environment has answered the engine, or `leave` is called. What an earlier run has asked is not asked again. */
function askPage(): Promise<void> {
  const answered = (asked ??= ask().finally(() => (asked = undefined)));
  return new Promise((resolve, reject) => {
    let left = false;
    leave = () => {
      left = true;
      resolve();
    };
    answered.then(resolve, (failure) => {
      late = left ? { failure } : undefined;
      reject(failure);
    });
  });
}

/** Puts the engine's question to the page's environment and hands the answer over. */
async function ask(): Promise<void> {
  const before = loads;
  const request = engine().environment_request();
  const reply = new Promise<EnvironmentReply>((resolve, reject) => (question = { resolve, reject }));
  scope.postMessage({ type: 'environment', request }, []);
  try {
    const answer = await reply;
    if (loads !== before) return;
    if ('returns' in answer) engine().environment_evaluated(Float64Array.from(answer.returns));
    else engine().environment_answer(answer.observation, answer.reward, answer.terminated, answer.truncated);
  } catch (thrown) {
    const failure = explained(thrown);
    if (loads === before && gone === undefined) engine().environment_failed();
    throw failure;
  }
}

/** Lets every link say what it has to say, and wakes the training loop. The engine calls it when a socket or a timer reports. */
function serveLinks(): void {
  try {
    core?.serve_links();
  } catch (thrown) {
    lose(thrown);
  }
  wake();
}

/** The engine failed between two calls of the page's: the next one, or the loop, is told. */
function lose(thrown: unknown): void {
  const failure = explained(thrown);
  if (run === undefined || run.over) return;
  run.failure = failure;
  finish(run);
  leave();
  wake();
}

/**
 * What to tell of a failure. After a fault of the engine's own, such as memory that ran out, it is tried whether it still answers;
 * where it does not it is given up, and every later call says so.
 */
function explained(thrown: unknown): unknown {
  if (core === undefined || isExpected(thrown) || answers(core)) return thrown;
  const reason = `${reasonOf(thrown)}. Out of memory, or a fault of oto's own`;
  gone = new WorkerError(`the student's engine failed and is gone: ${reason}. Make a new student, and load what was saved`);
  core = undefined;
  void module.then(({ closeSockets }) => closeSockets());
  return gone;
}

/** Whether an engine can be called: one that was stopped in the middle of a call can not. */
function answers(engine: StudentCore): boolean {
  try {
    engine.learning();
    return true;
  } catch {
    return false;
  }
}

/** Until `wake` is called. */
function sleep(): Promise<void> {
  return new Promise((resolve) => (wake = resolve));
}

const channel = new MessageChannel();

/** Until the events that wait now had their turn; unlike a timer this is not held back in a hidden tab. */
function otherEvents(): Promise<void> {
  return new Promise((resolve) => {
    channel.port1.onmessage = () => resolve();
    channel.port2.postMessage(null);
  });
}

function engine(): StudentCore {
  if (gone !== undefined) throw gone;
  if (core === undefined) throw new Error('the student was not created');
  return core;
}

function takeMetrics(): Metrics {
  return engine().metrics();
}

/** Serves the page with an engine whose module is on its way. */
export function serve(engine: Promise<EngineModule>): void {
  module = engine;
  module.catch(() => {});
  scope.onmessage = receive;
  // An engine that breaks while it is made answers nobody; as an uncaught error its end reaches the page.
  addEventListener('unhandledrejection', ({ reason }) => setTimeout(() => { throw reason; }));
}

function receive({ data }: MessageEvent<ToWorker>): void {
  if (data.type === 'environment') question?.resolve(data.answer);
  else if (data.type === 'environment-error') question?.reject(data.error satisfies ErrorMessage);
  else void answerCall(data.id, data.name, data.args);
}

async function answerCall(id: number, name: CallName, args: unknown[]): Promise<void> {
  try {
    const value = await (handlers[name] as (...args: unknown[]) => unknown)(...args);
    scope.postMessage({ type: 'answer', id, value }, value instanceof Uint8Array ? [value.buffer] : []);
  } catch (thrown) {
    scope.postMessage({ type: 'error', id, error: toMessage(explained(thrown)) }, []);
  }
}
