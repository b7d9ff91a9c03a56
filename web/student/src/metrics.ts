// What training reports. The engine writes it as JSON in its own spelling; here it gets JavaScript's.

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
  /** Their mean return. */
  mean: number;
  /** Each one's return. */
  returns: number[];
}

/**
 * How a teacher's link stands: `connecting`, `ready` (answers come), `waiting` (the connection was lost, another is made
 * after a pause), `off` (cut by the page), or `refused` (the server said no for good; `error` says why).
 */
export type LinkState = 'connecting' | 'ready' | 'waiting' | 'off' | 'refused';

/** One teacher's link. Bytes are those of messages, without WebSocket framing. */
export interface TeacherMetrics {
  state: LinkState;
  /** Milliseconds until the next attempt, while `waiting`. */
  retryIn: number | null;
  /** The last failure, in words for people. */
  error: string | null;
  /** Version of the policy that answered last; 0 before the first answer. */
  version: number;
  statesSent: number;
  labels: number;
  bytesUp: number;
  bytesDown: number;
  reconnects: number;
}

/** The parts of the last update's loss (OTO, eq. 8 to 14). */
export interface Loss {
  loss: number;
  task: number;
  base: number;
  rkdD: number;
  rkdA: number;
}

/** Where training stands, and what happened since metrics were taken last. */
export interface Metrics {
  /** Environment steps so far. */
  step: number;
  /** Updates so far. */
  updates: number;
  stage: Stage;
  /** Environment steps and updates per second, over the last second or so; 0 while paused. */
  stepsPerSecond: number;
  updatesPerSecond: number;
  /** Labels received from all teachers. */
  labels: number;
  loss: Loss | null;
  /** Episodes finished since metrics were taken last, the newest 1,000 at most. */
  episodes: Episode[];
  /** Evaluations made since metrics were taken last, the newest 1,000 at most. */
  evaluations: Evaluation[];
  teachers: TeacherMetrics[];
}

/** Reads the engine's metrics. */
export function toMetrics(json: string): Metrics {
  return parse(json) as Metrics;
}

/** Reads the engine's evaluation. */
export function toEvaluation(json: string): Evaluation {
  return parse(json) as Evaluation;
}

/** Parses JSON whose keys are in snake_case into objects whose keys are in camelCase. */
function parse(json: string): unknown {
  return JSON.parse(json, (_, value: unknown) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [camelCase(key), inner]));
  });
}

function camelCase(key: string): string {
  return key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
