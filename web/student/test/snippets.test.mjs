// Every TypeScript example of the manuals compiles against the package's types.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** As much of React as an example uses. */
const REACT = `declare module 'react' {
  export function useEffect(effect: () => (() => void) | void, dependencies: unknown[]): void;
  export function useState<T>(): [T | undefined, (value: T) => void];
}
`;

const CONFIG = {
  compilerOptions: {
    target: 'es2022',
    module: 'esnext',
    moduleResolution: 'bundler',
    moduleDetection: 'force',
    jsx: 'preserve',
    lib: ['es2022', 'dom'],
    types: [],
    strict: true,
    noEmit: true,
    paths: {
      'oto-student': [join(root, 'web/student/dist/index.d.ts')],
      'oto-student/all': [join(root, 'web/student/dist/all.d.ts')],
      'oto-student/cpu': [join(root, 'web/student/dist/cpu.d.ts')],
      'oto-student/actor': [join(root, 'web/student/dist/actor.d.ts')],
    },
  },
};

/** The TypeScript blocks of a manual, by the line at which they begin. */
async function examples(manual) {
  const text = await readFile(join(root, manual), 'utf8');
  return [...text.matchAll(/^```(tsx?|typescript)\n(.*?)^```/gms)].map(({ index, 1: kind, 2: code }) => ({
    name: `${manual.replace(/\W/g, '_')}_${text.slice(0, index).split('\n').length}.${kind === 'tsx' ? 'tsx' : 'ts'}`,
    code,
  }));
}

test('every TypeScript example of the manuals compiles', async () => {
  const pages = (await readdir(join(root, 'docs'))).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`);
  const manuals = ['README.md', 'web/student/README.md', ...pages];
  const found = (await Promise.all(manuals.map(examples))).flat();
  assert.ok(found.length >= 7, `${found.length} examples`);
  const folder = await mkdtemp(join(tmpdir(), 'oto-examples-'));
  const compile = async (more = []) => {
    for (const { name, code } of [...found, ...more]) await writeFile(join(folder, name), code);
    await promisify(execFile)(join(root, 'web/node_modules/.bin/tsc'), ['--pretty', 'false'], { cwd: folder });
  };
  try {
    await writeFile(join(folder, 'react.d.ts'), REACT);
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(CONFIG));
    await compile().catch(({ stdout, message }) => assert.fail(stdout || message));
    // Types that are not found would let everything through.
    const wrong = { name: 'wrong.ts', code: "import { Student } from 'oto-student';\nvoid Student.create({ env: 'CartPole' });\n" };
    await assert.rejects(compile([wrong]), ({ stdout }) => /^wrong\.ts.*TS2/.test(stdout));
  } finally {
    await rm(folder, { recursive: true });
  }
});
