// A student's options, and the engine's configuration that they become. The settings of runs and algorithms are in settings.ts, which
// is generated from the engine.

import type { EngineSpaces, Environment, EnvironmentFactory, EnvironmentName } from './environment.js';
import type { Source } from './source.js';
import { ConfigError, reasonOf } from './errors.js';
import { ALGORITHMS, EVALUATION, REPLAY, RUN, TRANSFER, type AlgorithmName, type AlgorithmOptions, type EvaluationOptions, type RunOptions } from './settings.js';
import { kindOf, show } from './spaces.js';

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
  | { kind: 'affine'; scale: number[]; offset: number[] }
  | { kind: 'table'; map: number[] }
  | { kind: 'levels'; values: number[][] };

/** A map between a student's spaces and a teacher's. The server applies it. */
export interface Adapter {
  observation?: ObservationMap;
  action?: ActionMap;
}

/** A teacher and its address. */
export interface TeacherOptions {
  /** `ws://` or `wss://` address of a server, with or without its path `/v1/teach`; or a path of the page's own server. The server must know the page's origin: `oto serve --origin`. */
  url: string;
  /** Name of one of its policies. */
  policy: string;
  /** Not necessary for equal spaces, or for the pair with a built-in adapter: InvertedPendulum for CartPole. */
  adapter?: Adapter;
  /** The encoding of states: 32-bit (the default) or 16-bit numbers. */
  dtype?: 'f32' | 'f16';
  /**
   * The source of the student's ticket before each connection, for a server with tickets (docs/serving.md). `true`: that server,
   * which identifies the page by its origin. An address: the page's own server, which must answer a POST as `/v1/ticket` does.
   */
  ticket?: boolean | string;
  /** Weight relative to the other teachers. Default: 1. 0: no requests. Only ratios matter: `transfer.alphaAikd` weighs all of them together. */
  weight?: number;
  /** Submit the replay buffer to a teacher that accepts it, at the end of the Online stage and of the run. Default: false. */
  submit?: boolean;
}

/** The options of a student. */
export interface StudentOptions extends RunOptions {
  /**
   * A built-in environment by name, the page's own environment, or a function that creates it. Only a function permits evaluations and
   * `watch()`, each in an environment separate from the training environment. One object serves one student.
   */
  env: EnvironmentName | Environment | EnvironmentFactory;
  /**
   * An algorithm's name, or its name with settings. Settings without a name belong to the default algorithm: QR-DQN for discrete
   * actions, soft actor-critic for continuous ones.
   */
  algorithm?: AlgorithmName | AlgorithmOptions;
  /** Concurrent teachers. Without them the student learns alone. */
  teachers?: TeacherOptions[];
  /**
   * Greedy evaluation during training. The page's own environment permits it if `env` is a function. An episode there has at most
   * `maxSteps` steps. Default: 1,000.
   */
  evaluation?: EvaluationOptions & { maxSteps?: number };
  /**
   * The checkpoint of another run, of `save()`, `oto learn` or `oto teach`: its address, a file, or its bytes. The student begins with the
   * run's settings, and with every tensor of its networks, target networks and optimiser that both have. Other options override the run's
   * settings; `algorithm` may name another algorithm. Counts, evaluations and the replay buffer begin anew.
   */
  from?: Source;
  /** Aborts `create` immediately; it fails with the signal's reason. After `create` the signal has no effect. */
  signal?: AbortSignal;
}

const OPTIONS = ['env', 'algorithm', 'teachers', 'evaluation', 'from', 'signal', ...RUN];

/** What a module of the package has: options, algorithms with their settings, settings of the replay buffer, a reader of datasets. */
export interface Known {
  options: string[];
  algorithms: Record<string, string[]>;
  replay: string[];
  dataset?: (source: unknown, signal: AbortSignal | undefined) => Promise<DatasetFiles | undefined>;
}

/** The agent that a student works for, as the engine reads it. */
export interface ShareConfig {
  url: string;
  agent: string;
  name?: string;
}

/** The files of a dataset: HDF5, and Minari's `metadata.json`. */
export interface DatasetFiles {
  hdf5: Uint8Array;
  metadata: string | undefined;
}

