// The state of the demo in its address: read, written, and read again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { BACKENDS, MAX_SEED, fromQuery, seedOf, toQuery } = await load('address.ts');

const ENVIRONMENTS = ['cartpole', 'pendulum', 'cell'];
const FIRST_VISIT = { environment: 'cartpole', seed: 1, teacher: undefined, backend: 'cpu', animate: undefined };

test('an address is read, and what it asks for wrongly is as on a first visit', () => {
  for (const [query, expected] of [
    ['', {}],
    ['?environment=cell', { environment: 'cell' }],
    ['?environment=chess', {}],
    ['?environment=__proto__', {}],
    ['?seed=42', { seed: 42 }],
    ['?seed=0', { seed: 0 }],
    [`?seed=${MAX_SEED}`, { seed: MAX_SEED }],
    ...['-1', '4294967296', '1.5', '1e3', 'NaN', 'Infinity', '', ' 7', '0x7', '٣', '99999999999999999999'].map((seed) => [`?seed=${seed}`, {}]),
    ['?teacher=scripted%3Arandom', { teacher: 'scripted:random' }],
    ['?teacher=', {}],
    ['?backend=webgpu', { backend: 'webgpu' }],
    ['?backend=tpu', {}],
    ['?animate=off', { animate: false }],
    ['?animate=on', { animate: true }],
    ['?animate=toString', {}],
    ['?environment=cell&environment=pendulum', { environment: 'cell' }],
    ['?world=cell', { environment: 'cell' }],
    ['?environment=pendulum&world=cell', { environment: 'pendulum' }],
    ['?%', {}],
    ['?seed=%ff', {}],
  ]) {
    assert.deepEqual(fromQuery(query, ENVIRONMENTS), { ...FIRST_VISIT, ...expected }, query);
  }
});

test('what is written is read again, and a first visit is not written', () => {
  assert.equal(toQuery(FIRST_VISIT, '', ENVIRONMENTS), '');
  assert.equal(toQuery({ ...FIRST_VISIT, environment: 'cell' }, '?environment=pendulum', ENVIRONMENTS), '?environment=cell');
  assert.equal(toQuery({ ...FIRST_VISIT, environment: 'cell' }, '?world=pendulum', ENVIRONMENTS), '?environment=cell', 'an older address');
  assert.equal(toQuery(FIRST_VISIT, '?environment=cell&from=here&seed=9', ENVIRONMENTS), '?from=here', 'what is not ours stays');
  for (const environment of ENVIRONMENTS) {
    for (const seed of [0, 1, 2, 77, MAX_SEED]) {
      for (const teacher of [undefined, 'ppo_cartpole_v1', 'a b&c=d#e?ü%', '?', '&seed=3']) {
        for (const backend of BACKENDS) {
          for (const animate of [undefined, true, false]) {
            const settings = { environment, seed, teacher, backend, animate };
            assert.deepEqual(fromQuery(toQuery(settings, '?seed=5&teacher=x', ENVIRONMENTS), ENVIRONMENTS), settings);
          }
        }
      }
    }
  }
});

test('a seed is a whole number that the engine takes', () => {
  for (const [text, seed] of [['7', 7], ['007', 7], ['', undefined], ['-3', undefined], ['4294967295', MAX_SEED], ['4294967296', undefined]]) {
    assert.equal(seedOf(text), seed, text);
  }
});
