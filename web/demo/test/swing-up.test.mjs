// The swing-up's view in words: its figures and how an episode ended.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const scene = (changed) => ({ state: [0.1, 0, Math.PI, 0, 12], step: 7, limit: 1000, action: [1.7], return: 2.5, over: false, ...changed });

test('figures are the state and the clipped action', async () => {
  const { swingUp } = await load('views/swing-up.ts');
  const figures = Object.fromEntries(swingUp.figures([scene({})]));
  assert.match(figures['From upright'], /180/);
  assert.match(figures.Cart, /10\.0 cm/);
  assert.match(figures.Voltage, /100 %/);
  assert.equal(figures['On target'], '12 steps');
  assert.equal(Object.fromEntries(swingUp.figures([scene({ action: [] })])).Voltage, '–');
});

test('an episode that ends before its limit has failed', async () => {
  const { swingUp } = await load('views/swing-up.ts');
  assert.deepEqual(swingUp.ending(scene({ over: true })), { text: 'stopped at step 7', failed: true });
  assert.equal(swingUp.ending(scene({ over: true, step: 1000 })).failed, false);
});
