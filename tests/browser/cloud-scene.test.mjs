// The demo's page of an edge, served by the real server with its bundled learner, in a real Chromium.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';
import { PATIENCE, launch, startServer } from './harness.mjs';

const AXE = readFileSync(createRequire(new URL('../../web/package.json', import.meta.url)).resolve('axe-core/axe.min.js'), 'utf8');

let browser, server;

before(async () => {
  [browser, server] = await Promise.all([launch(), startServer()]);
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

test('the tab acts, the server learns; the line is slowed down and cut, the cart is pushed', async () => {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  const [faults, modules] = [[], []];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => request.url().endsWith('.wasm') && modules.push(request.url()));
  await page.goto(`${server.origin}/`);
  await page.getByRole('link', { name: /the server trains/ }).click();
  await page.waitForURL('**/cloud.html');
  modules.length = 0;
  const number = (name) => page.locator(`[data-value=${name}]`).textContent().then((text) => Number(/[\d,.]+/.exec(text)?.[0].replaceAll(',', '') ?? NaN));
  const until = (name, least) => page.waitForFunction(([name, least]) => Number(/[\d,.]+/.exec(document.querySelector(`[data-value=${name}]`).textContent)?.[0].replaceAll(',', '') ?? NaN) >= least, [name, least]);

  await page.click('#start');
  // The learner begins to push after its first rows.
  await Promise.all([until('steps', 60), until('version', 1), until('acknowledged', 30)]);
  assert.ok(modules.length === 1 && /oto_actor/.test(modules[0]), `the actor's module alone: ${modules}`);
  assert.match(await page.locator('[data-value=link]').textContent(), /learner answers/);
  const colours = await page.locator('#picture').evaluate((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
  });
  assert.ok(colours > 8, 'the picture is blank');

  // A line without a connection: the tab goes on, rows are held, and sent afterwards.
  await page.locator('#line').uncheck();
  await Promise.all([until('held', 30), page.waitForFunction(() => /acts alone/.test(document.querySelector('#verdict').textContent))]);
  const steps = await number('steps');
  await until('steps', steps + 20);
  const acknowledged = await number('acknowledged');
  await page.locator('#delay').fill('200');
  await page.locator('#bandwidth').fill('0');
  assert.equal(await page.locator('#bandwidth-value').textContent(), '0.06 Mbit/s');
  await page.locator('#bandwidth').fill('60');
  await page.locator('#line').check();
  await until('acknowledged', acknowledged + 30);

  // A push moves the cart: to the right while the pointer is on the right.
  const box = await page.locator('#picture').boundingBox();
  const cart = () => page.locator('#moment dd').nth(1).textContent().then((text) => Number(text.replace('−', '-').replace(' cm', '')));
  await page.mouse.move(box.x + 0.95 * box.width, box.y + box.height / 2);
  await page.mouse.down();
  await page.waitForFunction(() => Number(document.querySelectorAll('#moment dd')[1].textContent.replace('−', '-').replace(' cm', '')) > 24);
  await page.mouse.up();
  assert.ok(Number.isFinite(await cart()));

  // Other friction is another episode of the same actor.
  await page.locator('#friction').fill('12');
  await page.locator('#friction').dispatchEvent('change');
  assert.equal(await page.locator('#friction-value').textContent(), '12 N s/m');
  const before = await number('steps');
  await until('steps', before + 20);
  await page.click('#start');
  await page.waitForFunction(() => document.querySelector('#start').textContent === 'Resume');

  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }));
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(' ')}`), []);
  assert.deepEqual(faults, []);
  await page.close();
});
