// The worker of `oto-student/all`: an engine for the CPU with every algorithm, in the module that this browser can load.

import init, { StudentCore, close_sockets } from '../wasm-all/oto_all.js';
import { hasRelaxedSimd } from './relaxed.js';
import { serve, type EngineModule } from './serve.js';

const address = hasRelaxedSimd()
  ? new URL('../wasm-all/oto_all_bg.wasm', import.meta.url)
  : new URL('../wasm-all/oto_all_plain_bg.wasm', import.meta.url);

const create: EngineModule['create'] = async (config, tickets, wake, from, dataset) => {
  const core = await StudentCore.create(config, tickets, wake, from);
  if (dataset !== undefined) core.mix(dataset.hdf5, dataset.metadata);
  return core;
};
serve(init({ module_or_path: address }).then(() => ({ create, closeSockets: close_sockets })));
