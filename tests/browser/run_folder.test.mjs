// What `oto learn` leaves behind is what docs/schema says.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { accepts } from '../wire/schema.mjs';
import { program, root, startServer } from './harness.mjs';

const files = Object.fromEntries(
  ['config', 'metrics', 'checkpoint'].map((name) => {
    const file = `${name}.schema.json`;
    return [file, JSON.parse(readFileSync(join(root, 'docs/schema', file), 'utf8'))];
  }),
);
const fits = (name, value) => accepts(files[name], value, files[name], files);
const folder = mkdtempSync(join(tmpdir(), 'oto-run-'));
const read = (name) => readFileSync(join(folder, 'run', name));

before(async () => {
  const server = await startServer();
  const teacher = `ws://127.0.0.1:${server.port}`;
  const options = ['--teacher', teacher, '--steps', '600', '--set', 'qrdqn.hidden=[16]', '--out', join(folder, 'run')];
  execFileSync(program, ['learn', ...options], { stdio: ['ignore', 'ignore', 'pipe'] });
  await server.stop();
});
after(() => rmSync(folder, { recursive: true }));

test('config.json', () => {
  const config = JSON.parse(read('config.json'));
  assert.deepEqual(config.student.qrdqn.hidden, [16]);
  assert.ok(fits('config.schema.json', config));
  assert.ok(!fits('config.schema.json', { ...config, weather: 'fine' }));
});

test('metrics.jsonl', () => {
  const lines = read('metrics.jsonl').toString().trim().split('\n').map((line) => JSON.parse(line));
  const events = new Set(lines.map((line) => line.event));
  assert.ok(events.has('episode') && events.has('evaluation') && events.has('metrics'), [...events].join());
  for (const line of lines) assert.ok(fits('metrics.schema.json', line), JSON.stringify(line));
  assert.ok(!fits('metrics.schema.json', { ...lines[0], step: -1 }));
});

test('checkpoint.safetensors', () => {
  const file = read('checkpoint.safetensors');
  const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE())));
  assert.deepEqual(Object.keys(header.__metadata__), ['oto.checkpoint.v1']);
  const metadata = JSON.parse(header.__metadata__['oto.checkpoint.v1']);
  assert.ok(metadata.progress.steps === 600 && metadata.extra.labels > 500, JSON.stringify(metadata.extra));
  assert.ok(fits('checkpoint.schema.json', metadata));
});
