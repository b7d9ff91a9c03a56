// Keeps what nobody caught in a page, where the protocol does not tell of it, or tells of more.

/** Runs in the page, before its scripts where that can be. */
export function listen() {
  if (globalThis.faultsOfPage !== undefined) return;
  globalThis.faultsOfPage = [];
  addEventListener('error', ({ error }) => error && faultsOfPage.push(String(error)));
  addEventListener('unhandledrejection', ({ reason }) => faultsOfPage.push(String(reason)));
}

/** Runs in the page. */
export const heard = () => globalThis.faultsOfPage;
