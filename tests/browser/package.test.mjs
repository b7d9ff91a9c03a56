// The npm package as others get it: packed, installed and type-checked, then in a real browser, bundled by Vite and
// without a bundler.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { launch, root, serveFolder } from './harness.mjs';

const STUDENT = join(root, 'web/student');

/** A first program, in TypeScript and JavaScript alike. */
const MAIN = `import { Student } from 'oto-student';

const student = await Student.create({ env: 'CartPole-v1', seed: 1 });
for await (const { step, updates, loss } of student.train({ steps: 1000 })) {
  document.body.textContent = \`step \${step}, \${updates} updates, loss \${loss?.loss}\`;
}
student.dispose();
document.body.append(', trained');
`;

/** What the published types must let through, and what they must refuse; types that are not found would be `any`. */
const TYPES = `import { Actor, type ActorMetrics, type ActorOptions } from 'oto-student/actor';
import { Student as AnyStudent, type AnyStudentOptions } from 'oto-student/all';
import { Student as CpuStudent } from 'oto-student/cpu';
import { Student, type Environment, type Metrics, type Scene, type StudentOptions } from 'oto-student';

const env: Environment = {
  observationSpace: { kind: 'box', low: [-1, null], high: [1, null] },
  actionSpace: { kind: 'discrete', n: 2 },
  reset: () => [0, 0],
  step: (action) => ({ observation: [0, Number(action)], reward: 0, terminated: true, truncated: false }),
};
export const options: StudentOptions = { env, algorithm: { hidden: [16] }, epsilon: { start: 1, end: 0, steps: 9 } };
export const file = async (student: Student): Promise<Blob> => new Blob([await student.save()]);
export const either = (small: boolean): Promise<Student> => (small ? CpuStudent : Student).create({ env });
export const play = async (student: Student): Promise<Scene> => student.watch((await student.watch(1)).step);
export const loss = (metrics: Metrics): number | undefined => metrics.loss?.loss;
export const continued: AnyStudentOptions = { env, algorithm: { name: 'pex', expectile: 0.8 }, dataset: '/data.hdf5', replay: { sampler: 'whole', ownFrom: 9 } };
export const any = (): Promise<AnyStudent> => AnyStudent.create(continued);
export const acts: ActorOptions = { cloud: '/', policy: 'p', env, hz: 30, exploration: { noise: 0 }, safeAction: [1] };
export const act = async (options: ActorOptions): Promise<ActorMetrics> => (await Actor.create(options)).close();
// @ts-expect-error An actor needs its learner.
export const alone: ActorOptions = { env };
// @ts-expect-error There is no such environment.
export const environment: StudentOptions = { env: 'CartPole' };
// @ts-expect-error Every page would load it.
export const small: StudentOptions = { env, algorithm: 'pex' };
// @ts-expect-error There is no such option.
export const option: StudentOptions = { env, learningRat: 1 };
// @ts-expect-error There is no loss before the first update.
export const early = (metrics: Metrics): number => metrics.loss.loss;
`;

const page = (script) => `<!doctype html>
<html lang="en">
  <head><meta charset="utf-8"><title>first</title><link rel="icon" href="data:,">${script}</head>
  <body>starting</body>
</html>
`;

/** The same program with the smaller entrance. */
const onCpu = (program) => program.replace("'oto-student'", "'oto-student/cpu'");

const plainPage = (program) =>
  page(`
    <script type="importmap">
      { "imports": { "oto-student": "/node_modules/oto-student/dist/index.js", "oto-student/cpu": "/node_modules/oto-student/dist/cpu.js" } }
    </script>
    <script type="module">${program}</script>`);

/** A page that asks the smaller entrance for what it does not have. */
const REFUSED = `import { ConfigError, Student } from 'oto-student/cpu';

const refused = await Student.create({ env: 'CartPole-v1', backend: 'webgpu' }).catch((error) => error);
const auto = await Student.create({ env: 'CartPole-v1', backend: 'auto' });
document.body.textContent = JSON.stringify({
  known: refused instanceof ConfigError && auto instanceof Student,
  field: refused.field,
  message: refused.message,
});
auto.dispose();
`;

const APP = {
  'package.json': JSON.stringify({ name: 'app', private: true, type: 'module' }),
  'tsconfig.json': JSON.stringify({
    compilerOptions: {
      target: 'es2022',
      module: 'esnext',
      moduleResolution: 'bundler',
      lib: ['es2022', 'dom'],
      types: [],
      strict: true,
      noEmit: true,
    },
    include: ['src'],
  }),
  'index.html': page('<script type="module" src="/src/main.ts"></script>'),
  'src/main.ts': MAIN,
  'src/types.ts': TYPES,
  'plain.html': plainPage(MAIN),
  'cpu.html': plainPage(onCpu(MAIN)),
  'refused.html': plainPage(REFUSED),
  'cpu/index.html': page('<script type="module" src="../src/cpu.ts"></script>'),
  'src/cpu.ts': onCpu(MAIN),
};

