// The bytes of a checkpoint or a dataset: fetched from an address, or copied from the page's own.

import { CheckpointError, ConfigError, reasonOf } from './errors.js';
import { show } from './spaces.js';

/** The address of a checkpoint or a dataset, a file (or another Blob), or its bytes. */
export type Source = string | URL | Blob | ArrayBuffer | Uint8Array;

/** The most bytes that are read from an address or a file: the engine's memory holds no more. */
const MAX_BYTES = 2 ** 30;

/** A copy of bytes that the page has, for its worker. */
export function copied(bytes: ArrayBuffer | Uint8Array): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new CheckpointError(`load() got bytes that cannot be read: ${reasonOf(cause)}`, undefined, { cause });
  }
}

/** The checkpoint that the option `from` names. */
export async function checkpointOf(from: unknown, signal?: AbortSignal): Promise<Uint8Array | undefined> {
  const failed = (message: string, options?: ErrorOptions) => new CheckpointError(message, 'from', options);
  return bytesOf({ field: 'from', what: 'checkpoint', file: 'a safetensors file', failed }, from, signal);
}

/** What an option names, in words, and the error where that cannot be read. */
export interface Wanted {
  field: string;
  what: string;
  file: string;
  failed(message: string, options?: ErrorOptions): Error;
}

/** The bytes that an option names. */
export async function bytesOf(wanted: Wanted, source: unknown, signal?: AbortSignal): Promise<Uint8Array | undefined> {
  if (source === undefined) return undefined;
  const { field, what, failed } = wanted;
  const [place, read] =
    source instanceof Uint8Array || source instanceof ArrayBuffer
      ? (['it', async () => new Uint8Array(source)] as const)
      : source instanceof Blob
        ? (['the file', () => contents(source)] as const)
        : fetching(addressOf(field, source), wanted, signal);
  try {
    return await read();
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw failed(`${field}: ${place} is no ${what} that can be read: ${reasonOf(cause)}`, { cause });
  }
}

/** The whole address of an option that is one. */
export function addressOf(field: string, source: unknown): string {
  try {
    if (typeof source === 'string' || source instanceof URL) return new URL(source, globalThis.location?.href).href;
  } catch {
    // It is no address.
  }
  throw new ConfigError(`${field} must be an address, a file, a Uint8Array or an ArrayBuffer; it is ${show(source)}`, field);
}

async function contents(file: Blob): Promise<Uint8Array> {
  checkLength(file.size);
  return new Uint8Array(await file.arrayBuffer());
}

function fetching(address: string, { file }: Wanted, signal: AbortSignal | undefined) {
  const read = async () => {
    const answer = await fetch(address, { signal: signal ?? null });
    if (!answer.ok || answer.body === null) throw new Error(`the server answered with status ${answer.status}`);
    const type = answer.headers.get('content-type') ?? '';
    if (type.startsWith('text/html')) throw new Error(`expected ${file}, got ${type}`);
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
