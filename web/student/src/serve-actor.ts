// What an actor's worker does: the loop at a fixed rate, around one engine. The page talks to it through `protocol.ts`. The engine holds
// the WebSocket to the learner.

import type { ActorCore, close_sockets } from '../wasm-actor/oto_actor.js';
import { WorkerError, isExpected, reasonOf, toMessage, type ErrorMessage } from './errors.js';
import type { ActorCalls, ActorNews, EnvironmentReply, ToPage, ToWorker } from './protocol.js';

/** What a worker uses of the engine's module. */
export interface ActorModule {
  create: typeof ActorCore.create;
  closeSockets: typeof close_sockets;
}

/** The part of a worker's global scope used here; `lib.dom` describes a page's. */
interface WorkerScope {
  postMessage(message: ToPage): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
}

interface Waiting<T> {
  resolve(value: T): void;
  reject(reason: unknown): void;
}

/** Acting under way, from `start` to `stop` or its end. */
interface Run {
  /** The number of steps at its end. */
  until: number;
  /** News at most every so many milliseconds. */
  interval: number;
  lastNews: number;
  /** The call to `next` that waits. */
  waiting: Waiting<ActorNews> | undefined;
  /** It is to end; it has ended, and its episode with it. */
  over: boolean;
  ended: boolean;
  /** What ended it, if it was no end or stop. */
  failure: unknown;
}

/** Before a deadline the loop waits without a timer for this long, in milliseconds: at least, and at most. */
const SPIN = { least: 0.5, most: 4 };
/** The last part of that wait lets no other events in, in milliseconds. */
const LAST = 0.2;
/** From one look at the rows that are held to the next, and for the last message to leave, in milliseconds. */
const LOOK = 20;

const scope = globalThis as unknown as WorkerScope;
let module: Promise<ActorModule>;
let core: ActorCore | undefined;
/** Why there is no engine any more. */
let gone: WorkerError | undefined;
/** Why the learner refused for good. */
let refused: unknown;
let run: Run | undefined;
let acting: Promise<void> = Promise.resolve();
let paused = false;
/** The last question to the page's environment, and its answer. */
let question: Waiting<EnvironmentReply> | undefined;
let owed: Promise<unknown> = Promise.resolve();
/** Ends the loop's wait for that answer, which may never come. */
let leave = (): void => {};
const LEFT = Symbol();
/** How late a timer comes, as a running estimate of its upper range, in milliseconds. */
let late = 1;
/** Wakes the loop when it sleeps. */
let wake = (): void => {};

const handlers: { [N in keyof ActorCalls]: (...args: Parameters<ActorCalls[N]>) => ReturnType<ActorCalls[N]> | Promise<ReturnType<ActorCalls[N]>> } = {
  async create(config, ticket) {
    core = (await module).create(config, ticket ?? undefined, serveLink);
    serveLink();
    return core.spaces();
  },

  async start(steps, interval) {
    await acting;
    const until = steps === null ? Infinity : engine().steps() + steps;
    run = { until, interval, lastNews: performance.now(), waiting: undefined, over: false, ended: false, failure: undefined };
    acting = act(run);
  },

  next() {
    const current = run;
    if (current === undefined) throw new Error('the actor does not act');
    return new Promise((resolve, reject) => {
      current.waiting = { resolve, reject };
      const due = current.lastNews + current.interval - performance.now();
      if (current.ended) tell(current);
      else setTimeout(tell, due, current);
    });
  },

  async stop() {
    if (run !== undefined) finish(run);
    await acting;
  },

  pause(value) {
    paused = value;
    wake();
  },

  connect(on) {
    engine().connect(on);
    serveLink();
  },

  line(delay, bytesPerSecond) {
    engine().set_line(delay, bytesPerSecond);
    serveLink();
  },

  metrics: () => engine().metrics(),
  scene: () => engine().scene(),
  disturb: (change) => engine().disturb(change),
  replace: (env) => engine().set_environment(env),
  policy: () => (engine().policy() as Uint8Array<ArrayBuffer> | undefined) ?? null,

  async close(patience) {
    await handlers.stop();
    const end = performance.now() + patience;
    while (refused === undefined && engine().metrics().held > 0 && performance.now() < end) await timer(LOOK);
    const last = engine().metrics();
    engine().disconnect();
    await timer(LOOK);
    return last;
  },
};

/** Acts until the run is over. Sockets and calls have their turn between two steps. */
async function act(current: Run): Promise<void> {
  try {
    engine().resume();
    while (!current.over) {
      if (refused !== undefined) throw refused;
      if (paused) {
        await sleep();
        engine().resume();
        continue;
      }
      const due = engine().due();
      // The learner makes updates first.
      if (due === undefined) await sleep();
      else if (due > 0) await until(performance.now() + due, current);
      else {
        if (engine().step()) await askPage();
        if (engine().steps() >= current.until) finish(current);
        // The link's turn: rows leave, weights come.
        serveLink();
        await otherEvents();
      }
    }
  } catch (thrown) {
    current.failure = explained(thrown);
    finish(current);
  }
  try {
    core?.cut();
  } catch (thrown) {
    current.failure ??= explained(thrown);
  }
  serveLink();
  current.ended = true;
  tell(current);
}

