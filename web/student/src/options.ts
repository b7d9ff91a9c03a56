// A student's options, and how they become the engine's configuration: the same settings in another spelling.

import type { EngineSpaces, Environment, EnvironmentFactory, EnvironmentName } from './environment.js';
import { ConfigError, reasonOf } from './errors.js';
import { show } from './spaces.js';

/** A number, or one that moves from `start` to `end` over `steps` environment steps. */
export type Schedule = number | { start: number; end: number; steps: number };

/** QR-DQN's settings, for discrete actions. */
export interface QrDqnOptions extends LearningOptions {
  name?: 'qr-dqn';
  /** What sees observations that are images; `hidden` goes on from there. Default: none. */
  convolution?: Convolution;
  /** Quantiles for each action. Default: 25. */
  quantiles?: number;
  /** Let the online network choose the next action. Default: true. */
  double?: boolean;
  /** Act with the target network, which averages the online one over time. Default: true. */
  actWithTarget?: boolean;
}

/** Convolutions over an image, ReLU after each. */
export interface Convolution {
  /**
   * Channels, height and width: an observation has all pixels of the first channel, row by row, then those of the next, as
   * numbers from 0 to 255.
   */
  shape: [channels: number, height: number, width: number];
  /** First to last: how many kernels, their side and their distance in pixels. */
  layers: { channels: number; kernel: number; stride: number }[];
}

/** Soft actor-critic's settings, for either kind of actions. */
export interface SacOptions extends LearningOptions {
  name: 'sac';
  /** Temperature at the start. Default: 1. */
  initialAlpha?: number;
  /** Actions drawn for each state in the teachers' term, from a uniform and from the policy each. Default: 4. */
  samples?: number;
}

/**
 * Proximal policy optimisation's settings, for either kind of actions. It learns from rollouts, and takes no notice of
 * `learningStarts`, `trainEvery`, `updates` and `epsilon`.
 */
export interface PpoOptions extends LearningOptions {
  name: 'ppo';
  /** Environment steps from one round of updates to the next: a multiple of `batchSize`. Default: 2048. */
  nSteps?: number;
  /** How often each step is learnt from. Default: 10. */
  epochs?: number;
  /** How far the probability of an action may move, as a share. Default: 0.2. */
  clip?: number;
  /** Lambda of generalised advantage estimation. Default: 0.95. */
  gaeLambda?: number;
  /** Weight of the value function's squared error. Default: 0.5. */
  valueWeight?: number;
  /** Weight of the policy's entropy. Default: 0. */
  entropyWeight?: number;
  /** Longest gradient of policy and value function together. Default: 0.5. */
  maxGradNorm?: number;
  /** Logarithm of a continuous action's standard deviation at the start. Default: 0. */
  initialLogStd?: number;
  /** Auxiliary critics that learn from the replay buffer and take what teachers know: OTO's fusion policy. Default: false. */
  fusion?: boolean;
  /** Temperature of the critics' targets and of the auxiliary loss. Default: 0.2. */
  temperature?: number;
  /** Weight of the auxiliary loss. Default: 1. */
  auxiliary?: number;
  /** Actions drawn for each state in the critics' part of the teachers' term. Default: 8. */
  samples?: number;
}

/**
 * What every algorithm is told. Defaults, here and below, are those in an environment of the page's own: QR-DQN's, and after
 * an algorithm's name its own. Built-in environments have some that suit them.
 */
export interface LearningOptions {
  /** Widths of the hidden layers. Default: [128, 128]; SAC: [256, 256]; PPO: [64, 64]. */
  hidden?: number[];
  /** Transitions in an update. Default: 64; SAC: 256. */
  batchSize?: number;
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }; PPO: { beta1: 0.9, beta2: 0.999, epsilon: 1e-5 }. */
  adam?: { beta1?: number; beta2?: number; epsilon?: number };
  /** Discount factor. Default: 0.99. */
  gamma?: number;
  /** Rewards summed before the bootstrap. Default: 1. */
  nStep?: number;
  /** Transitions kept. Default: 100_000; SAC: 1_000_000. */
  buffer?: number;
  /** Environment steps before the first update. Default: 128; SAC: 100. */
  learningStarts?: number;
  /** Environment steps from one round of updates to the next. Default: 2; SAC: 1; PPO: 1. */
  trainEvery?: number;
  /** Updates in a round. Default: 1. */
  updates?: number;
  /** Adam's. Left out, QR-DQN's falls over the whole run. Default: { start: 6.3e-4, end: 6.3e-5, steps: 50_000 }; SAC: 3e-4; PPO: 3e-4. */
  learningRate?: Schedule;
  /** Share of random actions. Left out, QR-DQN's falls over 12 % of the run. Default: { start: 1, end: 0.1, steps: 6_000 }; SAC: { start: 1, end: 0, steps: 100 }; PPO: 0. */
  epsilon?: Schedule;
  /** The target network is replaced every so many updates; 0 leaves that to `targetTau`. Default: 0. */
  targetEvery?: number;
  /** Share of the parameters that the target network takes over at every update. Default: 0.005. */
  targetTau?: number;
  /** Every evaluation of at least `atReturn` multiplies the learning rate by `factor`, down to its share `floor`; others divide it again,
   * or put back the parameters of the last good one, at most `setbacks` times in a row. Default: null. */
  settle?: { atReturn: number; factor: number; floor: number; setbacks: number } | null;
}

