// The spaces of Gymnasium as a page has them: how they are written, checked and read. The engine makes one row of an observation
// (`crates/oto-env/src/tree.rs`); the page hands it the plain numbers in order.

import { ConfigError, EnvironmentError, reasonOf } from './errors.js';

/** One of `n` choices, counted from `start`. Default: 0. */
export interface DiscreteSpace {
  kind: 'discrete';
  n: number;
  start?: number;
}

/**
 * A vector, with each component between `low` and `high`; `null` and infinities mean: no bound. Observations are not checked against
 * their bounds. The network uses the numbers unscaled, and learns best from numbers between about -1 and 1.
 */
export interface BoxSpace {
  kind: 'box';
  low: ArrayLike<number | null>;
  high: ArrayLike<number | null>;
}

/** Several choices; choice `i` is one of `nvec[i]`, counted from 0. */
export interface MultiDiscreteSpace {
  kind: 'multiDiscrete';
  nvec: ArrayLike<number>;
}

/** `n` numbers that are 0 or 1. */
export interface MultiBinarySpace {
  kind: 'multiBinary';
  n: number;
}

/** Spaces by name. The network sees them sorted by name. */
export interface DictSpace {
  kind: 'dict';
  spaces: { readonly [name: string]: Space };
}

/** Spaces in a row. */
export interface TupleSpace {
  kind: 'tuple';
  spaces: readonly Space[];
}

/** The space of observations. For the network a choice is a one-hot vector, and the parts of a `dict` or a `tuple` are one row. */
export type Space = DiscreteSpace | BoxSpace | MultiDiscreteSpace | MultiBinarySpace | DictSpace | TupleSpace;

/** The space of actions. A box must have finite bounds; several choices have at most 64 combinations. */
export type ActionSpace = DiscreteSpace | BoxSpace | MultiDiscreteSpace | MultiBinarySpace;

/** An observation of some space. */
export type Observation = number | ArrayLike<number> | { readonly [name: string]: Observation } | readonly Observation[];

/** An observation of this space. */
export type ObservationOf<S extends Space> = Space extends S
  ? Observation
  : S extends DiscreteSpace
    ? number
    : S extends DictSpace
      ? { readonly [K in keyof S['spaces']]: ObservationOf<S['spaces'][K]> }
      : S extends TupleSpace
        ? readonly ObservationOf<S['spaces'][number]>[]
        : ArrayLike<number>;

/** An action of this space: a number for a choice, otherwise a number for each component. */
export type ActionOf<S extends ActionSpace> = S extends DiscreteSpace ? number : ArrayLike<number>;

/** A bound for every component, or one for each. */
type Bound = number | null | ArrayLike<number | null>;

/** Constructors of spaces, with Gymnasium's names. */
export const spaces = {
  /** One of `n` choices, counted from `start`. */
  discrete: (n: number, start = 0): DiscreteSpace => ({ kind: 'discrete', n, start }),
  /**
   * Numbers between bounds: `spaces.box([-1, null], [1, null])`, or `spaces.box(0, 255, 28 * 28)` for so many between the same.
   * `null` is no bound.
   */
  box: (low: Bound, high: Bound, width?: number): BoxSpace => {
    const length = checkWidth(width, [lengthOf(low), lengthOf(high)]) ?? lengthOf(low) ?? lengthOf(high) ?? 1;
    const all = (bound: Bound) => (typeof bound === 'object' && bound !== null ? bound : new Array<number | null>(length).fill(bound));
    return { kind: 'box', low: all(low), high: all(high) };
  },
  /** Several choices, `nvec[i]` for the `i`-th. */
  multiDiscrete: (nvec: ArrayLike<number>): MultiDiscreteSpace => ({ kind: 'multiDiscrete', nvec }),
  /** `n` numbers that are 0 or 1. */
  multiBinary: (n: number): MultiBinarySpace => ({ kind: 'multiBinary', n }),
  /** Spaces by name. */
  dict: <const T extends DictSpace['spaces']>(parts: T): { kind: 'dict'; spaces: T } => ({ kind: 'dict', spaces: parts }),
  /** Spaces in a row. */
  tuple: <const T extends TupleSpace['spaces']>(...parts: T): { kind: 'tuple'; spaces: T } => ({ kind: 'tuple', spaces: parts }),
};

/** The most numbers of a space, as in the engine. */
const MAX_WIDTH = 2 ** 20;

