// Pages as asynchronous workers of an agent that a real server shares (`oto-student/all`, `oto serve --share`).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { PATIENCE, launch, root, serveFolder, startServer } from './harness.mjs';

const AXE = readFileSync(createRequire(join(root, 'web/package.json')).resolve('axe-core/axe.min.js'), 'utf8');
const INDEX = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>worker</title>
  <script type="module">import * as oto from '/web/student/dist/all.js'; window.oto = oto;</script>`;

let folder, site, server, browser, page, share;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'oto-workers-'));
  const file = join(folder, 'pole.json');
  const algorithm = { name: 'a3c', hidden: [16], t_max: 10 };
  await writeFile(file, JSON.stringify({ env: 'CartPole-v1', student: { algorithm, steps: 1_000_000, evaluation: { every: 100_000 } } }));
  site = await serveFolder(dirname(join(root, 'web')), { '/workers.html': () => INDEX });
  [server, browser] = await Promise.all([startServer({ origins: [site.origin], more: ['--share', `pole=${file}`] }), launch()]);
  page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  await page.goto(`${site.origin}/workers.html`);
  await page.waitForFunction(() => window.oto !== undefined);
  share = { cloud: server.origin.replace('http', 'ws'), agent: 'pole' };
  await page.evaluate(() => {
    window.failure = (promise) => promise.then(() => ({ message: 'no failure' }), ({ name, field, message }) => ({ name, field, message }));
    window.last = async (student, steps) => {
      let last;
      for await (const metrics of student.train({ steps })) last = metrics;
      return last;
    };
  });
});

after(async () => {
  await browser?.close();
  await Promise.all([site?.stop(), server?.stop()]);
  if (folder !== undefined) await rm(folder, { recursive: true });
});

const ALGORITHM = { name: 'a3c', hidden: [16], tMax: 10 };

test('two workers of a page train the agent of a server, and each plays episodes of its own', async () => {
  const results = await page.evaluate(async ([share, algorithm]) => {
    const workers = await Promise.all([0, 1].map(() => oto.Student.create({ env: 'CartPole-v1', algorithm, evaluation: { every: 0 }, share })));
    const results = await Promise.all(workers.map((worker) => last(worker, 600)));
    workers.forEach((worker) => worker.dispose());
    return results;
  }, [share, ALGORITHM]);
  for (const { step, updates, share } of results) {
    assert.equal(step, 600);
    assert.deepEqual([share.agent, share.state, share.problem], ['pole', 'ready', null]);
    // The gradients of the last rollout leave with the next turn, which a run that is over does not take.
    assert.ok(updates === 60 && share.stats.sent >= 59 && share.stats.parameters >= 59, JSON.stringify(share));
    assert.equal(share.stats.refused + share.stats.rejected, 0);
  }
  assert.notEqual(results[0].share.name, results[1].share.name);
  assert.notDeepEqual(results[0].newEpisodes, results[1].newEpisodes);
});

test('a worker with an environment of the page waits without a connection, and continues with the newest parameters', async () => {
  const result = await page.evaluate(async ([share, algorithm]) => {
    const { spaces } = oto;
    const env = oto.defineEnvironment({
      observationSpace: spaces.box([-5, -5, -0.5, -5], [5, 5, 0.5, 5]),
      actionSpace: spaces.discrete(2),
      reset: () => [0, 0, 0, 0],
      step: (action) => ({ observation: [0, 0, 0.1 * action, 0], reward: 1, terminated: false, truncated: Math.random() < 0.1 }),
    });
    const worker = await oto.Student.create({ env, algorithm, evaluation: { every: 0 }, share: { ...share, name: 'own' } });
    const before = await last(worker, 100);
    await worker.disconnectTeachers();
    const training = last(worker, 100);
    await new Promise((resolve) => setTimeout(resolve, 500));
    const alone = await worker.metrics();
    await worker.connectTeachers();
    const after = await training;
    worker.dispose();
    return { before, alone, after };
  }, [share, ALGORITHM]);
  assert.equal(result.before.step, 100);
  assert.ok(result.alone.step < 115, `without parameters it plays the present rollout at most: ${result.alone.step}`);
  assert.match(result.alone.share.problem, /cut/);
  assert.equal(result.after.step, 200);
  assert.ok(result.after.share.stats.sessions >= 2, JSON.stringify(result.after.share));
});

test('what is no worker of this agent is refused by name', async () => {
  const refusals = await page.evaluate(async ([share, algorithm]) => {
    const create = (options) => oto.Student.create({ env: 'CartPole-v1', algorithm, share, ...options });
    const other = await create({ algorithm: { ...algorithm, hidden: [17] } });
    const unknown = await create({ share: { ...share, agent: 'nowhere' } });
    return {
      settings: await failure(last(other, 100)),
      unknown: await failure(last(unknown, 100)),
      algorithm: await failure(create({ algorithm: 'ppo' })),
      teachers: await failure(create({ teachers: [{ url: share.cloud, policy: 'ppo_cartpole_v1' }] })),
      agent: await failure(create({ share: { cloud: share.cloud } })),
      cloud: await failure(create({ share: { agent: 'pole' } })),
      option: await failure(create({ share: { ...share, wurl: 1 } })),
    };
  }, [share, ALGORITHM]);
  const { settings, unknown, ...early } = refusals;
  assert.deepEqual([settings.name, unknown.name], ['LearnerError', 'LearnerError'], JSON.stringify(refusals));
  assert.match(settings.message, /the shared agent pole: /);
  assert.match(unknown.message, /nowhere/);
  const fields = Object.fromEntries(Object.entries(early).map(([name, { field }]) => [name, field]));
  assert.deepEqual(fields, { algorithm: 'algorithm.name', teachers: 'teachers', agent: 'share.agent', cloud: 'share.cloud', option: 'share.wurl' });
});

test('tabs of the demo join one agent, and each sees the updates of all', async () => {
  const demo = await startServer();
  const context = await browser.newContext();
  try {
    const faults = [];
    const tab = await context.newPage();
    tab.setDefaultTimeout(PATIENCE);
    tab.on('pageerror', (error) => faults.push(String(error)));
    const number = (of, name) => of.locator(`[data-value=${name}]`).textContent().then((text) => Number(text.replaceAll(',', '')));
    const until = (of, name, least) => of.waitForFunction(([name, least]) => Number(document.querySelector(`[data-value=${name}]`).textContent.replaceAll(',', '')) >= least, [name, least]);
    await tab.goto(`${demo.origin}/`);
    await tab.getByRole('link', { name: /every tab trains/ }).click();
    await tab.waitForURL('**/swarm.html');
    await tab.selectOption('#workers', '2');
    await tab.click('#start');
    await until(tab, 'sent', 100);
    const [other] = await Promise.all([context.waitForEvent('page'), tab.click('#another')]);
    other.setDefaultTimeout(PATIENCE);
    await until(other, 'sent', 50);
    assert.ok((await number(other, 'version')) > (await number(other, 'sent')), 'the updates of both tabs');
    assert.equal(await number(tab, 'refused'), 0);
    await tab.waitForFunction(() => document.querySelector('[data-value=score]').textContent !== '–');
    await other.close();
    await tab.click('#start');
    await tab.waitForFunction(() => document.querySelector('#start').textContent === 'Resume');
    await tab.evaluate(AXE);
    const { violations } = await tab.evaluate(() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }));
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(' ')}`), []);
    assert.deepEqual(faults, []);
  } finally {
    await context.close();
    await demo.stop();
  }
});
