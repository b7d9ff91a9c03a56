// Environments of the page's own: every space, greedy evaluations, play to watch, ending at once, memory that ends.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { SMALL, launch, openPlainPage, root, startPlainSite } from './harness.mjs';

let browser, site, page;

before(async () => {
  [browser, site] = await Promise.all([launch(), startPlainSite()]);
});

after(async () => {
  await browser?.close();
  await site?.stop();
});

beforeEach(async () => {
  page = await openPlainPage(browser, site);
  await page.evaluate(prepare, SMALL);
});

afterEach(async () => {
  assert.deepEqual(page.faults, []);
  await page.close();
});

/** What the tests use in the page. */
function prepare(small) {
  window.small = small;
  window.trainAll = async (student, options) => {
    const all = [];
    let last;
    for await (last of student.train({ interval: 20, ...options })) all.push(...last.newEvaluations);
    return { ...last, all };
  };
  window.failure = (promise) =>
    promise.then(
      () => 'no failure',
      (error) => ({ name: error.name, message: error.message, field: error.field }),
    );
  // All tensors of a checkpoint but those of the best policy, which only evaluations know.
  window.tensors = (bytes) => {
    const begin = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, begin)));
    const names = Object.keys(header).filter((name) => header[name].data_offsets && !name.startsWith('best.')).sort();
    return names.map((name) => [name, ...bytes.subarray(begin).subarray(...header[name].data_offsets)].join()).join();
  };
  // A small generator of an environment's own.
  window.random = (seed) => () => ((seed = (1103515245 * seed + 12345) % 2147483648), seed / 2147483648);
  // Says which of three doors is open; the action is right where it is that door. `show` makes an observation of it.
  window.doors = (observationSpace, show, actionSpace = oto.spaces.discrete(3)) => () => {
    const draw = random(5);
    let door = 0;
    let steps = 0;
    const env = {
      actions: [],
      observationSpace,
      actionSpace,
      reset: () => ((steps = 0), (door = Math.floor(3 * draw())), show(door)),
      step(action) {
        env.actions.push(action);
        const reward = action === door ? 1 : 0;
        door = Math.floor(3 * draw());
        return { observation: show(door), reward, terminated: ++steps === 10 };
      },
    };
    return env;
  };
}

test('the manual’s game learns, and its greedy curve says so', async () => {
  const manual = await readFile(join(root, 'web/student/README.md'), 'utf8');
  const [, code] = /^```ts\n(import [^\n]*defineEnvironment.*?)^```/ms.exec(manual);
  assert.ok(code.trim().split('\n').length <= 30, 'thirty lines');
  await page.evaluate((code) => {
    // It has no type that JavaScript does not know.
    const script = Object.assign(document.createElement('script'), { type: 'module', textContent: `${code}\nwindow.done = true;` });
    document.body.append(script);
  }, code);
  await page.waitForFunction(() => window.done, null, { timeout: 240_000 });
  const curve = await page.evaluate(() => [...document.body.textContent.matchAll(/(\d+): (-?[\d.]+)/g)].map(([, step, mean]) => [Number(step), Number(mean)]));
  assert.deepEqual(curve.map(([step]) => step), Array.from({ length: 12 }, (_, i) => 500 * (i + 1)));
  assert.ok(Math.max(...curve.map(([, mean]) => mean)) >= 0.8, JSON.stringify(curve));
});

