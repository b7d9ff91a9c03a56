// The page's end of the wire: calls that wait end with the worker, whatever the page's environment does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WorkerClient } from '../dist/client.js';
import { OwnEnvironments } from '../dist/environment.js';
import { spaces } from '../dist/spaces.js';

const never = new Promise(() => {});

/** A client of a worker that answers every call with 0, and of an environment that is silent from where `silent` says. */
async function client(silent) {
  const make = () => ({
    observationSpace: spaces.box(-1, 1, 2),
    actionSpace: spaces.discrete(2),
    reset: () => (silent === 'reset' ? never : [0, 0]),
    step: () => (silent === 'step' ? never : { observation: [0, 0], reward: 1, terminated: false }),
  });
  const worker = {
    postMessage: (message) => {
      structuredClone(message);
      if (message.type === 'call') queueMicrotask(() => worker.onmessage({ data: { type: 'answer', id: message.id, value: 0 } }));
    },
    terminate: () => {},
  };
  return new WorkerClient(worker, await OwnEnvironments.of(make), 100);
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 5));
const disposed = { name: 'WorkerError', message: 'this student was disposed of' };

test('evaluate and watch fail when the student is disposed of while its environment is silent', async () => {
  for (const silent of ['reset', 'step']) {
    const one = await client(silent);
    const waiting = [one.evaluate(2), one.evaluate(1)];
    if (silent === 'reset') waiting.push(one.watch(3), one.watch(4));
    else {
      await one.watch(3);
      waiting.push(one.watch(undefined));
    }
    const ends = waiting.map((promise) => assert.rejects(promise, disposed));
    await turn();
    one.dispose();
    await Promise.all(ends);
    await assert.rejects(one.evaluate(1), disposed);
    await assert.rejects(one.watch(1), disposed);
  }
});

test('what cannot be sent to a worker is an error of this package', async () => {
  const one = await client('reset');
  await assert.rejects(one.call('weigh', 0, () => 1), { name: 'ConfigError' });
  await assert.rejects(one.watch(undefined), { name: 'ConfigError', field: 'seed' });
  one.dispose();
});