/** The options of a student, and those that only `oto-student/all` has. */
export type AnyGiven = StudentOptions & { dataset?: unknown; share?: object };

const SHARE = ['cloud', 'agent', 'name', 'ticket'];

/** What every page has. */
export const KNOWN: Known = { options: OPTIONS, algorithms: ALGORITHMS, replay: REPLAY };
const TEACHER = ['url', 'policy', 'adapter', 'dtype', 'ticket', 'weight', 'submit'];

/** What the engine needs to know of an environment of the page's own. */
export interface EnginePage extends EngineSpaces {
  /** Whether there is another one for evaluations. */
  evaluates: boolean;
}

/** What the engine makes a student of (`crates/oto-web/src/config.rs`). */
export interface CoreConfig {
  student: Omit<StudentOptions, 'env' | 'teachers' | 'from' | 'signal'>;
  env: string | EnginePage;
  teachers: Omit<TeacherOptions, 'ticket'>[];
  share?: ShareConfig;
}

/**
 * Reads every option once, because a page's objects may be anything: getters, proxies, typed arrays. Plain data comes out. What is
 * none is refused, and so is a name that is no option.
 */
export function readOptions(options: StudentOptions, known = KNOWN): AnyGiven {
  checkKnown('', options, known.options);
  const kept = ['env', 'from', 'dataset', 'signal'];
  return given(Object.keys(options), (key) => (kept.includes(key) ? property(options, key, key) : plain(property(options, key, key), key))) as unknown as StudentOptions;
}

/** The properties that are not undefined. */
export function given(keys: string[], read: (key: string) => unknown): Record<string, unknown> {
  const entries = keys.map((key) => [key, read(key)] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined));
}

/** A property of the page's object, whose getter may throw. */
export function property(of: object, key: string, place: string): unknown {
  try {
    return (of as Record<string, unknown>)[key];
  } catch (cause) {
    throw new ConfigError(`${place} cannot be read: ${reasonOf(cause)}`, place, { cause });
  }
}

/** More levels than any option has; an object that holds itself has more. */
const MAX_DEPTH = 16;

export function plain(value: unknown, place: string, depth = 0): unknown {
  if (value === undefined || value === null || typeof value === 'boolean' || typeof value === 'string') return value;
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value;
    throw new ConfigError(`${place} must be a finite number, it is ${value}`, place);
  }
  if (typeof value !== 'object' || depth > MAX_DEPTH || kindOf(value) !== undefined) throw new ConfigError(`${place} must be plain data, it is ${show(value)}`, place);
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    return Array.from(value as ArrayLike<unknown>, (inner, i) => plain(inner, `${place}[${i}]`, depth + 1));
  }
  return given(keysOf(place, value), (key) => plain(property(value, key, `${place}.${key}`), `${place}.${key}`, depth + 1));
}

function keysOf(place: string, value: object): string[] {
  try {
    return Object.keys(value);
  } catch (cause) {
    throw new ConfigError(`${place || 'the argument'} cannot be read: ${reasonOf(cause)}`, place || undefined, { cause });
  }
}

/**
 * The engine's configuration, of options that `readOptions` gave; `page` is there for an environment of the page's own. What is left
 * out stays out: the engine has the defaults, checks every value, and refuses what it does not know.
 */
export function toConfig(options: AnyGiven, page?: EnginePage, known = KNOWN): CoreConfig {
  const { env, teachers: _teachers, from: _from, dataset: _dataset, share, signal: _signal, ...student } = options;
  const { algorithm, replay, transfer, evaluation } = student;
  if (algorithm !== undefined) checkAlgorithm(algorithm, known.algorithms);
  if (replay !== undefined) checkGroup('replay', replay, known.replay);
  if (transfer !== undefined) checkGroup('transfer', transfer, TRANSFER);
  if (evaluation !== undefined) {
    checkGroup('evaluation', evaluation, [...EVALUATION, 'maxSteps']);
    const { maxSteps: _maxSteps, ...ofEngine } = evaluation;
    student.evaluation = ofEngine;
  }
  const teachers = teachersOf(options).map(({ ticket: _ticket, ...teacher }, i) => {
    return { ...teacher, url: wholeAddress(`teachers[${i}].url`, teacher.url) };
  });
  const config = { student, env: page ?? builtIn(env), teachers };
  return share === undefined ? config : { ...config, share: shareOf(share) };
}

