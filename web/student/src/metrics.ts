// What training reports (`crates/oto-web/src/report.rs`).

/** A student's stage: alone before its teachers, with them, or alone after them. */
export type Stage = 'offline' | 'transfer' | 'online';

/** A finished training episode. */
export interface Episode {
  /** The environment step of its end. */
  step: number;
  /** Its undiscounted return. */
  return: number;
  /** Its number of steps. */
  length: number;
}

/** Greedy episodes. */
export interface Evaluation {
  /** The environment step of training at the time of the evaluation. */
  step: number;
  /** Mean, lowest and highest return. */
  mean: number;
  min: number;
  max: number;
  /** Number of episodes. */
  episodes: number;
  /**
   * Baselines: the returns of other policies in the same episodes. Only cell selection has them: the strongest-station rule, the
   * usual method of cell selection, and the optimal plan, an upper bound.
   */
  baselines: Baseline[];
}

/** A policy's return, averaged over episodes. */
export interface Baseline {
  name: string;
  mean: number;
}

/**
 * The state of a teacher's link: `connecting` and `greeting` until the server's welcome, `ready` while the server
 * answers, `waiting` before the next attempt, `failed` after a permanent refusal.
 */
export type LinkState = 'off' | 'waiting' | 'connecting' | 'greeting' | 'ready' | 'failed';

/** One teacher's link. */
export interface TeacherMetrics {
  state: LinkState;
  /** The policy's name. */
  policy: string;
  /** The newest known version of the policy; 0 before the first welcome. */
  version: number;
  /** Milliseconds until the next attempt, while `waiting`. */
  retryInMs: number | null;
  /** The last failure, until the next success. */
  problem: string | null;
  /** States without a request, and requests without an answer. */
  pending: number;
  waiting: number;
  stats: LinkStats;
}

/** Counters of a link. Bytes are those of messages, without WebSocket framing. */
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
  /** The part of these bytes that are states, and answers. */
  payloadUp: number;
  payloadDown: number;
  timeouts: number;
  overloaded: number;
  refused: number;
  /** Rejected messages, by reason. */
  rejected: Record<string, number>;
  /** Time from the last request to its answer, and a running mean, in milliseconds. */
  rttMs: number;
  rttMeanMs: number;
}

/**
 * The parts of the last update's loss (OTO, eq. 8 to 14), the mean of Q over its batch, and the algorithm's own numbers by their
 * names, such as `actorLoss`. docs/metrics.md lists them.
 */
export interface Loss {
  [name: string]: number;
  loss: number;
  task: number;
  base: number;
  rkdD: number;
  rkdA: number;
  q: number;
}

/** The measured speed of a backend on the student's own program, or the reason why there is none. */
export interface TriedBackend {
  name: 'cpu' | 'webgpu';
  updatesPerSecond: number | null;
  error: string | null;
}

/** The backend of the updates. */
export interface Backend {
  name: 'cpu' | 'webgpu';
  /** The candidates of `auto`; empty if the options name a backend. */
  tried: TriedBackend[];
  /** A sentence about a lost device: the reason, the new backend and the update of the change. */
  lost: string | null;
}

/** The conversation with the server of a shared agent. */
export interface ShareMetrics {
  agent: string;
  /** This worker's name. */
  name: string;
  state: LinkState;
  /** The version of the newest parameters: the updates that all workers have made. */
  version: number;
  /** What went wrong last, until it is well again. */
  problem: string | null;
  stats: {
    connects: number;
    sessions: number;
    timeouts: number;
    /** Gradients sent, and those that the server refused. */
    sent: number;
    refused: number;
    overloaded: number;
    /** Parameters taken. */
    parameters: number;
    rejected: number;
    bytesUp: number;
    bytesDown: number;
  };
}

/** The progress of training, and the events since the last metrics. */
export interface Metrics {
  /** Environment steps so far, and in the whole run. */
  step: number;
  steps: number;
  /** Updates so far. */
  updates: number;
  /** Finished training episodes. */
  episodes: number;
  stage: Stage;
  /** Completed rounds of all stages. */
  rounds: number;
  /** Whether the run is over. */
  done: boolean;
  /** Current share of random actions. */
  epsilon: number;
  /** The learning rate of the next update. The Transfer stage may have a separate one (`transfer.learningRate`). */
  learningRate: number;
  /** Mean return of the last evaluation. */
  lastEvaluation: number | null;
  loss: Loss | null;
  backend: Backend;
  /** Labels received from all teachers. */
  labels: number;
  /** Submitted transitions, repetitions included; 0 without `submit`. */
  transitionsSent: number;
  /** Transitions acknowledged by a teacher. */
  transitionsKept: number;
  /** Environment steps and updates per second, over at least the last half second. */
  stepsPerSecond: number;
  updatesPerSecond: number;
  /** Episodes and evaluations since the last metrics, the newest 1,000 at most. */
  newEpisodes: Episode[];
  newEvaluations: Evaluation[];
  teachers: TeacherMetrics[];
  /** Of a student that works for a shared agent. */
  share?: ShareMetrics;
}
