// What `cargo xtask bench-web` runs: serves the built page, opens it in Chromium, prints tables, writes JSON.

import { once } from 'node:events';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { dirname, extname, join, normalize, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';

const here = fileURLToPath(new URL('.', import.meta.url));
const web = join(here, '..');
const { chromium } = createRequire(join(web, 'package.json'))('playwright-core');

/** No traffic of the browser's own; WebGPU even where there is only a software adapter. */
const FLAGS = [
  '--no-sandbox',
  '--no-first-run',
  '--enable-unsafe-webgpu',
  '--disable-quic',
  '--disable-sync',
  '--disable-background-networking',
  '--disable-component-update',
];

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };

/** A page that is served so may share memory between its threads. */
const ISOLATED = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

/** How often the npm package's start is measured. */
const LOADS = 10;
/** How many students train together, and for how long. */
const STUDENTS = [1, 20];
const SECONDS = 10;

/** Serves a folder on a free port. */
async function serve(folder) {
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, 'http://localhost').pathname;
    const file = normalize(join(folder, path === '/' ? 'index.html' : path));
    try {
      if (!file.startsWith(folder + sep)) throw new Error('outside');
      const body = await readFile(file);
      response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', ...ISOLATED });
      response.end(body);
    } catch {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('there is nothing here\n');
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { origin: `http://127.0.0.1:${server.address().port}`, stop: () => (server.close(), server.closeAllConnections()) };
}

