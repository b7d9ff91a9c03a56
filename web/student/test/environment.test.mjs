// Environments of the page's own: their spaces, and the check of everything they return.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OwnEnvironment, OwnEnvironments } from '../dist/environment.js';
import { readObservation, readSpace, spaces } from '../dist/spaces.js';

const functions = { reset: () => [0, 0], step: () => {} };
const cause = new RangeError('not today');
const thrower = () => {
  throw cause;
};

test('spaces are read in Gymnasium’s order, with plain numbers', () => {
  const read = (space) => readSpace('env.observationSpace', space);
  assert.deepEqual(read(spaces.box([-Infinity, null, 0], [Infinity, 1, 2])), { kind: 'box', low: [null, null, 0], high: [null, 1, 2] });
  assert.deepEqual(read(spaces.box(new Float32Array(2), new Float64Array([1, 2]))), { kind: 'box', low: [0, 0], high: [1, 2] });
  assert.deepEqual(read(spaces.box(-1, null, 3)), { kind: 'box', low: [-1, -1, -1], high: [null, null, null] });
  assert.deepEqual(read(spaces.box(0, [1, 2])), { kind: 'box', low: [0, 0], high: [1, 2] });
  assert.deepEqual(read(spaces.discrete(3)), { kind: 'discrete', n: 3 });
  assert.deepEqual(read(spaces.discrete(3, -1)), { kind: 'discrete', n: 3, start: -1 });
  assert.deepEqual(read(spaces.multiDiscrete(new Uint8Array([3, 2]))), { kind: 'multiDiscrete', nvec: [3, 2] });
  const dict = read(spaces.dict({ 'b': spaces.discrete(2), 'B': spaces.multiBinary(2), '\u{1F600}': spaces.discrete(1), '\uFFEE': spaces.discrete(1), 'a': spaces.tuple(spaces.discrete(4)) }));
  // Python sorts by code points, JavaScript by their halves.
  assert.deepEqual(dict.spaces.map(([name]) => name), ['B', 'a', 'b', '\uFFEE', '\u{1F600}']);
});

test('a space that is none is refused by its place', () => {
  const refused = (space, field, message = /./) => assert.throws(() => readSpace('s', space), { name: 'ConfigError', field, message });
  for (const wrong of [NaN, Infinity, '0', undefined, 1n]) refused({ kind: 'box', low: [0, wrong], high: [1, 1] }, 's.low[1]', /null or -Infinity/);
  refused({ kind: 'box', low: [0, 0], high: [-Infinity, 1] }, 's.high[0]');
  refused({ kind: 'box', low: new Array(2), high: [1, 1] }, 's.low[0]');
  refused({ kind: 'box', low: [0, 0], high: [1] }, 's', /2 and 1/);
  refused({ kind: 'box', low: [], high: [] }, 's');
  refused({ kind: 'box', low: 0, high: 1 }, 's', /arrays/);
  refused({ kind: 'box' }, 's');
  for (const n of [0, -1, 1.5, '2', 3n, undefined]) refused({ kind: 'discrete', n }, 's.n');
  refused(spaces.multiDiscrete([2, 0]), 's.nvec[1]');
  refused(spaces.tuple(spaces.discrete(2), { kind: 'sphere' }), 's.spaces[1]', /spaces\.box\(\)/);
  refused(spaces.dict({ arm: spaces.box([0], [0, 1]) }), 's.spaces.arm');
  for (const nothing of [undefined, null, 5, 'box', Symbol('s'), [], new Proxy({}, { get: thrower })]) refused(nothing, 's');
  let deep = spaces.discrete(2);
  for (let i = 0; i < 1e5; i++) deep = spaces.tuple(deep);
  refused(deep, 's');
});

test('an observation’s numbers come in the order of its space', () => {
  const space = readSpace('s', spaces.dict({ where: spaces.box(0, 1, 2), door: spaces.discrete(3), all: spaces.tuple(spaces.multiBinary(2), spaces.multiDiscrete([4])) }));
  const numbers = (observation) => [...readObservation('step()', space, observation)];
  const good = { door: 2, where: new Float32Array([0.5, 1]), all: [[1, 0], [3]], more: 'is overlooked' };
  assert.deepEqual(numbers(good), [1, 0, 3, 2, 0.5, 1]);
  const refused = (change, field) => assert.throws(() => numbers({ ...good, ...change }), { name: 'EnvironmentError', field });
  refused({ door: undefined }, 'observation.door');
  refused({ door: [1] }, 'observation.door');
  refused({ where: [1] }, 'observation.where');
  refused({ where: [1, 1n] }, 'observation.where[1]');
  refused({ all: [[1, 0]] }, 'observation.all[1]');
  refused({ all: [[1, 0], [NaN]] }, 'observation.all[1][0]');
  refused({ all: 7 }, 'observation.all');
  assert.throws(() => numbers(null), { field: 'observation' });
});

test('whatever an observation holds is an error of the environment, with its place and cause', () => {
  const box = readSpace('s', spaces.box(0, 1, 2));
  const wrong = {
    bigint: [[0, 1n], 'observation[1]'],
    symbol: [[Symbol('x'), 0], 'observation[0]'],
    object: [[{}, 0], 'observation[0]'],
    hole: [[0, , ], 'observation[1]'],
    overflow: [[0, 1e300], 'observation[1]'],
    bigints: [new BigInt64Array(2), 'observation[0]'],
    getter: [{ length: 2, 0: 0, get 1() { throw cause; } }, 'observation'],
    length: [Object.defineProperty({}, 'length', { get: thrower }), 'observation'],
    proxy: [new Proxy([0, 0], { get: thrower }), 'observation'],
    text: ['00', 'observation'],
    function: [() => 0, 'observation'],
  };
  for (const [name, [observation, field]] of Object.entries(wrong)) {
    assert.throws(() => readObservation('step()', box, observation), (error) => {
      assert.deepEqual([error.name, error.field], ['EnvironmentError', field], name);
      if (['getter', 'length', 'proxy'].includes(name)) assert.equal(error.cause, cause, name);
      return true;
    });
  }
});

