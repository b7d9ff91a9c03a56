// Actors of the npm package in a real Chromium, trained by the learner of a real server: they act at a fixed rate, in built-in
// environments and in the page's own, through lost lines and killed servers.

import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { PATIENCE, launch, openPlainPage, startPlainSite, startServer } from './harness.mjs';

const TOKEN = 'an operator\'s token of many bytes';

let browser, site, page, folder, servers;

before(async () => {
  [browser, site] = await Promise.all([launch(), startPlainSite()]);
});

after(async () => {
  await browser?.close();
  await site?.stop();
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'oto-actor-'));
  servers = [];
  page = await openPlainPage(browser, site);
  page.setDefaultTimeout(PATIENCE);
});

afterEach(async () => {
  assert.deepEqual(page.faults, []);
  await page.close();
  for (const server of servers) await server.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A server with a learner that keeps its rows. */
async function learner({ env = 'Pendulum-v1', reward = 'pendulum', settings = {}, port = 0 } = {}) {
  const config = {
    env,
    reward,
    keep: join(folder, 'kept'),
    checkpoint_seconds: 0.5,
    algorithm: { name: 'ddpg', hidden: [64, 64], batch_size: 64 },
    learning_starts: 200,
    exploration: { epsilon: { start: 1, end: 0, steps: 200 } },
    ...settings,
  };
  const file = join(folder, 'learner.json');
  await writeFile(file, JSON.stringify(config));
  await writeFile(join(folder, 'token'), TOKEN);
  const more = ['--learn', `learner=${file}`, '--admin', '127.0.0.1:0', '--admin-token', join(folder, 'token')];
  const server = await startServer({ port, origins: [site.origin], more });
  servers.push(server);
  return server;
}

/** What the server's operator sees of an edge. */
async function known(server, name = 'edge') {
  const answer = await fetch(`${server.operators}/learners`, { headers: { authorization: `Bearer ${TOKEN}` } });
  const [{ edges }] = await answer.json();
  return edges.find(({ edge }) => edge === name);
}

const cloud = ({ origin }) => origin.replace('http', 'ws');

test('an actor learns from the cloud, and loses no row', async () => {
  const server = await learner();
  const { last, best, policy } = await page.evaluate(async (cloud) => {
    const actor = await oto.Actor.create({ cloud, policy: 'learner', env: 'Pendulum-v1', hz: 0, seed: 3, evaluateEvery: 2 });
    let best = -Infinity;
    for await (const m of actor.run({ steps: 12_000, interval: 50 })) {
      best = Math.max(best, m.evaluation ?? -Infinity);
      if (best > -400) break;
    }
    const policy = await actor.policy();
    return { last: await actor.close(), best, policy: [...policy.slice(0, 200)] };
  }, cloud(server));
  assert.ok(best > -400, `random actions give about -1,200, the best evaluation is ${best}`);
  assert.match(String.fromCharCode(...policy), /oto\.policy\.v1/);
  assert.equal(last.held, 0);
  assert.equal(last.acknowledged, last.recorded);
  assert.ok(last.version > 1 && last.link.weights > 10 && last.link.bytesDown > 10_000, JSON.stringify(last));
  const edge = await known(server);
  assert.equal(edge.rows, last.recorded, 'each row counts once');
});

test('a server that is killed twice stops no actor, and at the end each row counts once', async () => {
  let server = await learner();
  const { port } = server;
  await page.evaluate(async (cloud) => {
    const actor = await oto.Actor.create({ cloud, policy: 'learner', env: 'Pendulum-v1', hz: 100 });
    window.seen = {};
    window.ended = (async () => {
      for await (const m of actor.run({ interval: 20 })) window.seen = m;
      return actor.close();
    })();
    window.actor = actor;
  }, cloud(server));
  for (const rows of [300, 700]) {
    await page.waitForFunction((rows) => seen.acknowledged > rows && seen.version > 0, rows);
    const before = (await known(server)).next;
    await server.kill();
    const steps = await page.evaluate(() => seen.steps);
    await page.waitForFunction((steps) => seen.steps > steps + 20 && !seen.connected, steps);
    assert.match(await page.evaluate(() => String(seen.problem)), /./);
    server = await learner({ port });
    assert.ok((await known(server)).next >= before, 'acknowledged rows are there after the restart');
  }
  const { sessions } = await page.evaluate(() => seen.link);
  await page.waitForFunction((sessions) => seen.connected && seen.link.sessions > sessions - 1, sessions);
  const last = await page.evaluate(async () => {
    await actor.stop();
    return ended;
  });
  assert.equal(last.held, 0);
  assert.equal(last.link.rowsDropped, 0);
  const edge = await known(server);
  assert.deepEqual([edge.rows, edge.next], [last.recorded, last.recorded]);
  assert.ok(last.link.sessions >= 3, JSON.stringify(last.link));
});

test('an actor keeps its rate, its pauses and its signal; without weights it acts safely', async () => {
  const reports = await page.evaluate(async () => {
    // No server is there.
    const actor = await oto.Actor.create({ cloud: 'ws://127.0.0.1:9', policy: 'none', env: 'Pendulum-v1', hz: 50, safeAction: [1.5] });
    const reports = [];
    for await (const m of actor.run({ steps: 50 })) reports.push(m);
    const { action } = await actor.scene();
    const loop = actor.run({ interval: 20 });
    await loop.next();
    await actor.pause();
    const paused = await actor.metrics();
    await new Promise((done) => setTimeout(done, 400));
    const still = await actor.metrics();
    await actor.resume();
    await loop.next();
    const resumed = (await loop.next()).value;
    await loop.return();
    const controller = new AbortController();
    let reason;
    try {
      for await (const _ of actor.run({ signal: controller.signal })) controller.abort('enough');
    } catch (thrown) {
      reason = thrown;
    }
    const started = performance.now();
    for await (const _ of actor.run({ steps: 25 }));
    const took = performance.now() - started;
    actor.dispose();
    return { last: reports.at(-1), action, paused, still, resumed, reason, took };
  });
  const { last, action, paused, still, resumed, reason, took } = reports;
  assert.deepEqual([last.steps, last.safe, last.version, last.hz], [50, 50, 0, 50]);
  assert.deepEqual([last.held, last.acknowledged], [51, 0], 'the rows of the steps and of the end are held');
  assert.match(last.problem, /no connection to ws:\/\/127/);
  assert.deepEqual(action, [1.5]);
  assert.equal(still.steps, paused.steps, 'a pause');
  assert.ok(resumed.steps > still.steps && resumed.missed - still.missed < 15, `a pause that is meant misses no deadline: ${still.missed}, ${resumed.missed}`);
  assert.equal(reason, 'enough');
  assert.ok(took > 440, `25 steps at 50 Hz in ${took} ms`);
  assert.ok(last.jitterUs.p50 >= 0 && last.jitterUs.max >= last.jitterUs.p99);
});

test('an environment of the page\'s own, a worse line, and another edge of the same name', async () => {
  const server = await learner({ env: 'CartPole-v1', reward: 'cartpole', settings: { algorithm: { name: 'qrdqn', hidden: [16], quantiles: 4, batch_size: 16 } } });
  const result = await page.evaluate(async (cloud) => {
    const { Actor, LearnerError, EnvironmentError, ConfigError, spaces } = oto;
    const seen = { resets: 0, actions: new Set() };
    let bad = false;
    const make = () => ({
      observationSpace: spaces.box(-5, 5, 4),
      actionSpace: spaces.discrete(2),
      reset: () => (seen.resets++, [0, 0, 0, 0]),
      step: async (action) => {
        seen.actions.add(action);
        await new Promise((done) => setTimeout(done));
        return { observation: bad ? [NaN, 0, 0, 0] : [0.1, 0, action, 0], reward: 1, terminated: false, truncated: Math.random() < 0.05 };
      },
    });
    const wide = await Actor.create({ cloud, policy: 'learner', env: make, name: 'own', hz: 100 });
    let m;
    for await (m of wide.run()) if (m.version > 0 && m.episodes > 2 && seen.actions.size === 2) break;
    await wide.setLine({ delay: 150, bandwidth: 1 });
    for await (m of wide.run({ steps: 60 }));
    await wide.disconnect();
    for await (m of wide.run({ steps: 20 }));
    const cut = { connected: m.connected, problem: m.problem, steps: m.steps };
    await wide.connect();
    for await (m of wide.run()) if (m.connected) break;
    bad = true;
    let broke;
    try {
      for await (m of wide.run());
    } catch (error) {
      broke = error instanceof EnvironmentError && error.field;
    }
    bad = false;
    for await (m of wide.run({ steps: 10 }));
    const rival = await Actor.create({ cloud, policy: 'learner', env: make, name: 'own', hz: 100 });
    let replaced;
    try {
      const other = (async () => { for await (const m of rival.run()) if (m.version > 0) return; })();
      for await (m of wide.run());
      await other;
    } catch (error) {
      replaced = [error instanceof LearnerError, error.message];
    }
    rival.dispose();
    const refused = await Actor.create({ cloud, policy: 'nobody', env: 'CartPole-v1', name: 'x' });
    let unknown;
    try {
      for await (m of refused.run());
    } catch (error) {
      unknown = [error instanceof LearnerError, error.message];
    }
    const fields = [];
    for (const wrong of [{ hz: -1 }, { ring: 1 }, { policy: '' }, { cloud: 'http://x' }, { sped: 1 }, { safeAction: [7] }, { exploration: { noise: -1 } }, { env: 'Nowhere-v0' }]) {
      fields.push(await Actor.create({ cloud, policy: 'learner', env: 'CartPole-v1', ...wrong }).catch((error) => error instanceof ConfigError && error.field));
    }
    wide.dispose();
    return { cut, broke, replaced, unknown, fields, resets: seen.resets };
  }, cloud(server));
  assert.equal(result.cut.connected, false);
  assert.equal(result.broke, 'observation[0]');
  assert.ok(result.replaced?.[0] && /replaced/.test(result.replaced[1]), JSON.stringify(result));
  assert.ok(result.unknown?.[0] && /nobody/.test(result.unknown[1]), JSON.stringify(result));
  assert.deepEqual(result.fields, ['hz', 'ring', 'policy', 'cloud', 'sped', 'safeAction', 'exploration.noise', 'env']);
  assert.ok(result.resets > 3);
});

test('a learner that diverges says so and takes no more rows; its actor continues', async () => {
  const server = await learner({ settings: { learning_starts: 1 } });
  await page.evaluate(async (cloud) => {
    const { Actor, spaces } = oto;
    // Finite numbers that no network can compute with.
    const env = { observationSpace: spaces.box(null, null, 3), actionSpace: spaces.box(-2, 2, 1), reset: () => [3e38, 0, 0], step: () => ({ observation: [3e38, 3e38, 0], reward: 0, terminated: false }) };
    const actor = await Actor.create({ cloud, policy: 'learner', env, hz: 50 });
    window.seen = {};
    window.ended = (async () => {
      for await (const m of actor.run({ interval: 20 })) window.seen = m;
      actor.dispose();
    })();
    window.actor = actor;
  }, cloud(server));
  await page.waitForFunction(() => /does not learn any more/.test(seen.problem));
  const { steps, held } = await page.evaluate(() => seen);
  await page.waitForFunction((steps) => seen.steps > steps + 20, steps);
  assert.ok((await page.evaluate(() => seen.held)) > held, 'rows stay at the edge');
  const metrics = await (await fetch(`${server.operators}/metrics`, { headers: { authorization: `Bearer ${TOKEN}` } })).text();
  assert.match(metrics, /oto_learner_backlog{policy="learner"} 0\n/);
  await page.evaluate(async () => (await actor.stop(), ended));
});
