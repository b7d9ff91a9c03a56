// The option `from`: where a checkpoint's bytes come from, and every refusal.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { checkpointOf } from '../dist/source.js';

const BYTES = Uint8Array.from({ length: 300_000 }, (_, i) => i % 251);
let server, origin;

before(async () => {
  server = createServer((request, response) => {
    if (request.url === '/checkpoint') return response.end(BYTES);
    if (request.url === '/page') return response.setHeader('content-type', 'text/html; charset=utf-8').end('<!doctype html>');
    if (request.url === '/large') return response.writeHead(200, { 'content-length': 2 ** 31 }).write('a');
    if (request.url === '/cut') return response.writeHead(200, { 'content-length': 9 }).write('a', () => response.destroy());
    if (request.url === '/silent') return undefined;
    response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${server.address().port}`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

test('bytes, files and addresses give the same checkpoint', async () => {
  const sources = [BYTES, BYTES.buffer, new Blob([BYTES]), `${origin}/checkpoint`, new URL('/checkpoint', origin), BYTES.subarray(0)];
  for (const from of sources) assert.deepEqual(await checkpointOf(from), BYTES);
  assert.notEqual(await checkpointOf(BYTES), BYTES, 'a copy');
  assert.equal(await checkpointOf(undefined), undefined);
});

test('a value of another type is refused by name', async () => {
  for (const from of [7, null, {}, [1, 2], 'http://[', true, new Float32Array(2), Symbol('from'), 7n]) {
    await assert.rejects(checkpointOf(from), { name: 'ConfigError', field: 'from' });
  }
});

test('an address without a checkpoint is refused with its answer', async () => {
  const refused = (from, message) => assert.rejects(checkpointOf(from), { name: 'CheckpointError', field: 'from', message });
  await refused(`${origin}/nowhere`, /^from: .*nowhere .*status 404/);
  await refused(`${origin}/page`, /expected a safetensors file, got text\/html/);
  await refused(`${origin}/large`, /at most 1073741824 bytes/);
  await refused(`${origin}/cut`, /cut is no checkpoint/);
  await refused('http://127.0.0.1:1/checkpoint', /127.0.0.1:1/);
  const broken = new Blob([]);
  broken.arrayBuffer = () => Promise.reject(new Error('the disk is gone'));
  await refused(broken, /the file .*the disk is gone/);
  const detached = new ArrayBuffer(8);
  structuredClone(detached, { transfer: [detached] });
  await refused(detached, /it is no checkpoint that can be read/);
});

test('a signal ends the wait for an address', async () => {
  const abort = new AbortController();
  const waiting = checkpointOf(`${origin}/silent`, abort.signal);
  abort.abort();
  await assert.rejects(waiting, { name: 'AbortError' });
});
