// The npm package in a real browser: learning, being taught, acting, saving, and everything a page can do wrong.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { promisify } from 'node:util';
import { startGarbage } from './garbage.mjs';
import { ADAPTED, SMALL, launch, openPlainPage, root, startPlainSite, startServer, teachUrl } from './harness.mjs';

const run = promisify(execFile);
let browser, site, server, page;

before(async () => {
  [browser, site] = await Promise.all([launch(), startPlainSite()]);
  server = await startServer({ origins: [site.origin] });
});

after(async () => {
  await browser?.close();
  await Promise.all([site?.stop(), server?.stop()]);
});

beforeEach(async () => {
  page = await openPlainPage(browser, site);
  await page.evaluate(() => {
    // Trains to the end of the loop and gives the last metrics, with all episodes and evaluations.
    window.trainAll = async (student, options) => {
      const all = { newEpisodes: [], newEvaluations: [] };
      for await (const m of student.train({ interval: 20, ...options })) {
        Object.assign(all, m, {
          newEpisodes: [...all.newEpisodes, ...m.newEpisodes],
          newEvaluations: [...all.newEvaluations, ...m.newEvaluations],
        });
      }
      return all;
    };
    // Trains until a report satisfies `enough`.
    window.trainUntil = async (student, enough) => {
      for await (const m of student.train({ interval: 20 })) if (enough(m)) return m;
      throw new Error('the run ended before');
    };
    // What a promise failed with.
    window.failure = async (promise) => {
      try {
        await promise;
      } catch (error) {
        const { name, message, field, cause } = error;
        const kind = Object.entries(window.oto).find(([, type]) => error.constructor === type)?.[0];
        return { name, kind, message, field, cause: cause?.message, isError: error instanceof Error };
      }
      return 'no failure';
    };
    // Parameters without the metadata of the file, which may be ordered in another way.
    window.tensors = (bytes) => {
      const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
      return [...bytes.subarray(8 + length)].join();
    };
  });
});

afterEach(async () => {
  assert.deepEqual(page.faults, []);
  await page.close();
});

// A run, and a stage, that no test lives to see the end of: a small network takes tens of thousands of steps in a second.
const taughtOptions = (more = {}) => ({
  env: 'CartPole-v1',
  ...SMALL,
  seed: 3,
  steps: 1e9,
  stages: { transfer: {} },
  teachers: [{ url: teachUrl(server), ...ADAPTED }],
  ...more,
});

test('play can be watched in a built-in environment while training goes on', async () => {
  const result = await page.evaluate(async (small) => {
    const student = await oto.Student.create({ env: 'MobileCell-5G-v0', ...small, seed: 1, evaluation: { every: 100, episodes: 2 } });
    const early = await failure(student.watch());
    const episode = [await student.watch(5)];
    const training = trainAll(student, { steps: 200 });
    while (!episode.at(-1).over) episode.push(await student.watch());
    const late = await failure(student.watch());
    const again = await student.watch(5);
    const { newEvaluations } = await training;
    const bad = await failure(student.watch(-1));
    student.dispose();
    const env = { observationSpace: { kind: 'box', low: [0], high: [1] }, actionSpace: { kind: 'discrete', n: 2 }, reset: () => [0], step: () => ({ observation: [0], reward: 0, terminated: false }) };
    const own = await oto.Student.create({ env, ...small });
    const page = await failure(own.watch(1));
    own.dispose();
    return { early, episode, late, again, newEvaluations, bad, page };
  }, SMALL);
  const { episode, newEvaluations } = result;
  assert.deepEqual({ ...result.again, trained: 0 }, episode[0]);
  assert.ok(result.again.trained > 0 && episode.every(({ trained }) => trained === 0), 'an episode is played by the policy that began it');
  assert.deepEqual(episode.map(({ step }) => step), Array.from({ length: 101 }, (_, step) => step));
  assert.deepEqual([episode[0].limit, episode[0].action, episode[0].return], [100, [], 0]);
  const sum = episode.reduce((sum, { reward }) => sum + reward, 0);
  assert.ok(Math.abs(sum - episode.at(-1).return) < 1e-9);
  for (const { map, state, reward, step } of episode) {
    assert.deepEqual(map.position, state.slice(0, 2));
    assert.equal(map.stations.length, 7);
    if (step > 0) assert.equal(map.utility, reward);
  }
  assert.deepEqual(newEvaluations.map(({ baselines }) => baselines.map(({ name }) => name)), Array(2).fill(['strongest station', 'best plan']));
  for (const { mean, baselines: [, best] } of newEvaluations) assert.ok(mean <= best.mean);
  assert.deepEqual([result.early.kind, result.late.kind, result.bad.kind, result.bad.field], ['ConfigError', 'EnvironmentError', 'ConfigError', 'seed']);
  assert.deepEqual([result.page.kind, result.page.field], ['ConfigError', 'env']);
});

