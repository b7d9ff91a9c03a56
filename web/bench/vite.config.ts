import { defineConfig } from 'vite';

/** What lets a page share memory between threads, which TensorFlow.js and jax-js do where they may. */
const ISOLATED = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' };

export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    modulePreload: { polyfill: false },
    // TensorFlow.js starts its threads from the text of one of its functions, which a minifier would tear apart.
    minify: false,
    // The WebAssembly of the peers stays in files of its own.
    assetsInlineLimit: 0,
    rolldownOptions: { input: ['index.html', 'student.html'] },
  },
  worker: { format: 'es' },
  server: { headers: ISOLATED },
});
