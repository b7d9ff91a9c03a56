// Loads a TypeScript module of the demo into Node.js, as Vite would load it.

import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const { resolve } = createRequire(new URL('../package.json', import.meta.url));
const { runnerImport } = await import(pathToFileURL(resolve('vite')).href);

/** `name` is a file of `src`. */
export async function load(name) {
  const file = fileURLToPath(new URL(`../src/${name}`, import.meta.url));
  return (await runnerImport(file, { configFile: false, logLevel: 'error' })).module;
}