/** The weights of the teachers' term (OTO, eq. 13), and how states are sent to them. */
export interface TransferOptions {
  /** The whole term, over the steps of the Transfer stage. Default: { start: 10, end: 1, steps: 5_000 }. */
  alphaAikd?: Schedule;
  /** BASE within it, the actions of teachers. Default: 1. */
  delta?: number;
  /** Both RKD parts within it, the relations between actions. Default: 0.2; PPO: 5. */
  eta?: number;
  /** The student's own loss beside it. Default: 1. */
  alphaTask?: number;
  /** Learning rate during the Transfer stage; `null`: the algorithm's own. Default: null. */
  learningRate?: Schedule | null;
  /** States in a request to a teacher. Default: 8. */
  requestBatch?: number;
  /** Lockstep: labels enter so many environment steps after their request. Default: 8. */
  labelLag?: number;
}

/** What ends a stage: whichever comes first. `{}` never ends. */
export interface StageEnd {
  /** Environment steps in the stage. */
  steps?: number;
  /** Seconds in the stage. */
  seconds?: number;
  /** A greedy evaluation's mean return. */
  returnAtLeast?: number;
  /** End a stage that has lasted `afterSteps` without one evaluation of `belowReturn`, and forget what was learnt. */
  giveUp?: { afterSteps: number; belowReturn: number };
}

/** The stages and their ends; a stage that is `null` is passed over, and so is `offline` where it is left out. */
export interface Stages {
  /** Alone, before the teachers. */
  offline?: StageEnd | null;
  /** With them. */
  transfer?: StageEnd | null;
  /** Alone, after them. */
  online?: StageEnd | null;
  /** Start over after the last. False unless given. */
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
  /** `ws://` or `wss://` address of a server's `/v1/teach`, which may be left out; or a path of the page's own server. The server must know the page's origin: `oto serve --origin`. */
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
  /**
   * A built-in environment by name, one of the page's own, or a function that makes such ones: with it there are evaluations and
   * `watch()`, each in an environment apart from the one that trains. One object serves one student.
   */
  env: EnvironmentName | Environment | EnvironmentFactory;
  /** Left out: QR-DQN for discrete actions, soft actor-critic for continuous ones. */
  algorithm?: 'qr-dqn' | 'sac' | 'ppo' | QrDqnOptions | SacOptions | PpoOptions;
  /** They teach at once. Left out: the student learns alone. */
  teachers?: TeacherOptions[];
  transfer?: TransferOptions;
  /** Left out: taught where there are teachers (and, where it is known what solved means, alone once they lead nowhere), otherwise alone. */
  stages?: Stages;
  /**
   * Greedy evaluation during training: every so many steps (0: never), over so many episodes; in an environment of the page's own
   * where `env` is a function, and there with so many steps in an episode at most, 1,000 if left out.
   * Default: { every: 5_000, episodes: 10 }; SAC: { every: 1_000, episodes: 10 }; PPO: { every: 2_000, episodes: 10 }.
   */
  evaluation?: { every?: number; episodes?: number; maxSteps?: number };
  /**
   * `lockstep`: labels enter at a fixed lag, and the same seed gives the same curve, with the same module on the same kind of
   * processor: one with relaxed SIMD rounds otherwise than one without. `async`: nothing waits for labels. Default: 'lockstep'.
   */
  clock?: 'lockstep' | 'async';
  /** Where the updates run. `auto` times both on the student's own program and takes the faster; see `metrics().backend`. Default: 'cpu'. */
  backend?: 'cpu' | 'webgpu' | 'auto';
  /** Environment steps of the whole run, which schedules and `train()` without `steps` end at. Default: 50_000; SAC: 20_000; PPO: 100_000. */
  steps?: number;
  /** Draws parameters, exploration, batches and episodes; a whole number from 0. Default: 0. */
  seed?: number;
  /** Ends `create` at once, which then fails with the signal's reason. Afterwards it has no effect. */
  signal?: AbortSignal;
}

