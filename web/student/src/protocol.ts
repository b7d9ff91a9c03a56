// What the page and its worker say to each other. Calls are numbered and answered once; the environment's questions go
// the other way.

import type { ActorConfig } from './actor-options.js';
import type { ActorMetrics } from './actor-settings.js';
import type { Action, EnvironmentAnswer, EnvironmentRequest } from './environment.js';
import type { Answered } from './calls.js';
import type { ErrorMessage } from './errors.js';
import type { Evaluation, Metrics } from './metrics.js';
import type { CoreConfig, DatasetFiles } from './options.js';
import type { Scene } from './scene.js';
import type { ActionSpace, Space } from './spaces.js';

/** Everything the worker can be asked to do, with its answer. */
export interface Calls {
  /** `tickets`: for each teacher the address that gives tickets, or `null`. `from`: the checkpoint that the student begins with. `dataset`: what is mixed into its batches. */
  create(config: CoreConfig, tickets: (string | null)[], from: Uint8Array | undefined, dataset: DatasetFiles | undefined): Spaces;
  /** Train for so many environment steps (`null`: to the end of the run), with news at most every so many ms. */
  start(steps: number | null, interval: number): void;
  /** The next news of the training under way. */
  next(): News;
  /** Stop training; a call to `next` that waits is answered. */
  stop(): void;
  pause(paused: boolean): void;
  connect(teacher: number | null, on: boolean): void;
  weigh(teacher: number, weight: number): void;
  metrics(): Metrics;
  /** An observation's plain numbers, see `readObservation`. */
  act(observation: Float64Array): Action;
  evaluate(episodes: number): Evaluation;
  /** The page begins to play greedy episodes, and training rests; the seed for the first one if it is the student's first evaluation. */
  beginEvaluation(): number | null;
  /** The returns of these episodes, or `null` if there are none. */
  endEvaluation(returns: number[] | null): Evaluation | null;
  /** With a seed the first moment of its episode, without one the next step. */
  watch(seed: number | null): Scene;
  save(replay: boolean): Uint8Array<ArrayBuffer>;
  load(bytes: Uint8Array): void;
}

/** News of a training; `over` with the last. */
export interface News {
  metrics: Metrics;
  over: boolean;
}

/** The spaces of the environment that a student was created for. */
export interface Spaces {
  observationSpace: Space;
  actionSpace: ActionSpace;
}

/** What the page's environment answers: to a reset or a step, or the returns of an evaluation. */
export type EnvironmentReply = EnvironmentAnswer | { returns: number[] };

export type CallName = keyof Calls;
export type Arguments<N extends CallName> = Parameters<Calls[N]>;
export type Answer<N extends CallName> = ReturnType<Calls[N]>;

/** From the page to the worker. */
export type ToWorker =
  | { type: 'call'; id: number; name: CallName; args: unknown[] }
  | { type: 'environment'; answer: EnvironmentReply }
  | { type: 'environment-error'; error: ErrorMessage };

/** What a worker asks of the page. */
export type AskedOfPage = { type: 'environment'; request: EnvironmentRequest };

/** From the worker to the page. */
export type ToPage = Answered | AskedOfPage;

/** Everything that an actor's worker can be asked to do, with its answer. */
export interface ActorCalls {
  /** `ticket`: the address that gives tickets, or `null`. */
  create(config: ActorConfig, ticket: string | null): Spaces;
  /** Act for so many steps (`null`: until it is stopped), with news at most every so many ms. */
  start(steps: number | null, interval: number): void;
  next(): ActorNews;
  stop(): void;
  pause(paused: boolean): void;
  connect(on: boolean): void;
  line(delay: number, bytesPerSecond: number): void;
  metrics(): ActorMetrics;
  scene(): Scene;
  disturb(change: Float64Array): void;
  replace(env: string): void;
  /** The network as a policy's file, or `null`. */
  policy(): Uint8Array<ArrayBuffer> | null;
  /** Sends what is held, for so many ms at most, and says goodbye. */
  close(patience: number): ActorMetrics;
}

/** News of an actor; `over` with the last. */
export interface ActorNews {
  metrics: ActorMetrics;
  over: boolean;
}