test('a network sees every space as gymnasium.spaces.flatten makes it', async () => {
  const result = await page.evaluate(async () => {
    const { spaces } = oto;
    const hot = (n, i) => Array.from({ length: n }, (_, j) => (i === j ? 1 : 0));
    const same = {
      discrete: [spaces.discrete(3), (door) => door, (door) => hot(3, door)],
      start: [spaces.discrete(3, -1), (door) => door - 1, (door) => hot(3, door)],
      multiDiscrete: [spaces.multiDiscrete([3, 2]), (door) => [door, door % 2], (door) => [...hot(3, door), ...hot(2, door % 2)]],
      multiBinary: [spaces.multiBinary(2), (door) => [door & 1, door >> 1], (door) => [door & 1, door >> 1]],
      dict: [
        spaces.dict({ z: spaces.discrete(3), a: spaces.box(0, 1, 2) }),
        (door) => ({ z: door, a: Float32Array.of(0.5, door) }),
        (door) => [0.5, door, ...hot(3, door)],
      ],
      tuple: [
        spaces.tuple(spaces.discrete(3), spaces.dict({ b: spaces.multiBinary(1), a: spaces.discrete(2) })),
        (door) => [door, { a: 1, b: [0] }],
        (door) => [...hot(3, door), 0, 1, 0],
      ],
    };
    const trained = async (space, show) => {
      const student = await oto.Student.create({ env: doors(space, show), ...small, learningStarts: 20, seed: 2, evaluation: { every: 30, episodes: 1 } });
      const { all } = await trainAll(student, { steps: 60 });
      const outcome = { all, acts: await Promise.all([0, 1, 2].map((door) => student.act(show(door)))), tensors: tensors(await student.save()) };
      student.dispose();
      return outcome;
    };
    const differ = [];
    for (const [name, [space, show, flat]] of Object.entries(same)) {
      const [tree, row] = [await trained(space, show), await trained(spaces.box(null, null, flat(0).length), flat)];
      if (JSON.stringify(tree) !== JSON.stringify(row) || tree.all.length !== 2) differ.push(name);
    }
    const outside = await oto.Student.create({ env: doors(spaces.dict({ a: spaces.discrete(3) }), (door) => ({ a: door + 1 })), ...small });
    const failed = await failure(trainAll(outside, { steps: 100 }));
    const acted = await failure(outside.act({ a: 0.5 }));
    outside.dispose();
    return { differ, failed, acted };
  });
  assert.deepEqual(result.differ, []);
  assert.equal(result.failed.name, 'EnvironmentError');
  assert.match(result.failed.message, /"a".* is 3\.0, expected a whole number from 0 to 2/);
  assert.match(result.acted.message, /0\.5/);
});

test('several choices at once are one action of as many numbers', async () => {
  const result = await page.evaluate(async () => {
    const { spaces } = oto;
    const actions = {};
    const refused = {};
    for (const [name, space] of Object.entries({ multiDiscrete: spaces.multiDiscrete([3, 2]), multiBinary: spaces.multiBinary(2), start: spaces.discrete(2, 5) })) {
      let env;
      const make = () => (env = doors(spaces.discrete(3), (door) => door, space)());
      const object = make();
      const student = await oto.Student.create({ env: object, ...small, seed: 1 });
      await trainAll(student, { steps: 60 });
      actions[name] = object.actions.map((action) => JSON.stringify(action));
      actions[`${name} greedy`] = [JSON.stringify(await student.act(1))];
      student.dispose();
    }
    refused.many = await failure(oto.Student.create({ env: doors(spaces.discrete(3), (door) => door, spaces.multiBinary(7))() }));
    refused.bounds = await failure(oto.Student.create({ env: doors(spaces.discrete(3), (door) => door, spaces.box(null, 1, 2))() }));
    return { actions, refused };
  });
  const all = {
    multiDiscrete: ['[0,0]', '[0,1]', '[1,0]', '[1,1]', '[2,0]', '[2,1]'],
    multiBinary: ['[0,0]', '[0,1]', '[1,0]', '[1,1]'],
    start: ['5', '6'],
  };
  for (const [name, expected] of Object.entries(all)) {
    assert.deepEqual([...new Set(result.actions[name])].sort(), expected);
    assert.ok(expected.includes(result.actions[`${name} greedy`][0]), name);
  }
  assert.match(result.refused.many.message, /128 combinations/);
  for (const { name } of Object.values(result.refused)) assert.equal(name, 'ConfigError');
});

test('evaluations are played apart: they change nothing of what is learned, and stages end by them', async () => {
  const result = await page.evaluate(async () => {
    const runs = [];
    for (const every of [0, 50]) {
      const student = await oto.Student.create({ env: doors(oto.spaces.discrete(3), (door) => door), ...small, seed: 4, evaluation: { every, episodes: 2 } });
      const { all, episodes } = await trainAll(student, { steps: 300 });
      const own = every === 0 ? undefined : await student.evaluate({ episodes: 3 });
      runs.push({ all, episodes, own, tensors: tensors(await student.save()), next: (await trainAll(student, { steps: 100 })).step });
      student.dispose();
    }
    // An episode that never ends is cut short, and one that reaches the return ends the run.
    const endless = () => ({ ...doors(oto.spaces.discrete(3), (door) => door)(), step: () => ({ observation: 0, reward: 1, terminated: false }) });
    const stages = { transfer: null, online: { returnAtLeast: 70 } };
    const student = await oto.Student.create({ env: endless, ...small, stages, evaluation: { every: 40, episodes: 1, maxSteps: 70 } });
    const ended = await trainAll(student, { steps: 1_000 });
    student.dispose();
    return { same: runs[0].tensors === runs[1].tensors, runs: runs.map(({ tensors, ...run }) => run), ended: [ended.step, ended.done, ended.lastEvaluation] };
  });
  const [never, often] = result.runs;
  assert.ok(result.same, 'the evaluations changed what was learned');
  assert.deepEqual(never.all, []);
  assert.deepEqual(often.all.map(({ step, episodes }) => [step, episodes]), [50, 100, 150, 200, 250, 300].map((step) => [step, 2]));
  assert.ok(often.all.every(({ min, mean, max }) => 0 <= min && min <= mean && mean <= max && max <= 10));
  assert.equal(often.own.episodes, 3);
  assert.equal(often.own.step, 300);
  assert.equal(often.next, 400);
  assert.deepEqual(result.ended, [40, true, 70]);
});