/** A box's width, if one is given: a whole number, and the length of bounds that are arrays. */
function checkWidth(width: unknown, lengths: (number | undefined)[]): number | undefined {
  if (width === undefined) return undefined;
  if (typeof width !== 'number' || !Number.isInteger(width) || width < 1 || width > MAX_WIDTH) {
    throw new ConfigError(`the width of a box must be a whole number from 1 to ${MAX_WIDTH}, it is ${show(width)}`, 'width');
  }
  const other = lengths.find((length) => length !== undefined && length !== width);
  if (other === undefined) return width;
  throw new ConfigError(`the width of this box is ${width}, but one of its bounds has ${other} numbers`, 'width');
}

function lengthOf(bound: Bound): number | undefined {
  return typeof bound === 'object' && bound !== null ? bound.length : undefined;
}

/** A space as the engine reads it, in plain arrays. */
export type EngineSpace =
  | { kind: 'discrete'; n: number; start?: number }
  | { kind: 'box'; low: (number | null)[]; high: (number | null)[] }
  | { kind: 'multiDiscrete'; nvec: number[] }
  | { kind: 'multiBinary'; n: number }
  | { kind: 'dict'; spaces: [string, EngineSpace][] }
  | { kind: 'tuple'; spaces: EngineSpace[] };

const FORMS =
  '{kind: "box", low, high} with arrays, {kind: "discrete", n} or another of Gymnasium\'s kinds: spaces.box() and its like make them';

/** Reads a space that a page gives. What is wrong is named by `field`. The engine checks numbers of choices and bounds. */
export function readSpace(field: string, given: unknown): EngineSpace {
  try {
    return read(field, given);
  } catch (thrown) {
    if (thrown instanceof ConfigError) throw thrown;
    throw new ConfigError(`${field} cannot be read: ${reasonOf(thrown)}`, field, { cause: thrown });
  }
}

function read(field: string, given: unknown): EngineSpace {
  const { kind, n, start, nvec, low, high, spaces } = (typeof given === 'object' && given !== null ? given : {}) as Record<string, unknown>;
  switch (kind) {
    case 'discrete':
      return { kind, n: whole(`${field}.n`, n, 1), ...(start === undefined || start === 0 ? {} : { start: whole(`${field}.start`, start) }) };
    case 'multiBinary':
      return { kind, n: whole(`${field}.n`, n, 1) };
    case 'multiDiscrete':
      if (!isArrayLike(nvec) || nvec.length === 0) break;
      return { kind, nvec: Array.from(nvec, (n, i) => whole(`${field}.nvec[${i}]`, n, 1)) };
    case 'box':
      return readBox(field, low, high);
    case 'dict': {
      if (typeof spaces !== 'object' || spaces === null) break;
      const parts = Object.entries(spaces).sort(([a], [b]) => byCodePoint(a, b));
      return { kind, spaces: parts.map(([name, part]) => [name, read(`${field}.spaces.${name}`, part)]) };
    }
    case 'tuple':
      if (!Array.isArray(spaces)) break;
      return { kind, spaces: spaces.map((part, i) => read(`${field}.spaces[${i}]`, part)) };
  }
  throw new ConfigError(`${field} must be ${FORMS}; it is ${show(given)}`, field);
}

function readBox(field: string, low: unknown, high: unknown): EngineSpace {
  if (!isArrayLike(low) || !isArrayLike(high)) {
    throw new ConfigError(`${field} must be a box with arrays for low and high; they are ${show(low)} and ${show(high)}`, field);
  }
  if (low.length === 0 || low.length !== high.length) {
    const lengths = `${low.length} and ${high.length}`;
    throw new ConfigError(`${field}: low and high must be of one length, at least 1; they have ${lengths}`, field);
  }
  const bounds = (side: string, given: ArrayLike<unknown>, unbounded: number) =>
    // Not a callback of `from`'s second argument alone: a hole in an array is no number.
    Array.from(given, (bound, i) => {
      if (bound === null || bound === unbounded) return null;
      if (typeof bound === 'number' && Number.isFinite(bound)) return bound;
      const name = `${field}.${side}[${i}]`;
      throw new ConfigError(`${name} must be a finite number, or null or ${unbounded} where there is no bound; it is ${show(bound)}`, name);
    });
  return { kind: 'box', low: bounds('low', low, -Infinity), high: bounds('high', high, Infinity) };
}

function whole(field: string, value: unknown, least = Number.MIN_SAFE_INTEGER): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least) return value;
  throw new ConfigError(`${field} must be a whole number${least > 0 ? ` from ${least}` : ''}, it is ${show(value)}`, field);
}

