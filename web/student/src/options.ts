// A student's options, and how they become the engine's configuration: the same settings in another spelling.

import type { BoxSpace, Environment, EnvironmentName } from './environment.js';
import { ConfigError } from './errors.js';

/** A number, or one that moves from `start` to `end` over `steps` environment steps. */
export type Schedule = number | { start: number; end: number; steps: number };

/** QR-DQN's settings; what is left out has the engine's default. */
export interface QrDqnOptions {
  name?: 'qr-dqn';
  /** Widths of the hidden layers. */
  hidden?: number[];
  /** Quantiles for each action. */
  quantiles?: number;
  /** Transitions in an update. */
  batchSize?: number;
  /** Let the online network choose the next action. */
  double?: boolean;
  adam?: { beta1?: number; beta2?: number; epsilon?: number };
  /** Discount factor. */
  gamma?: number;
  /** Rewards summed before the bootstrap. */
  nStep?: number;
  /** Transitions kept. */
  buffer?: number;
  /** Environment steps before the first update. */
  learningStarts?: number;
  /** Environment steps from one round of updates to the next. */
  trainEvery?: number;
  /** Updates in a round. */
  updates?: number;
  learningRate?: Schedule;
  /** Share of random actions. */
  epsilon?: Schedule;
  /** The target network is replaced every so many updates; 0 leaves that to `targetTau`. */
  targetEvery?: number;
  /** Share of the parameters that the target network takes over at every update. */
  targetTau?: number;
}

/** The weights of the teachers' term (OTO, eq. 13), and how states are sent to them. */
export interface TransferOptions {
  alphaAikd?: Schedule;
  delta?: number;
  eta?: number;
  alphaTask?: number;
  /** States in a request to a teacher. */
  requestBatch?: number;
  /** Lockstep: labels enter so many environment steps after their request. */
  labelLag?: number;
}

/** What ends a stage: whichever comes first. `{}` never ends. */
export interface StageEnd {
  steps?: number;
  seconds?: number;
  /** A greedy evaluation's mean return. */
  returnAtLeast?: number;
}

/** The stages and their ends; a stage that is `null` is passed over. */
export interface Stages {
  offline?: StageEnd | null;
  transfer?: StageEnd | null;
  online?: StageEnd | null;
  /** Start over after the last. */
  loop?: boolean;
}

/** How a student's observation becomes the teacher's: `teacher[i] = student[permutation[i]] * scale[i] + offset[i]`. */
export interface ObservationMap {
  permutation?: number[];
  scale?: number[];
  offset?: number[];
}

/** How the teacher's action becomes the student's. */
export type ActionMap =
  | { kind: 'identity' }
  | { kind: 'sign'; component?: number; negative?: number; positive?: number }
  | { kind: 'threshold'; component?: number; at: number[] }
  | { kind: 'table'; map: number[] };

/** Maps between a student's spaces and a teacher's; the server carries it out. */
export interface Adapter {
  observation?: ObservationMap;
  action?: ActionMap;
}

/** A teacher and where it is. */
export interface TeacherOptions {
  /** `ws://` or `wss://` address of a server's `/v1/teach`. */
  url: string;
  /** Name of one of its policies. */
  policy: string;
  /** Left out where the spaces fit as they are. */
  adapter?: Adapter;
}

/** Everything a student is made of. */
export interface StudentOptions {
  /** A built-in environment by name, or one of the page's own. */
  env: EnvironmentName | Environment;
  algorithm?: 'qr-dqn' | QrDqnOptions;
  teachers?: TeacherOptions[];
  transfer?: TransferOptions;
  /** Left out: taught throughout where there are teachers, otherwise alone throughout. */
  stages?: Stages;
  /** Greedy evaluation during training: every so many steps (0: never), over so many episodes. Built-in environments only. */
  evaluation?: { every?: number; episodes?: number };
  /** `lockstep`: labels enter at a fixed lag, and the same seed gives the same curve. `async`: nothing waits for labels. */
  clock?: 'lockstep' | 'async';
  /** Where the arithmetic runs; `webgpu` and `auto` are not available yet. */
  backend?: 'cpu' | 'webgpu' | 'auto';
  /** Environment steps of the whole run, which schedules and `train()` without `steps` end at. */
  steps?: number;
  /** Draws parameters, exploration, batches and episodes; a whole number from 0. */
  seed?: number;
}

/** Every option there is, so that a misspelt one is refused instead of ignored. */
const KNOWN: Record<string, readonly string[]> = {
  '': ['env', 'algorithm', 'teachers', 'transfer', 'stages', 'evaluation', 'clock', 'backend', 'steps', 'seed'],
  algorithm: [
    ...['name', 'hidden', 'quantiles', 'batchSize', 'double', 'adam', 'gamma', 'nStep', 'buffer', 'learningStarts'],
    ...['trainEvery', 'updates', 'learningRate', 'epsilon', 'targetEvery', 'targetTau'],
  ],
  'algorithm.adam': ['beta1', 'beta2', 'epsilon'],
  transfer: ['alphaAikd', 'delta', 'eta', 'alphaTask', 'requestBatch', 'labelLag'],
  stages: ['offline', 'transfer', 'online', 'loop'],
  stage: ['steps', 'seconds', 'returnAtLeast'],
  evaluation: ['every', 'episodes'],
  teacher: ['url', 'policy', 'adapter'],
};

