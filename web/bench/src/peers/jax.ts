// jax-js 0.1: the whole update is one jitted function of (state, data). Every function takes ownership of its arrays, so
// `.ref` stands wherever one is used again.

import { blockUntilReady, defaultDevice, init, jit, lax, nn, numpy as np, valueAndGrad } from '@jax-js/jax';
import type { Peer } from '../peer';
import { ADAM, input, parameterNames, scalar, transpose, type Workload } from '../workload';

type Arrays = np.Array[];

/** Parameters, Adam's moments, the powers of its decays so far, and the target network (empty in distillation). */
type State = { params: Arrays; m: Arrays; v: Arrays; beta1: np.Array; beta2: np.Array; target: Arrays };

/** The batch by name. */
type Data = { [name: string]: np.Array };

/** The loss of a network, and what else it reads. */
type Loss = (params: Arrays, target: Arrays, data: Data) => np.Array;

/** Updates that are queued before the page waits for them. */
const QUEUED = 8;

export class JaxPeer implements Peer {
  #device: 'wasm' | 'webgpu';
  /** Without threads every kernel runs here, at once; otherwise jax-js hands them to its workers or to the GPU. */
  #here: boolean;
  #workload: Workload | undefined;
  #update: ((state: State, data: Data) => { loss: np.Array; state: State }) | undefined;
  #state: State | undefined;
  #data: Data = {};
  #loss = Number.NaN;

  constructor(device: string) {
    this.#device = device === 'webgpu' ? 'webgpu' : 'wasm';
    this.#here = device === 'wasm';
  }