/** A shared agent; its server may be a path of the page's own. */
function shareOf(share: object): ShareConfig {
  checkKnown('share', share, SHARE);
  const { cloud, ticket: _ticket, ...named } = share as { cloud: unknown; ticket: unknown; agent: string };
  if (typeof named.agent !== 'string' || named.agent === '') throw new ConfigError(`share.agent must be the name of a shared agent, it is ${show(named.agent)}`, 'share.agent');
  return { ...named, url: wholeAddress('share.cloud', cloud) };
}

/** The teachers; each is an object that has only known names. */
function teachersOf({ teachers = [] }: StudentOptions): TeacherOptions[] {
  if (!Array.isArray(teachers)) throw new ConfigError(`teachers must be an array, it is ${show(teachers)}`, 'teachers');
  teachers.forEach((teacher, i) => checkKnown(`teachers[${i}]`, teacher, TEACHER));
  return teachers;
}

export function builtIn(env: unknown): string {
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
export function wholeAddress(field: string, given: unknown): string {
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
export function ticketAddresses(options: AnyGiven): (string | null)[] {
  if (options.share !== undefined) {
    const { ticket = false } = options.share as { ticket?: unknown };
    return [ticketAddress('share.ticket', shareOf(options.share).url, ticket)];
  }
  return teachersOf(options).map(({ url, ticket = false }, i) => ticketAddress(`teachers[${i}].ticket`, url, ticket));
}

/** The address that gives tickets for the server at `url`, or `null`. */
export function ticketAddress(field: string, url: string, ticket: unknown): string | null {
  if (ticket === false) return null;
  try {
    if (typeof ticket !== 'string' && ticket !== true) throw new TypeError();
    if (ticket === true) return new URL('/v1/ticket', url.replace(/^ws/, 'http')).href;
    return new URL(ticket, globalThis.location?.href).href;
  } catch {
    throw new ConfigError(`${field} must be true or an address, it is ${show(ticket)} for ${show(url)}`, field);
  }
}

/** Refuses an algorithm that there is not, and settings that it has not. */
function checkAlgorithm(algorithm: NonNullable<StudentOptions['algorithm']>, all: Record<string, string[]>): void {
  const { name, ...settings } = typeof algorithm === 'string' ? { name: algorithm } : checkObject('algorithm', algorithm);
  if (name !== undefined && !Object.hasOwn(all, name)) {
    const names = Object.keys(all).map((known) => JSON.stringify(known));
    const more = all === ALGORITHMS ? '; oto-student/all has all algorithms' : '';
    throw new ConfigError(`algorithm must be ${names.slice(0, -1).join(', ')} or ${names.at(-1)}, it is ${show(name)}${more}`, 'algorithm');
  }
  // Without a name they are settings of the default, which the engine chooses by the environment's actions.
  checkGroup('algorithm', settings, (name === undefined ? undefined : all[name]) ?? [...new Set(Object.values(all).flat())]);
}

/** Refuses what a group of settings has not; what stands beside the group is told so. */
function checkGroup(place: string, group: object, known: string[]): void {
  const beside = Object.keys(checkObject(place, group)).find((key) => RUN.includes(key) && !known.includes(key));
  if (beside !== undefined) throw new ConfigError(`${place}.${beside} is no option; write ${beside} beside ${place}`, `${place}.${beside}`);
  checkKnown(place, group, known);
}

/** Refuses what is no object, and what has a name that is not known; `place` is where in the options it is, '' for all of them. */
export function checkKnown(place: string, given: object, known: string[]): void {
  for (const key of keysOf(place, checkObject(place, given))) {
    if (known.includes(key)) continue;
    const field = place === '' ? key : `${place}.${key}`;
    throw new ConfigError(`${field} is no option; there are ${known.join(', ')}`, field);
  }
}

function checkObject<T extends object>(place: string, value: T): T {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw new ConfigError(`${place || 'the argument'} must be an object, it is ${show(value)}`, place || undefined);
}