/** Waits for a deadline: by a timer until shortly before, then event by event, and at the end without a pause. */
async function until(deadline: number, current: Run): Promise<void> {
  const early = deadline - Math.min(SPIN.most, Math.max(SPIN.least, late));
  const wait = early - performance.now();
  if (wait > 0) {
    const woken = await Promise.race([timer(wait).then(() => false), sleep().then(() => true)]);
    if (woken) return;
    // Grows at once, shrinks slowly: a wait costs less than a late step.
    const was = performance.now() - early;
    late = Math.max(was + was / 4, late - late / 64);
  }
  while (performance.now() < deadline - LAST) {
    await otherEvents();
    if (current.over || paused) return;
  }
  while (performance.now() < deadline);
}

/** Lets a run end. */
function finish(current: Run): void {
  current.over = true;
  leave();
  wake();
}

/** Answers the call to `next` that waits, if one does; a run that ends answers once it has ended. */
function tell(current: Run): void {
  const waiting = current.waiting;
  if (waiting === undefined || current.over !== current.ended) return;
  current.waiting = undefined;
  current.lastNews = performance.now();
  if (current.failure !== undefined) return waiting.reject(current.failure);
  try {
    waiting.resolve({ metrics: engine().metrics(), over: current.ended });
  } catch (thrown) {
    waiting.reject(explained(thrown));
  }
}

/** Puts the engine's question to the page's environment and hands the answer over, unless `leave` is called before. */
async function askPage(): Promise<void> {
  // An answer that an earlier run has left comes first, and is of no use.
  if ((await orLeft(owed)) === LEFT) return;
  const request = engine().environment_request();
  const reply = new Promise<EnvironmentReply>((resolve, reject) => (question = { resolve, reject }));
  owed = reply.catch(() => {});
  scope.postMessage({ type: 'environment', request });
  const answer = await orLeft(reply);
  if (answer === LEFT || 'returns' in answer) return;
  engine().environment_answer(answer.observation, answer.reward, answer.terminated, answer.truncated);
}

function orLeft<T>(promise: Promise<T>): Promise<T | typeof LEFT> {
  return Promise.race([promise, new Promise<typeof LEFT>((resolve) => (leave = () => resolve(LEFT)))]);
}

/** Lets the link say what it has to say, and wakes the loop. The engine calls it when a socket or a timer reports. */
function serveLink(): void {
  try {
    if (gone === undefined) core?.serve_links();
  } catch (thrown) {
    refused = explained(thrown);
    if (run !== undefined && !run.over) {
      run.failure = refused;
      finish(run);
    }
  }
  wake();
}

/** What to tell of a failure. After a fault of the engine's own it is given up, and every later call says so. */
function explained(thrown: unknown): unknown {
  if (core === undefined || isExpected(thrown)) return thrown;
  gone = new WorkerError(`the actor's engine failed and is gone: ${reasonOf(thrown)}. Make a new actor`);
  core = undefined;
  void module.then(({ closeSockets }) => closeSockets());
  return gone;
}

/** Until `wake` is called. */
function sleep(): Promise<void> {
  return new Promise((resolve) => (wake = resolve));
}

function timer(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const channel = new MessageChannel();

/** Until the events that wait now had their turn. */
function otherEvents(): Promise<void> {
  return new Promise((resolve) => {
    channel.port1.onmessage = () => resolve();
    channel.port2.postMessage(null);
  });
}

function engine(): ActorCore {
  if (gone !== undefined) throw gone;
  if (core === undefined) throw new Error('the actor was not created');
  return core;
}

/** Serves the page with an engine whose module is on its way. */
export function serveActor(engine: Promise<ActorModule>): void {
  module = engine;
  module.catch(() => {});
  scope.onmessage = ({ data }) => {
    if (data.type === 'environment') question?.resolve(data.answer);
    else if (data.type === 'environment-error') question?.reject(data.error satisfies ErrorMessage);
    else void answerCall(data.id, data.name as keyof ActorCalls, data.args);
  };
  // An engine that breaks while it is made answers nobody; as an uncaught error its end reaches the page.
  addEventListener('unhandledrejection', ({ reason }) => setTimeout(() => { throw reason; }));
}

async function answerCall(id: number, name: keyof ActorCalls, args: unknown[]): Promise<void> {
  try {
    const value = await (handlers[name] as (...args: unknown[]) => unknown)(...args);
    scope.postMessage({ type: 'answer', id, value });
  } catch (thrown) {
    scope.postMessage({ type: 'error', id, error: toMessage(explained(thrown)) });
  }
}