/**
 * The engine's configuration as JSON (`crates/oto-web/src/config.rs`). What is left out stays out: the engine has the
 * defaults, and checks every value.
 */
export function toConfig(options: StudentOptions): string {
  checkKeys('', options);
  const { env, algorithm = {}, transfer = {}, stages, evaluation, clock, backend, steps, seed } = options;
  const teachers = options.teachers ?? [];
  if (!Array.isArray(teachers)) throw new ConfigError('teachers must be an array', 'teachers');
  teachers.forEach((teacher, i) => checkKeys(`teachers[${i}]`, teacher, 'teacher'));
  const { requestBatch, labelLag, alphaAikd, delta, eta, alphaTask } = checkKeys('transfer', transfer);
  const student = {
    seed,
    steps,
    backend,
    clock,
    ...toAlgorithm(algorithm),
    transfer: { alpha_aikd: toLinear(alphaAikd), delta, eta, alpha_task: alphaTask },
    stages: toStages(stages, teachers.length > 0),
    evaluation: evaluation && checkKeys('evaluation', evaluation),
    request_batch: requestBatch,
    label_lag: labelLag,
  };
  return JSON.stringify({ student, env: toEnvironment(env), teachers }, refuseNonNumbers);
}

function toEnvironment(env: StudentOptions['env'] | undefined): unknown {
  if (typeof env === 'string') return env;
  if (typeof env !== 'object' || env === null) {
    throw new ConfigError(`env must be a built-in environment's name or an object, it is ${env}`, 'env');
  }
  return { observation: toSpace(env.observationSpace), action: env.actionSpace };
}

/** JSON has no infinity; null stands for it. */
function toSpace({ kind, low, high }: BoxSpace): BoxSpace {
  const bound = (value: number | null) => (value === Infinity || value === -Infinity ? null : value);
  return { kind, low: low.map(bound), high: high.map(bound) };
}

function toAlgorithm(algorithm: 'qr-dqn' | QrDqnOptions): object {
  if (typeof algorithm === 'string') algorithm = { name: algorithm };
  const { name = 'qr-dqn', hidden, quantiles, double, adam, ...rest } = checkKeys('algorithm', algorithm);
  if (name !== 'qr-dqn') throw new ConfigError(`algorithm must be "qr-dqn", it is ${JSON.stringify(name)}`, 'algorithm');
  if (adam !== undefined) checkKeys('algorithm.adam', adam);
  return {
    qrdqn: { hidden, quantiles, batch_size: rest.batchSize, double, adam },
    gamma: rest.gamma,
    n_step: rest.nStep,
    buffer: rest.buffer,
    learning_starts: rest.learningStarts,
    train_every: rest.trainEvery,
    updates: rest.updates,
    learning_rate: toLinear(rest.learningRate),
    epsilon: toLinear(rest.epsilon),
    target_every: rest.targetEvery,
    target_tau: rest.targetTau,
  };
}

function toLinear(schedule: Schedule | undefined): object | undefined {
  return typeof schedule === 'number' ? { start: schedule, end: schedule, steps: 0 } : schedule;
}

function toStages(stages: Stages | undefined, taught: boolean): object {
  if (stages === undefined) return taught ? { transfer: {}, online: null } : { transfer: null, online: {} };
  checkKeys('stages', stages);
  const end = (name: 'offline' | 'transfer' | 'online') => {
    const stage = stages[name];
    if (stage === undefined || stage === null) return null;
    const { steps, seconds, returnAtLeast } = checkKeys(`stages.${name}`, stage, 'stage');
    return { steps, seconds, return_at_least: returnAtLeast };
  };
  return { offline: end('offline'), transfer: end('transfer'), online: end('online'), loop: stages.loop };
}

/** Refuses keys that are no option; `kind` names the list in `KNOWN` where it is not the place itself. */
function checkKeys<T extends object>(place: string, options: T, kind = place): T {
  if (typeof options !== 'object' || options === null) {
    throw new ConfigError(`${place || 'the options'} must be an object, it is ${options}`, place);
  }
  const known = KNOWN[kind] ?? [];
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) {
      const field = place === '' ? key : `${place}.${key}`;
      throw new ConfigError(`${field} is no option; there are ${known.join(', ')}`, field);
    }
  }
  return options;
}

/** JSON would turn NaN and infinity into null without a word. */
function refuseNonNumbers(key: string, value: unknown): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) {
    throw new ConfigError(`${key} must be a finite number, it is ${value}`, key);
  }
  return value;
}