test('a student learns alone, and the same seed gives the same student', async () => {
  const result = await page.evaluate(async (small) => {
    const runs = [];
    for (const seed of [5, 5, 6]) {
      const student = await oto.Student.create({ env: 'CartPole-v1', ...small, seed, evaluation: { every: 200, episodes: 2 } });
      const metrics = await trainAll(student, { steps: 600 });
      runs.push({ metrics, tensors: tensors(await student.save()), spaces: student.spaces });
      student.dispose();
    }
    const [first, second, other] = runs;
    return { ...first.metrics, spaces: first.spaces, same: first.tensors === second.tensors, differs: first.tensors !== other.tensors };
  }, SMALL);
  assert.equal(result.step, 600);
  assert.equal(result.updates, 551);
  assert.equal(result.stage, 'online');
  assert.equal(result.labels, 0);
  assert.deepEqual(result.spaces.actionSpace, { kind: 'discrete', n: 2 });
  assert.equal(result.spaces.observationSpace.low.length, 4);
  assert.deepEqual(result.newEvaluations.map(({ step }) => step), [200, 400, 600]);
  assert.equal(result.newEpisodes.length, result.episodes);
  assert.ok(result.newEpisodes.every((episode) => episode.return === episode.length && episode.step <= 600));
  assert.ok(Number.isFinite(result.loss.task));
  assert.ok(result.same, 'the same seed gave another student');
  assert.ok(result.differs, 'another seed gave the same student');
});

test('a taught student receives labels, and the same seed gives the same student', async () => {
  const result = await page.evaluate(async (options) => {
    const runs = [];
    for (let i = 0; i < 2; i++) {
      const student = await oto.Student.create(options);
      runs.push({ metrics: await trainAll(student, { steps: 400 }), tensors: tensors(await student.save()) });
      student.dispose();
    }
    return { ...runs[0].metrics, same: runs[0].tensors === runs[1].tensors };
  }, taughtOptions());
  const [teacher] = result.teachers;
  assert.equal(result.stage, 'transfer');
  assert.ok(result.labels >= 380, `${result.labels} labels`);
  assert.ok(result.loss.base > 0);
  assert.equal(teacher.state, 'ready');
  assert.equal(teacher.version, 1);
  assert.equal(teacher.problem, null);
  assert.ok(teacher.stats.bytesUp >= 16 * teacher.stats.statesSent);
  assert.ok(teacher.stats.bytesDown > 0);
  assert.equal(result.transitionsSent, 0);
  assert.ok(result.same, 'lockstep gave two different students');
});

test('a cut wire stops the labels and not the learning; mended, the link comes back', async () => {
  const result = await page.evaluate(async (options) => {
    const student = await oto.Student.create(options);
    const taught = await trainUntil(student, (m) => m.labels > 50);
    await student.disconnectTeachers();
    const cut = await trainUntil(student, (m) => m.teachers[0].state === 'waiting');
    const alone = await trainUntil(student, (m) => m.step > cut.step + 200);
    await student.connectTeachers(0);
    const back = await trainUntil(student, (m) => m.teachers[0].state === 'ready' && m.labels > alone.labels);
    student.dispose();
    return { taught, cut, alone, back };
  }, taughtOptions());
  assert.match(result.cut.teachers[0].problem, /cut/);
  assert.ok(result.cut.teachers[0].retryInMs >= 0);
  assert.equal(result.alone.labels, result.cut.labels);
  assert.ok(result.back.teachers[0].stats.reconnects >= 1);
});

test('a server that wants tickets gives them to pages that it knows, one for each connection', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'oto-'));
  const access = join(folder, 'access.json');
  await writeFile(access, JSON.stringify({ pages: {} }));
  const guarded = await startServer({ origins: [site.origin], more: ['--access', access] });
  const teacher = { url: teachUrl(guarded), ...ADAPTED };
  const result = await page.evaluate(async ({ options, teacher, tickets }) => {
    const without = await oto.Student.create({ ...options, teachers: [teacher] });
    const refused = await trainUntil(without, (m) => m.teachers[0].state === 'failed');
    without.dispose();
    const student = await oto.Student.create({ ...options, teachers: [{ ...teacher, ticket: true }, { ...teacher, ticket: tickets }] });
    const taught = await trainUntil(student, (m) => m.teachers.every(({ state, stats }) => state === 'ready' && stats.labelsReceived > 50));
    await student.disconnectTeachers();
    await trainUntil(student, (m) => m.teachers.every(({ state }) => state === 'waiting'));
    await student.connectTeachers();
    const again = await trainUntil(student, (m) => m.teachers.every(({ state }) => state === 'ready'));
    student.dispose();
    const wrong = await failure(oto.Student.create({ ...options, teachers: [{ ...teacher, ticket: 'http://[' }] }));
    return { refused, taught, again, wrong };
  }, { options: taughtOptions(), teacher, tickets: `${guarded.origin}/v1/ticket` });
  await guarded.stop();
  await rm(folder, { recursive: true });
  assert.match(result.refused.teachers[0].problem, /ticket/);
  for (const { stats } of result.again.teachers) assert.equal(stats.welcomes, 2);
  assert.equal(result.wrong.kind, 'ConfigError');
  assert.equal(result.wrong.field, 'teachers[0].ticket');
});

