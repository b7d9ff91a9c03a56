// The worker's loop around an engine that is made here: questions to the environment, ends, failures, and an engine that breaks.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

/** An engine that asks for a step again and again, as the real one does: the same question until it is answered. */
class Engine {
  steps = 0;
  asked = false;
  failed = 0;
  cuts = [];
  broken = false;
  /** What `advance` does first. */
  before = () => {};
  #call(act) {
    // wasm-bindgen's words for a call into an engine that was stopped in the middle of another one.
    if (this.broken) throw new Error('recursive use of an object detected which would lead to unsafe aliasing in rust');
    return act();
  }
  spaces = () => ({});
  unused = () => undefined;
  train = () => {};
  advance = () => this.#call(() => (this.before(), (this.asked = true), 'environment'));
  environment_request = () => this.#call(() => {
    if (this.asked) return { kind: 'step', action: 0 };
    throw { kind: 'worker', message: 'the environment is not needed now' };
  });
  environment_answer = (observation) => this.#call(() => {
    assert.ok(this.asked);
    if (observation[0] === 13) throw { kind: 'environment', message: 'refused', field: 'observation[0]' };
    this.asked = false;
    this.steps += 1;
  });
  environment_failed = () => this.#call(() => ((this.asked = false), (this.failed += 1)));
  evaluation_seed = () => 7;
  record_evaluation = (returns) => ({ returns: [...returns] });
  teachers = () => 2;
  connect = (...args) => this.#call(() => this.cuts.push(args));
  serve_links = () => this.#call(() => {});
  metrics = () => this.#call(() => ({ step: this.steps }));
  learning = () => this.#call(() => false);
  sync = () => true;
  save = () => this.#call(() => new Uint8Array([1]));
  load = () => this.#call(() => (this.asked = false));
  trap() {
    this.broken = true;
    throw new WebAssembly.RuntimeError('unreachable');
  }
}

let engine, wake, closed, questions, calls, lastId, imports = 0;

beforeEach(async () => {
  [engine, closed, questions, calls, lastId] = [new Engine(), 0, [], new Map(), 0];
  globalThis.addEventListener ??= () => {};
  globalThis.postMessage = ({ type, id, value, error }) => {
    if (type === 'environment') return void questions.push(id);
    const { resolve, reject } = calls.get(id);
    if (type === 'answer') resolve(value);
    else reject(Object.assign(new Error(error.message), error));
  };
  // A worker is a module of its own.
  const { serve } = await import(`../dist/serve.js?${++imports}`);
  const create = async (config, tickets, serveLinks) => ((wake = serveLinks), engine);
  serve(Promise.resolve({ create, closeSockets: () => (closed += 1) }));
  await call('create', {}, []);
});

afterEach(async () => {
  await call('stop').catch(() => {});
});

function call(name, ...args) {
  return new Promise((resolve, reject) => {
    const id = ++lastId;
    calls.set(id, { resolve, reject });
    globalThis.onmessage({ data: { type: 'call', id, name, args } });
  });
}

const answer = (number = 0) =>
  globalThis.onmessage({ data: { type: 'environment', answer: { observation: Float64Array.of(number), reward: 0, terminated: false, truncated: false } } });
const throwError = () => globalThis.onmessage({ data: { type: 'environment-error', error: { kind: 'environment', message: 'it threw' } } });

