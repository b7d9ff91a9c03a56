// What must hold in every browser engine, against the real server: a visitor's way through the demo, and the package's own in a
// plain page.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { ENGINES, keepPicture, until } from './engines/index.mjs';
import { webkit } from './engines/webkit.mjs';
import { ADAPTED, SMALL, startPlainSite, startServer, teachUrl } from './harness.mjs';

/** What a lane of the demo shows; numbers without their separators. */
const shown = (page, lane, value) =>
  page.evaluate((selector) => document.querySelector(selector).textContent, `[data-lane=${lane}] [data-value=${value}]`);

const number = async (page, lane, value) => Number((await shown(page, lane, value)).replaceAll(',', ''));

/** Waits until a number of a lane exceeds a bound. */
function exceeds(page, lane, value, bound) {
  const beyond = ([selector, least]) => Number(document.querySelector(selector).textContent.replaceAll(',', '')) > least;
  return until(page, beyond, [`[data-lane=${lane}] [data-value=${value}]`, bound], `${value} of ${lane} > ${bound}`);
}

/** Waits until an element's text matches. */
function says(page, selector, pattern) {
  const matches = ([place, text]) => new RegExp(text).test(document.querySelector(place)?.textContent ?? '');
  return until(page, matches, [selector, pattern], `${selector} says ${pattern}`);
}

const LINK = '[data-lane=taught] [data-value=link]';

/** Waits until the page knows its server's teachers. */
const listed = (page) => until(page, () => document.querySelector('#teacher').options.length > 1);

/** The page is whole: nothing was thrown, and it complains of nothing. */
async function whole(page) {
  assert.deepEqual(await page.faults(), []);
  assert.equal(await page.evaluate(() => document.querySelector('#alert:not([hidden])')?.textContent), undefined);
}

for (const { name, launch, relaxed, skip } of ENGINES) {
  describe(name, { skip: skip || false }, () => {
    let page, server;

    before(async () => {
      [page, server] = await Promise.all([launch(), startServer()]);
    });

    after(async () => {
      await page?.close();
      await server?.stop();
    });

    test('the demo learns, is taught, loses its teacher and finds it again', async () => {
      await page.goto(server.origin);
      await listed(page);
      await page.click('#start');
      await exceeds(page, 'taught', 'labels', 50);
      await exceeds(page, 'alone', 'step', 100);
      assert.equal(await shown(page, 'taught', 'link'), 'Teacher answers');
      assert.equal(await number(page, 'alone', 'labels'), 0);
      await keepPicture(page, `${name}-taught`);

      await server.kill();
      await says(page, LINK, '^Connection lost; next try in \\d');
      // The last labels may be shown after the loss, with the next report of the steps.
      await exceeds(page, 'taught', 'step', (await number(page, 'taught', 'step')) + 50);
      const [labels, step] = [await number(page, 'taught', 'labels'), await number(page, 'taught', 'step')];
      await exceeds(page, 'taught', 'step', step + 200);
      assert.equal(await number(page, 'taught', 'labels'), labels);
      await keepPicture(page, `${name}-lost`);

      server = await startServer({ port: server.port });
      await exceeds(page, 'taught', 'labels', labels + 20);
      assert.equal(await shown(page, 'taught', 'link'), 'Teacher answers');
      assert.ok((await number(page, 'taught', 'reconnects')) >= 1);
      await keepPicture(page, `${name}-found`);
      await whole(page);
    });

    test('Back and reload keep what was chosen in the demo', async () => {
      const chosen = () => page.evaluate(() => [document.querySelector('#seed').value, document.querySelector('#environments :checked').value, document.querySelector('#start').textContent]);
      await page.goto(`${server.origin}/?seed=7`);
      await listed(page);
      assert.deepEqual(await chosen(), ['7', 'cartpole', 'Start']);
      await page.click('#environments [value=pendulum]');
      await says(page, 'h1', 'one pendulum');
      await page.reload();
      await listed(page);
      assert.deepEqual(await chosen(), ['7', 'pendulum', 'Start']);
      await page.back();
      await says(page, 'h1', 'one pole');
      assert.deepEqual(await chosen(), ['7', 'cartpole', 'Start']);
      await whole(page);
    });

    test('the package learns, saves and loads, in the module that fits', async () => {
      const site = await startPlainSite();
      const taught = await startServer({ origins: [site.origin] });
      try {
        await page.goto(`${site.origin}/`);
        await until(page, () => window.oto !== undefined);
        const result = await page.evaluate(saveAndLoad, {
          env: 'CartPole-v1',
          ...SMALL,
          seed: 4,
          teachers: [{ url: teachUrl(taught), ...ADAPTED }],
        });
        assert.ok(result.labels > 100, `${result.labels} labels`);
        assert.notDeepEqual(result.before, result.saved, 'the test needs two students that differ');
        assert.deepEqual(result.loaded, result.saved);
        assert.equal(result.refused, 'CheckpointError');
        assert.deepEqual(result.steps, [300, 400]);
        // Chromium has WebGPU only where it is asked for (webgpu.test.mjs).
        assert.equal(result.auto, 'cpu');
        assert.deepEqual(await page.faults(), []);
        const modules = site.requests.filter((path) => path.endsWith('.wasm'));
        assert.deepEqual([...new Set(modules)], [`/student/wasm/oto_web_${relaxed ? '' : 'plain_'}bg.wasm`]);
      } finally {
        await Promise.all([site.stop(), taught.stop()]);
      }
    });
  });
}

/** In a page that has the package as `oto`: trains, saves, loads the file into another student, and goes on there. */
async function saveAndLoad(options) {
  const train = async (student, steps) => {
    let last;
    for await (last of student.train({ steps, interval: 20 }));
    return last;
  };
  const observations = Array.from({ length: 40 }, (_, i) => [Math.sin(i), Math.cos(2 * i), Math.sin(3 * i) / 5, Math.cos(5 * i)]);
  const actions = (student) => Promise.all(observations.map((observation) => student.act(observation)));
  const student = await oto.Student.create(options);
  const other = await oto.Student.create({ ...options, seed: 99 });
  const { labels } = await train(student, 300);
  const before = await actions(other);
  const saved = await actions(student);
  const file = await student.save();
  const refused = await other.load(file.subarray(0, file.length - 7)).then(
    () => 'it was loaded',
    (error) => Object.entries(oto).find(([, type]) => error.constructor === type)?.[0] ?? String(error),
  );
  await other.load(file);
  const loaded = await actions(other);
  const { step } = await other.metrics();
  const later = await train(other, 100);
  const either = await oto.Student.create({ ...options, backend: 'auto' });
  const auto = (await either.metrics()).backend.name;
  [student, other, either].forEach((each) => each.dispose());
  return { auto, labels, before, saved, loaded, refused, steps: [step, later.step] };
}

test('WebKit in the locale C: the demo learns', { skip: process.platform !== 'linux' && 'WebKitGTK is tested on Linux' }, async () => {
  const [page, server] = await Promise.all([webkit({ locale: 'C' }), startServer()]);
  try {
    await page.goto(server.origin);
    await listed(page);
    await page.click('#start');
    await exceeds(page, 'taught', 'labels', 20);
    await whole(page);
  } finally {
    await page.close();
    await server.stop();
  }
});
