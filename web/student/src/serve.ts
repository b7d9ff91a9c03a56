// What a worker does: one student's engine, its teachers' WebSockets and the loop that trains. The page talks to it through
// `protocol.ts`.

import type { StudentCore } from '../wasm/oto_web.js';
import type { EnvironmentAnswer, EnvironmentRequest } from './environment.js';
import { ConfigError, toMessage, type ErrorMessage } from './errors.js';
import { LinkDriver } from './link.js';
import { fromEngine, type Metrics } from './metrics.js';
import type { Answer, Arguments, CallName, News, ToPage, ToWorker } from './protocol.js';

/** How long the engine trains before events and calls get their turn, in milliseconds. */
const SLICE_MS = 8;

/** Makes an engine from its configuration as JSON. */
export type CreateEngine = (config: string) => Promise<StudentCore>;

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
/** Makes the engine; there once its module is loaded. */
let create: Promise<CreateEngine>;
let core: StudentCore | undefined;
let links: LinkDriver[] = [];
let run: Run | undefined;
let training: Promise<void> = Promise.resolve();
let paused = false;
/** The question to the page's environment that is not answered yet, and what becomes of its answer. */
let question: Waiting<EnvironmentAnswer> | undefined;
let asked: Promise<void> | undefined;
/** Ends the training loop's wait for that answer, which may never come. */
let leave = (): void => {};
/** How often the student was replaced by a file's; an answer to one before is of no use to it. */
let loads = 0;
let linkTimer: ReturnType<typeof setTimeout> | undefined;
/** Wakes the training loop when it sleeps. */
let wake = (): void => {};

const handlers: { [N in CallName]: (...args: Arguments<N>) => Answer<N> | Promise<Answer<N>> } = {
  async create(config, tickets) {
    const created = await (await create)(config);
    core = created;
    links = tickets.map((ticket, teacher) => new LinkDriver(created, teacher, ticket, serveLinks));
    serveLinks();
    return fromEngine(created.spaces());
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
    run = undefined;
  },

  pause(value) {
    paused = value;
    wake();
  },

  connect(teacher, on) {
    if (teacher !== null && links[teacher] === undefined) {
      throw new ConfigError(`there are ${links.length} teachers, counted from 0, and no ${teacher}`, 'teacher');
    }
    const chosen = teacher === null ? links : links.slice(teacher, teacher + 1);
    for (const link of chosen) link.cut(!on);
    serveLinks();
  },

  weigh: (teacher, weight) => engine().set_teacher_weight(teacher, weight),
  metrics: () => takeMetrics(),
  act: (observation) => engine().act(observation),
  evaluate: (episodes) => fromEngine(engine().evaluate(episodes)),
  watch: (seed) => fromEngine(engine().watch(seed ?? undefined)),
  async save(replay) {
    while (!engine().settle()) await otherEvents();
    return engine().save(replay) as Uint8Array<ArrayBuffer>;
  },
  load(bytes) {
    engine().load(bytes);
    loads += 1;
  },
};

/** Trains in slices until the run is over. Waits for environments and teachers without blocking the worker. */
async function train(current: Run): Promise<void> {
  try {
    while (!current.over) {
      const turn = paused ? 'wait' : engine().advance(SLICE_MS);
      serveLinks();
      if (turn === 'environment') await askPage();
      else if (turn === 'wait') await (engine().learning() && !paused ? otherEvents() : sleep());
      else if (turn === 'end') finish(current);
      else await otherEvents();
    }
  } catch (thrown) {
    current.failure = thrown;
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
  if (current.failure !== undefined) waiting.reject(current.failure);
  else waiting.resolve({ metrics: takeMetrics(), over: current.over });
}

/** Until the page's environment has answered the engine, or `leave` is called. What an earlier run has asked is not asked again. */
function askPage(): Promise<void> {
  const answered = (asked ??= ask().finally(() => (asked = undefined)));
  return new Promise((resolve, reject) => {
    leave = resolve;
    answered.then(resolve, reject);
  });
}

/** Puts the engine's question to the page's environment and hands the answer over. */
async function ask(): Promise<void> {
  const before = loads;
  const request = JSON.parse(engine().environment_request()) as EnvironmentRequest;
  const answer = new Promise<EnvironmentAnswer>((resolve, reject) => (question = { resolve, reject }));
  scope.postMessage({ type: 'environment', request }, []);
  try {
    const { observation, reward, terminated, truncated } = await answer;
    if (loads === before) engine().environment_answer(observation, reward, terminated, truncated);
  } catch (thrown) {
    if (loads === before) engine().environment_failed();
    throw thrown;
  }
}

/** Lets every link say what it has to say, wakes the training loop, and comes back when a link's timer is due. */
function serveLinks(): void {
  clearTimeout(linkTimer);
  core?.link_tick();
  for (const link of links) link.serve();
  const due = core?.link_wake();
  if (due !== undefined) linkTimer = setTimeout(serveLinks, due);
  wake();
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
  if (core === undefined) throw new Error('the student was not created');
  return core;
}

function takeMetrics(): Metrics {
  return fromEngine(engine().metrics());
}

/** Serves the page with an engine whose module is on its way. */
export function serve(engine: Promise<CreateEngine>): void {
  create = engine;
  create.catch(() => {});
  scope.onmessage = receive;
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
    scope.postMessage({ type: 'error', id, error: toMessage(thrown) }, []);
  }
}