/** Until something holds; events have their turn in between. */
async function until(holds) {
  for (let i = 0; !holds(); i++) {
    assert.ok(i < 2_000, String(holds));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test('a loop ends at once while a step never comes and news are far away, and the step counts when it comes', async () => {
  await call('start', null, 60_000);
  await until(() => questions.length === 1);
  const next = call('next');
  await call('stop');
  assert.deepEqual(await next, { metrics: { step: 0 }, over: true });
  // News that are asked for after the end are the last ones again.
  assert.equal((await call('next')).over, true);
  await call('start', null, 60_000);
  answer();
  await until(() => engine.steps === 1 && questions.length === 2);
});

test('questions are asked once, also over several runs, and training rests while it is held or paused', async () => {
  for (let i = 0; i < 3; i++) {
    await call('start', null, 0);
    await call('stop');
  }
  assert.ok(questions.length <= 1);
  await call('pause', true);
  await call('start', null, 0);
  assert.equal(await call('beginEvaluation'), 7);
  answer();
  await call('pause', false);
  const { steps } = engine;
  const asked = questions.length;
  await call('next');
  assert.deepEqual([engine.steps, questions.length], [steps, asked], 'held');
  assert.deepEqual(await call('endEvaluation', [1, 2]), { returns: [1, 2] });
  await until(() => questions.length > asked);
  assert.equal(await call('endEvaluation', null), null);
});

test('what the environment throws, or the engine refuses, ends the run and not the student', async () => {
  for (const fail of [throwError, () => answer(13)]) {
    await call('start', null, 0);
    await until(() => engine.asked && questions.length > engine.failed);
    const { failed } = engine;
    fail();
    await assert.rejects(async () => {
      while (!(await call('next')).over);
    }, { kind: 'environment' });
    assert.equal(engine.failed, failed + 1);
    await call('stop');
    assert.deepEqual(await call('save', false), new Uint8Array([1]));
  }
});

test('an engine that broke says so in every later call, and never in wasm-bindgen’s words', async () => {
  await call('start', null, 0);
  await until(() => questions.length === 1);
  engine.environment_answer = () => engine.trap();
  answer();
  const gone = { kind: 'worker', message: /^the student's engine failed and is gone: unreachable\. Out of memory.* Make a new student/ };
  await assert.rejects(async () => {
    while (!(await call('next')).over);
  }, gone);
  await call('stop');
  for (const [name, ...args] of [['metrics'], ['save', false], ['act', new Float64Array(1)], ['start', null, 0], ['load', new Uint8Array()], ['evaluate', 1]]) {
    await assert.rejects(call(name, ...args), gone, name);
  }
});

test('an engine that breaks between calls, by a timer or a link, ends the run with the same words', async () => {
  await call('start', null, 60_000);
  await until(() => questions.length === 1);
  const next = call('next');
  engine.serve_links = () => engine.trap();
  // A socket or a timer reports.
  wake();
  await assert.rejects(next, { kind: 'worker', message: /is gone/ });
  assert.equal(closed, 1, 'sockets of an engine that is gone are closed');
  wake();
  assert.equal(closed, 1);
});

test('settings that change nothing are named in the console', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  await call('create', {}, []);
  engine.unused = () => 'these settings change nothing in this run of ppo: epsilon';
  await call('create', {}, []);
  assert.deepEqual(warn.mock.calls.map((one) => one.arguments), [['oto-student: these settings change nothing in this run of ppo: epsilon']]);
});

test('a teacher that there is not is refused', async () => {
  for (const teacher of [2, -1, 0.5, NaN, '0']) {
    await assert.rejects(call('connect', teacher, true), { kind: 'config', field: 'teacher', message: /^there are 2 teachers, counted from 0, and no / });
  }
  for (const teacher of [null, 1]) await call('connect', teacher, false);
  assert.deepEqual(engine.cuts, [[null, false], [1, false]]);
});

test('a failure that left the engine whole is told, and the engine goes on', async () => {
  engine.save = () => {
    throw new WebAssembly.RuntimeError('unreachable');
  };
  await assert.rejects(call('save', true), { kind: 'worker', message: /unreachable/ });
  assert.deepEqual(await call('metrics'), { step: 0 });
});

test('a bad answer that comes after the run has stopped is the first thing the next run says', async () => {
  for (const fail of [throwError, () => answer(13)]) {
    await call('start', null, 60_000);
    await until(() => engine.asked && questions.length > engine.failed);
    const { failed } = engine;
    await call('stop');
    fail();
    await until(() => engine.failed === failed + 1);
    await call('start', null, 0);
    await assert.rejects(call('next'), { kind: 'environment' });
    await call('stop');
    // It is said once.
    await call('start', null, 0);
    await until(() => questions.length > engine.failed);
    assert.equal((await call('next')).over, false);
    await call('stop');
  }
});
