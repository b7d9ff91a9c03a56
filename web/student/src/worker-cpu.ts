// The worker of `oto-student/cpu`: an engine for the CPU alone, in the module that this browser can load.

import init, { StudentCore, close_sockets } from '../wasm-cpu/oto_cpu.js';
import { hasRelaxedSimd } from './relaxed.js';
import { serve } from './serve.js';

const address = hasRelaxedSimd()
  ? new URL('../wasm-cpu/oto_cpu_bg.wasm', import.meta.url)
  : new URL('../wasm-cpu/oto_cpu_plain_bg.wasm', import.meta.url);
serve(init({ module_or_path: address }).then(() => ({ create: StudentCore.create, closeSockets: close_sockets })));
