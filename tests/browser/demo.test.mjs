// The demo beside what it does not choose: reports of a scripted student, a network that is off, parts of a browser that fail.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { PATIENCE, launch, root, serveFolder } from './harness.mjs';
import { scriptedWorker } from './scripted.mjs';

const POLICIES = [
  { name: 'sac', env: 'InvertedPendulum-v5', algorithm: 'stable-baselines3 SAC', evaluation: { mean_return: 1000 } },
  { name: 'ppo', env: 'CartPole-v1', algorithm: 'stable-baselines3 PPO', evaluation: { mean_return: 500 } },
];

let browser, site;

before(async () => {
  [browser, site] = await Promise.all([launch(), serveFolder(join(root, 'web/demo/dist'), { '/policies': () => JSON.stringify(POLICIES) })]);
});

after(async () => {
  await browser?.close();
  await site?.stop();
});

/** Opens the demo with students that report what the script says; `prepare` meets the page before it loads. */
async function open(script, { prepare = async () => {}, ...options } = {}) {
  const page = await browser.newPage(options);
  page.setDefaultTimeout(PATIENCE);
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(String(error)));
  const worker = { contentType: 'text/javascript', body: scriptedWorker(script) };
  await page.route('**/assets/worker-*.js', (asked) => asked.fulfill(worker));
  await prepare(page);
  await page.goto(site.origin);
  return page;
}

/** Waits until a student has reported the last of the script. */
function reported(page, script, lane) {
  const last = 500 * script[lane].flatMap(({ means }) => means).length;
  const there = ([name, step]) => Number(document.querySelector(`[data-lane=${name}] [data-value=step]`).textContent.replaceAll(',', '')) === step;
  return page.waitForFunction(there, [lane, last]);
}

/** Starts the demo, waits until both students have reported everything, and gives what the page says then and has said. */
async function play(script, options = {}) {
  const page = await open(script, options);
  await page.waitForFunction(() => document.querySelector('#teacher').options.length > 1);
  // Everything that the page ever said of the two.
  await page.evaluate(() => {
    const line = document.querySelector('#verdict');
    window.said = [];
    new MutationObserver(() => said.push(line.textContent)).observe(line, { childList: true, characterData: true, subtree: true });
  });
  await page.click('#start');
  for (const lane of ['alone', 'taught']) await reported(page, script, lane);
  const text = (selector) => page.locator(selector).textContent();
  const result = {
    verdict: await text('#verdict'),
    alone: await text('[data-lane=alone] .done'),
    taught: await text('[data-lane=taught] .done'),
    marked: await page.locator('[data-done]').evaluateAll((lanes) => lanes.map(({ dataset }) => dataset.lane)),
    said: await page.evaluate(() => said),
    page,
  };
  assert.deepEqual(page.faults, []);
  return result;
}

/** Reports with one evaluation each. */
const each = (means, labels = () => 0) => means.map((mean, i) => ({ means: [mean], labels: labels(i) }));

test('with the network off nothing is claimed for a teacher', async () => {
  const { verdict, said, alone, taught, page } = await play({ alone: each([20, 30, 480, 490]), taught: each([480, 490, 500, 500]) });
  assert.equal(verdict, 'No teacher has answered yet: both students learn alone, and nothing is compared.');
  for (const text of said) assert.doesNotMatch(text, /Taught:|times as many|taught student/, text);
  assert.deepEqual([alone, taught], ['solved after 1,500 steps', 'solved after 500 steps']);
  await page.close();
});

test('what is solved is withdrawn when it is lost, and one lucky evaluation is none', async () => {
  const labels = (i) => 400 * (i + 1);
  const lucky = await play({ alone: each([20, 480, 30, 30]), taught: each([480, 20, 30, 40], labels) });
  assert.deepEqual([lucky.alone, lucky.taught, lucky.marked], ['not solved yet', 'not solved yet', []]);
  for (const text of lucky.said) assert.doesNotMatch(text, /balances|Taught:/);
  await lucky.page.close();

  const solved = await play({ alone: each([20, 20, 20, 20, 480, 490]), taught: each([20, 480, 490, 500, 500, 500], labels) });
  assert.match(solved.verdict, /^Taught: 1,000 steps, with 400 labels\. Alone: 2,500 steps, 2\.5 times as many\. A part of that may be the learning rate/);
  assert.deepEqual([solved.alone, solved.taught, solved.marked], ['solved after 2,500 steps', 'solved after 1,000 steps', ['alone', 'taught']]);
  await solved.page.close();

  const lost = await play({ alone: each([20, 20, 20, 480, 490, 500]), taught: each([20, 480, 490, 500, 100, 500], labels) });
  assert.equal(lost.verdict, 'The student alone balances after 2,000 steps. The taught one did, and lost it at step 2,500.');
  assert.deepEqual([lost.taught, lost.marked], ['once, at step 3,000', ['alone']]);
  await lost.page.close();
});

