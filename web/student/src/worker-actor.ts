// The worker of `oto-student/actor`: an engine that only acts. Its small products need no relaxed SIMD: one module is for all browsers.

import init, { ActorCore, close_sockets } from '../wasm-actor/oto_actor.js';
import { serveActor } from './serve-actor.js';

const address = new URL('../wasm-actor/oto_actor_bg.wasm', import.meta.url);
serveActor(init({ module_or_path: address }).then(() => ({ create: ActorCore.create, closeSockets: close_sockets })));
