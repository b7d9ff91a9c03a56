// Environments that a page brings along: their contract, and the check of everything they return. A page's functions
// cannot move to the worker, so the page calls them for it.

import { ConfigError, EnvironmentError, reasonOf } from './errors.js';
import { readObservation, readSpace, reading, show, type ActionOf, type ActionSpace, type EngineSpace, type Observation, type ObservationOf, type Space } from './spaces.js';

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
  | 'MobileCell-5G-v0'
  | SwingUpName;

/** The cart-pole swing-up, as a simulation and as a plant. Options follow the ID: `CartPoleSwingUp-v0?k_f=5&voltage_max=12`. */
export type SwingUpName = SwingUpId | `${SwingUpId}?${string}`;
type SwingUpId = 'CartPoleSwingUp-v0' | 'CartPoleSwingUpPlant-v0';

/** What `step` returns, as in Gymnasium. */
export interface StepResult<O = Observation> {
  /** The observation after the step, in the observation space. */
  observation: O;
  /** The reward of the step. */
  reward: number;
  /** Whether the episode reached a terminal state. */
  terminated: boolean;
  /** Whether the episode was truncated, for example by a time limit. */
  truncated?: boolean;
}

/** An action: an index into a discrete space, or a number for each component. */
export type Action = number | ArrayLike<number>;

/** An environment in JavaScript. Its functions may be asynchronous; training waits for them without a limit. */
export interface Environment {
  /** The space of the observations from `reset` and `step`. */
  observationSpace: Space;
  /** The space of the actions for `step`. */
  actionSpace: ActionSpace;
  /** Starts an episode and returns its first observation. Only the first episode gets a `seed`. */
  reset(seed?: number): Observation | Promise<Observation>;
  /** Takes one step. */
  step(action: Action): StepResult | Promise<StepResult>;
}

/** An environment whose observations and actions have the types of its spaces. */
export interface EnvironmentOf<O extends Space, A extends ActionSpace> {
  observationSpace: O;
  actionSpace: A;
  reset(seed?: number): ObservationOf<O> | Promise<ObservationOf<O>>;
  step(action: ActionOf<A>): StepResult<ObservationOf<O>> | Promise<StepResult<ObservationOf<O>>>;
}

/** Creates an environment. The student calls it for training, evaluations and `watch`; each environment has separate state. */
export type EnvironmentFactory = () => Environment | Promise<Environment>;

/**
 * The environment as it is, with the types of its observations and actions from its spaces. State of its own is in variables around
 * it, or it is a class.
 */
export function defineEnvironment<O extends Space, A extends ActionSpace>(env: EnvironmentOf<O, A>): EnvironmentOf<O, A> {
  return env;
}

/** What the worker asks of a page's environment. */
export type EnvironmentRequest =
  | { kind: 'reset'; seed?: number }
  | { kind: 'step'; action: Action }
  | { kind: 'evaluate'; episodes: number; seed?: number };

/** The page's answer to a reset or a step; a reset has reward 0. Numbers as `readObservation` gives them. */
export interface EnvironmentAnswer {
  observation: Float64Array;
  reward: number;
  terminated: boolean;
  truncated: boolean;
}

/** What the engine is told of a page's environment. */
export interface EngineSpaces {
  observation: EngineSpace;
  action: EngineSpace;
}

/** Environments that students use now. */
const used = new WeakSet<Environment>();

/** An environment of the page's, checked and in use by one student until `release`. */
export class OwnEnvironment {
  readonly env: Environment;
  readonly spaces: EngineSpaces;

  /** @throws {ConfigError} it has no such spaces or functions, or another student uses it */
  constructor(given: unknown) {
    const env = given as Environment;
    const read = <K extends keyof Environment>(name: K): Environment[K] => {
      try {
        return env[name];
      } catch (cause) {
        throw new ConfigError(`env.${name} cannot be read: ${reasonOf(cause)}`, `env.${name}`, { cause });
      }
    };
    if (typeof given !== 'object' || given === null) throw new ConfigError(`env must be an object, it is ${show(given)}`, 'env');
    const observation = readSpace('env.observationSpace', read('observationSpace'));
    const action = readSpace('env.actionSpace', read('actionSpace'));
    if (action.kind === 'dict' || action.kind === 'tuple') {
      throw new ConfigError(`env.actionSpace must be one of choices or of numbers, it is a ${action.kind}`, 'env.actionSpace');
    }
    for (const name of ['reset', 'step'] as const) {
      if (typeof read(name) !== 'function') {
        throw new ConfigError(`env.${name} must be a function, it is ${show(env[name])}`, `env.${name}`);
      }
    }
    if (used.has(env)) {
      throw new ConfigError('env is in use: each student, and each purpose, needs one of its own. Give a function that makes one', 'env');
    }
    used.add(env);
    this.env = env;
    this.spaces = { observation, action };
  }

