// A student's options, and how they become the engine's configuration: the same settings in another spelling.

import type { BoxSpace, Environment, EnvironmentName } from './environment.js';
import { ConfigError } from './errors.js';

/** A number, or one that moves from `start` to `end` over `steps` environment steps. */
export type Schedule = number | { start: number; end: number; steps: number };

/** QR-DQN's settings, for discrete actions; what is left out has the engine's default. */
export interface QrDqnOptions extends LearningOptions {
  name?: 'qr-dqn';
  /** Quantiles for each action. */
  quantiles?: number;
  /** Let the online network choose the next action. */
  double?: boolean;
  /** Act with the target network, which averages the online one over time. */
  actWithTarget?: boolean;
}

/** Soft actor-critic's settings, for either kind of actions; what is left out has the engine's default. */
export interface SacOptions extends LearningOptions {
  name: 'sac';
  /** Temperature at the start. */
  initialAlpha?: number;
  /** Actions drawn for each state in the teachers' term, from a uniform and from the policy each. */
  samples?: number;
}

/**
 * Proximal policy optimisation's settings, for either kind of actions; what is left out has the engine's default. It learns
 * from rollouts, and takes no notice of `learningStarts`, `trainEvery`, `updates` and `epsilon`.
 */
export interface PpoOptions extends LearningOptions {
  name: 'ppo';
  /** Environment steps from one round of updates to the next: a multiple of `batchSize`. */
  nSteps?: number;
  /** How often each step is learnt from. */
  epochs?: number;
  /** How far the probability of an action may move. */
  clip?: number;
  /** Lambda of generalised advantage estimation. */
  gaeLambda?: number;
  /** Weight of the value function's squared error. */
  valueWeight?: number;
  /** Weight of the policy's entropy. */
  entropyWeight?: number;
  /** Longest gradient of policy and value function together. */
  maxGradNorm?: number;
  /** Logarithm of a continuous action's standard deviation at the start. */
  initialLogStd?: number;
  /** Auxiliary critics that learn from the replay buffer and take what teachers know: OTO's fusion policy. */
  fusion?: boolean;
  /** Temperature of the critics' targets and of the auxiliary loss. */
  temperature?: number;
  /** Weight of the auxiliary loss. */
  auxiliary?: number;
  /** Actions drawn for each state in the critics' part of the teachers' term. */
  samples?: number;
}

/** What every algorithm is told. */
export interface LearningOptions {
  /** Widths of the hidden layers. */
  hidden?: number[];
  /** Transitions in an update. */
  batchSize?: number;
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
  /** Every evaluation of at least `atReturn` multiplies the learning rate by `factor`, down to its share `floor`; others divide it again,
   * or put back the parameters of the last good one, at most `setbacks` times in a row. */
  settle?: { atReturn: number; factor: number; floor: number; setbacks: number } | null;
}

/** The weights of the teachers' term (OTO, eq. 13), and how states are sent to them. */
export interface TransferOptions {
  alphaAikd?: Schedule;
  delta?: number;
  eta?: number;
  alphaTask?: number;
  /** Learning rate during the Transfer stage; `null`: the algorithm's own. */
  learningRate?: Schedule | null;
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
  /** End a stage that has lasted `afterSteps` without one evaluation of `belowReturn`, and forget what was learnt. */
  giveUp?: { afterSteps: number; belowReturn: number };
}

/** The stages and their ends; a stage that is `null` is passed over, and so is `offline` where it is left out. */
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
  /** Left out where the spaces fit as they are, or the pair is one the engine knows: InvertedPendulum for CartPole. */
  adapter?: Adapter;
  /** How states travel: as 32-bit (the default) or 16-bit numbers. */
  dtype?: 'f32' | 'f16';
  /**
   * Where the student gets its ticket, before each connection, if the server wants one (docs/serving.md). `true`: from that server,
   * which knows the page by its origin; an address: by POST from the page's own server, which answers as `/v1/ticket` does.
   */
  ticket?: boolean | string;
  /** How much it counts beside the other teachers, 1 if left out; 0 leaves it unasked. Only ratios matter: together they count `transfer.alphaAikd`. */
  weight?: number;
  /** Whether the teacher gets the replay buffer at the end of the Online stage and of the run, if it takes it; false unless given. */
  submit?: boolean;
}

/** Everything a student is made of. */
export interface StudentOptions {
  /** A built-in environment by name, or one of the page's own. */
  env: EnvironmentName | Environment;
  /** Left out: QR-DQN for discrete actions, soft actor-critic for continuous ones. */
  algorithm?: 'qr-dqn' | 'sac' | 'ppo' | QrDqnOptions | SacOptions | PpoOptions;
  teachers?: TeacherOptions[];
  transfer?: TransferOptions;
  /** Left out: taught where there are teachers (and, where it is known what solved means, alone once they lead nowhere), otherwise alone. */
  stages?: Stages;
  /** Greedy evaluation during training: every so many steps (0: never), over so many episodes. Built-in environments only. */
  evaluation?: { every?: number; episodes?: number };
  /** `lockstep`: labels enter at a fixed lag, and the same seed gives the same curve. `async`: nothing waits for labels. */
  clock?: 'lockstep' | 'async';
  /** Where the updates run. `auto` times both on the student's own program and takes the faster; see `metrics().backend`. */
  backend?: 'cpu' | 'webgpu' | 'auto';
  /** Environment steps of the whole run, which schedules and `train()` without `steps` end at. */
  steps?: number;
  /** Draws parameters, exploration, batches and episodes; a whole number from 0. */
  seed?: number;
}