let folder, app, pack, browser;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'oto-package-'));
  app = join(folder, 'app');
  await Promise.all(['src', 'cpu'].map((name) => mkdir(join(app, name), { recursive: true })));
  await Promise.all(Object.entries(APP).map(([name, text]) => writeFile(join(app, name), text)));
  const said = await run('npm', ['pack', '--json', '--pack-destination', folder], STUDENT);
  [pack] = Object.values(JSON.parse(said));
  // Nothing comes from a registry: the package depends on nothing.
  await run('npm', ['install', '--offline', '--no-audit', '--no-fund', join(folder, pack.filename)], app);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  if (folder !== undefined) await rm(folder, { recursive: true });
});

/** Runs a program to its end and gives what it printed; a failure shows all of it. */
async function run(program, args, cwd) {
  try {
    return (await promisify(execFile)(program, args, { cwd, timeout: 60_000 })).stdout;
  } catch (error) {
    throw new Error(`${error.message}\n${error.stdout}`);
  }
}

/** Runs a program of the repository's own node_modules in the application. */
const tool = (name, ...args) => run(join(root, 'web/node_modules/.bin', name), args, app);

/** Opens a page, waits until it has trained, and gives the names of the modules that it loaded. */
async function trainIn(address) {
  const opened = await browser.newPage();
  const loaded = [];
  opened.on('request', (request) => request.url().includes('.wasm') && loaded.push(moduleName(request.url())));
  const fault = firstFault(opened);
  const trained = () => document.body?.textContent.endsWith('trained');
  try {
    await opened.goto(address);
    const end = opened.waitForFunction(trained, null, { timeout: 60_000 });
    assert.equal(await Promise.race([fault, end.then(() => 'trained')]), 'trained');
    const text = await opened.evaluate(() => document.body.textContent);
    const [, updates, loss] = /^step 1000, (\d+) updates, loss (\S+), trained$/.exec(text) ?? assert.fail(text);
    assert.ok(Number(updates) > 0, text);
    assert.ok(Number.isFinite(Number(loss)), text);
    return loaded;
  } finally {
    await opened.close();
  }
}

/** The first error of a page, thrown or on its console; none may ever come. */
function firstFault(opened) {
  return new Promise((resolve) => {
    opened.on('pageerror', (error) => resolve(String(error)));
    opened.on('console', (message) => message.type() === 'error' && resolve(message.text()));
  });
}

/** A module's name without the hash that Vite adds. */
const moduleName = (address) => basename(new URL(address).pathname).replace(/-[\w-]{8}(?=\.wasm$)/, '');

/** Serves a folder while `use` looks at it. */
async function withSite(served, edits, use) {
  const site = await serveFolder(served, edits);
  try {
    return await use(site.origin);
  } finally {
    await site.stop();
  }
}

test('the tarball holds what a page needs and nothing else', async () => {
  const sizes = new Map(pack.files.map(({ path, size }) => [path, size]));
  const sources = (await readdir(join(STUDENT, 'src'))).map((name) => basename(name, '.ts'));
  const expected = [
    ...['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'package.json', 'cpu/package.json', 'all/package.json', 'actor/package.json'],
    ...['_bg.wasm', '_plain_bg.wasm', '_bg.wasm.d.ts', '.d.ts', '.js'].flatMap((end) => [`wasm/oto_web${end}`, `wasm-cpu/oto_cpu${end}`, `wasm-all/oto_all${end}`]),
    ...['_bg.wasm', '_bg.wasm.d.ts', '.d.ts', '.js'].map((end) => `wasm-actor/oto_actor${end}`),
    ...sources.flatMap((name) => ['.js', '.js.map', '.d.ts', '.d.ts.map'].map((end) => `dist/${name}${end}`)),
    ...sources.map((name) => `src/${name}.ts`),
  ];
  assert.deepEqual([...sizes.keys()].sort(), expected.sort());
  const large = [...sizes.keys()].filter((name) => sizes.get(name) > 100_000).sort();
  const modules = ['wasm-actor/oto_actor_bg.wasm', 'wasm-all/oto_all_bg.wasm', 'wasm-all/oto_all_plain_bg.wasm', 'wasm-cpu/oto_cpu_bg.wasm', 'wasm-cpu/oto_cpu_plain_bg.wasm', 'wasm/oto_web_bg.wasm', 'wasm/oto_web_plain_bg.wasm'];
  assert.deepEqual(large, modules);
  assert.ok(pack.size < 3_300_000, `${pack.size} bytes`);
});

test('its package.json says what it is, and its licences are those of the project', async () => {
  const installed = join(app, 'node_modules/oto-student');
  const manifest = JSON.parse(await readFile(join(installed, 'package.json')));
  const { license, keywords, description, exports, main, types, dependencies } = manifest;
  assert.equal(license, 'MIT OR Apache-2.0');
  assert.ok(keywords.length > 0 && description.length > 0);
  assert.equal(dependencies, undefined);
  for (const target of Object.values(exports).flatMap(Object.values)) await readFile(join(installed, target));
  // Resolvers that do not know `exports` look here: Parcel's, and TypeScript's of old.
  assert.deepEqual({ types, default: main }, exports['.']);
  for (const entrance of ['cpu', 'all', 'actor']) {
    const own = JSON.parse(await readFile(join(installed, entrance, 'package.json')));
    assert.deepEqual({ types: `./${join(entrance, own.types)}`, default: `./${join(entrance, own.main)}` }, exports[`./${entrance}`]);
  }
  for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) {
    assert.equal(await readFile(join(installed, name), 'utf8'), await readFile(join(root, name), 'utf8'));
  }
});