const OPTIONS = ['env', 'algorithm', 'teachers', 'transfer', 'stages', 'evaluation', 'clock', 'backend', 'steps', 'seed', 'signal'];
const TEACHER = ['url', 'policy', 'adapter', 'dtype', 'ticket', 'weight', 'submit'];

/** An algorithm: what the engine calls it, and the settings of its networks, which the engine keeps apart from the loop's. */
const ALGORITHMS: Record<string, { engine: string; network: string[] }> = {
  'qr-dqn': { engine: 'qrdqn', network: ['convolution', 'quantiles', 'double', 'actWithTarget'] },
  sac: { engine: 'sac', network: ['initialAlpha', 'samples'] },
  ppo: {
    engine: 'ppo',
    network: [
      'nSteps', 'epochs', 'clip', 'gaeLambda', 'valueWeight', 'entropyWeight', 'maxGradNorm', 'initialLogStd',
      'fusion', 'temperature', 'auxiliary', 'samples',
    ],
  },
};
/** The settings of every algorithm's networks, and those of the training loop. */
const NETWORK = ['hidden', 'batchSize', 'adam'];
const LOOP = ['gamma', 'nStep', 'buffer', 'learningStarts', 'trainEvery', 'updates', 'learningRate', 'epsilon', 'targetEvery', 'targetTau', 'settle'];

/** Settings that may be a plain number instead of a schedule. */
const SCHEDULES = ['learningRate', 'epsilon', 'alphaAikd'];

/** What the engine needs to know of an environment of the page's own. */
export interface EnginePage extends EngineSpaces {
  /** Whether there is another one for evaluations. */
  evaluates: boolean;
}

/**
 * Reads every option once. A typed array becomes an array; what JSON would drop or change without a word is refused, and so is a
 * name that is no option.
 */
export function readOptions(options: StudentOptions): StudentOptions {
  checkKnown('', options, OPTIONS);
  const kept = ['env', 'signal'];
  const entries = Object.keys(options).map((key) => [key, kept.includes(key) ? property(options, key, key) : plain(property(options, key, key), key)]);
  return Object.fromEntries(entries) as StudentOptions;
}

/** A property of the page's object, whose getter may throw. */
function property(of: object, key: string, place: string): unknown {
  try {
    return (of as Record<string, unknown>)[key];
  } catch (cause) {
    throw new ConfigError(`${place} cannot be read: ${reasonOf(cause)}`, place, { cause });
  }
}

/** More levels than any option has; an object that holds itself has more. */
const MAX_DEPTH = 16;

function plain(value: unknown, place: string, depth = 0): unknown {
  if (value === undefined || value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value;
    throw new ConfigError(`${place} must be a finite number, it is ${value}`, place);
  }
  if (typeof value !== 'object' || depth > MAX_DEPTH) throw new ConfigError(`${place} must be plain data, it is ${show(value)}`, place);
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    return Array.from(value as ArrayLike<unknown>, (inner, i) => plain(inner, `${place}[${i}]`, depth + 1));
  }
  return Object.fromEntries(keysOf(place, value).map((key) => [key, plain(property(value, key, `${place}.${key}`), `${place}.${key}`, depth + 1)]));
}

function keysOf(place: string, value: object): string[] {
  try {
    return Object.keys(value);
  } catch (cause) {
    throw new ConfigError(`${place} cannot be read: ${reasonOf(cause)}`, place, { cause });
  }
}

/**
 * The engine's configuration as JSON (`crates/oto-web/src/config.rs`), of options that `readOptions` gave; `page` is there for
 * an environment of the page's own. What is left out stays out: the engine has the defaults, checks every value, and refuses what
 * it does not know.
 */
