// How options become the engine's configuration, and what is refused before a worker is started.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toMessage } from '../dist/errors.js';
import { maxSteps, readOptions, ticketAddresses, toConfig } from '../dist/options.js';

/** The configuration as the worker gets it. */
const config = (options) => structuredClone(toConfig(readOptions({ env: 'CartPole-v1', ...options })));

test('what is left out stays out', () => {
  assert.deepEqual(config({}), {
    student: {},
    env: 'CartPole-v1',
    teachers: [],
  });
});

test('settings cross as they are written', () => {
  const settings = {
    algorithm: { hidden: [8], batchSize: 4, adam: { beta1: 0.5 } },
    nStep: 3,
    learningRate: 0.1,
    epsilon: { start: 1, end: 0, steps: 9 },
    transfer: { alphaAikd: 2, learningRate: null },
    requestBatch: 5,
    stages: { transfer: { returnAtLeast: 475, giveUp: { afterSteps: 1, belowReturn: 2 } }, online: null, loop: true },
    evaluation: { every: 10 },
    clock: 'async',
    seed: 7,
  };
  assert.deepEqual(config(settings), { student: settings, env: 'CartPole-v1', teachers: [] });
  // What is undefined is left out, and null is a value.
  const { student } = config({ seed: undefined, plateauDecay: null, stages: { online: undefined, transfer: null } });
  assert.deepEqual(student, { plateauDecay: null, stages: { transfer: null } });
});

test('every setting keeps its form, also a number that has the name of a schedule elsewhere', () => {
  for (const name of [undefined, 'qrdqn', 'sac', 'ppo']) {
    const { student } = config({ algorithm: { name, adam: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 } }, epsilon: 0.1, learningRate: 1e-3 });
    assert.deepEqual(student.algorithm.adam, { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 });
    assert.deepEqual([student.epsilon, student.learningRate], [0.1, 1e-3]);
  }
});

test('an algorithm is a name, or a name with settings', () => {
  assert.equal(config({ algorithm: 'ppo' }).student.algorithm, 'ppo');
  const { student } = config({ algorithm: { name: 'ppo', nSteps: 512, fusion: true }, gamma: 0.9 });
  assert.deepEqual(student, { algorithm: { name: 'ppo', nSteps: 512, fusion: true }, gamma: 0.9 });
});

test('teachers and their adapters are carried as they are', () => {
  const teacher = { url: 'ws://127.0.0.1:1/teach', policy: 'p', adapter: { observation: { permutation: [0] } } };
  assert.deepEqual(config({ teachers: [teacher] }), { student: {}, env: 'CartPole-v1', teachers: [teacher] });
});

test('an address without a path is that of a server, all others stay as they are', () => {
  const whole = (url) => config({ teachers: [{ url, policy: 'p' }] }).teachers[0].url;
  assert.equal(whole('ws://127.0.0.1:8080'), 'ws://127.0.0.1:8080/v1/teach');
  assert.equal(whole('wss://teachers.example/'), 'wss://teachers.example/v1/teach');
  for (const other of ['wss://teachers.example/a', 'ws://127.0.0.1:8080/?a=b']) assert.equal(whole(other), other);
});

test('what is no address of a WebSocket is refused at once, with what it could be', () => {
  const refused = (url) => {
    try {
      config({ teachers: [{ url: 'ws://a', policy: 'p' }, { url, policy: 'p' }] });
    } catch (error) {
      assert.deepEqual([error.name, error.field], ['ConfigError', 'teachers[1].url']);
      return error.message;
    }
    return assert.fail(`${url} was accepted`);
  };
  for (const url of ['nonsense', '', 'ws://', 'wss//host', 'ftp://host', 'ws://a b', 'ws://host/#here', '/v1/teach', 5, null, undefined]) refused(url);
  assert.match(refused('http://host:8080'), /it is "http:\/\/host:8080": write "ws:\/\/host:8080"$/);
  assert.match(refused('https://host/v1/teach'), /write "wss:\/\/host\/v1\/teach"$/);
  globalThis.location = new URL('https://page.example/game/');
  try {
    assert.equal(config({ teachers: [{ url: '/v1/teach', policy: 'p' }] }).teachers[0].url, 'wss://page.example/v1/teach');
  } finally {
    delete globalThis.location;
  }
});

