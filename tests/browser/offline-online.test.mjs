// `oto-student/all` in a real browser: a page continues an agent that was made from recorded data, with the methods that do so.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { PATIENCE, launch, root, serveFolder } from './harness.mjs';

const DATA = join(root, 'crates/oto-data/tests/fixtures/cartpole_random');
const AXE = readFileSync(createRequire(join(root, 'web/package.json')).resolve('axe-core/axe.min.js'), 'utf8');
const SMALL = '"hidden":[12],"batch_size":8';
const INDEX = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>all</title>
  <script type="module">
    import { Student } from '/web/student/dist/all.js';
    import { Student as Small } from '/web/student/dist/cpu.js';
    window.oto = { Student, Small };
  </script>`;

let folder, site, browser, page;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'oto-all-'));
  await Promise.all(['iql', 'cal-ql'].map((name) => teach(name)));
  // The tree has the package and the dataset.
  site = await serveFolder(dirname(join(root, 'web')), { '/all.html': () => INDEX });
  browser = await launch();
  page = await browser.newPage();
  await page.route('**/runs/*', async (route) => {
    const name = route.request().url().split('/').at(-1);
    await route.fulfill({ body: await readFile(join(folder, name, 'checkpoint.safetensors')) });
  });
  await page.goto(`${site.origin}/all.html`);
  await page.waitForFunction(() => window.oto !== undefined);
  await page.evaluate(() => {
    window.failure = (promise) => promise.then(() => ({ message: 'no failure' }), ({ name, field, message }) => ({ name, field, message }));
    window.trained = async (options) => {
      const student = await oto.Student.create({ env: 'CartPole-v1', seed: 3, learningStarts: 20, ...options });
      let last;
      for await (const metrics of student.train({ steps: 150 })) last = metrics;
      const saved = new TextDecoder().decode(await student.save());
      student.dispose();
      return { step: last.step, updates: last.updates, loss: last.loss, hidden: /hidden[^\]]*\]/.exec(saved)[0] };
    };
  });
});

after(async () => {
  await browser?.close();
  await site?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true });
});

async function teach(name) {
  const settings = ['--set', `algorithm={"name":"${name}",${SMALL}}`, '--updates', '20', '--eval-every', '20'];
  const args = ['teach', '--dataset', DATA, '--env', 'CartPole-v1', ...settings, '--quiet', '--out', join(folder, name)];
  await promisify(execFile)(process.env.OTO ?? join(root, 'target/release/oto'), args, { timeout: 60_000 });
}

const data = '/crates/oto-data/tests/fixtures/cartpole_random/data/main_data.hdf5';

test('methods continue an offline run in a page, with the dataset or without', async (t) => {
  const cases = [
    ['iql', { algorithm: 'iql' }],
    ['iql', { algorithm: 'pex', dataset: data, replay: { sampler: 'shares' } }],
    ['cal-ql', { algorithm: 'cal-ql', dataset: data }],
    ['cal-ql', { algorithm: 'sac' }],
  ];
  for (const [run, options] of cases) {
    await t.test(`${run}, then ${options.algorithm}${options.dataset ? ' with the dataset' : ''}`, async () => {
      const result = await page.evaluate((options) => trained(options), { from: `/runs/${run}`, ...options });
      assert.deepEqual([result.step, result.hidden], [150, 'hidden\\":[12]']);
      assert.ok(result.updates > 0);
      for (const part of Object.values(result.loss)) assert.ok(part === null || Number.isFinite(part), JSON.stringify(result.loss));
    });
  }
});

test('a dataset that cannot be used is refused by name', async () => {
  const refused = (options) => page.evaluate((options) => failure(oto.Student.create({ env: 'CartPole-v1', algorithm: 'iql', ...options })), options);
  const cases = [
    [{ dataset: '/nowhere.hdf5' }, 'dataset', /status 404/],
    [{ dataset: 7 }, 'dataset', /must be an address/],
    [{ dataset: '/README.md' }, 'dataset', /cannot be used/],
    [{ dataset: data, env: 'Acrobot-v1' }, 'dataset', /cannot be used: .*observation/],
    [{ dataset: data, algorithm: 'ppo' }, 'algorithm.name', /replay buffer/],
    [{ algorithm: 'pecs' }, 'algorithm', /"pex"/],
    [{ algorithm: { name: 'iql', expectil: 0.7 } }, 'algorithm.expectil', /no option/],
  ];
  for (const [options, field, message] of cases) {
    const { name, field: named, message: said } = await refused(options);
    assert.deepEqual([name, named], ['ConfigError', field], said);
    assert.match(said, message);
  }
});

test('the small module names the one that has the algorithm, and takes no dataset', async () => {
  const results = await page.evaluate(async (dataset) => [
    await failure(oto.Small.create({ env: 'CartPole-v1', algorithm: 'pex' })),
    await failure(oto.Small.create({ env: 'CartPole-v1', dataset })),
  ], data);
  assert.deepEqual(results.map(({ field }) => field), ['algorithm', 'dataset']);
  assert.match(results[0].message, /oto-student\/all has all algorithms/);
});

test('the demo continues one agent with three methods, and shows the seam', async () => {
  const demo = await serveFolder(join(root, 'web/demo/dist'));
  const opened = await browser.newPage();
  opened.setDefaultTimeout(PATIENCE);
  const [faults, modules] = [[], new Set()];
  opened.on('pageerror', (error) => faults.push(String(error)));
  opened.on('request', (request) => request.url().endsWith('.wasm') && modules.add(request.url().split('/').at(-1)));
  try {
    await opened.goto(`${demo.origin}/`);
    await opened.getByRole('link', { name: /an agent made offline/ }).click();
    await opened.waitForURL('**/offline.html');
    modules.clear();
    await opened.click('#start');
    // Each lane has its evaluation at the seam, and then its first one online.
    const lanes = () => [...document.querySelectorAll('.lane')].map((lane) => ['seam', 'score', 'step'].map((key) => lane.querySelector(`[data-value=${key}]`).textContent));
    await opened.waitForFunction(`(${lanes})().every(([seam, score, step]) => seam !== '–' && score !== seam && step !== '0')`);
    assert.ok(modules.size === 1 && /^oto_all_bg/.test([...modules][0]), `the module of all algorithms alone: ${[...modules]}`);
    const seams = new Set((await opened.evaluate(lanes)).map(([seam]) => seam));
    assert.equal(seams.size, 1, `one agent: ${[...seams]}`);
    assert.match(await opened.textContent('#agent-size'), /kB$/);
    await opened.locator('#friction').fill('1');
    assert.equal(await opened.textContent('#friction-value'), '1 / s');
    await opened.click('#start');
    await opened.waitForFunction(() => document.querySelector('#start').textContent === 'Resume');
    await opened.evaluate(AXE);
    const { violations } = await opened.evaluate(() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }));
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(' ')}`), []);
    await opened.click('#reset');
    assert.equal(await opened.textContent('.lane [data-value=step]'), '0');
    assert.deepEqual(faults, []);
  } finally {
    await opened.close();
    await demo.stop();
  }
});
