// Chromium, driven by Playwright over the DevTools protocol.

import { PATIENCE, launch } from '../harness.mjs';

/** See `index.mjs`. */
export async function chromium() {
  const browser = await launch();
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  return {
    goto: (address) => page.goto(address),
    reload: () => page.reload(),
    back: () => page.goBack(),
    evaluate: (f, argument) => page.evaluate(f, argument),
    click: (selector) => page.click(selector),
    faults: async () => faults,
    screenshot: () => page.screenshot({ fullPage: true }),
    close: () => browser.close(),
  };
}
