// The worker of `oto-student`: an engine for the CPU and WebGPU, in the module that this browser can load.

import init, { StudentCore, close_sockets } from '../wasm/oto_web.js';
import { hasRelaxedSimd } from './relaxed.js';
import { serve } from './serve.js';

const address = hasRelaxedSimd()
  ? new URL('../wasm/oto_web_bg.wasm', import.meta.url)
  : new URL('../wasm/oto_web_plain_bg.wasm', import.meta.url);
serve(init({ module_or_path: address }).then(() => ({ create: StudentCore.create, closeSockets: close_sockets })));