test('a server that goes away and comes back is found again', async () => {
  const first = await startServer({ origins: [site.origin] });
  const options = taughtOptions({ teachers: [{ url: teachUrl(first), ...ADAPTED }] });
  await page.evaluate(async (given) => {
    window.student = await oto.Student.create(given);
    await trainUntil(student, (m) => m.labels > 50);
  }, options);
  await first.stop();
  const lost = await page.evaluate(() => trainUntil(student, (m) => m.teachers[0].state === 'waiting' && m.teachers[0].stats.connects > 2));
  const second = await startServer({ port: first.port, origins: [site.origin] });
  try {
    const back = await page.evaluate((labels) => trainUntil(student, (m) => m.labels > labels + 20), lost.labels);
    assert.equal(back.teachers[0].state, 'ready');
    assert.ok(back.step > lost.step);
  } finally {
    await second.stop();
  }
});

test('a student learns on where no teacher answers, and says why', async () => {
  const garbage = await startGarbage((count) => (count % 2 ? 'no JSON at all' : new Uint8Array([9, 9, 9])));
  const wrong = { protocol: 'oto.v1', type: 'welcome', policy: 'x', policy_id: 0, version: 1, max_rows: 64, credits: 4 };
  const liar = await startGarbage((count) => (count === 0 ? JSON.stringify({ ...wrong, action_width: 9 }) : new Uint8Array(500)));
  const teachers = {
    absent: { url: 'ws://127.0.0.1:9/v1/teach', policy: 'x' },
    garbage: { url: garbage.url, policy: 'x' },
    liar: { url: liar.url, policy: 'x' },
    unknown: { url: teachUrl(server), policy: 'nobody' },
    misfit: { url: teachUrl(server), policy: ADAPTED.policy, adapter: {} },
  };
  for (const [name, teacher] of Object.entries(teachers)) {
    const metrics = await page.evaluate(async (options) => {
      const student = await oto.Student.create(options);
      const told = (m) => m.step >= 300 && m.teachers[0].problem !== null && m.teachers[0].state !== 'connecting';
      const last = await trainUntil(student, told);
      student.dispose();
      return last;
    }, taughtOptions({ teachers: [teacher] }));
    const [link] = metrics.teachers;
    assert.equal(metrics.labels, 0, name);
    assert.ok(link.problem.length > 0, name);
    if (name === 'absent') assert.match(link.problem, /^no connection to ws:.*:9\/v1\/teach: .*pages of http:.* \(oto serve --origin\)$/);
    if (name === 'unknown') assert.match(link.problem, /nobody/);
    if (name === 'unknown' || name === 'misfit') assert.equal(link.state, 'failed', name);
    if (name === 'garbage' || name === 'liar') assert.notEqual(link.state, 'ready', name);
  }
  await Promise.all([garbage.stop(), liar.stop()]);
});

test('a teacher that the page’s own policy forbids is told from one that is not there', async () => {
  const policy = "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; img-src data:";
  const strict = await startPlainSite({ 'content-security-policy': policy });
  const opened = await openPlainPage(browser, strict);
  try {
    const problem = await opened.evaluate(async (options) => {
      const student = await oto.Student.create(options);
      for await (const m of student.train({ interval: 20 })) if (m.teachers[0].problem !== null) return m.teachers[0].problem;
    }, taughtOptions());
    assert.equal(problem, `the page's Content-Security-Policy (connect-src) does not allow ${teachUrl(server)}`);
    assert.deepEqual(opened.faults, []);
  } finally {
    await opened.close();
    await strict.stop();
  }
});

