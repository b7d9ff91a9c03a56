// What the browser tests stand on: the real server, a real Chromium, and a plain page that uses the npm package through
// an import map, without a bundler.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { delimiter, extname, join, normalize, sep } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));
const { chromium } = createRequire(join(root, 'web/package.json'))('playwright-core');

/** How long anything may take on a machine that is busy with something else, in milliseconds. */
export const PATIENCE = 120_000;

/** Nothing that the browser would do on its own account, above all no traffic but the tests'. */
const FLAGS = [
  '--no-sandbox',
  '--no-first-run',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--disable-background-networking',
  '--disable-component-update',
];

/** WebGPU without a graphics card: the browser's own Vulkan on the processor. */
const WEBGPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];

/** The path of a program: what the variable says, or the first of the names on PATH. */
export function program(variable, names) {
  const candidates = process.env.PATH.split(delimiter).flatMap((folder) => names.map((name) => join(folder, name)));
  const found = process.env[variable] ?? candidates.find(existsSync);
  if (found === undefined) throw new Error(`there is no ${names[0]} on PATH: install it, or set ${variable} to its path`);
  return found;
}

/** Starts Chromium: `$CHROMIUM`, or the first one on PATH; with WebGPU or without. */
export async function launch({ webgpu = false } = {}) {
  const executablePath = program('CHROMIUM', ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome']);
  const args = webgpu ? [...FLAGS.filter((flag) => flag !== '--disable-gpu'), ...WEBGPU] : FLAGS;
  return chromium.launch({ executablePath, args });
}

/** Starts `oto serve` and waits until it says where it listens. Port 0 means any; `more` are other arguments; with `--admin` among them `operators` is that address. */
export async function startServer({ port = 0, origins = [], more = [] } = {}) {
  const oto = process.env.OTO ?? join(root, 'target/release/oto');
  const args = ['serve', '--port', String(port), ...origins.flatMap((origin) => ['--origin', origin]), ...more];
  const server = spawn(oto, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let address, operators;
  for await (const line of createInterface(server.stdout)) {
    operators ??= /operators: (http:\/\/[\d.]+:\d+)/.exec(line)?.[1];
    address ??= /http:\/\/[\d.]+:(\d+)/.exec(line);
    if (address === null || (operators === undefined && more.includes('--admin'))) continue;
    return { origin: address[0], port: Number(address[1]), operators, stop: () => stop(server), kill: () => stop(server, 'SIGKILL') };
  }
  throw new Error(`${oto} ended without an address`);
}

async function stop(server, signal = 'SIGTERM') {
  if (server.exitCode !== null || server.signalCode !== null) return;
  server.kill(signal);
  await once(server, 'exit');
}

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.wasm': 'application/wasm' };

/**
 * Serves the npm package as it is built, the WebAssembly of the checks, and an empty page that imports the package; `headers` come
 * with everything, and `edits` change files by their extension.
 */
export function startPlainSite(headers = {}, edits = {}) {
  const folders = { student: join(root, 'web/student'), checks: join(root, 'target/web-checks') };
  const page = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>plain</title>
    <script type="importmap">{"imports": {"oto-student": "/student/dist/index.js", "oto-student/actor": "/student/dist/actor.js"}}</script>
    <script type="module">import * as oto from 'oto-student'; import { Actor } from 'oto-student/actor'; window.oto = { ...oto, Actor };</script>`;
  return serve(async (path) => {
    if (path === '/') return page;
    const [, folder, ...rest] = path.split('/');
    const body = await readWithin(folders[folder], rest.join('/'));
    return edits[extname(path)]?.(body) ?? body;
  }, headers);
}

/** Serves a folder as any web server would; `edits` change the text of single files on their way, and make those that are not there. */
export function serveFolder(folder, edits = {}) {
  return serve(async (path) => {
    const edit = edits[path];
    const body = readWithin(folder, path === '/' ? 'index.html' : path);
    return edit === undefined ? body : edit(String(await body.catch(() => '')));
  });
}

/** Serves the body that `find` gives for a path; where it fails there is nothing. */
async function serve(find, headers = {}) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const path = new URL(request.url, 'http://localhost').pathname;
    requests.push(path);
    try {
      const body = await find(path);
      response.writeHead(200, { 'content-type': TYPES[extname(path) || '.html'] ?? 'text/plain', ...headers });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    /** The paths that were asked for. */
    requests,
    stop: () => new Promise((done) => (server.close(done), server.closeAllConnections())),
  };
}

/** A file's bytes; it must lie in the folder. */
async function readWithin(folder, path) {
  const file = normalize(join(folder, path));
  if (!file.startsWith(folder + sep)) throw new Error('not found');
  return readFile(file);
}

/** A page on the plain site with the package loaded as `window.oto`. Errors that nobody caught fail the test. */
export async function openPlainPage(browser, site) {
  const page = await browser.newPage();
  page.faults = [];
  page.on('pageerror', (error) => page.faults.push(error));
  await page.goto(`${site.origin}/`);
  await page.waitForFunction(() => window.oto !== undefined);
  return page;
}

/** A network small enough that a test takes seconds, shared by all tests. */
export const SMALL = { algorithm: { hidden: [16], quantiles: 4, batchSize: 16 }, learningStarts: 50 };

/** CartPole's teacher from another simulator, as the demo page declares it. */
export const ADAPTED = {
  policy: 'sac_inverted_pendulum_v5',
  adapter: { observation: { permutation: [0, 2, 1, 3] }, action: { kind: 'sign' } },
};

/** The address of a server's link. */
export function teachUrl({ origin }) {
  return `${origin.replace('http', 'ws')}/v1/teach`;
}