test('an option that is no plain data is refused by its place, and a getter’s error is the cause', () => {
  const cause = new RangeError('not today');
  const throwing = { get cql() { throw cause; } };
  const cycle = {};
  cycle.adam = cycle;
  const wrong = {
    seed: [{ seed: 3n }, 'seed'],
    symbol: [{ algorithm: { cql: Symbol('g') } }, 'algorithm.cql'],
    infinite: [{ gamma: Infinity }, 'gamma'],
    nan: [{ teachers: [{ url: 'ws://a', policy: 'p', adapter: { observation: { scale: [1, NaN] } } }] }, 'teachers[0].adapter.observation.scale[1]'],
    function: [{ transfer: { eta: () => 1 } }, 'transfer.eta'],
    getter: [{ algorithm: throwing }, 'algorithm.cql'],
    proxy: [{ algorithm: new Proxy({ cql: 1 }, { get() { throw cause; } }) }, 'algorithm.cql'],
    keys: [{ algorithm: new Proxy({}, { ownKeys() { throw cause; } }) }, 'algorithm'],
    cycle: [{ algorithm: cycle }, `algorithm${'.adam'.repeat(17)}`],
    env: [Object.defineProperty({}, 'env', { enumerable: true, get() { throw cause; } }), 'env'],
    text: [{ env: 5n }, 'env'],
  };
  for (const [name, [options, field]] of Object.entries(wrong)) {
    const given = Object.defineProperties({ env: 'CartPole-v1' }, Object.getOwnPropertyDescriptors(options));
    assert.throws(() => toConfig(readOptions(given)), (error) => {
      assert.deepEqual([error.name, error.field], ['ConfigError', field], name);
      if (['getter', 'proxy', 'keys', 'env'].includes(name)) assert.equal(error.cause, cause, name);
      return true;
    });
  }
  assert.deepEqual(config({ algorithm: { hidden: new Uint16Array([8, 9]) } }).student.algorithm.hidden, [8, 9]);
});

test('how long an evaluation’s episode may be is the page’s own business', () => {
  const steps = (evaluation) => maxSteps(readOptions({ env: 'CartPole-v1', evaluation }));
  assert.deepEqual([steps(undefined), steps({ every: 5 }), steps({ maxSteps: 7 })], [1000, 1000, 7]);
  assert.deepEqual(config({ evaluation: { every: 5, maxSteps: 7 } }).student.evaluation, { every: 5 });
  for (const wrong of [0, 1.5, '9']) assert.throws(() => steps({ maxSteps: wrong }), { name: 'ConfigError', field: 'evaluation.maxSteps' });
});

test('what is no option is refused by name', () => {
  assert.throws(() => config({ sed: 1 }), { name: 'ConfigError', field: 'sed', message: /^sed is no option; .*seed/ });
  assert.throws(() => config({ algorithm: 'dqn' }), { name: 'ConfigError', field: 'algorithm' });
  for (const algorithm of ['qr-dqn', { name: 'dqn' }, { name: 5 }]) {
    assert.throws(() => config({ algorithm }), { name: 'ConfigError', field: 'algorithm', message: /"qrdqn", "sac", "ppo"/ });
  }
  for (const name of ['gama', 'batch_size']) {
    const known = /^algorithm\.\w+ is no option; there are .*hidden, .*quantiles.*clip/;
    assert.throws(() => config({ algorithm: { [name]: 1 } }), { name: 'ConfigError', field: `algorithm.${name}`, message: known });
  }
  for (const name of ['gamma', 'seed', 'learningRate']) {
    assert.throws(() => config({ algorithm: { [name]: 1 } }), { name: 'ConfigError', field: `algorithm.${name}`, message: `algorithm.${name} is no option; write ${name} beside algorithm` });
  }
  assert.throws(() => config({ transfer: { requestBatch: 1 } }), { field: 'transfer.requestBatch', message: /write requestBatch beside transfer/ });
  assert.throws(() => config({ transfer: { etta: 1 } }), { field: 'transfer.etta', message: /alphaAikd/ });
  assert.throws(() => config({ qrdqn: { hidden: [8] } }), { field: 'qrdqn', message: /^qrdqn is no option; .*algorithm/ });
  assert.throws(() => config({ algorithm: { name: 'ppo', quantiles: 1 } }), { field: 'algorithm.quantiles', message: /clip/ });
  assert.throws(() => config({ algorithm: 'toString' }), { name: 'ConfigError', field: 'algorithm' });
  const teachers = [{ url: 'ws://a', policy: 'p' }, { url: 'ws://a', polcy: 'p' }];
  assert.throws(() => config({ teachers }), { name: 'ConfigError', field: 'teachers[1].polcy', message: /policy/ });
  assert.throws(() => config({ teachers: [null] }), { name: 'ConfigError', field: 'teachers[0]' });
  assert.throws(() => config({ teachers: {} }), { name: 'ConfigError', field: 'teachers' });
  assert.throws(() => config({ env: 5 }), { name: 'ConfigError', field: 'env' });
});