test('a package of another origin says why it has no worker', async () => {
  const elsewhere = await startPlainSite({ 'access-control-allow-origin': '*' });
  const failed = await page.evaluate(async (origin) => {
    const { Student, WorkerError } = await import(`${origin}/student/dist/index.js`);
    const error = await Student.create({ env: 'CartPole-v1' }).catch((error) => error);
    return { known: error instanceof WorkerError, message: error.message };
  }, elsewhere.origin);
  await elsewhere.stop();
  assert.ok(failed.known);
  assert.match(failed.message, /page's own origin/);
});

test('the defaults are those that the types name', async () => {
  const text = await readFile(join(root, 'web/student/src/settings.ts'), 'utf8');
  const named = namedDefaults(text);
  const configs = await page.evaluate(async (settings) => {
    const configs = {};
    for (const [name, algorithm] of Object.entries(settings)) {
      const spaces = { observationSpace: { kind: 'box', low: [0], high: [1] }, actionSpace: { kind: 'box', low: [0], high: [1] } };
      if (name === 'qrdqn') spaces.actionSpace = { kind: 'discrete', n: 2 };
      const teachers = [{ url: 'ws://127.0.0.1:9', policy: 'p' }];
      const student = await oto.Student.create({ env: { ...spaces, reset: () => [0], step: () => {} }, algorithm, teachers });
      const file = await student.save();
      const length = Number(new DataView(file.buffer).getBigUint64(0, true));
      const { __metadata__ } = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
      configs[name] = JSON.parse(Object.values(__metadata__)[0]).progress.config;
      student.dispose();
    }
    return configs;
  }, { qrdqn: 'qrdqn', sac: 'sac', ppo: 'ppo', td3: 'td3', ddpg: 'ddpg' });
  const places = {
    QrDqnOptions: [['qrdqn'], (config) => config.algorithm],
    SacOptions: [['sac'], (config) => config.algorithm],
    PpoOptions: [['ppo'], (config) => config.algorithm],
    Td3Options: [['td3'], (config) => config.algorithm],
    DdpgOptions: [['ddpg'], (config) => config.algorithm],
    RunOptions: [Object.keys(configs), (config) => config],
    ReplayOptions: [Object.keys(configs), (config) => config.replay],
    TransferOptions: [Object.keys(configs), (config) => config.transfer],
    EvaluationOptions: [Object.keys(configs), (config) => config.evaluation],
  };
  const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const fixed = (value) => (typeof value === 'object' && value?.start === value?.end && value?.steps === 0 ? value.start : value);
  for (const { type, name, values } of named) {
    const [algorithms, of] = places[type];
    for (const algorithm of algorithms) {
      const config = of(configs[algorithm]);
      assert.deepEqual(fixed(config[snake(name)] ?? null), algorithm in values ? values[algorithm] : values[''], `${type}.${name}, ${algorithm}`);
    }
  }
  assert.ok(named.length > 40, `${named.length} defaults`);
});

/** What settings.ts names as "Default: A; sac: B.", with the option's name and the interface it is in. */
function namedDefaults(text) {
  const named = [];
  for (const [, type, body] of text.matchAll(/^export interface (\w+)[^{]*\{\n(.*?)^\}/gms)) {
    for (const [, comment, name] of body.matchAll(/^  \/\*\*((?:(?!\*\/).)*)\*\/\n  (\w+)\??:/gms)) {
      const said = /Default: (.*)\.\s*$/s.exec(comment);
      if (said === null) continue;
      const parts = said[1].split('; ').map((part) => /^(?:([a-z][a-z0-9]*): )?(.*)$/s.exec(part));
      const value = (text) => (text === 'none' ? null : new Function(`return (${text})`)());
      named.push({ type, name, values: Object.fromEntries(parts.map(([, algorithm = '', text]) => [algorithm, value(text)])) });
    }
  }
  return named;
}

test('acting, saving and loading', async () => {
  const result = await page.evaluate(async (options) => {
    const { Student } = oto;
    const student = await Student.create(options);
    await trainAll(student, { steps: 300 });
    const other = await Student.create({ ...options, seed: 99 });
    const observations = Array.from({ length: 40 }, (_, i) => [Math.sin(i), Math.cos(2 * i), Math.sin(3 * i) / 5, Math.cos(5 * i)]);
    const actions = (s) => Promise.all(observations.map((observation) => s.act(observation)));
    const before = await actions(other);
    const small = await student.save();
    const large = await student.save({ replay: true });
    await other.load(small);
    const wider = await Student.create({ ...options, algorithm: { ...options.algorithm, hidden: [17] } });
    const outcome = {
      before,
      saved: await actions(student),
      loaded: await actions(other),
      sizes: [small.length, large.length],
      truncated: await failure(other.load(small.subarray(0, small.length - 7))),
      foreign: await failure(other.load(new TextEncoder().encode('PK not a checkpoint'))),
      shape: await failure(wider.load(small)),
      after: await actions(other),
      short: await failure(student.act([1, 2, 3])),
      notANumber: await failure(student.act([0, 0, NaN, 0])),
      nothing: await failure(student.act()),
      blob: await failure(other.load(new Blob([small]))),
    };
    await other.load(large);
    outcome.continued = (await other.metrics()).step;
    for (const s of [student, other, wider]) s.dispose();
    return outcome;
  }, { env: 'CartPole-v1', ...SMALL, seed: 4 });
  assert.ok(result.saved.every((action) => action === 0 || action === 1));
  assert.deepEqual(result.loaded, result.saved);
  assert.notDeepEqual(result.before, result.saved, 'the test needs two students that differ');
  assert.deepEqual(result.after, result.saved, 'a refused file changed the student');
  assert.ok(result.sizes[1] > result.sizes[0]);
  assert.equal(result.continued, 300);
  for (const { kind } of [result.truncated, result.foreign, result.shape, result.blob]) assert.equal(kind, 'CheckpointError');
  assert.match(result.shape.message, /17/);
  assert.equal(result.short.kind, 'EnvironmentError');
  assert.match(result.short.message, /4 numbers.*3/);
  assert.equal(result.nothing.kind, 'EnvironmentError');
  assert.match(result.blob.message, /arrayBuffer\(\).*Blob/);
  assert.equal(result.notANumber.field, 'observation[2]');
});

test('a student begins with the networks and settings of another run', async () => {
  const result = await page.evaluate(async (small) => {
    const { Student } = oto;
    const first = await Student.create({ env: 'CartPole-v1', ...small, seed: 4 });
    await trainAll(first, { steps: 300 });
    const file = await first.save();
    const address = URL.createObjectURL(new Blob([file]));
    const observations = Array.from({ length: 40 }, (_, i) => [Math.sin(i), Math.cos(2 * i), Math.sin(3 * i) / 5, Math.cos(5 * i)]);
    const other = await Student.create({ env: 'CartPole-v1', ...small, seed: 99 });
    const outcome = { actions: [], steps: [], other: await Promise.all(observations.map((observation) => other.act(observation))) };
    other.dispose();
    const sources = [file, file.buffer.slice(file.byteOffset, file.byteOffset + file.length), new File([file], 'checkpoint.safetensors'), address, new URL(address)];
    const students = [first];
    for (const from of sources) students.push(await Student.create({ env: 'CartPole-v1', seed: 99, from }));
    for (const student of students) {
      outcome.actions.push(await Promise.all(observations.map((observation) => student.act(observation))));
      outcome.steps.push((await student.metrics()).step);
    }
    outcome.trained = (await trainAll(students[1], { steps: 50 })).step;
    for (const student of students) student.dispose();
    const refused = (options) => failure(Student.create({ env: 'CartPole-v1', ...options }));
    Object.assign(outcome, {
      number: await refused({ from: 7 }),
      address: await refused({ from: 'http://[' }),
      absent: await refused({ from: '/no-checkpoint-here' }),
      page: await refused({ from: location.href }),
      unreachable: await refused({ from: 'http://127.0.0.1:1/checkpoint' }),
      foreign: await refused({ from: new TextEncoder().encode('PK not a checkpoint') }),
      truncated: await refused({ from: file.subarray(0, file.length - 7) }),
      algorithm: await refused({ from: file, algorithm: 'ppo', nStep: 1 }),
      spaces: await refused({ from: file, env: 'Acrobot-v1' }),
      aborted: await refused({ from: address, signal: AbortSignal.abort() }),
    });
    return outcome;
  }, SMALL);
  for (const actions of result.actions) assert.deepEqual(actions, result.actions[0]);
  assert.notDeepEqual(result.other, result.actions[0], 'the test needs two students that differ');
  assert.deepEqual(result.steps, [300, 0, 0, 0, 0, 0]);
  assert.equal(result.trained, 50);
  for (const { kind, field } of [result.number, result.address]) assert.deepEqual([kind, field], ['ConfigError', 'from']);
  for (const { kind, field, message } of [result.absent, result.page, result.unreachable, result.foreign, result.truncated, result.algorithm, result.spaces]) {
    assert.deepEqual([kind, field], ['CheckpointError', 'from']);
    assert.match(message, /^from: /);
  }
  assert.match(result.page.message, /text\/html/);
  assert.match(result.absent.message, /404/);
  assert.match(result.algorithm.message, /no network of ppo/);
  assert.equal(result.aborted.name, 'AbortError');
});

test('a student begins with an offline run of an algorithm that a page lacks', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'oto-from-'));
  try {
    const dataset = join(root, 'crates/oto-data/tests/fixtures/cartpole_random');
    const settings = ['--set', 'algorithm={"name":"cql","hidden":[12],"batch_size":8}', '--updates', '20', '--eval-every', '20'];
    await run(process.env.OTO ?? join(root, 'target/release/oto'), ['teach', '--dataset', dataset, '--env', 'CartPole-v1', ...settings, '--quiet', '--out', join(folder, 'run')]);
    const file = [...(await readFile(join(folder, 'run/checkpoint.safetensors')))];
    const result = await page.evaluate(async (file) => {
      const from = Uint8Array.from(file);
      const student = await oto.Student.create({ env: 'CartPole-v1', from, steps: 200 });
      const { step, updates } = await trainAll(student);
      const saved = new TextDecoder().decode(await student.save());
      student.dispose();
      return { step, updates, hidden: /hidden[^\]]*\]/.exec(saved)[0], other: await failure(oto.Student.create({ env: 'CartPole-v1', from, algorithm: 'cql' })) };
    }, file);
    assert.deepEqual([result.step, result.hidden], [200, 'hidden\\":[12]']);
    assert.ok(result.updates > 0);
    assert.deepEqual([result.other.kind, result.other.field], ['ConfigError', 'algorithm']);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('evaluating plays a second copy of the environment', async () => {
  const result = await page.evaluate(async (small) => {
    const student = await oto.Student.create({ env: 'CartPole-v1', ...small });
    const evaluation = await student.evaluate({ episodes: 3 });
    const failed = await failure(student.evaluate({ episodes: 0 }));
    student.dispose();
    return { evaluation, failed };
  }, SMALL);
  assert.equal(result.evaluation.episodes, 3);
  assert.ok(result.evaluation.min <= result.evaluation.mean && result.evaluation.mean <= result.evaluation.max);
  assert.equal(result.failed.field, 'episodes');
});

