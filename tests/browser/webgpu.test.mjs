// The backends of the npm package in a real browser: on WebGPU, on the faster one, and where WebGPU is not there.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch, openPlainPage, startPlainSite } from './harness.mjs';

let site, gpu, plain;

before(async () => {
  [site, gpu, plain] = await Promise.all([startPlainSite(), launch({ webgpu: true }), launch()]);
});

after(async () => {
  await Promise.all([gpu?.close(), plain?.close()]);
  await site?.stop();
});

/** Runs `f` in a page of `browser` that has the package as `oto`. */
async function inPage(browser, f, argument) {
  const page = await openPlainPage(browser, site);
  try {
    const result = await page.evaluate(f, argument);
    assert.deepEqual(page.faults, []);
    return result;
  } finally {
    await page.close();
  }
}

const SMALL = { env: 'CartPole-v1', algorithm: { hidden: [16, 16], quantiles: 8, batchSize: 32 }, evaluation: { every: 0 }, seed: 5 };

for (const clock of ['lockstep', 'async']) {
  test(`a student learns on WebGPU (${clock}), and its file goes on with the CPU`, async () => {
    const result = await inPage(
      gpu,
      async (options) => {
        const student = await oto.Student.create({ ...options, backend: 'webgpu' });
        let last;
        // Beside the clock acting waits for nothing: it goes on until an update was reported.
        do {
          for await (const metrics of student.train({ steps: 300, interval: 20 })) last = metrics;
        } while (last.loss === null);
        const file = await student.save({ replay: true });
        const action = await student.act([0.01, 0.02, 0.03, 0.04]);
        const { backend, updates } = await student.metrics();
        await student.dispose();
        const next = await oto.Student.create({ ...options, backend: 'cpu' });
        await next.load(file);
        const same = (await next.act([0.01, 0.02, 0.03, 0.04])) === action;
        for await (const metrics of next.train({ steps: 50, interval: 20 })) last = { ...last, later: metrics };
        await next.dispose();
        return { last, backend, updates, same };
      },
      { ...SMALL, clock },
    );
    assert.deepEqual(result.backend, { name: 'webgpu', tried: [], lost: null });
    assert.ok(result.updates > (clock === 'lockstep' ? 150 : 0), `${result.updates} updates`);
    assert.ok(Number.isFinite(result.last.loss.loss));
    assert.ok(result.same, 'the same weights choose the same action');
    assert.equal(result.last.later.backend.name, 'cpu');
    assert.ok(result.last.later.updates > result.updates);
  });
}

test('auto times both and takes the faster', async () => {
  const { name, tried } = await inPage(
    gpu,
    async (options) => {
      const student = await oto.Student.create({ ...options, backend: 'auto' });
      const { backend } = await student.metrics();
      await student.dispose();
      return backend;
    },
    SMALL,
  );
  assert.deepEqual(tried.map((each) => each.name), ['cpu', 'webgpu']);
  const [cpu, webgpu] = tried;
  assert.ok(cpu.updatesPerSecond > 0, cpu.error);
  // A software adapter may need longer for its first step than anyone wants to wait.
  if (webgpu.updatesPerSecond === null) assert.match(webgpu.error, /took longer than/);
  assert.equal(name, webgpu.updatesPerSecond > cpu.updatesPerSecond ? 'webgpu' : 'cpu');
});

test('without WebGPU, auto computes on the CPU and webgpu says why it cannot', async () => {
  const { backend, failure } = await inPage(
    plain,
    async (options) => {
      const student = await oto.Student.create({ ...options, backend: 'auto' });
      const { backend } = await student.metrics();
      await student.dispose();
      const failure = await oto.Student.create({ ...options, backend: 'webgpu' }).then(
        () => 'it was created',
        ({ name, message, field }) => ({ name, message, field }),
      );
      return { backend, failure };
    },
    SMALL,
  );
  assert.equal(backend.name, 'cpu');
  assert.match(backend.tried[1].error, /no GPU can be used here/);
  assert.equal(failure.field, 'backend');
  assert.match(failure.message, /^backend is "webgpu": no GPU can be used here .*choose the backend "cpu"/);
});
