// The demo page as a visitor meets it: served by the real server, in a real Chromium.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { PATIENCE, launch, startServer } from './harness.mjs';

const AXE = readFileSync(createRequire(new URL('../../web/package.json', import.meta.url)).resolve('axe-core/axe.min.js'), 'utf8');

let browser, server, page;

before(async () => {
  [browser, server] = await Promise.all([launch(), startServer()]);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

beforeEach(async () => {
  page = await open({});
});

afterEach(async () => {
  assert.deepEqual(page.faults, []);
  await page.close();
});

/** Opens the page in an environment; without one the page chooses. */
async function open(options, environment) {
  const opened = await browser.newPage(options);
  opened.setDefaultTimeout(PATIENCE);
  opened.faults = [];
  opened.on('pageerror', (error) => opened.faults.push(String(error)));
  opened.on('console', (message) => message.type() === 'error' && opened.faults.push(message.text()));
  await opened.goto(environment === undefined ? server.origin : `${server.origin}/?environment=${environment}`);
  await opened.waitForFunction(() => document.querySelector('#teacher').options.length > 1);
  return opened;
}

const shown = (lane, value) => page.locator(`[data-lane=${lane}] [data-value=${value}]`).textContent();

/** A number as the page writes it: without its separators, with its minus sign. */
const toNumber = (text) => Number(text.replaceAll(',', '').replace('−', '-'));

const number = async (lane, value) => toNumber(await shown(lane, value));

/** Waits until a lane's number exceeds a bound. */
async function exceeds(lane, value, bound) {
  await page.waitForFunction(
    ([selector, least]) => Number(document.querySelector(selector).textContent.replaceAll(',', '').replace('−', '-')) > least,
    [`[data-lane=${lane}] [data-value=${value}]`, bound],
    { timeout: 60_000 },
  );
}

/** Waits until an element's text matches. */
async function says(selector, pattern) {
  await page.waitForFunction(([s, p]) => new RegExp(p).test(document.querySelector(s)?.textContent ?? ''), [selector, pattern], { timeout: PATIENCE });
}

/** Waits without a reason that can be asked for: for what should not happen. */
const stillFor = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Violations of WCAG 2.2 A and AA that axe finds. */
async function violations() {
  await page.evaluate(AXE);
  const { violations: found } = await page.evaluate(() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }));
  return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(' ')}`);
}

test('both students learn, and only one is taught', async () => {
  assert.match(await page.locator('#teacher option').first().textContent(), /SAC of InvertedPendulum/);
  await page.click('#start');
  await Promise.all([exceeds('alone', 'step', 600), exceeds('taught', 'step', 600), exceeds('taught', 'labels', 300)]);
  assert.equal(await shown('alone', 'stage'), 'online');
  assert.equal(await shown('taught', 'stage'), 'transfer');
  assert.equal(await number('alone', 'labels'), 0);
  assert.equal(await shown('alone', 'bytesUp'), '0 B');
  assert.match(await shown('taught', 'bytesUp'), /kB$/);
  assert.equal(await shown('taught', 'version'), '1');
  assert.equal(await shown('taught', 'link'), 'Teacher answers');
  // Rates are over half a second, which the first 600 steps may not take.
  await exceeds('taught', 'updatesPerSecond', 0);
  assert.ok((await page.locator('#table tbody tr').count()) > 0, 'the evaluation at step 500 is in the table');
  assert.ok(Number(await shown('alone', 'score')) > 0);
  assert.deepEqual(await violations(), []);
});

/** The steps of training that a policy has behind it. */
const POLICY = /^at [\d,]+$/;

/** What an environment shows, and a return that nobody has who has not learnt. */
const ENVIRONMENTS = {
  cartpole: { env: 'CartPole', learnt: 100, moment: { Step: /^\d+ of 500$/, Policy: POLICY, Pole: /^−?\d+\.\d°$/, Cart: /^−?\d\.\d\d m$/, Push: /^(left|right)$/ } },
  pendulum: { env: 'Pendulum', learnt: -800, moment: { Step: /^\d+ of 200$/, Policy: POLICY, 'From upright': /^−?\d+\.\d°$/, Turning: /^−?\d+ °\/s$/, Torque: /^−?\d\.\d\d N m$/ } },
  cell: {
    env: 'MobileCell',
    learnt: 20,
    moment: { Step: /^\d+ of 100$/, Policy: POLICY, 'Utility now': /^−?\d\.\d\d$/, 'Mean so far': /^−?\d\.\d\d$/, Connected: /^[0-7] of [0-7] in range$/, 'Strongest signal': /^−?\d+\.\d dB$/ },
  },
};

/** The numbers below a lane's picture, by their labels. */
const moment = (lane) => page.locator(`[data-lane=${lane}] .moment`).evaluate((list) => Object.fromEntries([...list.children].map(({ children: [label, value] }) => [label.textContent, value.textContent])));

/** How many colours a lane's picture has. */
const colours = (lane) => page.locator(`[data-lane=${lane}] canvas`).evaluate((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size;
});

for (const [environment, { env, learnt, moment: expected }] of Object.entries(ENVIRONMENTS)) {
  test(`${environment}: the picture is there before the start, and the taught student learns`, async () => {
    await page.close();
    page = await open({}, environment);
    assert.ok(await page.getByRole('radio', { checked: true }).evaluate((choice, name) => choice.value === name, environment));
    assert.match(await page.locator('#teacher option').first().textContent(), new RegExp(env === 'CartPole' ? 'InvertedPendulum' : env));
    await says('[data-lane=taught] .moment', '^Step0 of');
    for (const lane of ['alone', 'taught']) assert.ok((await colours(lane)) > 8, `the picture of ${lane} is blank`);

    await page.click('#start');
    await exceeds('taught', 'score', learnt);
    await page.waitForFunction(() => [...document.querySelectorAll('.moment')].every((list) => !/Step0 of/.test(list.textContent)));
    for (const lane of ['alone', 'taught']) {
      const figures = await moment(lane);
      assert.deepEqual(Object.keys(figures), Object.keys(expected));
      for (const [label, pattern] of Object.entries(expected)) assert.match(figures[label], pattern, `${lane}, ${label}`);
    }
    assert.deepEqual(await violations(), []);
  });
}

test('nobody is above the best plan, which is of the same episodes', async () => {
  await page.close();
  page = await open({}, 'cell');
  await page.click('#start');
  await exceeds('taught', 'score', 40);
  const [titles, ...rows] = await page.locator('#table tr').evaluateAll((rows) => rows.map(({ cells }) => [...cells].map((cell) => cell.textContent)));
  assert.deepEqual(titles, ['Environment steps', 'Alone', 'Taught', 'Strongest station', 'Best plan']);
  for (const [step, ...returns] of rows) {
    const [alone, taught, strongest, best] = returns.map((text) => (text === '–' ? undefined : toNumber(text)));
    for (const other of [alone, taught, strongest]) assert.ok(other === undefined || other <= best, `step ${step}: ${returns}`);
  }
  assert.match(await shown('taught', 'compared'), /^strongest station −?[\d.]+ · best plan [\d.]+$/);
});

test('another environment ends the experiment, and begins it anew there', async () => {
  await page.click('#start');
  await exceeds('alone', 'step', 600);
  await page.getByRole('radio', { name: 'Cell selection' }).check();
  assert.equal(new URL(page.url()).search, '?environment=cell');
  assert.match(await page.locator('h1').textContent(), /seven stations/);
  assert.equal(await page.locator('#start').textContent(), 'Pause');
  assert.equal(await page.locator('#teacher').inputValue(), 'ppo_mobile_lte');
  await exceeds('taught', 'labels', 20);
  assert.match(await shown('taught', 'score'), /^(–|−?\d+(\.\d)?)$/);
  assert.equal(page.workers().length, 2, 'the old students are gone');

  // By keyboard, and while nothing runs: the new environment waits for Start.
  await page.click('#start');
  await page.getByRole('radio', { checked: true }).press('ArrowLeft');
  assert.equal(new URL(page.url()).search, '?environment=pendulum');
  assert.equal(await page.locator('#start').textContent(), 'Start');
  assert.equal(await number('taught', 'step'), 0);
  await says('[data-lane=alone] .moment', '^Step0 of 200');

  await page.goto(`${server.origin}/?environment=chess`);
  assert.match(await page.locator('h1').textContent(), /one pole/);
});

test('the carts move by themselves, and stand still on request', async () => {
  await page.click('#start');
  const picture = () => page.locator('[data-lane=alone] canvas').evaluate((canvas) => canvas.toDataURL());
  const first = await picture();
  await page.waitForFunction((before) => document.querySelector('[data-lane=alone] canvas').toDataURL() !== before, first);
  await page.locator('#animate').uncheck();
  // Until the next evaluation, and none comes while nothing is learnt.
  await page.click('#start');
  await says('#start', 'Resume');
  await page.waitForFunction(() => document.querySelector('[data-lane=alone] [data-value=stepsPerSecond]').textContent === '0');
  await stillFor(300);
  const still = await picture();
  await stillFor(300);
  assert.equal(await picture(), still);
  await page.click('#start');
  await page.waitForFunction((before) => document.querySelector('[data-lane=alone] canvas').toDataURL() !== before, still, { timeout: 60_000 });
});

test('a picture that stands still shows how each evaluation ends: alone with a fall, taught soon with none', async () => {
  await page.close();
  page = await open({ reducedMotion: 'reduce' });
  await page.click('#start');
  await says('[data-lane=alone] .endings', 'policy at [\\d,]+: fell at \\d+');
  assert.match((await moment('alone')).Step, /^[1-9]\d* of 500$/);
  await says('[data-lane=taught] .endings', 'policy at [\\d,]+: stood all 500');
});

test('an episode that is shown is played by the policy that began it', async () => {
  await page.evaluate(() => {
    window.moments = [];
    const list = document.querySelector('[data-lane=taught] .moment');
    const seen = () => moments.push([...list.querySelectorAll('dd')].slice(0, 2).map((figure) => figure.textContent));
    new MutationObserver(seen).observe(list, { subtree: true, childList: true, characterData: true });
  });
  await page.click('#start');
  await page.waitForFunction(() => new Set(moments.map(([, policy]) => policy)).size > 2);
  let policies = 0;
  const moments = await page.evaluate(() => moments);
  moments.slice(1).forEach(([step, policy], i) => {
    const [before, of] = moments[i];
    if (policy === of) return;
    policies += 1;
    assert.ok(Number.parseInt(step) === 0 || Number.parseInt(before) === 0, `${of} became ${policy} between steps ${before} and ${step}`);
  });
  assert.ok(policies >= 2, `${policies} changes`);
});

test('Back and reload keep what was chosen', async () => {
  const query = () => new URL(page.url()).search;
  const chosen = () => page.evaluate(() => ['seed', 'teacher', 'backend'].map((id) => document.getElementById(id).value).concat(document.querySelector('#environments :checked').value, document.querySelector('#animate').checked));
  assert.equal(query(), '');
  await page.fill('#seed', '7');
  await page.locator('#seed').blur();
  await page.selectOption('#teacher', 'ppo_cartpole_v1');
  await page.selectOption('#backend', 'auto');
  await page.locator('#animate').uncheck();
  assert.equal(query(), '?seed=7&teacher=ppo_cartpole_v1&backend=auto&animate=off');
  const first = ['7', 'ppo_cartpole_v1', 'auto', 'cartpole', false];
  assert.deepEqual(await chosen(), first);
  await page.getByRole('radio', { name: 'Cell selection' }).check();
  const second = ['7', 'ppo_mobile_lte', 'auto', 'cell', false];
  assert.deepEqual(await chosen(), second);
  await page.reload();
  await page.waitForFunction(() => document.querySelector('#teacher').options.length > 1);
  assert.deepEqual(await chosen(), second);
  await page.goBack();
  assert.deepEqual(await chosen(), first);
  assert.match(await page.locator('h1').textContent(), /one pole/);
  await page.goForward();
  assert.deepEqual(await chosen(), second);

  // While it runs, what Back restores starts again; the skip link is no other experiment.
  await page.goBack();
  await page.click('#start');
  await exceeds('taught', 'labels', 20);
  const step = await number('taught', 'step');
  await page.evaluate(() => (location.hash = 'experiment'));
  await exceeds('taught', 'step', step + 50);
  await page.goBack();
  await page.goForward();
  assert.equal(await page.locator('#start').textContent(), 'Pause');
  assert.deepEqual(await chosen(), first);
  await page.goto(`${server.origin}/?seed=4294967296&teacher=nobody&backend=tpu`);
  await says('#alert', 'No teacher here is called nobody; sac_inverted_pendulum_v5 is chosen');
  assert.deepEqual(await chosen(), ['1', 'sac_inverted_pendulum_v5', 'cpu', 'cartpole', true]);
});

test('the learning rates are those that the page speaks of', async () => {
  const digits = '([\\d.,]+)';
  const notes = await page.locator('#notes').textContent();
  const said = new RegExp(`rate falls from ${digits} to ${digits} over ${digits} steps, alone it falls from ${digits} to ${digits} over ${digits} steps`).exec(notes);
  const [transfer, alone] = [said.slice(1, 4), said.slice(4, 7)].map((numbers) => numbers.map(toNumber));
  await page.click('#start');
  await Promise.all([exceeds('alone', 'step', 600), exceeds('taught', 'step', 600)]);
  await page.click('#start');
  await page.waitForFunction(() => [...document.querySelectorAll('[data-value=stepsPerSecond]')].every((figure) => figure.textContent === '0'));
  assert.equal(await shown('taught', 'stage'), 'transfer');
  for (const [lane, [start, end, steps]] of [['taught', transfer], ['alone', alone]]) {
    // Both of one moment: the last events may still come.
    const read = (lane) => ['step', 'learningRate'].map((value) => document.querySelector(`[data-lane=${lane}] [data-value=${value}]`).textContent);
    const [step, found] = (await page.evaluate(read, lane)).map(toNumber);
    const expected = start + ((end - start) * step) / steps;
    // Each good evaluation lowers it by 30 %; two digits are shown.
    const lowered = Array.from({ length: 10 }, (_, good) => expected * 0.7 ** good);
    assert.ok(lowered.some((rate) => Math.abs(found - rate) < 0.05 * rate), `${lane}: ${found} beside ${expected}`);
  }
});

test('the cable can be cut and mended while both learn on', async () => {
  await page.click('#start');
  await exceeds('taught', 'labels', 50);
  const cable = page.getByRole('switch', { name: 'Connected' });
  await cable.uncheck();
  await says('[data-lane=taught] [data-value=link]', '^Cable cut; next try in \\d');
  const [labels, step] = [await number('taught', 'labels'), await number('taught', 'step')];
  await exceeds('taught', 'step', step + 200);
  assert.equal(await number('taught', 'labels'), labels);
  await cable.check();
  await exceeds('taught', 'labels', labels + 20);
  assert.equal(await shown('taught', 'link'), 'Teacher answers');
  assert.ok((await number('taught', 'reconnects')) >= 1);
});

test('pause, resume and reset, by keyboard', async () => {
  const start = page.locator('#start');
  await start.focus();
  await page.keyboard.press('Enter');
  await exceeds('alone', 'step', 100);
  assert.equal(await start.textContent(), 'Pause');
  assert.ok(await page.locator('#seed').isDisabled());
  await page.keyboard.press('Enter');
  await says('#start', 'Resume');
  await page.waitForFunction(() => document.querySelector('[data-lane=alone] [data-value=stepsPerSecond]').textContent === '0');
  const paused = await number('alone', 'step');
  await page.keyboard.press('Enter');
  await exceeds('alone', 'step', paused);
  await page.click('#reset');
  assert.equal(await start.textContent(), 'Start');
  assert.equal(await number('alone', 'step'), 0);
  assert.equal(await page.locator('#table tbody tr').count(), 0);
});

test('another teacher and another seed can be chosen; a bad seed is refused', async () => {
  const names = await page.locator('#teacher option').evaluateAll((options) => options.map(({ value }) => value));
  assert.deepEqual(names.toSorted(), ['ppo_cartpole_v1', 'ppo_cartpole_v1_early', 'sac_inverted_pendulum_v5', 'scripted:random']);
  await page.selectOption('#teacher', 'scripted:random');
  await page.fill('#seed', '-3');
  await page.click('#start');
  assert.equal(await page.locator('#start').textContent(), 'Start', 'a negative seed started an experiment');
  await page.fill('#seed', '42');
  await page.click('#start');
  await exceeds('taught', 'labels', 20);
});

test('without its list of teachers the page says so, and both learn alone', async () => {
  await page.route('**/policies', (route) => route.abort());
  await page.reload();
  await says('#alert', 'learn alone');
  await page.click('#start');
  await exceeds('taught', 'step', 100);
  assert.equal(await number('taught', 'labels'), 0);
  // The browser itself complains about the request that was made to fail.
  page.faults = page.faults.filter((fault) => !fault.includes('Failed to load resource'));
});

test('the page fits a phone in both themes and all environments, and is accessible', async () => {
  await page.close();
  page = await open({ viewport: { width: 390, height: 844 }, colorScheme: 'dark', reducedMotion: 'reduce' });
  assert.ok(!(await page.locator('#animate').isChecked()), 'reduced motion starts without animation');
  for (const theme of ['dark', 'light']) {
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), theme);
    for (const environment of ['Pendulum', 'Cell selection', 'CartPole']) {
      await page.getByRole('radio', { name: environment }).check();
      await says('[data-lane=alone] .moment', '^Step0 of');
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390, environment);
      assert.deepEqual(await violations(), [], `${environment}, ${theme}`);
    }
    await page.click('#theme');
  }
  await page.reload();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark', 'the choice is remembered');
});