test('pausing holds training, and leaving the loop stops it', async () => {
  const result = await page.evaluate(async (small) => {
    const student = await oto.Student.create({ env: 'CartPole-v1', ...small });
    const steps = [];
    let paused = false;
    for await (const m of student.train({ interval: 20 })) {
      steps.push(m.step);
      if (!paused && m.step > 100) {
        paused = true;
        await student.pause();
        steps.length = 0;
      } else if (paused && steps.length === 5) break;
    }
    const stopped = (await student.metrics()).step;
    await student.resume();
    const twice = student.train();
    await twice.next();
    const already = await failure(student.train().next());
    await twice.return();
    const goesOn = (await trainAll(student, { steps: 50 })).step;
    const later = (await student.metrics()).step;
    student.dispose();
    return { steps, stopped, already, goesOn, later };
  }, SMALL);
  assert.equal(new Set(result.steps).size, 1, 'steps were taken while paused');
  assert.equal(result.stopped, result.steps[0]);
  assert.match(result.already.message, /already/);
  assert.ok(result.goesOn >= result.stopped + 50);
  assert.equal(result.later, result.goesOn);
});

test('a disposed student ends its loop and refuses every call', async () => {
  const result = await page.evaluate(async (small) => {
    const student = await oto.Student.create({ env: 'CartPole-v1', ...small });
    let rounds = 0;
    for await (const m of student.train({ interval: 10 })) {
      rounds += 1;
      if (m.step > 50) student.dispose();
    }
    const waiting = await oto.Student.create({ env: 'CartPole-v1', ...small });
    const pending = failure(waiting.evaluate({ episodes: 5 }));
    waiting.dispose();
    waiting.dispose();
    return { rounds, later: await failure(student.act([0, 0, 0, 0])), pending: await pending };
  }, SMALL);
  assert.ok(result.rounds > 0);
  assert.equal(result.later.kind, 'WorkerError');
  assert.match(result.later.message, /disposed/);
  assert.equal(result.pending.kind, 'WorkerError');
});

