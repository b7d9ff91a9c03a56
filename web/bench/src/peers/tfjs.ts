// TensorFlow.js 4.22, as its manual would have it: tidy around a step, variables on the device, tf.train.adam, the fused
// matrix product, gradients of its own making. Tuned, two gradients are written by hand and spare it operations: that of a
// linear layer (its matrix kernel is fast only for operands that lie as they are multiplied), and the quantile Huber loss's.

import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import { setThreadsCount, setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import plain from '@tensorflow/tfjs-backend-wasm/wasm-out/tfjs-backend-wasm.wasm?url';
import simd from '@tensorflow/tfjs-backend-wasm/wasm-out/tfjs-backend-wasm-simd.wasm?url';
import threaded from '@tensorflow/tfjs-backend-wasm/wasm-out/tfjs-backend-wasm-threaded-simd.wasm?url';
import type { Peer } from '../peer';
import { ADAM, input, parameterNames, scalar, transpose, type Workload } from '../workload';

interface Layer {
  weight: tf.Variable;
  bias: tf.Variable;
}

export class TfjsPeer implements Peer {
  #device: string;
  #parts: Parts;
  #variables = new Map<string, tf.Variable>();
  #optimiser: tf.AdamOptimizer | undefined;
  #update: (() => tf.Scalar) | undefined;
  #loss: tf.Scalar | undefined;

  constructor(device: string) {
    this.#device = device;
    this.#parts = device.endsWith('tuned') ? TUNED : PLAIN;
  }

  async init(workload: Workload): Promise<void> {
    await startDevice(this.#device);
    this.#optimiser = tf.train.adam(scalar(workload, 'lr'), ADAM.beta1, ADAM.beta2, ADAM.epsilon);
    const network = (prefix: string, trained: boolean) => {
      const variables = parameterNames(workload, prefix).map((name) => this.#variable(workload, name, trained));
      return pairs(variables).map(([weight, bias]): Layer => ({ weight, bias }));
    };
    this.#update =
      workload.kind === 'update'
        ? qrdqnUpdate(this.#parts, workload, this.#optimiser, network('q.', true), network('target.', false))
        : distillationUpdate(this.#parts, workload, this.#optimiser, network('q.', true));
  }

  async step(updates: number): Promise<void> {
    for (let i = 0; i < updates; i++) {
      this.#loss?.dispose();
      this.#loss = tf.tidy(this.#update!);
    }
    await this.#loss?.data();
  }

  async loss(): Promise<number> {
    return (await this.#loss!.data())[0]!;
  }

  async parameters(): Promise<Map<string, Float32Array>> {
    const found = new Map<string, Float32Array>();
    for (const [name, variable] of this.#variables) found.set(name, await read(variable));
    for (const { name, tensor } of await this.#optimiser!.getWeights()) {
      if (name.endsWith('/m')) found.set(`adam.m.${name.slice(0, -2)}`, await read(tensor));
    }
    return found;
  }

  #variable(workload: Workload, name: string, trained: boolean): tf.Variable {
    const variable = tf.variable(tensor(workload, name), trained, name);
    this.#variables.set(name, variable);
    return variable;
  }
}

function pairs<T>(list: T[]): [T, T][] {
  return list.flatMap((first, i) => (i % 2 === 0 ? [[first, list[i + 1]!] as [T, T]] : []));
}

async function startDevice(device: string): Promise<void> {
  tf.enableProdMode();
  if (device === 'webgpu') {
    await import('@tensorflow/tfjs-backend-webgpu');
  } else {
    setWasmPaths({
      'tfjs-backend-wasm.wasm': plain,
      'tfjs-backend-wasm-simd.wasm': simd,
      'tfjs-backend-wasm-threaded-simd.wasm': threaded,
    });
    // Without threads it has a leaner module; with them it takes as many as there are cores.
    tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', device === 'wasm-threads');
    if (device === 'wasm-threads') setThreadsCount(navigator.hardwareConcurrency);
  }
  const backend = device === 'webgpu' ? 'webgpu' : 'wasm';
  if (!(await tf.setBackend(backend))) throw new Error(`TensorFlow.js cannot start its backend ${backend} here`);
  await tf.ready();
}

/** A workload's input on the device; matrices of parameters transposed, as `tf.layers.dense` keeps them. */
function tensor(workload: Workload, name: string): tf.Tensor {
  const values = input(workload, name);
  const { shape, values: numbers } = name.endsWith('.weight') ? transpose(values) : values;
  return tf.tensor(numbers, shape, 'float32');
}

async function read(from: tf.Tensor): Promise<Float32Array> {
  const values = (await from.data()) as Float32Array;
  return from.rank === 2 ? transpose({ shape: from.shape, values }).values : Float32Array.from(values);
}

/** Asked for floats, the wasm backend's own returns other numbers than ones. */
function oneHot(index: tf.Tensor1D, count: number): tf.Tensor2D {
  return tf.cast(tf.oneHot(index, count) as tf.Tensor2D, 'float32');
}

/** What can be written with or without gradients of our own. */
interface Parts {
  /** `x weight + bias`, ReLU after it where `relu` is set; `first` where nothing depends on `x`. */
  linear(x: tf.Tensor2D, layer: Layer, relu: boolean, first: boolean): tf.Tensor2D;
  /** Quantile Huber loss with kappa 1 of theta `[B, N]` against target `[B, M]`, mean over the batch. */
  quantileHuber(theta: tf.Tensor2D, target: tf.Tensor2D): tf.Scalar;
}

const PLAIN: Parts = {
  linear: (x, { weight, bias }, relu) =>
    tf.fused.matMul({ a: x, b: weight as tf.Tensor2D, bias, activation: relu ? 'relu' : 'linear' }) as tf.Tensor2D,

  quantileHuber(theta, target) {
    const [, n] = theta.shape;
    const difference = tf.sub(tf.expandDims(target, 1), tf.expandDims(theta, 2));
    const size = tf.abs(difference);
    const near = tf.minimum(size, 1);
    const huber = tf.mul(near, tf.sub(size, tf.mul(near, 0.5)));
    const tau = tf.reshape(tf.div(tf.add(tf.range(0, n), 0.5), n), [1, n, 1]);
    const weight = tf.abs(tf.sub(tau, tf.step(tf.neg(difference))));
    return tf.mean(tf.mean(tf.sum(tf.mul(huber, weight), 2), 1)) as tf.Scalar;
  },
};

const TUNED: Parts = { linear: tunedLinear, quantileHuber: tunedQuantileHuber };

/** `x` is differentiated only where something depends on it. */
function tunedLinear(x: tf.Tensor2D, { weight, bias }: Layer, relu: boolean, first: boolean): tf.Tensor2D {
  const forward = (x: tf.Tensor2D, w: tf.Tensor2D, b: tf.Tensor1D) => {
    const y = tf.fused.matMul({ a: x, b: w, bias: b });
    return relu ? tf.relu(y) : y;
  };
  const before = (dy: tf.Tensor2D, y: tf.Tensor2D) => (relu ? tf.mul<tf.Tensor2D>(dy, tf.step(y)) : dy);
  const towards = (x: tf.Tensor2D, g: tf.Tensor2D) => [tf.matMul(tf.transpose(x), g), tf.sum(g, 0)];
  if (first) {
    return tf.customGrad((w, b, save) => {
      const y = forward(x, w as tf.Tensor2D, b as tf.Tensor1D);
      (save as tf.GradSaveFunc)([y]);
      return { value: y, gradFunc: (dy, [y]) => towards(x, before(dy as tf.Tensor2D, y as tf.Tensor2D)) };
    })(weight, bias) as tf.Tensor2D;
  }
  return tf.customGrad((x, w, b, save) => {
    const y = forward(x as tf.Tensor2D, w as tf.Tensor2D, b as tf.Tensor1D);
    (save as tf.GradSaveFunc)([x as tf.Tensor, w as tf.Tensor, y]);
    return {
      value: y,
      gradFunc: (dy, saved) => {
        const [x, w, y] = saved as tf.Tensor2D[];
        const g = before(dy as tf.Tensor2D, y!);
        return [tf.matMul(g, tf.transpose(w!)), ...towards(x!, g)];
      },
    };
  })(x, weight, bias) as tf.Tensor2D;
}

function forward({ linear }: Parts, network: Layer[], x: tf.Tensor2D): tf.Tensor2D {
  return network.reduce((h, layer, i) => linear(h, layer, i + 1 < network.length, i === 0), x);
}

/** The same without a gradient to come, in the fused kernel with its activation. */
function forwardOnly(network: Layer[], x: tf.Tensor2D): tf.Tensor2D {
  return network.reduce<tf.Tensor2D>((h, { weight, bias }, i) => {
    const activation = i + 1 < network.length ? 'relu' : 'linear';
    return tf.fused.matMul({ a: h, b: weight, bias, activation }) as tf.Tensor2D;
  }, x);
}

/** Over the pairs of quantiles only what does not depend on tau is computed; tau comes in after the sum over targets. */
function tunedQuantileHuber(theta: tf.Tensor2D, target: tf.Tensor2D): tf.Scalar {
  const [batch, n] = theta.shape;
  return tf.customGrad((given, save) => {
    const theta = given as tf.Tensor2D;
    const d = tf.sub(tf.expandDims(target, 1), tf.expandDims(theta, 2));
    const clipped = tf.clipByValue(d, -1, 1);
    const above = tf.relu(clipped);
    const rest = tf.sub(d, tf.mul(clipped, 0.5));
    const tau = tf.div(tf.add(tf.range(0, n), 0.5), n);
    const [low, up] = [tf.sub(1, tau), tf.sub(tf.mul(tau, 2), 1)];
    const weigh = (all: tf.Tensor, above: tf.Tensor) =>
      tf.add(tf.mul(tf.sum(all, 2), low), tf.mul(tf.sum(above, 2), up));
    (save as tf.GradSaveFunc)([weigh(clipped, above)]);
    const value = tf.div(tf.sum(weigh(tf.mul(clipped, rest), tf.mul(above, rest))), n * batch);
    return { value, gradFunc: (dy, [slope]) => tf.mul(slope!, tf.mul(dy, -1 / (n * batch))) };
  })(theta) as tf.Scalar;
}

/** One update of QR-DQN with the teachers' term, as `oto_rl::qrdqn::program` records it. */
function qrdqnUpdate(
  parts: Parts,
  workload: Workload,
  optimiser: tf.AdamOptimizer,
  q: Layer[],
  target: Layer[],
): () => tf.Scalar {
  const { quantiles } = workload.shape;
  const data = (name: string) => tensor(workload, name);
  const whole = (name: string) => tf.cast(tf.reshape(data(name), [-1]), 'int32') as tf.Tensor1D;
  const observation = data('observation') as tf.Tensor2D;
  const next = data('next_observation') as tf.Tensor2D;
  const [reward, discount] = [tf.expandDims(data('reward'), 1), tf.expandDims(data('discount'), 1)];
  const [action, teacherAction, perm] = [whole('action'), whole('teacher_action'), whole('perm')];
  const mask = tf.reshape(data('mask'), [-1]) as tf.Tensor1D;
  const [alphaAikd, delta, eta] = [scalar(workload, 'alpha_aikd'), scalar(workload, 'delta'), scalar(workload, 'eta')];
  const [alphaTask, mix] = [scalar(workload, 'alpha_task'), scalar(workload, 'target_mix')];
  const batch = observation.shape[0];
  const actions = q.at(-1)!.bias.size / quantiles;
  const cube = (x: tf.Tensor2D) => tf.reshape(x, [batch, actions, quantiles]);
  const pick = (x: tf.Tensor, hot: tf.Tensor) => tf.sum(tf.mul(x, tf.expandDims(hot, 2)), 1) as tf.Tensor2D;
  const parameters = q.flatMap(({ weight, bias }) => [weight, bias]);
  const slow = target.flatMap(({ weight, bias }) => [weight, bias]);

  /** Everything that is not differentiated. */
  const prepare = () => {
    const theta = cube(forwardOnly(target, next));
    const best = oneHot(tf.argMax(tf.mean(theta, 2), 1) as tf.Tensor1D, actions);
    const teacher = oneHot(teacherAction, actions);
    const both = tf.mul(mask, tf.gather(mask, perm));
    const atLeastOne = (mask: tf.Tensor) => tf.maximum(tf.sum(mask), 1);
    return {
      bellman: tf.add(reward, tf.mul(discount, pick(theta, best))) as tf.Tensor2D,
      chosen: oneHot(action, actions),
      // The gather's gradient is missing from the wasm backend; a small matrix product has the same effect.
      partner: oneHot(perm, batch),
      teacher,
      teacherPair: tf.add(teacher, tf.gather(teacher, perm)),
      both,
      labels: atLeastOne(mask),
      pairs: atLeastOne(both),
    };
  };

  const transferLoss = (given: ReturnType<typeof prepare>): tf.Scalar => {
    const theta = cube(forward(parts, q, observation));
    const task = parts.quantileHuber(pick(theta, given.chosen), given.bellman);
    const values = tf.mean(theta, 2) as tf.Tensor2D;
    const ofTeacher = (x: tf.Tensor) => tf.sum(tf.mul(x, given.teacher), 1);
    const masked = (x: tf.Tensor) => tf.div(tf.sum(tf.mul(x, mask)), given.labels);
    const base = masked(tf.sub(tf.logSumExp(values, 1), ofTeacher(values)));
    const logits = tf.logSoftmax(values, 1);
    const rkdD = masked(tf.neg(ofTeacher(logits)));
    const student = tf.exp(logits) as tf.Tensor2D;
    const midpoints = tf.mul(tf.sub(given.teacherPair, tf.add(student, tf.matMul(given.partner, student))), 0.5);
    const rkdA = tf.div(tf.sum(tf.mul(tf.mean(tf.square(midpoints), 1), given.both)), given.pairs);
    const aikd = tf.add(tf.mul(base, delta), tf.mul(tf.add(rkdD, rkdA), eta));
    return tf.add(tf.mul(aikd, alphaAikd), tf.mul(task, alphaTask));
  };

  return () => {
    const given = prepare();
    const loss = optimiser.minimize(() => transferLoss(given), true, parameters)!;
    slow.forEach((old, i) => old.assign(tf.add(old, tf.mul(tf.sub(parameters[i]!, old), mix))));
    return loss;
  };
}

/** One step of distillation: cross-entropy with the teacher's probabilities. */
function distillationUpdate(
  parts: Parts,
  workload: Workload,
  optimiser: tf.AdamOptimizer,
  student: Layer[],
): () => tf.Scalar {
  const x = tensor(workload, 'observation') as tf.Tensor2D;
  const soft = tensor(workload, 'soft');
  const parameters = student.flatMap(({ weight, bias }) => [weight, bias]);
  const crossEntropy = () => tf.neg(tf.mean(tf.sum(tf.mul(tf.logSoftmax(forward(parts, student, x), 1), soft), 1))) as tf.Scalar;
  return () => optimiser.minimize(crossEntropy, true, parameters)!;
}