test('play can be watched while training goes on', async () => {
  const result = await page.evaluate(async () => {
    const student = await oto.Student.create({ env: doors(oto.spaces.discrete(3), (door) => door), ...small });
    const early = await failure(student.watch());
    const training = trainAll(student, { steps: 300 });
    const [first, second] = await Promise.all([student.watch(3), student.watch()]);
    const episode = [first, second];
    while (!episode.at(-1).over) episode.push(await student.watch());
    const late = await failure(student.watch());
    const { step } = await training;
    const again = await student.watch(4);
    student.dispose();
    const one = await oto.Student.create({ env: doors(oto.spaces.discrete(3), (door) => door)(), ...small });
    const alone = [await failure(one.watch(1)), await failure(one.evaluate())];
    one.dispose();
    return { early, episode, late, step, again, alone };
  });
  assert.equal(result.early.name, 'ConfigError');
  assert.equal(result.late.name, 'EnvironmentError');
  assert.deepEqual(result.episode.map(({ step }) => step), Array.from({ length: 11 }, (_, step) => step));
  assert.equal(result.episode.reduce((sum, { reward }) => sum + reward, 0), result.episode.at(-1).return);
  assert.ok(result.episode.every(({ state, action, step }) => state.length === 1 && action.length === Math.min(step, 1)));
  assert.deepEqual([result.again.step, result.step], [0, 300]);
  for (const { name, field, message } of result.alone) assert.deepEqual([name, field, /function/.test(message)], ['ConfigError', 'env', true]);
});

test('training ends at once: by stop(), by a signal, by the iterator, whatever it waits for', async () => {
  const result = await page.evaluate(async () => {
    // `hold` makes steps that never come.
    const env = (hold) => () => {
      const good = doors(oto.spaces.discrete(3), (door) => door)();
      return { ...good, step: (action) => (hold ? new Promise(() => {}) : good.step(action)) };
    };
    const soon = (promise) => Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error('it took more than 10 s')), 10_000))]);
    const told = [];
    for (const hold of [false, true]) {
      for (const way of ['stop', 'signal', 'return', 'dispose']) {
        const student = await oto.Student.create({ env: env(hold), ...small, steps: 1e9 });
        const control = new AbortController();
        const loop = student.train({ interval: 60_000, signal: control.signal });
        const news = loop.next().then(({ done }) => (done ? 'done' : 'news'), (error) => error);
        await new Promise((resolve) => setTimeout(resolve, 100));
        const reason = new Error('enough');
        if (way === 'stop') await soon(student.stop());
        if (way === 'signal') control.abort(reason);
        if (way === 'return') await soon(loop.return());
        if (way === 'dispose') student.dispose();
        const got = await soon(news);
        told.push([hold, way, got === reason ? 'reason' : got]);
        if (way !== 'dispose') {
          // The loop is over, and another one may begin.
          const over = await soon(loop.next());
          const again = student.train({ interval: 20 });
          await soon(again.next());
          await soon(again.return());
          told.push([over.done]);
        }
        student.dispose();
      }
    }
    const reason = new Error('never mind');
    const created = [
      await failure(oto.Student.create({ env: 'CartPole-v1', signal: AbortSignal.abort(reason) })),
      await failure(oto.Student.create({ env: () => new Promise(() => {}), signal: AbortSignal.timeout(50) })),
      await failure(oto.Student.create({ env: 'CartPole-v1', signal: AbortSignal.timeout(0) })),
      await failure(oto.Student.create({ env: 'CartPole-v1', signal: 5 })),
    ];
    // An environment whose student was never made serves another one.
    const object = env(false)();
    await failure(oto.Student.create({ env: object, signal: AbortSignal.abort() }));
    const student = await oto.Student.create({ env: object });
    const second = await failure(oto.Student.create({ env: object }));
    student.dispose();
    (await oto.Student.create({ env: object })).dispose();
    const made = await failure((async () => new oto.Student())());
    return { told, created, second, made };
  });
  const each = [['stop', 'news'], ['signal', 'reason'], ['return', 'news'], ['dispose', 'done']];
  const expected = [false, true].flatMap((hold) => each.flatMap(([way, got]) => [[hold, way, got], ...(way === 'dispose' ? [] : [[true]])]));
  assert.deepEqual(result.told, expected);
  assert.deepEqual(result.created.map(({ name, message }) => [name, name === 'Error' ? message : '']), [['Error', 'never mind'], ['TimeoutError', ''], ['TimeoutError', ''], ['ConfigError', '']]);
  assert.deepEqual([result.second.name, result.second.field], ['ConfigError', 'env']);
  assert.match(result.made.message, /await Student\.create/);
});

