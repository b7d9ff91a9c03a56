// One peer in a worker of its own: its threads, its memory and its failures stay apart from the others'.

import type { Peer } from './peer';
import type { Workload } from './workload';

/** What the page asks. */
export type Request =
  | { call: 'init'; peer: string; workload: Workload }
  | { call: 'step'; updates: number }
  | { call: 'loss' }
  | { call: 'parameters' };

/** The answer to the request before; a step's is the milliseconds it took, measured here. */
export type Answer = { value: unknown } | { error: string };

/** Loads a peer's code; only what is measured is downloaded. */
async function load(name: string): Promise<Peer> {
  const [library, ...rest] = name.split('-');
  const device = rest.join('-');
  switch (library) {
    case 'tfjs':
      return new (await import('./peers/tfjs')).TfjsPeer(device);
    case 'jax':
      return new (await import('./peers/jax')).JaxPeer(device);
    default:
      return new (await import('./peers/oto')).OtoPeer(name);
  }
}

let peer: Peer | undefined;

async function answer(request: Request): Promise<unknown> {
  if (request.call === 'init') {
    peer = await load(request.peer);
    return peer.init(request.workload);
  }
  if (peer === undefined) throw new Error('nothing is loaded yet');
  if (request.call === 'loss') return peer.loss();
  if (request.call === 'parameters') return peer.parameters();
  const start = performance.now();
  await peer.step(request.updates);
  return performance.now() - start;
}

addEventListener('message', async ({ data }: MessageEvent<Request>) => {
  let message: Answer;
  try {
    message = { value: await answer(data) };
  } catch (error) {
    message = { error: error instanceof Error ? error.message : String(error) };
  }
  postMessage(message);
});
