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

/** Runs `f` in a page of `browser` that has the package as `oto`; `during` meets the page meanwhile. */
async function inPage(browser, f, argument, { worker, during } = {}) {
  const page = await openPlainPage(browser, site);
  if (worker !== undefined) await runFirst(page, worker);
  try {
    const [result] = await Promise.all([page.evaluate(f, argument), during?.(page)]);
    assert.deepEqual(page.faults, []);
    return result;
  } finally {
    await page.close();
  }
}

/** Lets students' workers run `script` before their own. */
async function runFirst(page, script) {
  await page.route('**/dist/worker.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `${script};\n${await response.text()}` });
  });
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

// What a browser may lack or refuse, and what is said of it.
const REFUSALS = [
  { what: 'no WebGPU at all', worker: '', browser: () => plain, reason: /no GPU can be used here: this browser gives this page no WebGPU adapter/ },
  {
    what: 'no navigator.gpu',
    worker: `Object.defineProperty(WorkerNavigator.prototype, 'gpu', { value: undefined })`,
    browser: () => gpu,
    reason: /no GPU can be used here: this browser gives this page no WebGPU adapter/,
  },
  {
    what: 'no adapter',
    worker: 'GPU.prototype.requestAdapter = async () => null',
    browser: () => gpu,
    reason: /no GPU can be used here: this browser gives this page no WebGPU adapter/,
  },
  {
    what: 'no device',
    worker: `GPUAdapter.prototype.requestDevice = async () => { throw new DOMException('too busy', 'OperationError') }`,
    browser: () => gpu,
    reason: /the GPU .* refused: .*too busy/,
  },
];

for (const { what, worker, browser, reason } of REFUSALS) {
  test(`with ${what}, auto learns on the CPU and webgpu says why it cannot`, async () => {
    const { last, failure } = await inPage(
      browser(),
      async (options) => {
        const student = await oto.Student.create({ ...options, backend: 'auto' });
        let last;
        for await (const metrics of student.train({ steps: 300, interval: 20 })) last = metrics;
        student.dispose();
        const failure = await oto.Student.create({ ...options, backend: 'webgpu' }).then(
          () => 'it was created',
          ({ name, message, field }) => ({ name, message, field }),
        );
        return { last, failure };
      },
      SMALL,
      { worker },
    );
    assert.equal(last.backend.name, 'cpu');
    assert.equal(last.backend.lost, null, 'what was never there is not lost');
    assert.ok(last.updates > 150, `${last.updates} updates`);
    const [cpu, webgpu] = last.backend.tried;
    assert.ok(cpu.updatesPerSecond > 0, cpu.error);
    assert.match(webgpu.error, reason);
    assert.equal(failure.name, 'ConfigError');
    assert.equal(failure.field, 'backend');
    assert.match(failure.message, reason);
    assert.match(failure.message, /^backend is "webgpu": .*; choose the backend "cpu"$/);
  });
}

/** Keeps the devices that a worker opens, so that one can be taken away. */
const KEEP_DEVICES = `
  globalThis.devices = [];
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    const device = await requestDevice.apply(this, args);
    devices.push(device);
    return device;
  }`;

for (const clock of ['lockstep', 'async']) {
  test(`a device lost in the middle of training (${clock}): the CPU goes on with all that was seen`, async () => {
    const { before, after, last, header, action } = await inPage(
      gpu,
      async (options) => {
        const student = await oto.Student.create({ ...options, backend: 'webgpu', steps: 1e9 });
        let before, after, last;
        for await (last of student.train({ interval: 20 })) {
          if (last.loss !== null && last.updates > 100) before ??= last;
          window.learnt = before !== undefined;
          if (last.backend.name === 'cpu') after ??= last;
          if (after !== undefined && last.updates > before.updates + 500) break;
        }
        last = await student.metrics();
        const action = await student.act([0.01, 0.02, 0.03, 0.04]);
        const file = await student.save({ replay: true });
        student.dispose();
        const length = Number(new DataView(file.buffer).getBigUint64(0, true));
        const header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
        return { before, after, last, header, action };
      },
      { ...SMALL, clock },
      {
        worker: KEEP_DEVICES,
        during: async (page) => {
          await page.waitForFunction(() => window.learnt);
          const [worker] = page.workers();
          await worker.evaluate(() => devices.forEach((device) => device.destroy()));
        },
      },
    );
    assert.equal(before.backend.name, 'webgpu');
    assert.equal(before.backend.lost, null);
    const told = /^the device of the backend "webgpu" was lost \([^()]+\); "cpu" goes on from update (\d+)$/;
    assert.match(after.backend.lost, told);
    assert.ok(Number(told.exec(after.backend.lost)[1]) <= after.updates);
    assert.ok(after.step >= before.step, 'no step is taken back');
    assert.equal(last.backend.lost, after.backend.lost);
    assert.ok(Number.isFinite(last.loss.loss));
    assert.ok(action === 0 || action === 1);
    // Every transition since the first step, as many as are ever kept.
    assert.deepEqual(header['replay.reward'].shape, [Math.min(last.step, 50_000)]);
  });
}