test('an environment is refused by what it lacks, and serves one student at a time', () => {
  const good = { observationSpace: spaces.box(0, 1, 2), actionSpace: spaces.discrete(2), ...functions };
  const own = new OwnEnvironment(good);
  assert.throws(() => new OwnEnvironment(good), { name: 'ConfigError', field: 'env', message: /in use.*function that makes one/ });
  own.release();
  new OwnEnvironment(good).release();
  const refused = (change, field) => assert.throws(() => new OwnEnvironment({ ...good, ...change }), { name: 'ConfigError', field });
  refused({ step: undefined }, 'env.step');
  refused({ reset: 5 }, 'env.reset');
  refused({ observationSpace: undefined }, 'env.observationSpace');
  refused({ actionSpace: spaces.dict({ a: spaces.discrete(2) }) }, 'env.actionSpace');
  for (const nothing of [null, undefined, 5, () => {}]) assert.throws(() => new OwnEnvironment(nothing), { name: 'ConfigError', field: 'env' });
  assert.throws(() => new OwnEnvironment(new Proxy(good, { get: thrower })), { field: 'env.observationSpace', cause });
  // What was refused is not in use.
  new OwnEnvironment(good).release();
});

test('what a step returns is checked field by field, whatever it is', async () => {
  let result;
  const env = new OwnEnvironment({ observationSpace: spaces.box(0, 1, 1), actionSpace: spaces.discrete(2), reset: () => [0], step: () => result });
  const good = { observation: [0], reward: 0, terminated: false };
  const refused = async (given, field, why) => {
    result = given;
    await assert.rejects(env.step(0), (error) => {
      assert.deepEqual([error.name, error.field], ['EnvironmentError', field]);
      if (why !== undefined) assert.equal(error.cause, why);
      return true;
    });
  };
  await refused({ ...good, reward: 1n }, 'reward');
  await refused({ ...good, reward: Symbol('r') }, 'reward');
  await refused({ ...good, terminated: 1 }, 'terminated');
  await refused({ ...good, truncated: null }, 'truncated');
  await refused(Symbol('result'), 'step');
  await refused(5n, 'step');
  for (const name of ['observation', 'reward', 'terminated', 'truncated']) {
    await refused(Object.defineProperty({ ...good }, name, { get: thrower }), name, cause);
  }
  await refused(Object.defineProperty({ ...good }, 'then', { get: thrower }), 'step', cause);
  await refused({ then: (_, reject) => reject(cause) }, 'step', cause);
  for (const thrown of [Symbol('s'), 1n, Object.create(null), Object.defineProperty(new Error(), 'message', { get: thrower })]) {
    await refused(Promise.reject(thrown), 'step', thrown);
  }
  result = good;
  assert.equal((await env.step(0)).truncated, false);
});

test('a function makes an environment for each purpose, and what it makes wrongly is refused and released', async () => {
  const game = (width = 2) => ({ observationSpace: spaces.box(0, 1, width), actionSpace: spaces.discrete(2), ...functions });
  const all = await OwnEnvironments.of(async () => game());
  const third = await all.another();
  assert.equal(new Set([all.training.env, all.evaluation.env, third.env]).size, 3);
  all.release();
  const same = game();
  await assert.rejects(OwnEnvironments.of(() => same), { name: 'ConfigError', field: 'env' });
  const one = await OwnEnvironments.of(same);
  assert.equal(one.evaluation, undefined);
  await assert.rejects(one.another(), { name: 'ConfigError', field: 'env' });
  one.release();
  let width = 1;
  await assert.rejects(OwnEnvironments.of(() => game(width++)), { name: 'ConfigError', field: 'env', message: /same spaces/ });
  await assert.rejects(OwnEnvironments.of(thrower), { name: 'ConfigError', field: 'env', cause });
  await assert.rejects(OwnEnvironments.of(() => undefined), { name: 'ConfigError', field: 'env' });
});

test('a box has the width that is asked for, or is refused', () => {
  for (const width of [2.5, -2, 0, 2 ** 32, NaN, '3', [1, 2], null]) {
    assert.throws(() => spaces.box(-1, 1, width), { name: 'ConfigError', field: 'width' }, String(width));
  }
  assert.throws(() => spaces.box([0, 0], 1, 3), { name: 'ConfigError', field: 'width', message: /has 2 numbers/ });
  assert.deepEqual(spaces.box([0, 0], 1, 2), { kind: 'box', low: [0, 0], high: [1, 1] });
  assert.equal(spaces.box(-1, 1).low.length, 1);
});

test('a bit is 0 or 1', () => {
  const space = readSpace('s', spaces.tuple(spaces.multiBinary(2), spaces.box(0, 1, 1)));
  assert.deepEqual([...readObservation('act()', space, [[1, 0], [7]])], [1, 0, 7]);
  for (const bit of [7, 0.5, -3, 2, true]) {
    assert.throws(() => readObservation('act()', space, [[0, bit], [7]]), { name: 'EnvironmentError', field: 'observation[0][1]' }, String(bit));
  }
});