export function toConfig(options: StudentOptions, page?: EnginePage): string {
  const { env, signal: _, algorithm, teachers = [], transfer = {}, evaluation, stages, ...rest } = options;
  if (!Array.isArray(teachers)) throw new ConfigError('teachers must be an array', 'teachers');
  const { requestBatch, labelLag, ...weights } = checkObject('transfer', transfer);
  const student = {
    ...rest,
    ...(algorithm === undefined ? {} : toAlgorithm(algorithm)),
    transfer: weights,
    evaluation: evaluation === undefined ? undefined : { ...checkObject('evaluation', evaluation), maxSteps: undefined },
    stages,
    requestBatch,
    labelLag,
  };
  const links = teachers.map((teacher, i) => {
    checkKnown(`teachers[${i}]`, teacher, TEACHER);
    return { ...teacher, url: wholeAddress(`teachers[${i}].url`, teacher.url), ticket: undefined };
  });
  return JSON.stringify({ student: toEngine(student), env: page ?? builtIn(env), teachers: links });
}

function builtIn(env: unknown): string {
  if (typeof env === 'string') return env;
  throw new ConfigError(`env must be the name of an environment, an environment, or a function that makes one; it is ${show(env)}`, 'env');
}

/** How long an episode of an evaluation may be in an environment of the page's own, in steps. */
export function maxSteps({ evaluation }: StudentOptions): number {
  const steps = evaluation?.maxSteps ?? 1_000;
  if (Number.isSafeInteger(steps) && steps > 0) return steps;
  throw new ConfigError(`evaluation.maxSteps must be a whole number above 0, it is ${show(steps)}`, 'evaluation.maxSteps');
}

/** A teacher's whole address: one of the page's own server may be a path, and one without a path is completed. */
function wholeAddress(field: string, given: unknown): string {
  const refused = (why: string) => new ConfigError(`${field} must be a ws:// or wss:// address, as in "wss://teachers.example/v1/teach"; it is ${show(given)}${why}`, field);
  if (typeof given !== 'string') throw refused('');
  let url: URL;
  try {
    url = new URL(given.startsWith('/') ? new URL(given, globalThis.location.href).href.replace(/^http/, 'ws') : given);
  } catch {
    throw refused('');
  }
  if (url.protocol === 'http:' || url.protocol === 'https:') throw refused(`: write ${show(given.replace(/^http/i, 'ws'))}`);
  if (url.protocol !== 'ws:' && url.protocol !== 'wss:') throw refused('');
  if (url.hash !== '') throw refused(', with a fragment');
  if (url.pathname === '/' && url.search === '') url.pathname = '/v1/teach';
  return url.href;
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

function toAlgorithm(algorithm: NonNullable<StudentOptions['algorithm']>): object {
  const { name = 'qr-dqn', ...settings } = typeof algorithm === 'string' ? { name: algorithm } : checkObject('algorithm', algorithm);
  const known = Object.hasOwn(ALGORITHMS, name) ? ALGORITHMS[name] : undefined;
  if (known === undefined) throw new ConfigError(`algorithm must be "qr-dqn", "sac" or "ppo", it is ${JSON.stringify(name)}`, 'algorithm');
  const network = [...NETWORK, ...known.network];
  checkKnown('algorithm', settings, [...network, ...LOOP]);
  const entries = Object.entries(settings);
  const inNetwork = ([key]: [string, unknown]) => network.includes(key);
  const rest = entries.filter((entry) => !inNetwork(entry));
  return { algorithm: known.engine, [known.engine]: Object.fromEntries(entries.filter(inNetwork)), ...Object.fromEntries(rest) };
}

/** Settings in the engine's spelling. */
function toEngine(value: unknown, key = ''): unknown {
  if (typeof value === 'number') return SCHEDULES.includes(key) ? { start: value, end: value, steps: 0 } : value;
  if (Array.isArray(value)) return value.map((inner) => toEngine(inner));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [snakeCase(name), toEngine(inner, name)]));
}

function snakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Refuses what is no object, and what has a name that is not known; `place` is where in the options it is, '' for all of them. */
export function checkKnown(place: string, given: object, known: string[]): void {
  for (const key of keysOf(place || 'the options', checkObject(place || 'the options', given))) {
    if (known.includes(key)) continue;
    const field = place === '' ? key : `${place}.${key}`;
    throw new ConfigError(`${field} is no option; there are ${known.join(', ')}`, field);
  }
}

function checkObject<T extends object>(place: string, value: T): T {
  if (typeof value === 'object' && value !== null) return value;
  throw new ConfigError(`${place} must be an object, it is ${show(value)}`, place);
}
