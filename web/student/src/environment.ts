// Environments that a page brings along: their contract, and the check of everything they return. A page's functions
// cannot move to the worker, so the page calls them for it.

import { ConfigError, EnvironmentError } from './errors.js';

/** Names of the environments that are built in. */
export type EnvironmentName =
  | 'CartPole-v0'
  | 'CartPole-v1'
  | 'MountainCar-v0'
  | 'MountainCarContinuous-v0'
  | 'Acrobot-v1'
  | 'Pendulum-v1'
  | 'InvertedPendulum-v5'
  | 'MobileCell-LTE-v0'
  | 'MobileCell-5G-v0';

/** One of `n` choices, counted from 0. */
export interface DiscreteSpace {
  kind: 'discrete';
  n: number;
}

/**
 * A vector; each component between `low` and `high`, where `null` and an infinity mean unbounded. The bounds of an observation
 * are not held against what comes: a network sees the numbers as they are, and learns best from some around -1 to 1.
 */
export interface BoxSpace {
  kind: 'box';
  low: (number | null)[];
  high: (number | null)[];
}

/** The shape of an observation or an action. */
export type Space = DiscreteSpace | BoxSpace;

/** What `step` returns, as in Gymnasium. */
export interface StepResult {
  /** The observation after the step, as long as the observation space says. */
  observation: ArrayLike<number>;
  /** The reward of the step. */
  reward: number;
  /** Whether the episode ended for a reason of the environment's own. */
  terminated: boolean;
  /** Whether the episode was cut short, by a time limit for example. */
  truncated?: boolean;
}

/** An action: an index into a discrete space, from 0, or a number for each component of a box. */
export type Action = number | ArrayLike<number>;

/** An environment written in JavaScript. Its functions may be asynchronous; training waits for them as long as it takes. */
export interface Environment {
  /** What `reset` and `step` show. */
  observationSpace: BoxSpace;
  /** A box must have finite bounds. */
  actionSpace: DiscreteSpace | BoxSpace;
  /** Begins an episode and returns its first observation. `seed` is given for the first episode only. */
  reset(seed?: number): ArrayLike<number> | Promise<ArrayLike<number>>;
  /** Takes one step. */
  step(action: Action): StepResult | Promise<StepResult>;
}

/** What the worker asks of a page's environment. */
export type EnvironmentRequest = { kind: 'reset'; seed?: number } | { kind: 'step'; action: Action };

/** The page's answer; a reset has reward 0. */
export interface EnvironmentAnswer {
  observation: Float32Array;
  reward: number;
  terminated: boolean;
  truncated: boolean;
}

/** Carries out one request and checks all that comes back. */
export async function askEnvironment(env: Environment, request: EnvironmentRequest): Promise<EnvironmentAnswer> {
  const width = env.observationSpace.low.length;
  if (request.kind === 'reset') {
    const first = await called('reset', () => env.reset(request.seed));
    return { observation: checkObservation('reset()', first, width), reward: 0, terminated: false, truncated: false };
  }
  const result: unknown = await called('step', () => env.step(request.action));
  if (typeof result !== 'object' || result === null) {
    throw new EnvironmentError(`step() must return an object with observation, reward and terminated, it returned ${show(result)}`, 'step');
  }
  const { observation, reward, terminated, truncated } = result as Partial<Record<keyof StepResult, unknown>>;
  return {
    observation: checkObservation('step()', observation, width),
    reward: checkReward(reward),
    terminated: checkFlag('terminated', terminated),
    truncated: truncated === undefined ? false : checkFlag('truncated', truncated),
  };
}

/** Checks an environment's spaces and functions before a worker is started for it. */
export function checkEnvironment(env: Environment): void {
  checkSpace('env.observationSpace', env.observationSpace);
  if (env.observationSpace.kind !== 'box') {
    throw new ConfigError('env.observationSpace must be a box: {kind: "box", low: [...], high: [...]}', 'env.observationSpace');
  }
  checkSpace('env.actionSpace', env.actionSpace);
  for (const name of ['reset', 'step'] as const) {
    if (typeof env[name] !== 'function') {
      throw new ConfigError(`env.${name} must be a function, it is ${show(env[name])}`, `env.${name}`);
    }
  }
}

function checkSpace(field: string, space: Space | undefined): void {
  if (space?.kind === 'discrete' && Number.isInteger(space.n) && space.n > 0) return;
  if (space?.kind === 'box' && Array.isArray(space.low) && Array.isArray(space.high)) {
    if (space.low.length > 0 && space.low.length === space.high.length) return checkBounds(field, space);
    const lengths = `${space.low.length} and ${space.high.length}`;
    throw new ConfigError(`${field}: low and high must be of one length, at least 1; they have ${lengths}`, field);
  }
  const forms = '{kind: "discrete", n} with n at least 1, or {kind: "box", low: [...], high: [...]} with arrays';
  throw new ConfigError(`${field} must be ${forms}; it is ${show(space)}`, field);
}

/** JSON would make `null`, which is no bound, of a NaN. */
function checkBounds(field: string, { low, high }: BoxSpace): void {
  const check = (side: string, bounds: unknown[], unbounded: number) => {
    for (let i = 0; i < bounds.length; i++) {
      const bound = bounds[i];
      if (bound === null || bound === unbounded || Number.isFinite(bound)) continue;
      const name = `${field}.${side}[${i}]`;
      throw new ConfigError(`${name} must be a finite number, or null or ${unbounded} where there is no bound; it is ${show(bound)}`, name);
    }
  };
  check('low', low, -Infinity);
  check('high', high, Infinity);
}

async function called<T>(name: string, call: () => T | Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new EnvironmentError(`the environment's ${name}() threw: ${reason}`, name, { cause });
  }
}

/** An observation's numbers; `from` says whence they came. */
export function checkObservation(from: string, observation: unknown, width: number): Float32Array {
  if (!isArrayLike(observation)) {
    throw new EnvironmentError(`${from}: observation must be an array of ${width} numbers, it is ${show(observation)}`, 'observation');
  }
  if (observation.length !== width) {
    throw new EnvironmentError(`${from}: observation must have ${width} numbers as observationSpace says, it has ${observation.length}`, 'observation');
  }
  const copy = new Float32Array(width);
  for (let i = 0; i < width; i++) {
    const value = observation[i];
    copy[i] = value as number;
    if (typeof value !== 'number' || !Number.isFinite(copy[i])) {
      throw new EnvironmentError(`${from}: observation[${i}] must be a finite number, it is ${show(value)}`, `observation[${i}]`);
    }
  }
  return copy;
}

function checkReward(reward: unknown): number {
  if (typeof reward === 'number' && Number.isFinite(reward)) return reward;
  throw new EnvironmentError(`step(): reward must be a finite number, it is ${show(reward)}`, 'reward');
}

function checkFlag(field: string, flag: unknown): boolean {
  if (typeof flag === 'boolean') return flag;
  throw new EnvironmentError(`step(): ${field} must be true or false, it is ${show(flag)}`, field);
}

function isArrayLike(value: unknown): value is ArrayLike<unknown> {
  return typeof value === 'object' && value !== null && Number.isInteger((value as { length?: unknown }).length);
}

/** A value as it reads in a message, kept short. */
function show(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  const json = typeof value === 'object' && value !== null ? safeJson(value) : String(value);
  return json.length > 80 ? `${json.slice(0, 77)}...` : json;
}

function safeJson(value: object): string {
  try {
    return JSON.stringify(value);
  } catch {
    return 'an object';
  }
}
