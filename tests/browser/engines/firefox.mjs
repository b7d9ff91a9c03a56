// Firefox, driven by Puppeteer over WebDriver BiDi: `$FIREFOX`, or the first one on PATH.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { PATIENCE, program, root } from '../harness.mjs';
import { heard, listen } from './listen.mjs';

const { default: puppeteer } = createRequire(join(root, 'web/package.json'))('puppeteer-core');

/** Nothing that the browser would do on its own account, above all no traffic but the tests'. */
const PREFERENCES = {
  'app.normandy.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.getAddons.cache.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,#remote-settings-dummy/v1',
  'toolkit.telemetry.reportingpolicy.firstRun': false,
};

/** See `index.mjs`. */
export async function firefox() {
  const executablePath = program('FIREFOX', ['firefox-esr', 'firefox']);
  const patience = { timeout: PATIENCE, protocolTimeout: PATIENCE };
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath, extraPrefsFirefox: PREFERENCES, ...patience });
  const [page] = await browser.pages();
  page.setDefaultTimeout(PATIENCE);
  await page.setViewport({ width: 1280, height: 900 });
  // Firefox reports a connection that fails as an error of the page, too.
  await page.evaluateOnNewDocument(listen);
  return {
    goto: (address) => page.goto(address),
    reload: () => page.reload(),
    back: () => page.goBack(),
    evaluate: (f, argument) => page.evaluate(f, argument),
    click: (selector) => page.click(selector),
    faults: () => page.evaluate(heard),
    screenshot: () => page.screenshot({ fullPage: true }),
    close: () => browser.close(),
  };
}
