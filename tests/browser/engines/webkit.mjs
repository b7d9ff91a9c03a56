// WebKitGTK's MiniBrowser on a display of its own, driven over WebDriver (www.w3.org/TR/webdriver2): `$WEBKIT_DRIVER` and `$XVFB`,
// or those on PATH.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { PATIENCE, program } from '../harness.mjs';
import { heard, listen } from './listen.mjs';

/** The key of an element's reference, by the standard. */
const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf';

/** See `index.mjs`; `locale` is the one that the browser runs in. */
export async function webkit({ locale }) {
  const children = [];
  const stop = async () => {
    for (const child of children.reverse()) await end(child);
  };
  try {
    const display = await startDisplay(children);
    const send = await startDriver(children, { ...process.env, DISPLAY: display, LC_ALL: locale, LANG: locale });
    return await startPage(send, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A screen that nobody sees; gives its name. */
async function startDisplay(children) {
  const size = ['-screen', '0', '1280x1024x24', '-nolisten', 'tcp'];
  const child = spawn(program('XVFB', ['Xvfb']), ['-displayfd', '1', ...size], { stdio: ['ignore', 'pipe', 'ignore'] });
  children.push(child);
  const [number] = await Promise.race([once(child.stdout, 'data'), ended(child, 'Xvfb')]);
  return `:${String(number).trim()}`;
}

/** Starts the driver, which does not choose a port by itself; gives what sends it commands. */
async function startDriver(children, env) {
  const port = await freePort();
  const child = spawn(program('WEBKIT_DRIVER', ['WebKitWebDriver']), [`--port=${port}`], { env, stdio: 'ignore' });
  children.push(child);
  const send = (method, path, body) => command(`http://127.0.0.1:${port}${path}`, method, body);
  const ready = async () => {
    while (!(await send('GET', '/status').catch(() => undefined))?.ready) await pause(30);
  };
  const late = pause(PATIENCE, undefined, { ref: false }).then(() => {
    throw new Error('WebKitWebDriver does not answer');
  });
  await Promise.race([ready(), ended(child, 'WebKitWebDriver'), late]);
  return send;
}

/** Opens the browser, and wraps its only window. */
async function startPage(send, stop) {
  const wanted = { browserName: 'MiniBrowser', timeouts: { script: PATIENCE, pageLoad: PATIENCE } };
  const { sessionId } = await send('POST', '/session', { capabilities: { alwaysMatch: wanted } });
  const session = (method, path, body) => send(method, `/session/${sessionId}${path}`, body);
  await session('POST', '/window/rect', { width: 1280, height: 1000 });
  const run = (script, args = []) => session('POST', '/execute/async', { script, args });
  const navigate = async (path, body) => {
    await session('POST', path, body);
    await session('POST', '/execute/sync', { script: `(${listen})()`, args: [] });
  };
  return {
    goto: (url) => navigate('/url', { url }),
    reload: () => navigate('/refresh', {}),
    back: () => navigate('/back', {}),
    async evaluate(f, argument) {
      const script = `
        const answer = arguments[arguments.length - 1];
        const argument = arguments[0] ?? undefined;
        const told = (error) => answer({ error: String(error) + '\\n' + error?.stack });
        (async () => (${f})(argument))().then((value) => answer({ value }), told);`;
      const { value, error } = await run(script, [argument ?? null]);
      if (error !== undefined) throw new Error(error);
      return value ?? undefined;
    },
    async click(selector) {
      const found = await session('POST', '/element', { using: 'css selector', value: selector });
      await session('POST', `/element/${found[ELEMENT]}/click`, {});
    },
    faults: () => session('POST', '/execute/sync', { script: `return (${heard})()`, args: [] }),
    screenshot: async () => Buffer.from(await session('GET', '/screenshot'), 'base64'),
    async close() {
      await session('DELETE', '').catch(() => {});
      await stop();
    },
  };
}

/** One command of the protocol; its error is thrown. */
async function command(address, method, body) {
  const answer = await fetch(address, { method, body: body === undefined ? undefined : JSON.stringify(body) });
  const { value } = await answer.json();
  if (!answer.ok) throw new Error(`${value?.error}: ${value?.message}`);
  return value;
}

/** A port that is free now. */
async function freePort() {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Fails when a program ends, or cannot be started. */
async function ended(child, name) {
  const [code] = await once(child, 'exit');
  throw new Error(`${name} ended with ${code}`);
}

async function end(child) {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await once(child, 'exit');
}