test('an environment of the page', async () => {
  const result = await page.evaluate(async (small) => {
    // Walk right to the goal at 5; the observation is the position. One environment is asynchronous.
    const walk = (asynchronous) => {
      const env = {
        observationSpace: { kind: 'box', low: [-Infinity], high: [null] },
        actionSpace: { kind: 'discrete', n: 3 },
        seeds: [],
        reset(seed) {
          env.seeds.push(seed);
          env.position = 0;
          return asynchronous ? Promise.resolve([0]) : [0];
        },
        step(action) {
          env.position += action - 1;
          const terminated = env.position >= 5;
          const result = { observation: new Float64Array([env.position]), reward: terminated ? 1 : -0.01, terminated, truncated: env.position < -5 };
          return asynchronous ? new Promise((resolve) => queueMicrotask(() => resolve(result))) : result;
        },
      };
      return env;
    };
    const runs = [];
    for (const asynchronous of [false, true]) {
      const env = walk(asynchronous);
      const student = await oto.Student.create({ env, ...small, seed: 8 });
      const metrics = await trainAll(student, { steps: 250 });
      runs.push({ step: metrics.step, episodes: metrics.episodes, seeds: env.seeds, action: await student.act([4]), evaluate: await failure(student.evaluate()), tensors: tensors(await student.save()) });
      student.dispose();
    }
    return { ...runs[0], same: runs[0].tensors === runs[1].tensors };
  }, SMALL);
  assert.equal(result.step, 250);
  assert.ok(result.episodes > 1);
  assert.equal(result.seeds[0], 8);
  assert.ok(result.seeds.slice(1).every((seed) => seed === undefined));
  assert.ok([0, 1, 2].includes(result.action));
  assert.match(result.evaluate.message, /act\(\)/);
  assert.ok(result.same);
});

test('leaving the loop does not wait for the environment, whose answer counts when it comes', async () => {
  const result = await page.evaluate(async (small) => {
    const asked = [];
    let answer;
    const held = (kind, value) => (asked.push(kind), new Promise((resolve) => (answer = () => resolve(value))));
    const env = {
      observationSpace: { kind: 'box', low: [0], high: [1] },
      actionSpace: { kind: 'discrete', n: 2 },
      reset: () => held('reset', [0]),
      step: () => held('step', { observation: [0], reward: 1, terminated: true }),
    };
    const student = await oto.Student.create({ env, ...small });
    const leave = async () => {
      for await (const m of student.train({ interval: 10 })) if (asked.length > 0) return m.step;
    };
    await leave();
    await leave();
    const once = [...asked];
    const file = await student.save();
    // An answer to what was asked before a file was loaded is no answer any more.
    await student.load(file);
    answer();
    await trainUntil(student, () => asked.length === 2);
    answer();
    await trainUntil(student, () => asked.length === 3);
    answer();
    const last = await trainUntil(student, (m) => m.episodes === 1);
    student.dispose();
    return { once, asked: asked.slice(0, 3), step: last.step };
  }, SMALL);
  assert.deepEqual(result.once, ['reset'], 'asked once, in two runs');
  assert.deepEqual(result.asked, ['reset', 'reset', 'step']);
  assert.equal(result.step, 1);
});

