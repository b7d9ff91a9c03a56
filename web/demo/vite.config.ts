import { defineConfig } from 'vite';

export default defineConfig({
  // Relative, so that the site also works below a path.
  base: './',
  // Each page has a module of its own and loads no other.
  build: { target: 'es2022', modulePreload: { polyfill: false }, rollupOptions: { input: ['index.html', 'cloud.html', 'offline.html', 'swarm.html'] } },
  // The student's worker imports its WebAssembly as a module.
  worker: { format: 'es' },
  server: { proxy: { '/policies': 'http://127.0.0.1:8080', '/v1': { target: 'ws://127.0.0.1:8080', ws: true } } },
});