  release(): void {
    used.delete(this.env);
  }

  /** Begins an episode; its first observation. */
  async reset(seed: number | undefined): Promise<Float64Array> {
    const first: unknown = await called('reset', () => this.env.reset(seed));
    return readObservation('reset()', this.spaces.observation, first);
  }

  /** Takes a step, and checks all that comes back. */
  async step(action: Action): Promise<EnvironmentAnswer> {
    const result: unknown = await called('step', () => this.env.step(action));
    if (typeof result !== 'object' || result === null) {
      throw new EnvironmentError(`step() must return an object with observation, reward and terminated, it returned ${show(result)}`, 'step');
    }
    const read = (name: keyof StepResult) => reading('step()', name, () => (result as Record<string, unknown>)[name]);
    const truncated = read('truncated');
    return {
      observation: readObservation('step()', this.spaces.observation, read('observation')),
      reward: checkReward(read('reward')),
      terminated: checkFlag('terminated', read('terminated')),
      truncated: truncated === undefined ? false : checkFlag('truncated', truncated),
    };
  }
}

/** The environments of one student: the page's one, or as many as are needed where it gave a function that makes them. */
export class OwnEnvironments {
  readonly training: OwnEnvironment;
  /** For evaluations; only where there is a function that makes it. */
  readonly evaluation: OwnEnvironment | undefined;
  #make: EnvironmentFactory | undefined;
  #all: OwnEnvironment[];

  private constructor(all: OwnEnvironment[], training: OwnEnvironment, make: EnvironmentFactory | undefined) {
    this.training = training;
    this.evaluation = all[1];
    this.#make = make;
    this.#all = all;
  }

  /** @throws {ConfigError} an environment that cannot be used, or a function that does not make two */
  static async of(env: Environment | EnvironmentFactory): Promise<OwnEnvironments> {
    const make = typeof env === 'function' ? env : undefined;
    const training = new OwnEnvironment(make === undefined ? env : await made(make));
    const all = [training];
    try {
      if (make !== undefined) all.push(await like(training, make));
    } catch (error) {
      training.release();
      throw error;
    }
    return new this(all, training, make);
  }

  /** One more, to be watched. */
  async another(): Promise<OwnEnvironment> {
    if (this.#make === undefined) {
      throw new ConfigError('env is one object, which training uses: give a function that makes environments, and one is made for this', 'env');
    }
    const more = await like(this.training, this.#make);
    this.#all.push(more);
    return more;
  }

  release(): void {
    for (const env of this.#all) env.release();
  }
}

/** What a page's function makes. */
export async function made(make: EnvironmentFactory): Promise<unknown> {
  try {
    return await make();
  } catch (cause) {
    throw new ConfigError(`env() threw: ${reasonOf(cause)}`, 'env', { cause });
  }
}

/** Another environment with the spaces of the first. */
async function like(first: OwnEnvironment, make: EnvironmentFactory): Promise<OwnEnvironment> {
  const other = new OwnEnvironment(await made(make));
  if (JSON.stringify(other.spaces) === JSON.stringify(first.spaces)) return other;
  other.release();
  throw new ConfigError('env() must make environments of the same spaces, the second one has others', 'env');
}

async function called<T>(name: string, call: () => T | Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (cause) {
    throw new EnvironmentError(`the environment's ${name}() threw: ${reasonOf(cause)}`, name, { cause });
  }
}

function checkReward(reward: unknown): number {
  if (typeof reward === 'number' && Number.isFinite(reward)) return reward;
  throw new EnvironmentError(`step(): reward must be a finite number, it is ${show(reward)}`, 'reward');
}

function checkFlag(field: string, flag: unknown): boolean {
  if (typeof flag === 'boolean') return flag;
  throw new EnvironmentError(`step(): ${field} must be true or false, it is ${show(flag)}`, field);
}