test('a buffer that a page has no memory for is refused before it starts, with the largest one', async () => {
  const result = await page.evaluate(async () => {
    const wide = (width) => ({ observationSpace: oto.spaces.box(0, 1, width), actionSpace: oto.spaces.discrete(2), reset: () => new Float32Array(width), step: () => ({ observation: new Float32Array(width), reward: 0, terminated: false }) });
    const create = (width, options) => oto.Student.create({ env: wide(width), ...options });
    const failed = [await failure(create(28_224)), await failure(create(1_000_000, { algorithm: { hidden: [4] } }))];
    const most = Number(/: (\d+) at most/.exec(failed[0].message)[1]);
    const student = await create(28_224, { buffer: most });
    student.dispose();
    failed.push(await failure(create(28_224, { buffer: most + 1 })), await failure(create(1_000_000, { buffer: 10, algorithm: { hidden: [256], batchSize: 1 } })));
    return { failed, most };
  });
  assert.ok(result.most > 4_000 && result.most < 5_000, `${result.most} transitions`);
  assert.deepEqual(result.failed.map(({ name, field }) => [name, field]), [['ConfigError', 'buffer'], ['ConfigError', 'buffer'], ['ConfigError', 'buffer'], ['ConfigError', 'algorithm']]);
});

test('memory that ends ends the training with a sentence, and the student can still be saved', async () => {
  const short = await startPlainSite({}, { '.wasm': (bytes) => withMaximum(bytes, 80) });
  const opened = await openPlainPage(browser, short);
  try {
    await opened.evaluate(prepare, SMALL);
    const result = await opened.evaluate(async () => {
      const width = 20_000;
      const env = { observationSpace: oto.spaces.box(0, 1, width), actionSpace: oto.spaces.discrete(2), reset: () => new Float32Array(width), step: () => ({ observation: new Float32Array(width), reward: 0, terminated: false }) };
      const student = await oto.Student.create({ env, algorithm: { hidden: [2], quantiles: 2, batchSize: 2 }, learningStarts: 1e6, buffer: 5_000 });
      const ended = await failure(trainAll(student, { steps: 5_000 }));
      const held = (await student.metrics()).step;
      const copy = await failure(student.save({ replay: true }));
      const file = await student.save();
      const action = await student.act(new Float32Array(width));
      await student.load(file);
      const huge = await failure(student.load(new Uint8Array(1 << 28)));
      const after = await failure(student.save());
      student.dispose();
      return { ended, held, copy, size: file.length, action, huge, after };
    });
    assert.equal(result.ended.name, 'TrainingError');
    assert.match(result.ended.message, /no memory for more than the \d+ transitions of 20000 numbers.*a smaller buffer/);
    assert.ok(result.held > 20, `${result.held} steps`);
    assert.match(result.copy.message, /save without it/);
    assert.ok(result.size > 0 && [0, 1].includes(result.action));
    for (const { message } of [result.huge, result.copy, result.ended]) assert.doesNotMatch(message, /recursive use/);
    if (result.after !== 'no failure') assert.match(result.after.message, /is gone/);
    assert.deepEqual(opened.faults, []);
  } finally {
    await opened.close();
    await short.stop();
  }
});

/** A module whose memory grows by so many MiB at most. */
function withMaximum(bytes, mebibytes) {
  const number = (at) => {
    let [value, shift, end] = [0, 0, at];
    for (;;) {
      const byte = bytes[end++];
      value |= (byte & 127) << shift;
      shift += 7;
      if (byte < 128) return { value, end };
    }
  };
  const written = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...written(value >>> 7)]);
  for (let at = 8; at < bytes.length; ) {
    const { value: size, end } = number(at + 1);
    // The section of memories: one, with a limit or without.
    if (bytes[at] === 5) {
      const { value: pages } = number(end + 2);
      const body = [1, 1, ...written(pages), ...written(pages + 16 * mebibytes)];
      return Buffer.concat([bytes.subarray(0, at), Buffer.from([5, ...written(body.length), ...body]), bytes.subarray(end + size)]);
    }
    at = end + size;
  }
  throw new Error('a module without a memory');
}
