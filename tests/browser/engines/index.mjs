// Three browser engines behind one small face, so that a scenario is written once. An engine's `launch(settings)` starts a
// browser of its own with one page:
//
//   goto(address), reload(), back()   end once the page has loaded
//   evaluate(f, argument)             runs `f` in the page and gives its result; both ways as JSON, promises are waited for
//   click(selector)                   a real click, as by a mouse
//   faults()                          texts of the errors that nobody caught in the page
//   screenshot()                      a PNG
//   close()                           ends the browser

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { PATIENCE } from '../harness.mjs';
import { chromium } from './chromium.mjs';
import { firefox } from './firefox.mjs';
import { webkit } from './webkit.mjs';

/** WebKit takes its language from the locale, and in C's there is none: `navigator.language` is "C", which is no language. */
const NO_LANGUAGE = 'C.UTF-8';

/** Every browser that is tested, by name: how it is started, and why it cannot be here. */
export const ENGINES = [
  { name: 'Chromium', launch: chromium, relaxed: true },
  { name: 'Firefox', launch: firefox, relaxed: true },
  // WebKit has no relaxed SIMD: it loads the second module.
  { name: 'WebKit', launch: () => webkit({ locale: NO_LANGUAGE }), relaxed: false, skip: process.platform !== 'linux' && 'WebKitGTK is tested on Linux' },
];

/** Waits until `f` gives something true in the page, and gives it. */
export async function until(page, f, argument, what = String(f)) {
  const end = performance.now() + PATIENCE;
  for (;;) {
    const found = await page.evaluate(f, argument);
    if (found) return found;
    if (performance.now() > end) throw new Error(`not within ${PATIENCE} ms: ${what}`);
    await pause(50);
  }
}

/** Keeps a picture of the page in the folder `$OTO_SCREENSHOTS`, where somebody may look at it. */
export async function keepPicture(page, name) {
  const folder = process.env.OTO_SCREENSHOTS;
  if (folder === undefined) return;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${name}.png`), await page.screenshot());
}
