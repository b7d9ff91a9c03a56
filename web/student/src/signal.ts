// What calls of students and actors share: signals, steps, intervals, and the start of a worker.

import { ConfigError, WorkerError, reasonOf } from './errors.js';
import { show } from './spaces.js';

/** Refuses what is no number of steps. */
export function checkSteps(steps: unknown): void {
  if (steps !== undefined && !(Number.isSafeInteger(steps) && (steps as number) > 0)) {
    throw new ConfigError(`steps must be a whole number above 0, it is ${show(steps)}`, 'steps');
  }
}

/** Refuses what is no time between two reports. */
export function checkInterval(interval: unknown): void {
  if (!(typeof interval === 'number' && interval >= 0 && interval <= 60_000)) {
    throw new ConfigError(`interval must be a time from 0 to 60000 milliseconds, it is ${show(interval)}`, 'interval');
  }
}

export function checkSignal(field: string, signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw new ConfigError(`${field} must be an AbortSignal, it is ${show(signal)}`, field);
}

/** What a promise brings, or the signal's reason if that comes first; then `late` gets what nobody waits for any more. */
export function orAborted<T>(signal: AbortSignal | undefined, promise: Promise<T>, late: (value: T) => void = () => {}): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => {
      promise.then(late, () => {});
      reject(signal.reason);
    };
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** A worker; what the browser throws instead of one is told as an error of this package. */
export function started(what: string, start: () => Worker): Worker {
  try {
    return start();
  } catch (thrown) {
    throw new WorkerError(`the ${what}'s worker could not be started: ${reasonOf(thrown)} A worker comes from the page's own origin: serve this package there`);
  }
}