test('an environment of images', async () => {
  const result = await page.evaluate(async () => {
    const side = 8;
    const bounds = (value) => new Array(side * side).fill(value);
    const env = {
      observationSpace: { kind: 'box', low: bounds(0), high: bounds(255) },
      actionSpace: { kind: 'discrete', n: 2 },
      at: 0,
      image() {
        const pixels = new Uint8ClampedArray(side * side);
        pixels[env.at] = 255;
        return pixels;
      },
      reset: () => ((env.at = 0), env.image()),
      step(action) {
        env.at = Math.max(0, env.at + (action === 1 ? 1 : -1));
        return { observation: env.image(), reward: action, terminated: env.at === side - 1 };
      },
    };
    const convolution = { shape: [1, side, side], layers: [{ channels: 2, kernel: 3, stride: 1 }] };
    const algorithm = { convolution, hidden: [8], quantiles: 2, batchSize: 8 };
    const student = await oto.Student.create({ env, algorithm, learningStarts: 20 });
    const metrics = await trainAll(student, { steps: 60 });
    const pale = await failure(student.act(bounds(0.5)));
    student.dispose();
    const misfit = await failure(oto.Student.create({ env, algorithm: { convolution: { ...convolution, shape: [1, 7, 8] } } }));
    return { metrics, pale, misfit };
  });
  // Of 60 steps, every second from the twentieth on.
  assert.equal(result.metrics.updates, 21);
  assert.ok(Number.isFinite(result.metrics.loss.loss));
  assert.equal(result.pale.field, 'observation[0]');
  assert.equal(result.misfit.kind, 'ConfigError');
});

test('continuous actions, built in and of the page', async () => {
  const result = await page.evaluate(async () => {
    const algorithm = { name: 'sac', hidden: [16, 16], batchSize: 16 };
    // The reward is highest where both components of the action are the position.
    const actions = [];
    const env = {
      observationSpace: { kind: 'box', low: [-1], high: [1] },
      actionSpace: { kind: 'box', low: [-2, 0], high: [2, 1] },
      reset: () => [(env.position = 0.5)],
      step(action) {
        actions.push(action);
        const reward = -Math.abs(action[0] - env.position) - Math.abs(action[1] - env.position);
        env.position = -env.position;
        return { observation: [env.position], reward, terminated: false, truncated: actions.length % 20 === 0 };
      },
    };
    const own = await oto.Student.create({ env, algorithm, learningStarts: 20, seed: 1 });
    const metrics = await trainAll(own, { steps: 120 });
    const action = Array.from(await own.act([0.5]));
    own.dispose();
    const pendulum = await oto.Student.create({ env: 'Pendulum-v1', algorithm, learningStarts: 20, steps: 260, evaluation: { every: 0 } });
    const swung = await trainAll(pendulum, {});
    const torque = Array.from(await pendulum.act([1, 0, 0]));
    const evaluation = await pendulum.evaluate({ episodes: 1 });
    pendulum.dispose();
    return { actions, action, updates: metrics.updates, swung, torque, evaluation };
  });
  assert.equal(result.actions.length, 120);
  for (const [a, b] of [...result.actions, result.action]) assert.ok(a >= -2 && a <= 2 && b >= 0 && b <= 1, `${a} ${b}`);
  assert.ok(new Set(result.actions.map(String)).size > 100, 'drawn, not chosen');
  assert.equal(result.updates, 101);
  assert.equal(result.swung.episodes, 1);
  assert.ok(Number.isFinite(result.swung.loss.loss) && Math.abs(result.torque[0]) <= 2 && result.torque.length === 1);
  assert.ok(result.evaluation.mean < 0);
});

test('an environment that breaks its contract is named, and training can begin again', async () => {
  const result = await page.evaluate(async (small) => {
    const good = { observation: [0, 0], reward: 0, terminated: false, truncated: false };
    let resets = 0;
    let answer;
    const env = {
      observationSpace: { kind: 'box', low: [-1, -1], high: [1, 1] },
      actionSpace: { kind: 'discrete', n: 2 },
      reset: () => ((resets += 1), [0, 0]),
      step: () => answer(),
    };
    const student = await oto.Student.create({ env, ...small });
    const failures = {};
    const bad = {
      length: () => ({ ...good, observation: [0, 0, 0] }),
      nan: () => ({ ...good, observation: [0, NaN] }),
      overflow: () => ({ ...good, observation: [1e300, 0] }),
      text: () => ({ ...good, observation: ['0', 0] }),
      missing: () => ({ ...good, observation: undefined }),
      reward: () => ({ ...good, reward: Infinity }),
      flag: () => ({ ...good, terminated: 1 }),
      nothing: () => undefined,
      throwing: () => {
        throw new RangeError('the motor is on fire');
      },
      rejecting: () => Promise.reject(new Error('later')),
    };
    for (const [name, step] of Object.entries(bad)) {
      answer = step;
      failures[name] = await failure(trainAll(student, { steps: 5 }));
    }
    const failedResets = resets;
    answer = () => good;
    const recovered = await trainAll(student, { steps: 5 });
    student.dispose();
    const broken = await oto.Student.create({ env: { ...env, reset: () => [1] }, ...small });
    failures.reset = await failure(trainAll(broken, { steps: 5 }));
    broken.dispose();
    return { failures, failedResets, resets, step: recovered.step };
  }, SMALL);
  const { failures } = result;
  for (const [name, failed] of Object.entries(failures)) assert.equal(failed.kind, 'EnvironmentError', name);
  assert.match(failures.length.message, /2 numbers.*3/);
  assert.equal(failures.nan.field, 'observation[1]');
  assert.equal(failures.overflow.field, 'observation[0]');
  assert.equal(failures.text.field, 'observation[0]');
  assert.equal(failures.missing.field, 'observation');
  assert.equal(failures.reward.field, 'reward');
  assert.equal(failures.flag.field, 'terminated');
  assert.match(failures.nothing.message, /undefined/);
  assert.match(failures.throwing.message, /step\(\) threw: the motor is on fire/);
  assert.equal(failures.throwing.cause, 'the motor is on fire');
  assert.equal(failures.rejecting.cause, 'later');
  assert.match(failures.reset.message, /reset\(\): .*2 numbers.*1/);
  assert.equal(result.resets, result.failedResets + 1, 'a failed episode is followed by a reset');
  assert.equal(result.step, 5);
});

