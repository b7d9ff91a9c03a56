// The bytes of a checkpoint: fetched from an address, or copied from the page's own.

import { CheckpointError, ConfigError, reasonOf } from './errors.js';
import { show } from './spaces.js';

/** A checkpoint's address, a file (or another Blob), or its bytes. */
export type CheckpointSource = string | URL | Blob | ArrayBuffer | Uint8Array;

/** The most bytes that are read from an address or a file: the engine's memory holds no more. */
const MAX_BYTES = 2 ** 30;

/** A copy of bytes that the page has, for its worker; `call` names the caller. */
export function copied(bytes: ArrayBuffer | Uint8Array, call: string, field?: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new CheckpointError(`${call} got bytes that cannot be read: ${reasonOf(cause)}`, field, { cause });
  }
}

/** The checkpoint that the option `from` names. */
export async function checkpointOf(from: unknown, signal?: AbortSignal): Promise<Uint8Array | undefined> {
  if (from === undefined) return undefined;
  if (from instanceof Uint8Array || from instanceof ArrayBuffer) return copied(from, 'from', 'from');
  const [what, read] = from instanceof Blob ? (['the file', () => contents(from)] as const) : fetching(addressOf(from), signal);
  try {
    return await read();
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new CheckpointError(`from: ${what} is no checkpoint that can be read: ${reasonOf(cause)}`, 'from', { cause });
  }
}

function addressOf(from: unknown): string {
  try {
    if (typeof from === 'string' || from instanceof URL) return new URL(from, globalThis.location?.href).href;
  } catch {
    // It is no address.
  }
  throw new ConfigError(`from must be an address, a file, a Uint8Array or an ArrayBuffer; it is ${show(from)}`, 'from');
}

async function contents(file: Blob): Promise<Uint8Array> {
  checkLength(file.size);
  return new Uint8Array(await file.arrayBuffer());
}

function fetching(address: string, signal: AbortSignal | undefined) {
  const read = async () => {
    const answer = await fetch(address, { signal: signal ?? null });
    if (!answer.ok || answer.body === null) throw new Error(`the server answered with status ${answer.status}`);
    const type = answer.headers.get('content-type') ?? '';
    if (type.startsWith('text/html')) throw new Error(`expected a safetensors file, got ${type}`);
    checkLength(Number(answer.headers.get('content-length')));
    return received(answer.body);
  };
  return [address, read] as const;
}

function checkLength(length: number): void {
  if (length > MAX_BYTES) throw new Error(`expected at most ${MAX_BYTES} bytes, got more`);
}

/** The bytes of a stream, which ends as soon as there are too many. */
async function received(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = stream.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      checkLength((length += part.value.length));
    }
  } catch (error) {
    void reader.cancel().catch(() => {});
    throw error;
  }
  const bytes = new Uint8Array(length);
  for (const part of parts.reverse()) bytes.set(part, (length -= part.length));
  return bytes;
}
