// The wire's vectors and the kernels in WebAssembly, in a real browser.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { launch, startPlainSite } from './harness.mjs';

let browser, site, page;

before(async () => {
  [browser, site] = await Promise.all([launch(), startPlainSite()]);
  page = await browser.newPage();
  await page.goto(`${site.origin}/`);
});

after(async () => {
  await browser?.close();
  await site?.stop();
});

for (const name of ['frames', 'messages', 'adapters', 'submissions', 'transitions', 'weights']) {
  test(`vectors in WebAssembly: ${name}`, async () => {
    const json = readFileSync(new URL(`../../crates/oto-proto/vectors/${name}.json`, import.meta.url), 'utf8');
    const summary = await page.evaluate(async (text) => {
      const checks = await import('/checks/oto_web_checks.js');
      await checks.default();
      return checks.run_vectors(text);
    }, json);
    const [accepted, refused] = summary.split(' ').map(Number);
    assert.equal(accepted + refused, JSON.parse(json).cases.length);
    assert.ok(accepted > 0 && refused > 0, summary);
  });
}

test('a wrong vector is noticed', async () => {
  const json = readFileSync(new URL('../../crates/oto-proto/vectors/messages.json', import.meta.url), 'utf8');
  const file = JSON.parse(json);
  const wrong = file.cases.find(({ means }) => means);
  delete wrong.means;
  wrong.reject = 'bad_message';
  const outcome = await page.evaluate(async (text) => {
    const checks = await import('/checks/oto_web_checks.js');
    await checks.default();
    try {
      return checks.run_vectors(text);
    } catch (error) {
      return `refused: ${error}`;
    }
  }, JSON.stringify(file));
  assert.match(outcome, /^refused: /);
});

for (const [module, file] of Object.entries({ fast: 'oto_web_checks_bg.wasm', plain: 'oto_web_checks_plain_bg.wasm' })) {
  test(`products and losses in the ${module} module`, async () => {
    const other = await browser.newPage();
    try {
      await other.goto(`${site.origin}/`);
      const agreed = await other.evaluate(async (file) => {
        const checks = await import('/checks/oto_web_checks.js');
        await checks.default({ module_or_path: `/checks/${file}` });
        return checks.run_products();
      }, file);
      assert.equal(agreed, 27);
    } finally {
      await other.close();
    }
  });
}
