// Generated from the engine's configuration: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`.

import type { Schedule } from './settings.js';

/** The settings of an actor in a page and on a WASI host. */
export interface ActorSettings {
  /** Training episodes between two evaluations, whose steps do not explore and are not learned from; 0: no evaluation. Default: 0. */
  evaluateEvery?: number;
  /** Exploration instead of the learner's. */
  exploration?: Exploration | null;
  /** Steps a second; 0: as fast as the learner keeps up. Left out: the learner's `hz`, or 30. */
  hz?: number | null;
  /** Name of this edge on the server. A newer edge of the same name replaces an older one. Default: 'edge'. */
  name?: string;
  /** Rows that are held while the learner cannot be reached. Default: 20000. */
  ring?: number;
  /** Action while there are no weights, in the environment's units. Left out: the middle of each range, or the first choice. */
  safeAction?: number[] | null;
  /** Seed of exploration and of a built-in environment's episodes. Default: 0. */
  seed?: number;
  /** Encodings of weights that may come, the preferred one first. Default: ['delta', 'f16', 'f32']. */
  weights?: ('delta' | 'f16' | 'f32')[];
}

/** How an actor explores. The learner's configuration has it, and the learner tells its actors. */
export interface Exploration {
  /** Correlation time of the noise, in steps; 0: each step's noise is drawn alone. Otherwise it is an Ornstein-Uhlenbeck process. Default: 0. */
  correlation?: number;
  /** Share of random actions over steps. Default: 0. */
  epsilon?: Schedule;
  /** Standard deviation of the noise on continuous actions, whose components go from -1 to 1, over steps. Default: 0.1. */
  noise?: Schedule;
}

/** How an actor stands, as `oto act --json`, a page and a WASI host show it. */
export interface ActorMetrics {
  /** Rows that the learner has for good. */
  acknowledged: number;
  /** Updates that the learner owes. */
  backlog: number;
  /** Steps in which the environment took longer than a period. */
  blocked: number;
  /** Whether a session is agreed upon. */
  connected: boolean;
  /** Episodes that ended. */
  episodes: number;
  /** Return of the evaluation that ended last. */
  evaluation: number | null;
  /** Rows that are held and not acknowledged. */
  held: number;
  /** Steps a second of the loop; null without a clock. */
  hz: number | null;
  /** Distance of steps from their deadlines, in microseconds. */
  jitterUs: JitterTimes;
  /** Observations that came after the deadline of the step that acts on them. */
  lateSensor: number;
  /** Counters of the connection. */
  link: ActorStats;
  /** The longest step of the environment, in microseconds. */
  longestBlockUs: number;
  /** Deadlines at which no step began. */
  missed: number;
  /** What went wrong last with the connection; null while all is well. */
  problem: string | null;
  /** Rows recorded so far: one for each step, and one for each end of an episode. */
  recorded: number;
  /** Return of the training episode that ended last, by the environment's own rewards. */
  return: number | null;
  /** Steps with the safe action, because there were no weights. */
  safe: number;
  /** Steps from the newest row behind the acting weights to the newest row. */
  staleness: Staleness;
  /** Steps so far. */
  steps: number;
  /** Version of the weights that act; 0 while there are none. */
  version: number;
}

/** Distances of steps from their deadlines, in microseconds. */
export interface JitterTimes {
  /** All steps. */
  max: number;
  /** Half of the steps were at most this far off. */
  p50: number;
  /** 99 of 100 steps. */
  p99: number;
  /** 999 of 1,000 steps. */
  p999: number;
}

/** Ages of the acting weights, in steps. */
export interface Staleness {
  /** At all steps. */
  max: number;
  /** At half of the steps the weights were at most this old. */
  p50: number;
  /** At 99 of 100 steps. */
  p99: number;
}

/** What an actor's link counted. */
export interface ActorStats {
  /** Bytes received in messages. */
  bytesDown: number;
  /** Bytes sent in messages. */
  bytesUp: number;
  /** Connections opened. */
  connects: number;
  /** How often the learner asked for a pause. */
  overloaded: number;
  /** Frames of rows that the learner refused. */
  refused: number;
  /** Messages that are none, or came at the wrong moment. */
  rejected: number;
  /** Rows lost: the ring was full before they were sent or acknowledged. */
  rowsDropped: number;
  /** Rows sent, again or for the first time. */
  rowsSent: number;
  /** Sessions agreed upon. */
  sessions: number;
  /** Connections given up because nothing came in time. */
  timeouts: number;
  /** Pushes of weights taken. */
  weights: number;
  /** Pushes of weights refused. */
  weightsRefused: number;
}

/** The settings that there are, for what is refused before a worker is started. */
export const ACTOR: string[] = ['evaluateEvery', 'exploration', 'hz', 'name', 'ring', 'safeAction', 'seed', 'weights'];
