// What a library must offer to be measured, and by which names the page knows them.

import type { Workload } from './workload';

/** One library on one device, running one workload. */
export interface Peer {
  /** Loads the library and puts the workload's initial state on its device. */
  init(workload: Workload): Promise<void>;
  /** Runs so many updates, to their end. */
  step(updates: number): Promise<void>;
  /** The loss of the last update. */
  loss(): Promise<number>;
  /** State as it is now, by the names and in the layout of the workload; at least the parameters. */
  parameters(): Promise<Map<string, Float32Array>>;
}

/** A peer's name in addresses and files, and what people read. */
export interface PeerInfo {
  name: string;
  label: string;
}

/** All peers, oto first: ratios are towards it. */
export const PEERS: PeerInfo[] = [
  { name: 'oto-cpu', label: 'oto' },
  { name: 'fused', label: 'fused by hand' },
  { name: 'candle', label: 'candle' },
  { name: 'candle-kernels', label: "candle with oto's program and losses" },
  { name: 'tfjs-wasm', label: 'TensorFlow.js wasm, one thread' },
  { name: 'tfjs-wasm-tuned', label: 'TensorFlow.js wasm, one thread, gradients by hand' },
  { name: 'tfjs-wasm-threads', label: 'TensorFlow.js wasm, its threads' },
  { name: 'oto-webgpu', label: 'oto, WebGPU' },
  { name: 'tfjs-webgpu', label: 'TensorFlow.js WebGPU' },
  { name: 'jax-wasm', label: 'jax-js wasm, one thread' },
  { name: 'jax-wasm-threads', label: 'jax-js wasm, its threads' },
  { name: 'jax-webgpu', label: 'jax-js WebGPU' },
];

/** The peer all others are compared with. */
export const REFERENCE = 'oto-cpu';
