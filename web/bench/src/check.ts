// Whether a peer computes what oto computes: nothing is timed before.

/** Where a peer stands after its first update, and the loss of its tenth. */
export interface Trail {
  loss: number;
  state: Map<string, Float32Array>;
  laterLoss: number;
}

/** The worst relative difference found, and in what. */
export interface Difference {
  what: string;
  size: number;
}

/** How far a peer may be from oto, relative. */
export const TOLERANCE = 1e-3;
/** Updates after which losses are compared again. */
export const UPDATES = 10;

/** What a trail is taken from. */
interface Stepping {
  step(updates: number): Promise<unknown>;
  loss(): Promise<number>;
  parameters(): Promise<Map<string, Float32Array>>;
}

/** Takes a fresh peer through its first updates. */
export async function follow(peer: Stepping): Promise<Trail> {
  await peer.step(1);
  const [loss, state] = [await peer.loss(), await peer.parameters()];
  await peer.step(UPDATES - 1);
  return { loss, state, laterLoss: await peer.loss() };
}

/** Compares losses, and every tensor of state that both have: the distance of two tensors over the length of oto's. */
export function compare(trail: Trail, reference: Trail): Difference {
  const differences: Difference[] = [
    { what: 'loss', size: relative(trail.loss, reference.loss) },
    { what: `loss after ${UPDATES} updates`, size: relative(trail.laterLoss, reference.laterLoss) },
  ];
  for (const [name, expected] of reference.state) {
    const values = trail.state.get(name);
    if (values !== undefined) differences.push({ what: name, size: distance(values, expected) });
    else if (!name.startsWith('adam.')) throw new Error(`${name} is missing`);
  }
  return differences.reduce((worst, one) => (one.size <= worst.size ? worst : one));
}

function relative(value: number, expected: number): number {
  return finite(Math.abs(value - expected) / Math.abs(expected));
}

function distance(values: Float32Array, expected: Float32Array): number {
  if (values.length !== expected.length) return Infinity;
  let [apart, length] = [0, 0];
  for (let i = 0; i < values.length; i++) {
    apart += (values[i]! - expected[i]!) ** 2;
    length += expected[i]! ** 2;
  }
  return apart === 0 ? 0 : finite(Math.sqrt(apart / length));
}

const finite = (x: number) => (Number.isNaN(x) ? Infinity : x);