/** The order of Python's strings. */
function byCodePoint(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => Array.from(text, (character) => character.codePointAt(0) ?? 0)) as [number[], number[]];
  const at = left.findIndex((point, i) => point !== right[i]);
  return at < 0 ? left.length - right.length : (left[at] ?? 0) - (right[at] ?? -1);
}

/** How many plain numbers an observation of a space has. */
function numbersIn(space: EngineSpace): number {
  switch (space.kind) {
    case 'discrete':
      return 1;
    case 'box':
      return space.low.length;
    case 'multiDiscrete':
      return space.nvec.length;
    case 'multiBinary':
      return space.n;
    case 'dict':
      return space.spaces.reduce((sum, [, part]) => sum + numbersIn(part), 0);
    case 'tuple':
      return space.spaces.reduce((sum, part) => sum + numbersIn(part), 0);
  }
}

/** An observation's plain numbers in the order of its space; `from` says whence it came. */
export function readObservation(from: string, space: EngineSpace, observation: unknown): Float64Array {
  const numbers = new Float64Array(numbersIn(space));
  let at = 0;
  const put = (value: unknown, place: string, index?: number) => {
    if (typeof value !== 'number' || !Number.isFinite(Math.fround(value))) {
      const name = index === undefined ? place : `${place}[${index}]`;
      throw new EnvironmentError(`${from}: ${name} must be a finite number, it is ${show(value)}`, name);
    }
    numbers[at++] = value;
  };
  const row = (value: unknown, place: string, width: number) => {
    if (!isArrayLike(value)) {
      throw new EnvironmentError(`${from}: ${place} must be an array of ${width} numbers, it is ${show(value)}`, place);
    }
    if (value.length !== width) {
      throw new EnvironmentError(`${from}: ${place} must have ${width} numbers as observationSpace says, it has ${value.length}`, place);
    }
    for (let i = 0; i < width; i++) put(value[i], place, i);
  };
  const bits = (value: ArrayLike<unknown>, place: string) => {
    const at = Array.from(value).findIndex((bit) => bit !== 0 && bit !== 1);
    if (at < 0) return;
    throw new EnvironmentError(`${from}: ${place}[${at}] must be 0 or 1, it is ${show(value[at])}`, `${place}[${at}]`);
  };
  const walk = (space: EngineSpace, value: unknown, place: string): void => {
    switch (space.kind) {
      case 'discrete':
        return put(value, place);
      case 'dict':
      case 'tuple': {
        if (typeof value !== 'object' || value === null) {
          throw new EnvironmentError(`${from}: ${place} must be ${space.kind === 'dict' ? 'an object' : 'an array'}, it is ${show(value)}`, place);
        }
        const parts = space.kind === 'dict' ? space.spaces : space.spaces.map((part, i) => [String(i), part] as const);
        const named = (name: string) => (space.kind === 'dict' ? `${place}.${name}` : `${place}[${name}]`);
        for (const [name, part] of parts) walk(part, (value as Record<string, unknown>)[name], named(name));
        return;
      }
      case 'multiBinary':
        row(value, place, space.n);
        return bits(value as ArrayLike<unknown>, place);
      default:
        return row(value, place, numbersIn(space));
    }
  };
  return reading(from, 'observation', () => (walk(space, observation, 'observation'), numbers));
}

/** Carries out what looks into a page's objects; what a getter or a proxy throws is told as the environment's fault. */
export function reading<T>(from: string, field: string, look: () => T): T {
  try {
    return look();
  } catch (thrown) {
    if (thrown instanceof EnvironmentError) throw thrown;
    throw new EnvironmentError(`${from}: ${field} cannot be read: ${reasonOf(thrown)}`, field, { cause: thrown });
  }
}

function isArrayLike(value: unknown): value is ArrayLike<unknown> {
  return typeof value === 'object' && value !== null && Number.isInteger((value as { length?: unknown }).length);
}

/** A value as it reads in a message, kept short. */
export function show(value: unknown): string {
  const text = inWords(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function inWords(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value !== 'object' || value === null) return String(value);
  const kind = kindOf(value);
  if (kind !== undefined) return `${/^[AEIO]/.test(kind) ? 'an' : 'a'} ${kind}`;
  try {
    return JSON.stringify(value) ?? 'an object';
  } catch {
    return 'an object';
  }
}

/** What kind of object this is, such as a Promise or a Map; nothing for plain objects, arrays and typed arrays. */
export function kindOf(value: object): string | undefined {
  try {
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return undefined;
    const kind = Object.prototype.toString.call(value).slice('[object '.length, -1);
    return kind === 'Object' || kind === 'Array' ? undefined : kind;
  } catch {
    return undefined;
  }
}