test('options that cannot be used are named as the page wrote them', async () => {
  const spaces = { observationSpace: { kind: 'box', low: [0], high: [1] }, actionSpace: { kind: 'discrete', n: 2 } };
  const wrong = {
    backend: { env: 'CartPole-v1', backend: 'tpu' },
    env: { env: 'Cartpole' },
    none: {},
    continuous: { env: 'Pendulum-v1', algorithm: 'qrdqn' },
    rollout: { env: 'CartPole-v1', algorithm: { name: 'ppo', nSteps: 100 } },
    misspelt: { env: 'CartPole-v1', algorithm: { gama: 0.9 } },
    range: { env: 'CartPole-v1', gamma: 1.5 },
    layer: { env: 'CartPole-v1', algorithm: { hidden: [16, 0] } },
    beside: { env: 'CartPole-v1', algorithm: { gamma: 0.9 } },
    other: { env: 'CartPole-v1', algorithm: { name: 'sac', quantiles: 3 } },
    type: { env: 'CartPole-v1', algorithm: { batchSize: 'many' } },
    name: { env: 'CartPole-v1', algorithm: 'dqn' },
    unknown: { env: 'CartPole-v1', learningRat: 1 },
    seed: { env: 'CartPole-v1', seed: -1 },
    space: { env: { ...spaces, observationSpace: { kind: 'box', low: [0, 0], high: [1] } } },
    functions: { env: spaces },
    adapter: { env: 'CartPole-v1', teachers: [{ url: 'ws://127.0.0.1:9', policy: 'x', adapter: { action: { kind: 'coin' } } }] },
    stage: { env: 'CartPole-v1', stages: { online: { seconds: -1 } } },
    spelling: { env: 'CartPole-v1', stages: { transfer: { return_at_least: 475 } } },
    huge: { env: 'CartPole-v1', labelLag: 2 ** 40 },
  };
  const failures = await page.evaluate(async (all) => {
    const failed = {};
    for (const [name, options] of Object.entries(all)) failed[name] = await failure(oto.Student.create(options));
    failed.infinite = await failure(oto.Student.create({ env: 'CartPole-v1', gamma: NaN }));
    failed.nothing = await failure(oto.Student.create());
    const student = await oto.Student.create({ env: 'CartPole-v1' });
    failed.train = await failure(student.train({ step: 5 }).next());
    failed.number = await failure(student.train(5).next());
    failed.evaluate = await failure(student.evaluate({ episode: 5 }));
    failed.save = await failure(student.save({ reply: true }));
    student.dispose();
    return failed;
  }, wrong);
  for (const [name, { kind, message }] of Object.entries(failures)) assert.equal(kind, 'ConfigError', `${name}: ${message}`);
  assert.match(failures.backend.message, /backend is "tpu": "cpu", "webgpu" or "auto"/);
  assert.match(failures.env.message, /CartPole-v1/);
  assert.match(failures.continuous.message, /qrdqn: chooses among discrete actions/);
  assert.match(failures.rollout.message, /^algorithm\.nSteps .*: a whole number of batches/);
  assert.match(failures.misspelt.message, /gama/);
  assert.match(failures.range.message, /^gamma is 1\.5/);
  assert.equal(failures.range.field, 'gamma');
  assert.equal(failures.layer.field, 'algorithm.hidden[1]');
  assert.match(failures.beside.message, /write gamma beside algorithm/);
  assert.equal(failures.other.field, 'algorithm.quantiles');
  assert.equal(failures.type.field, 'algorithm.batchSize');
  assert.match(failures.name.message, /"dqn"/);
  assert.match(failures.unknown.message, /learningRat is no option/);
  assert.equal(failures.seed.field, 'seed');
  assert.match(failures.space.message, /2 and 1/);
  assert.equal(failures.functions.field, 'env.reset');
  assert.match(failures.adapter.field, /^teachers\[0\]/);
  assert.equal(failures.spelling.field, 'stages.transfer.return_at_least');
  assert.match(failures.spelling.message, /unknown field, expected .*"returnAtLeast"/);
  assert.equal(failures.huge.field, 'labelLag');
  assert.equal(failures.train.message, 'train.step is no option; there are steps, interval, signal');
  assert.deepEqual([failures.evaluate.field, failures.save.field], ['evaluate.episode', 'save.reply']);
  assert.match(failures.infinite.message, /gamma must be a finite number/);
});