test('its types hold in a strict project', async () => {
  await tool('tsc');
  await tool('tsc', '--module', 'nodenext', '--moduleResolution', 'nodenext');
});

test('a Vite application without a setting, built', async () => {
  await tool('vite', 'build');
  const loaded = await withSite(join(app, 'dist'), {}, (origin) => trainIn(`${origin}/`));
  assert.deepEqual(loaded, ['oto_web_bg.wasm']);
});

test('a Vite application without a setting, on the development server', async () => {
  const vite = createRequire(join(root, 'web/demo/package.json')).resolve('vite');
  const { createServer } = await import(pathToFileURL(vite));
  const host = '127.0.0.1';
  const server = await createServer({ root: app, configFile: false, logLevel: 'error', server: { host, port: 0 } });
  try {
    await server.listen();
    const loaded = await trainIn(`http://${host}:${server.httpServer.address().port}/`);
    assert.deepEqual(loaded, ['oto_web_bg.wasm']);
  } finally {
    await server.close();
  }
});

test('a page downloads no more than the manual says', async () => {
  const manual = await readFile(join(STUDENT, 'README.md'), 'utf8');
  const kib = (file) => gzipSync(readFileSync(join(STUDENT, file)), { level: 9 }).length / 1024;
  const names = { 'oto-student': 'wasm/oto_web', 'oto-student/cpu': 'wasm-cpu/oto_cpu', 'oto-student/all': 'wasm-all/oto_all', 'oto-student/actor': 'wasm-actor/oto_actor' };
  for (const [entrance, module] of Object.entries(names)) {
    const [, said] = new RegExp(`\\| \`${entrance}\` \\|.* (\\d+) KiB \\|`).exec(manual) ?? assert.fail(entrance);
    const sizes = ['_bg.wasm', '_plain_bg.wasm'].map((end) => kib(module + end) + kib(`${module}.js`));
    assert.ok(sizes.every((size) => size <= Number(said) && size > Number(said) - 10), `${entrance}: ${sizes}, said ${said}`);
  }
});

test('a page with an import map', async () => {
  const loaded = await withSite(app, {}, (origin) => trainIn(`${origin}/plain.html`));
  assert.deepEqual(loaded, ['oto_web_bg.wasm']);
});

test('the entrance without WebGPU loads the small module alone', async () => {
  const withMap = await withSite(app, {}, (origin) => trainIn(`${origin}/cpu.html`));
  assert.deepEqual(withMap, ['oto_cpu_bg.wasm']);
  await tool('vite', 'build', 'cpu', '--outDir', '../dist-cpu');
  const built = await readdir(join(app, 'dist-cpu'), { recursive: true });
  const modules = built.filter((name) => name.endsWith('.wasm')).map((name) => moduleName(`http://app/${name}`));
  assert.deepEqual(modules.sort(), ['oto_cpu_bg.wasm', 'oto_cpu_plain_bg.wasm']);
  const bundled = await withSite(join(app, 'dist-cpu'), {}, (origin) => trainIn(`${origin}/`));
  assert.deepEqual(bundled, ['oto_cpu_bg.wasm']);
});

test('the entrance without WebGPU says so when it is asked for it', async () => {
  const text = await withSite(app, {}, async (origin) => {
    const opened = await browser.newPage();
    await opened.goto(`${origin}/refused.html`);
    await opened.waitForFunction(() => document.body?.textContent.startsWith('{'), null, { timeout: 60_000 });
    const said = await opened.evaluate(() => document.body.textContent);
    await opened.close();
    return said;
  });
  const { known, field, message } = JSON.parse(text);
  assert.deepEqual([known, field], [true, 'backend']);
  assert.match(message, /^backend is "webgpu": oto-student\/cpu computes on the CPU alone; import Student from "oto-student"/);
});

test('a browser without relaxed SIMD loads the plain module', async () => {
  // The worker asks the browser when it starts, after its imports; this is the answer of an older one.
  const older = (text) => `WebAssembly.validate = () => false;\n${text}`;
  const pages = { plain: ['worker', 'oto_web_plain_bg.wasm'], cpu: ['worker-cpu', 'oto_cpu_plain_bg.wasm'] };
  for (const [name, [worker, module]] of Object.entries(pages)) {
    const edits = { [`/node_modules/oto-student/dist/${worker}.js`]: older };
    const loaded = await withSite(app, edits, (origin) => trainIn(`${origin}/${name}.html`));
    assert.deepEqual(loaded, [module]);
  }
});
