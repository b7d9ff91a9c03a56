// A WebSocket server that is no teacher: it agrees to the subprotocol and then answers every message with the next of
// its answers (RFC 6455, unfragmented frames only).

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

/** `answer(count)` gives a string, bytes or nothing for the connection's message number `count`, from 0. */
export async function startGarbage(answer) {
  const server = createServer();
  const sockets = new Set();
  server.on('upgrade', (request, socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    const key = createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Accept: ${key}\r\nSec-WebSocket-Protocol: oto.v1\r\n\r\n`,
    );
    let count = 0;
    socket.on('data', () => {
      const message = answer(count++);
      if (message !== undefined && !socket.destroyed) socket.write(frame(message));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `ws://127.0.0.1:${server.address().port}/v1/teach`,
    stop: () =>
      new Promise((done) => {
        for (const socket of sockets) socket.destroy();
        server.close(done);
      }),
  };
}

function frame(message) {
  const payload = Buffer.from(message);
  const head = Buffer.alloc(payload.length < 126 ? 2 : 4);
  head[0] = typeof message === 'string' ? 0x81 : 0x82;
  if (payload.length < 126) head[1] = payload.length;
  else {
    head[1] = 126;
    head.writeUInt16BE(payload.length, 2);
  }
  return Buffer.concat([head, payload]);
}
