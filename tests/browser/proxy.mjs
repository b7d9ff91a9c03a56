// A proxy in front of a server, which does to connections what networks and servers do: it lets them through, holds them up,
// swallows what is said, refuses them, or cuts them.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** How it treats bytes and connections. */
export const MODES = ['through', 'slow', 'silent', 'refuse', 'flap'];
/** How long a slow one holds everything up, and how long a connection lasts that flaps, in milliseconds. */
const SLOW = 150;
const FLAP = 60;

/** A proxy to a port of this machine; `mode` may be changed at any time and holds from the next byte or connection on. */
export async function startProxy(port, mode = 'through') {
  const sockets = new Set();
  const proxy = { mode, url: '', cut, stop };
  const server = createServer((client) => {
    if (proxy.mode === 'refuse') return client.destroy();
    const upstream = connect(port, '127.0.0.1');
    const ends = [client, upstream];
    const end = () => ends.forEach((socket) => (sockets.delete(socket), socket.destroy()));
    for (const [from, to] of [ends, [upstream, client]]) {
      sockets.add(from);
      from.on('error', end).on('close', end);
      from.on('data', (bytes) => {
        if (proxy.mode === 'silent') return;
        if (proxy.mode === 'slow') setTimeout(() => to.destroyed || to.write(bytes), SLOW);
        else to.write(bytes);
      });
    }
    if (proxy.mode === 'flap') setTimeout(end, FLAP * Math.random());
  });
  function cut() {
    for (const socket of sockets) socket.destroy();
  }
  function stop() {
    cut();
    return new Promise((done) => server.close(done));
  }
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy.url = `ws://127.0.0.1:${server.address().port}/v1/teach`;
  return proxy;
}
