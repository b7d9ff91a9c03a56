// Plain JavaScript runs the vectors of oto.v1: `node --test tests/wire/wire.test.mjs`. No library, nothing of the Rust crate.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as adapters from './adapter.mjs';
import * as codec from './codec.mjs';
import { accepts } from './schema.mjs';

const MAX_CONTROL_BYTES = 1_048_576;
const read = (path) => JSON.parse(readFileSync(new URL(`../../crates/oto-proto/${path}`, import.meta.url), 'utf8'));
const fromHex = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const toHex = (bytes) => Buffer.from(bytes).toString('hex');
/** JSON writes a float of 32 bits with as many digits as it likes; the nearest float is what counts. */
const round = (row) => (Array.isArray(row) ? row.map(Math.fround) : row);

const frames = read('vectors/frames.json').cases;
const submissions = read('vectors/submissions.json').cases;
const transitions = read('vectors/transitions.json').cases;
const weights = read('vectors/weights.json').cases;
const gradients = read('vectors/gradients.json').cases;
const logits = read('vectors/logits.json').cases;
const messages = read('vectors/messages.json').cases;
const adapterCases = read('vectors/adapters.json').cases;
const schema = read('schema/oto.v1.json');

for (const { name, hex, max_rows: maxRows, valid, reject, ...rest } of frames) {
  test(`frame: ${name}`, () => {
    const format = codec.format(rest);
    if (reject) {
      assert.throws(() => codec.decode(format, fromHex(hex), maxRows), { reason: reject });
      return;
    }
    assert.deepEqual(codec.decode(format, fromHex(hex), maxRows), { ...valid, rows: valid.rows.map(round) });
    assert.equal(toHex(codec.encode(format, valid)), hex);
  });
}

for (const { name, hex, max_rows: maxRows, valid, reject, ...rest } of submissions) {
  test(`submission: ${name}`, () => {
    const format = codec.submissionFormat(rest);
    if (reject) {
      assert.throws(() => codec.decodeSubmission(format, fromHex(hex), maxRows), { reason: reject });
      return;
    }
    assert.deepEqual(codec.decodeSubmission(format, fromHex(hex), maxRows), valid);
    assert.equal(toHex(codec.encodeSubmission(format, valid)), hex);
  });
}

for (const { name, hex, max_rows: maxRows, valid, reject, ...rest } of transitions) {
  test(`transitions: ${name}`, () => {
    const format = codec.streamFormat(rest);
    if (reject) {
      assert.throws(() => codec.decodeStream(format, fromHex(hex), maxRows), { reason: reject });
      return;
    }
    assert.deepEqual(codec.decodeStream(format, fromHex(hex), maxRows), valid);
    assert.equal(toHex(codec.encodeStream(format, valid)), hex);
  });
}

for (const { name, parameters, held, hex, valid, reject } of weights) {
  test(`weights: ${name}`, () => {
    if (reject) {
      assert.throws(() => codec.decodeWeights(parameters, held, fromHex(hex)), { reason: reject });
      return;
    }
    assert.deepEqual(codec.decodeWeights(parameters, held, fromHex(hex)), { ...valid, weights: valid.weights.map(Math.fround) });
    // Compressors differ, so that only complete weights have one encoding.
    if (valid.base === 0) assert.equal(toHex(codec.encodeWeights(hex[3] === '2' ? 'f16' : 'f32', valid)), hex);
  });
}

for (const { name, parameters, hex, valid, reject } of gradients) {
  test(`gradients: ${name}`, () => {
    if (reject) {
      assert.throws(() => codec.decodeGradients(parameters, fromHex(hex)), { reason: reject });
      return;
    }
    assert.deepEqual(codec.decodeGradients(parameters, fromHex(hex)), { ...valid, gradients: valid.gradients.map(Math.fround) });
    assert.equal(toHex(codec.encodeGradients(valid)), hex);
  });
}

for (const { name, actions, max_rows: maxRows, hex, valid, reject } of logits) {
  test(`logits: ${name}`, () => {
    if (reject) {
      assert.throws(() => codec.decodeLogits(actions, maxRows, fromHex(hex)), { reason: reject });
      return;
    }
    assert.deepEqual(codec.decodeLogits(actions, maxRows, fromHex(hex)), { ...valid, logits: valid.logits.map((row) => row.map(Math.fround)) });
    assert.equal(toHex(codec.encodeLogits(valid)), hex);
  });
}

test('frame: a view into a larger buffer', () => {
  const { hex, max_rows: maxRows, valid, ...rest } = frames.find(({ name }) => name === 'discrete answers');
  const bytes = fromHex(`00${hex}00`);
  assert.deepEqual(codec.decode(codec.format(rest), bytes.subarray(1, bytes.length - 1), maxRows), valid);
});

test('every half survives', () => {
  for (let bits = 0; bits < 0x10000; bits++) {
    const number = codec.fromHalf(bits);
    if (Number.isNaN(number)) assert.ok(Number.isNaN(codec.fromHalf(codec.toHalf(number))));
    else assert.equal(codec.toHalf(number), bits);
  }
});

for (const { name, from, text, pad = 0, means, schema: fits } of messages) {
  test(`message: ${name}`, () => {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      assert.equal(fits, false);
      return;
    }
    assert.equal(accepts(schema.$defs[from], value, schema), fits);
    if (fits && means) {
      assert.ok(text.length + pad <= MAX_CONTROL_BYTES);
      assert.ok(accepts(schema.$defs[from], means, schema));
    }
  });
}

for (const { name, student, teacher, adapter, observations, actions, reject } of adapterCases) {
  test(`adapter: ${name}`, () => {
    if (reject) {
      assert.throws(() => adapters.plan(adapter, student, teacher), { code: reject });
      return;
    }
    const plan = adapters.plan(adapter, student, teacher);
    const check = (map, row) =>
      row.reject
        ? assert.throws(() => map(row.from), { code: row.reject })
        : assert.deepEqual(round(map(row.from)), round(row.to));
    observations.forEach((row) => check(plan.observation, row));
    actions.forEach((row) => check(plan.action, row));
  });
}
