// The files of a dataset that a page names: HDF5 in Minari's or D4RL's layout, and Minari's metadata.json beside it.

import { ConfigError } from './errors.js';
import type { DatasetFiles } from './options.js';
import { addressOf, bytesOf, type Wanted } from './source.js';

const failed = (message: string, options?: ErrorOptions) => new ConfigError(message, 'dataset', options);
const HDF5: Wanted = { field: 'dataset', what: 'dataset', file: 'an HDF5 file', failed };

/** The dataset that the option `dataset` names. Beside a `main_data.hdf5` of an address there may be Minari's description. */
export async function datasetOf(source: unknown, signal?: AbortSignal): Promise<DatasetFiles | undefined> {
  const hdf5 = await bytesOf(HDF5, source, signal);
  if (hdf5 === undefined) return undefined;
  const beside = typeof source === 'string' || source instanceof URL ? new URL(addressOf('dataset', source)) : undefined;
  if (!beside?.pathname.endsWith('/main_data.hdf5')) return { hdf5, metadata: undefined };
  beside.pathname = beside.pathname.replace(/main_data\.hdf5$/, 'metadata.json');
  const answer = await fetch(beside, { signal: signal ?? null });
  const html = answer.headers.get('content-type')?.startsWith('text/html');
  return { hdf5, metadata: answer.ok && !html ? await answer.text() : undefined };
}
