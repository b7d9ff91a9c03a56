// The same host in Node.js, from 20 on, by jco. Node.js 20 has no relaxed SIMD: it takes the plain component.
//
//     cargo xtask wasm edge
//     cd crates/oto-wasi/examples/edge-host && npm install --no-save @bytecodealliance/jco @bytecodealliance/preview2-shim
//     npx jco transpile ../../../../target/edge/oto_edge_plain.wasm --out-dir transpiled --map 'oto:edge/environment=../environment.mjs'
//     node host.mjs [ws://127.0.0.1:8080 my_policy]
import { learner } from './transpiled/oto_edge_plain.js';

const [url, policy] = process.argv.slice(2);
const teachers = url ? [{ url, policy }] : [];
// A random walk seldom gets to the prize, hence the long exploration.
const epsilon = { start: 1, end: 0.05, steps: 2000 };
learner.create(JSON.stringify({ student: { seed: 1, steps: 4000, algorithm: { hidden: [32] }, epsilon }, teachers }));
for (let i = 0; i < 4; i++) {
  const progress = learner.train(1000n);
  console.log(`${progress.step} steps, last return ${progress.lastReturn}`);
  for (const teacher of progress.teachers) console.log(`  ${teacher.labels} labels of ${teacher.policy}: ${teacher.problem ?? 'well'}`);
}
console.log(Array.from({ length: 8 }, (_, place) => learner.act([place / 8]).val).join(' '));