/** Opens an address in a profile of its own, so that nothing is cached, and waits for what the page measures; `after` may look at the page then. */
async function measured(browser, address, { onProgress = () => {}, after = () => {} } = {}) {
  const context = await browser.newContext();
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  try {
    await page.goto(address);
    for (;;) {
      const { result, progress } = await page.evaluate(() => ({ result: window.__result, progress: window.__progress }));
      if (result?.error !== undefined) throw new Error(result.error);
      if (result !== undefined) {
        await after(result);
        return result;
      }
      if (faults.length > 0) throw new Error(faults.join('; '));
      onProgress(progress);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  } finally {
    await context.close();
  }
}

/** Shows what the page is at, on one line that is written over. */
function showProgress(text) {
  if (process.stderr.isTTY && text !== undefined) process.stderr.write(`\r\x1b[K${text}`);
}

async function measureUpdates(browser, origin, { shapes, peers, repeats }) {
  const query = new URLSearchParams({ auto: '', shapes, repeats });
  if (peers !== undefined) query.set('peers', peers);
  const result = await measured(browser, `${origin}/?${query}`, { onProgress: showProgress });
  showProgress('');
  return result;
}

async function measureStudent(browser, origin) {
  const address = (query) => `${origin}/student.html?${new URLSearchParams(query)}`;
  const loads = [];
  for (let i = 0; i < LOADS; i++) loads.push(await measured(browser, address({})));
  const empty = await memoryOfEmptyPage(browser, origin);
  const together = [];
  for (const students of STUDENTS) {
    const after = async (result) => (result.memory = empty && (await renderers(browser)) - empty);
    together.push(await measured(browser, address({ students, seconds: SECONDS }), { after }));
  }
  return { size: await packageSize(), loads, together };
}

/** Bytes that the browser's pages hold for themselves, their workers included; `null` where the system does not tell. */
async function renderers(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  await session.detach();
  let bytes = 0;
  for (const { type, id } of processInfo) {
    if (type !== 'renderer') continue;
    const text = await readFile(`/proc/${id}/smaps_rollup`, 'utf8').catch(() => null);
    if (text === null) return null;
    for (const [, kib] of text.matchAll(/^Private_(?:Clean|Dirty): +(\d+) kB$/gm)) bytes += Number(kib) * 1024;
  }
  return bytes;
}

async function memoryOfEmptyPage(browser, origin) {
  const context = await browser.newContext();
  try {
    await (await context.newPage()).goto(`${origin}/empty`);
    return await renderers(browser);
  } finally {
    await context.close();
  }
}

/** Bytes of what a page with a student downloads, apart from the page: the WebAssembly, and the scripts beside it. */
async function packageSize() {
  const files = {};
  for (const folder of ['student/wasm', 'student/dist']) {
    for (const name of await readdir(join(web, folder))) {
      // Of the two modules a browser loads one.
      if (!/\.(js|wasm)$/.test(name) || name.endsWith('_plain_bg.wasm')) continue;
      const bytes = await readFile(join(web, folder, name));
      files[`${folder}/${name}`] = { bytes: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length };
    }
  }
  const total = (of) => Object.values(files).reduce((sum, file) => sum + file[of], 0);
  return { bytes: total('bytes'), gzipped: total('gzipped'), files };
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  return sorted.length % 2 === 0 ? (sorted[half - 1] + sorted[half]) / 2 : sorted[Math.floor(half)];
}

const fixed = (number, digits = 0) => number.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** Rows of strings as a Markdown table whose columns are padded. */
function markdown(head, rows) {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i].length)));
  const line = (row) => `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`;
  const rule = `| ${widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return [line(head), rule, ...rows.map(line)].join('\n');
}

function printUpdates({ tables, adapter }) {
  console.log(adapter === null ? 'no WebGPU' : `WebGPU on ${adapter}`);
  for (const { name, rows } of tables) {
    const cells = rows.map(({ label, microseconds: us, ratio, startMs, difference, failure }) =>
      us === undefined
        ? [label, failure ?? 'not measured', '', '', '', '']
        : [label, fixed(us.median, 1), `${fixed(us.p10, 1)} to ${fixed(us.p90, 1)}`, fixed(ratio, 2), fixed(startMs), difference.size.toExponential(0)],
    );
    const head = [name, 'µs an update', 'tenth to ninetieth percentile', 'times oto', 'ms to the first', 'difference'];
    console.log(`\n${markdown(head, cells)}`);
  }
}

function printStudent({ size, loads, together }) {
  const of = (key) => loads.map((load) => load[key]);
  const kib = (bytes) => `${fixed(bytes / 1024)} KiB`;
  const mib = (bytes) => (bytes === null ? 'not told' : `${fixed(bytes / 2 ** 20, 1)} MiB`);
  const ms = (numbers) => `${fixed(median(numbers))} ms (${fixed(Math.min(...numbers))} to ${fixed(Math.max(...numbers))})`;
  const rows = [
    ['WebAssembly and scripts', `${kib(size.bytes)}, gzipped ${kib(size.gzipped)}`],
    ['from navigation to a student that is ready', ms(of('readyMs'))],
    ['from navigation to its first update', ms(of('firstUpdateMs'))],
    ...together.flatMap(({ students, updatesPerSecond, stepsPerSecond, memory }) => [
      [`updates per second, ${students} training`, `${fixed(updatesPerSecond)} (${fixed(stepsPerSecond)} steps)`],
      [`memory beyond an empty page, ${students} training`, mib(memory)],
    ]),
  ];
  console.log(`\n${markdown(['the npm package', 'measured'], rows)}`);
}

const { values: options } = parseArgs({
  options: {
    shapes: { type: 'string', default: '64x32,128x51,128x200' },
    peers: { type: 'string' },
    repeats: { type: 'string', default: '15' },
    only: { type: 'string' },
    json: { type: 'string' },
  },
});
const site = await serve(join(here, 'dist'));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
try {
  const machine = { processor: cpus()[0].model, cores: cpus().length, chromium: browser.version() };
  console.log(`${machine.processor}, ${machine.cores} cores, Chromium ${machine.chromium}`);
  const result = { machine };
  if (options.only !== 'student') printUpdates((result.updates = await measureUpdates(browser, site.origin, options)));
  if (options.only !== 'updates') printStudent((result.student = await measureStudent(browser, site.origin)));
  if (options.json !== undefined) {
    await mkdir(dirname(options.json), { recursive: true });
    await writeFile(options.json, `${JSON.stringify(result, null, 1)}\n`);
  }
} finally {
  await browser.close();
  site.stop();
}