const KNOWN = ['env', 'algorithm', 'teachers', 'transfer', 'stages', 'evaluation', 'clock', 'backend', 'steps', 'seed'];

/** The settings of networks and optimiser; the engine keeps an algorithm's together, apart from the training loop's. */
const NETWORK = [
  'hidden', 'batchSize', 'adam', 'samples',
  'quantiles', 'double', 'actWithTarget',
  'initialAlpha',
  'nSteps', 'epochs', 'clip', 'gaeLambda', 'valueWeight', 'entropyWeight', 'maxGradNorm', 'initialLogStd', 'fusion', 'temperature', 'auxiliary',
];

/** What the engine calls the algorithms. */
const ALGORITHMS: Record<string, string> = { 'qr-dqn': 'qrdqn', sac: 'sac', ppo: 'ppo' };

/** Settings that may be a plain number instead of a schedule. */
const SCHEDULES = ['learningRate', 'epsilon', 'alphaAikd'];

/**
 * The engine's configuration as JSON (`crates/oto-web/src/config.rs`). What is left out stays out: the engine has the
 * defaults, checks every value, and refuses what it does not know.
 */
export function toConfig(options: StudentOptions): string {
  checkObject('the options', options);
  for (const key of Object.keys(options)) {
    if (!KNOWN.includes(key)) throw new ConfigError(`${key} is no option; there are ${KNOWN.join(', ')}`, key);
  }
  const { env, algorithm, teachers = [], transfer = {}, stages, ...rest } = options;
  if (!Array.isArray(teachers)) throw new ConfigError('teachers must be an array', 'teachers');
  const { requestBatch, labelLag, ...weights } = checkObject('transfer', transfer);
  const student = {
    ...rest,
    ...(algorithm === undefined ? {} : toAlgorithm(algorithm)),
    transfer: weights,
    stages,
    requestBatch,
    labelLag,
  };
  const links = teachers.map((teacher) => ({ ...checkObject('a teacher', teacher), ticket: undefined }));
  return JSON.stringify({ student: toEngine(student, 'student'), env: toEnvironment(env), teachers: links });
}

/** The address that gives tickets for each teacher, `null` where none is wanted. Addresses are the page's, not its worker's. */
export function ticketAddresses({ teachers = [] }: StudentOptions): (string | null)[] {
  return teachers.map(({ url, ticket = false }) => {
    if (ticket === false) return null;
    try {
      if (typeof ticket !== 'string' && ticket !== true) throw new TypeError();
      if (ticket === true) return new URL('/v1/ticket', url.replace(/^ws/, 'http')).href;
      return new URL(ticket, globalThis.location?.href).href;
    } catch {
      throw new ConfigError(`ticket must be true or an address, it is ${JSON.stringify(ticket)} for ${JSON.stringify(url)}`, 'ticket');
    }
  });
}

function toEnvironment(env: StudentOptions['env'] | undefined): unknown {
  if (typeof env === 'string') return env;
  const { observationSpace, actionSpace } = checkObject('env', env as Environment);
  return { observation: toSpace(observationSpace), action: actionSpace?.kind === 'box' ? toSpace(actionSpace) : actionSpace };
}

/** JSON has no infinity; null stands for it. */
function toSpace({ kind, low, high }: BoxSpace): BoxSpace {
  const bound = (value: number | null) => (value === Infinity || value === -Infinity ? null : value);
  return { kind, low: low.map(bound), high: high.map(bound) };
}

function toAlgorithm(algorithm: NonNullable<StudentOptions['algorithm']>): object {
  const { name = 'qr-dqn', ...settings } = typeof algorithm === 'string' ? { name: algorithm } : checkObject('algorithm', algorithm);
  const engine = ALGORITHMS[name];
  if (engine === undefined) throw new ConfigError(`algorithm must be "qr-dqn", "sac" or "ppo", it is ${JSON.stringify(name)}`, 'algorithm');
  const entries = Object.entries(settings);
  const inNetwork = ([key]: [string, unknown]) => NETWORK.includes(key);
  return { algorithm: engine, [engine]: Object.fromEntries(entries.filter(inNetwork)), ...Object.fromEntries(entries.filter((e) => !inNetwork(e))) };
}

/** Settings in the engine's spelling. JSON would turn NaN and infinity into null without a word; here they are refused. */
function toEngine(value: unknown, key: string): unknown {
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new ConfigError(`${key} must be a finite number, it is ${value}`, key);
    return SCHEDULES.includes(key) ? { start: value, end: value, steps: 0 } : value;
  }
  if (Array.isArray(value)) return value.map((inner) => toEngine(inner, key));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [snakeCase(name), toEngine(inner, name)]));
}

function snakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function checkObject<T extends object>(place: string, value: T): T {
  if (typeof value === 'object' && value !== null) return value;
  throw new ConfigError(`${place} must be an object, it is ${String(value)}`, place);
}
