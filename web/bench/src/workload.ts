// What every peer runs, as `oto_bench::workload` describes it.

/** Which program: one update of QR-DQN with the teachers' term, or one step of plain distillation. */
export type Kind = 'update' | 'distillation';

/** Sizes of the update's network and batch. Distillation has fixed sizes. */
export interface Shape {
  hidden: number;
  quantiles: number;
}

/** A tensor, row-major. */
export interface Values {
  shape: number[];
  values: Float32Array;
}

/** A program's inputs by name, in the program's order: state that updates replace, and data. */
export interface Workload {
  kind: Kind;
  shape: Shape;
  /** Layer widths of the network, input first. */
  widths: number[];
  /** Rows in a batch. */
  batch: number;
  state: Map<string, Values>;
  data: Map<string, Values>;
}

/** Seed of the values; another one gives another workload of the same shape. */
export const SEED = 1;

interface Json {
  widths: number[];
  batch: number;
  state: JsonTensor[];
  data: JsonTensor[];
}

interface JsonTensor {
  name: string;
  shape: number[];
  values: number[];
}

/** Reads what `oto_bench::workload` wrote. */
export function parseWorkload(kind: Kind, shape: Shape, json: string): Workload {
  const { widths, batch, state, data } = JSON.parse(json) as Json;
  const named = (tensors: JsonTensor[]) =>
    new Map(tensors.map(({ name, shape, values }) => [name, { shape, values: Float32Array.from(values) }]));
  return { kind, shape, widths, batch, state: named(state), data: named(data) };
}

/** The input of this name. */
export function input(workload: Workload, name: string): Values {
  const found = workload.state.get(name) ?? workload.data.get(name);
  if (found === undefined) throw new Error(`the workload has no input ${name}`);
  return found;
}

/** A data input that is one number. */
export function scalar(workload: Workload, name: string): number {
  return input(workload, name).values[0]!;
}

/** Names of the parameters of a network whose layers are `{prefix}{layer}.weight` and `.bias`. */
export function parameterNames({ widths }: Workload, prefix: string): string[] {
  return widths.slice(1).flatMap((_, i) => [`${prefix}${i}.weight`, `${prefix}${i}.bias`]);
}

/** Adam's constants, those of `oto_rl::optimiser::Adam`. */
export const ADAM = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

/** `[rows, columns]` as `[columns, rows]`: peers keep weights as `[inputs, outputs]`, oto as `[outputs, inputs]`. */
export function transpose({ shape, values }: Values): Values {
  const [rows, columns] = [shape[0]!, shape[1]!];
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j]!;
  return { shape: [columns, rows], values: out };
}