  async init(workload: Workload): Promise<void> {
    const devices = await init(this.#device);
    if (!devices.includes(this.#device)) throw new Error(`jax-js has no ${this.#device} here`);
    defaultDevice(this.#device);
    this.#workload = workload;
    const arrays = (names: string[]) => names.map((name) => array(workload, name));
    const names = parameterNames(workload, 'q.');
    const zeros = () => arrays(names).map((param) => np.zerosLike(param));
    const target = workload.kind === 'update' ? arrays(parameterNames(workload, 'target.')) : [];
    const one = () => np.array(new Float32Array([1]), { shape: [] });
    this.#state = { params: arrays(names), m: zeros(), v: zeros(), beta1: one(), beta2: one(), target };
    for (const name of workload.data.keys()) {
      if (input(workload, name).shape.length > 0) this.#data[name] = array(workload, name);
    }
    this.#update = jit(trainStep(workload));
  }

  async step(updates: number): Promise<void> {
    let last: np.Array | undefined;
    for (let i = 1; i <= updates; i++) {
      const data = Object.fromEntries(Object.entries(this.#data).map(([name, array]) => [name, array.ref]));
      const { loss, state } = this.#update!(this.#state!, data);
      this.#state = state;
      last?.dispose();
      last = undefined;
      if (this.#here) this.#loss = loss.dataSync()[0]!;
      else last = i % QUEUED === 0 ? await blockUntilReady(loss) : loss;
    }
    if (last !== undefined) this.#loss = (await last.data())[0]!;
  }

  async loss(): Promise<number> {
    return this.#loss;
  }

  async parameters(): Promise<Map<string, Float32Array>> {
    const workload = this.#workload!;
    const { params, m, target } = this.#state!;
    const names = parameterNames(workload, 'q.');
    const found = new Map<string, Float32Array>();
    const read = async (names: string[], arrays: Arrays) => {
      for (const [i, array] of arrays.entries()) {
        const values = Float32Array.from(await array.ref.data());
        found.set(names[i]!, array.ndim === 2 ? transpose({ shape: array.shape, values }).values : values);
      }
    };
    await read(names, params);
    await read(names.map((name) => `adam.m.${name}`), m);
    await read(parameterNames(workload, 'target.'), target);
    return found;
  }
}

/** A workload's input on the device, weights transposed to `[inputs, outputs]`, whole numbers as integers. */
function array(workload: Workload, name: string): np.Array {
  const values = input(workload, name);
  const { shape, values: numbers } = name.endsWith('.weight') ? transpose(values) : values;
  const whole = ['action', 'teacher_action', 'perm'].includes(name);
  return whole ? np.array(Int32Array.from(numbers), { shape }) : np.array(Float32Array.from(numbers), { shape });
}

const refs = (arrays: Arrays) => arrays.map((array) => array.ref);

/** Gradient, Adam's step, and the target network's, which follows. */
function trainStep(workload: Workload): (state: State, data: Data) => { loss: np.Array; state: State } {
  const loss = workload.kind === 'update' ? qrdqnLoss(workload) : crossEntropy;
  const lr = scalar(workload, 'lr');
  const mix = workload.kind === 'update' ? scalar(workload, 'target_mix') : 0;
  return function update(state: State, data: Data) {
    const [value, gradients] = valueAndGrad(loss)(refs(state.params), refs(state.target), data) as [np.Array, Arrays];
    const beta1 = state.beta1.mul(ADAM.beta1);
    const beta2 = state.beta2.mul(ADAM.beta2);
    const size = np.divide(lr, np.subtract(1, beta1.ref));
    const scale = np.divide(1, np.sqrt(np.subtract(1, beta2.ref)));
    const m = state.m.map((m, i) => m.mul(ADAM.beta1).add(gradients[i]!.ref.mul(1 - ADAM.beta1)));
    const v = state.v.map((v, i) => v.mul(ADAM.beta2).add(np.square(gradients[i]!).mul(1 - ADAM.beta2)));
    const params = state.params.map((p, i) => {
      const under = np.sqrt(v[i]!.ref).mul(scale.ref).add(ADAM.epsilon);
      return p.sub(m[i]!.ref.mul(size.ref).div(under));
    });
    size.dispose();
    scale.dispose();
    const target = state.target.map((t, i) => t.ref.add(params[i]!.ref.sub(t).mul(mix)));
    return { loss: value, state: { params, m, v, beta1, beta2, target } };
  };
}

function forward(params: Arrays, x: np.Array): np.Array {
  for (let i = 0; i < params.length; i += 2) {
    x = np.dot(x, params[i]!).add(params[i + 1]!);
    if (i + 2 < params.length) x = nn.relu(x);
  }
  return x;
}

/** 1 at `index` `[B]` among `count`, as `[B, count]`. */
function oneHot(index: np.Array, count: number): np.Array {
  return np.equal(index.reshape([-1, 1]), np.arange(count).astype(np.int32)).astype(np.float32);
}

/** `x[b, index[b]]` of `x` `[B, A, N]`, where `hot` is the index one-hot, `[B, A]`. */
function pick(x: np.Array, hot: np.Array): np.Array {
  return x.mul(hot.reshape([...hot.shape, 1])).sum(1);
}

/** The loss of one update of QR-DQN with the teachers' term, as `oto_rl::qrdqn::program` records it. */
function qrdqnLoss(workload: Workload): Loss {
  const { batch, widths, shape } = workload;
  const quantiles = shape.quantiles;
  const actions = widths.at(-1)! / quantiles;
  const cube = (x: np.Array) => x.reshape([batch, actions, quantiles]);
  const [alphaAikd, delta, eta, alphaTask] = ['alpha_aikd', 'delta', 'eta', 'alpha_task'].map((name) => scalar(workload, name));

  const bellman = (target: Arrays, data: Data) => {
    const next = cube(forward(target, data['next_observation']!));
    const best = oneHot(np.argmax(next.ref.mean(2), 1), actions);
    return data['reward']!.reshape([-1, 1]).add(data['discount']!.reshape([-1, 1]).mul(pick(next, best)));
  };

  return (params, target, data) => {
    const theta = cube(forward(params, data['observation']!));
    const chosen = pick(theta.ref, oneHot(data['action']!, actions));
    const task = quantileHuber(chosen, lax.stopGradient(bellman(target, data)));
    const aikd = aikdLoss(theta.mean(2), data, delta!, eta!);
    return aikd.mul(alphaAikd!).add(task.mul(alphaTask!));
  };
}

/**
 * Quantile Huber loss with kappa 1, mean over the batch. Its slope is the clipped difference, so that with the clipping
 * and the weights held fixed both value and gradient are right, and the gradient is one product.
 */
function quantileHuber(theta: np.Array, target: np.Array): np.Array {
  const [batch, n] = theta.shape as [number, number];
  const tau = np.arange(n).astype(np.float32).add(0.5).mul(1 / n).reshape([1, n, 1]);
  const d = target.reshape([batch, 1, n]).sub(theta.reshape([batch, n, 1]));
  const fixed = lax.stopGradient(d.ref);
  const weight = np.where(fixed.ref.less(0), np.subtract(1, tau.ref), tau);
  const clipped = np.clip(fixed, -1, 1);
  const slope = weight.mul(clipped.ref);
  return slope.mul(d.sub(clipped.mul(0.5))).sum(2).sum().mul(1 / (n * batch));
}

function aikdLoss(q: np.Array, data: Data, delta: number, eta: number): np.Array {
  const actions = q.shape[1]!;
  const mask = data['mask']!.reshape([-1]);
  const perm = data['perm']!;
  const teacher = oneHot(data['teacher_action']!.reshape([-1]), actions);
  const masked = (x: np.Array, mask: np.Array) => x.mul(mask.ref).sum().div(np.maximum(mask.sum(), 1));
  const ofTeacher = (x: np.Array) => x.mul(teacher.ref).sum(1);
  const base = masked(nn.logsumexp(q.ref, 1).sub(ofTeacher(q.ref)), mask.ref);
  const logits = nn.logSoftmax(q, 1);
  const rkdD = masked(ofTeacher(logits.ref).neg(), mask.ref);
  const pair = (x: np.Array) => x.ref.add(np.take(x, perm.ref, 0)).mul(0.5);
  const both = mask.ref.mul(np.take(mask, perm.ref, 0));
  const rkdA = masked(np.square(pair(teacher).sub(pair(np.exp(logits)))).mean(1), both);
  perm.dispose();
  return base.mul(delta).add(rkdD.add(rkdA).mul(eta));
}

/** Cross-entropy with the teacher's probabilities, mean over the batch. */
const crossEntropy: Loss = (params, _, data) => {
  const logits = forward(params, data['observation']!);
  return nn.logSoftmax(logits, 1).mul(data['soft']!).sum(1).mean().neg();
};