test('a fall stays on the page while the student goes on to learn', async () => {
  const { page } = await play({ alone: each([20, 20]), taught: each([20, 20, 480]) }, { reducedMotion: 'reduce' });
  const endings = page.locator('[data-lane=taught] .endings li');
  await endings.filter({ hasText: /^policy at 1,500: fell at 3$/ }).first().waitFor();
  assert.ok(await endings.last().evaluate((entry) => entry.hasAttribute('data-failed')));
  assert.match(await page.locator('[data-lane=taught] .moment').textContent(), /^Step3 of 500Policyat 1,500/);
  await page.close();
});

/** Parts that fail, how, and what the page says of it. */
const FAULTS = [
  ...['C', '', 'x', 'en_US', '日本'].map((tag) => ({
    what: `the language ${JSON.stringify(tag)}`,
    script: `Object.defineProperty(Navigator.prototype, 'language', { value: ${JSON.stringify(tag)} })`,
    alert: null,
  })),
  { what: 'no number format for English', script: `{ const { NumberFormat } = Intl; Intl.NumberFormat = function (locale, options) { if (locale !== undefined) throw new RangeError('no locale'); return new NumberFormat(locale, options); }; }`, alert: /learning curves failed .*no locale/ },
  { what: 'no number format at all', script: `Intl.NumberFormat = function () { throw new RangeError('no format'); }`, alert: /learning curves failed .*no format/ },
  { what: 'no learning curves', route: '**/assets/chart-*.js', alert: /learning curves failed/ },
  { what: 'no canvas', script: `HTMLCanvasElement.prototype.getContext = () => null`, alert: /learning curves failed/ },
  { what: 'a canvas that throws', script: `HTMLCanvasElement.prototype.getContext = () => { throw new Error('no canvas'); }`, alert: /picture failed .*no canvas/ },
  { what: 'no ResizeObserver', script: `delete globalThis.ResizeObserver`, alert: /picture failed/ },
  { what: 'no storage', script: `Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError'); } })`, alert: null },
  { what: 'no media queries', script: `window.matchMedia = undefined`, alert: /theme failed/ },
  { what: 'no teachers', route: '**/policies', alert: /teachers could not be listed/, teachers: 1 },
  ...['<html>', '{}', 'null', '"x"'].map((body) => ({ what: `${body} for teachers`, route: '**/policies', body, alert: /teachers could not be listed/, teachers: 1 })),
  { what: 'odd teachers', route: '**/policies', body: JSON.stringify([null, 3, {}, { name: 7 }, { name: 'a', env: 5 }, { name: 'odd', env: 'CartPole-v1', algorithm: {}, evaluation: { mean_return: 'high' } }]), alert: null, teachers: 2 },
];

for (const { what, script, route, body, alert, teachers = 3 } of FAULTS) {
  test(`with ${what} the rest of the page goes on`, async () => {
    const prepare = async (page) => {
      if (script !== undefined) await page.addInitScript(script);
      if (route !== undefined) await page.route(route, (asked) => (body === undefined ? asked.abort() : asked.fulfill({ contentType: 'application/json', body })));
    };
    const reports = { alone: each([20, 500, 500]), taught: each([20, 500, 500]) };
    const page = await open(reports, { prepare });
    await page.click('#start');
    for (const lane of ['alone', 'taught']) await reported(page, reports, lane);
    assert.equal(await page.locator('#table tbody tr').count(), 3, 'evaluations are in the table');
    assert.equal(await page.locator('[data-lane=taught] .done').textContent(), 'solved after 1,000 steps');
    assert.equal(await page.locator('#teacher option').count(), teachers);
    await page.getByRole('radio', { name: 'Pendulum' }).check();
    assert.match(await page.locator('h1').textContent(), /one pendulum/);
    const said = await page.locator('#alert:not([hidden])').allTextContents();
    if (alert === null) assert.deepEqual(said, []);
    else assert.match(said.join(), alert);
    assert.deepEqual(page.faults, []);
    await page.close();
  });
}
