// What training reports. The engine writes JSON in its own spelling; here it gets JavaScript's.

/** Where a student stands: alone before its teachers, with them, or alone after them. */
export type Stage = 'offline' | 'transfer' | 'online';

/** A finished training episode. */
export interface Episode {
  /** The environment step at which it ended. */
  step: number;
  /** Its undiscounted return. */
  return: number;
  /** Its number of steps. */
  length: number;
}

/** Greedy episodes. */
export interface Evaluation {
  /** The environment step of training at which they were played. */
  step: number;
  /** Mean, lowest and highest return. */
  mean: number;
  min: number;
  max: number;
  /** How many episodes. */
  episodes: number;
  /**
   * What others return in these very episodes, for comparison. Only cell selection has them: the strongest station, which is
   * how cell selection is done, and the best plan, above which nobody can be.
   */
  yardsticks: Yardstick[];
}

/** What somebody returns, on average over episodes. */
export interface Yardstick {
  name: string;
  mean: number;
}

/**
 * How a teacher's link stands: `connecting` and `greeting` until the server has welcomed the student, `ready` while it
 * answers, `waiting` before it connects again, `failed` once the server has refused for good.
 */
export type LinkState = 'off' | 'waiting' | 'connecting' | 'greeting' | 'ready' | 'failed';

/** One teacher's link. */
export interface TeacherMetrics {
  state: LinkState;
  /** The policy's name. */
  policy: string;
  /** The newest version of the policy that is known; 0 before the first welcome. */
  version: number;
  /** Milliseconds until it connects again, while `waiting`. */
  retryInMs: number | null;
  /** What went wrong last, as long as nothing went right since. */
  problem: string | null;
  /** States that are in no request yet, and requests without an answer. */
  pending: number;
  waiting: number;
  stats: LinkStats;
}

/** Counters of a link. Bytes are those of messages, WebSocket framing aside. */
export interface LinkStats {
  connects: number;
  welcomes: number;
  reconnects: number;
  requests: number;
  statesSent: number;
  transitionsSent: number;
  statesDropped: number;
  labelsReceived: number;
  bytesUp: number;
  bytesDown: number;
  timeouts: number;
  overloaded: number;
  refused: number;
  /** Messages that did not count, by reason. */
  rejected: Record<string, number>;
  /** Time from the last request to its answer, and a running mean, in milliseconds. */
  rttMs: number;
  rttMeanMs: number;
}

/** The parts of the last update's loss (OTO, eq. 8 to 14), and the mean of Q over its batch. */
export interface Loss {
  loss: number;
  task: number;
  base: number;
  rkdD: number;
  rkdA: number;
  q: number;
}

/** A backend that was timed on the student's own program, or why it could not be. */
export interface TriedBackend {
  name: 'cpu' | 'webgpu';
  updatesPerSecond: number | null;
  error: string | null;
}

/** What runs the updates. */
export interface Backend {
  name: 'cpu' | 'webgpu';
  /** What `auto` chose from; empty where a backend was asked for by name. */
  tried: TriedBackend[];
  /** In a sentence: another one's device was lost, why, and what goes on from which update. */
  lost: string | null;
}

/** Where training stands, and what happened since metrics were taken last. */
export interface Metrics {
  /** Environment steps so far, and in the whole run. */
  step: number;
  steps: number;
  /** Updates so far. */
  updates: number;
  /** Finished training episodes. */
  episodes: number;
  stage: Stage;
  /** How often all stages were gone through. */
  rounds: number;
  /** Whether the run is over. */
  done: boolean;
  /** Share of random actions now. */
  epsilon: number;
  /** The learning rate of the next update; the Transfer stage may have one of its own (`transfer.learningRate`). */
  learningRate: number;
  /** Mean return of the last evaluation. */
  lastEvaluation: number | null;
  loss: Loss | null;
  backend: Backend;
  /** Labels that came for the student's states, from all teachers. */
  labels: number;
  /** Raw transitions that left the student, repetitions included: none unless it submits. */
  transitionsSent: number;
  /** Those of them that a teacher keeps. */
  transitionsKept: number;
  /** Environment steps and updates per second, over the last half second or more. */
  stepsPerSecond: number;
  updatesPerSecond: number;
  /** Episodes and evaluations since metrics were taken last, the newest 1,000 at most. */
  newEpisodes: Episode[];
  newEvaluations: Evaluation[];
  teachers: TeacherMetrics[];
}

/** Parses the engine's JSON, whose keys are in snake_case, into objects whose keys are in camelCase. */
export function fromEngine<T>(json: string): T {
  return JSON.parse(json, (_, value: unknown) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [camelCase(key), inner]));
  }) as T;
}

/** `batch_size` as `batchSize`. */
export function camelCase(key: string): string {
  return key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