test('the engine’s errors cross as they are, and a fault is one of the worker', () => {
  const error = { kind: 'config', field: 'nStep', message: 'nStep is 0' };
  assert.equal(toMessage(error), error);
  assert.equal(toMessage(new Error('unreachable')).kind, 'worker');
});

test('tickets come from the teacher’s server or from an address, and are no business of the engine', () => {
  const url = 'wss://teachers.example:8443/v1/teach';
  const teachers = [{ url, policy: 'p', ticket: true }, { url, policy: 'p', ticket: 'https://page.example/ticket' }, { url, policy: 'p' }];
  assert.deepEqual(ticketAddresses({ teachers }), ['https://teachers.example:8443/v1/ticket', 'https://page.example/ticket', null]);
  assert.deepEqual(config({ teachers }).teachers, teachers.map(() => ({ url, policy: 'p' })));
  for (const ticket of ['http://[', 7]) {
    assert.throws(() => ticketAddresses({ teachers: [{ url, policy: 'p', ticket }] }), { name: 'ConfigError', field: 'teachers[0].ticket' });
  }
  assert.throws(() => ticketAddresses({ teachers: [{ url: 'here', policy: 'p', ticket: true }] }), { field: 'teachers[0].ticket' });
});

test('teachers of any form are refused by their place, by whatever reads them first', () => {
  for (const [teachers, field] of [
    [null, 'teachers'], [{}, 'teachers'], ['ws://x', 'teachers'], [5, 'teachers'], [new Set(), 'teachers'],
    [[null], 'teachers[0]'], [['ws://x'], 'teachers[0]'], [[[]], 'teachers[0]'], [[undefined], 'teachers[0]'],
    [[{ url: 'ws://a', policy: 'p' }, 7], 'teachers[1]'],
    [[{ url: 5, policy: 'p', ticket: true }], 'teachers[0].ticket'],
    [[{ url: 'ws://a', policy: 'p', ticket: {} }], 'teachers[0].ticket'],
  ]) {
    for (const read of [ticketAddresses, (options) => toConfig({ env: 'CartPole-v1', ...options })]) {
      if (read !== ticketAddresses && field.endsWith('ticket')) continue;
      assert.throws(() => read({ teachers }), { name: 'ConfigError', field }, JSON.stringify(teachers));
    }
    assert.throws(() => ticketAddresses(readOptions({ env: 'CartPole-v1', teachers })), { name: 'ConfigError', field });
  }
});

test('what is wrong is shown as it was written', () => {
  const message = (options) => {
    try {
      return assert.fail(`${config(options)} was accepted`);
    } catch (error) {
      assert.equal(error.name, 'ConfigError', String(error));
      return error.message;
    }
  };
  assert.throws(() => maxSteps({ evaluation: { maxSteps: '9' } }), { message: /it is "9"$/ });
  assert.match(message({ algorithm: { adam: Promise.resolve() } }), /it is a Promise$/);
  for (const [value, kind] of [[new ArrayBuffer(1), 'an ArrayBuffer'], [new Set(), 'a Set'], [new URL('http://a'), 'a URL'], [new Map(), 'a Map'], [new Date(), 'a Date']]) {
    assert.ok(message({ transfer: value }).endsWith(`it is ${kind}`), kind);
  }
  assert.match(message({ evaluation: [] }), /evaluation must be an object, it is \[\]$/);
  assert.match(message({ algorithm: [] }), /algorithm must be an object/);
  assert.match(message({ env: '5', transfer: 'x' }), /it is "x"$/);
  assert.throws(() => readOptions(null), { name: 'ConfigError', field: undefined });
});
