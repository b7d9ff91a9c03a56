// The alert line: what a visitor should know because something failed, each thing once. A part of the page that fails is told
// here and leaves the other parts alone.

const notices = new Map<string, string>();

/** Shows a text about something, in place of an earlier one about the same. */
export function tell(about: string, text: string): void {
  notices.set(about, text);
  show();
}

/** Takes the text about something back. */
export function withdraw(about: string): void {
  notices.delete(about);
  show();
}

/** Does a part's work; where that fails it is told, and the caller goes on without what the part gives. */
export function attempt<T>(part: string, work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    failed(part, error);
    return undefined;
  }
}

/** Tells that a part failed; the first failure of each part counts. */
export function failed(part: string, error: unknown): void {
  if (!notices.has(part)) tell(part, `${part} failed (${reason(error)}). The rest of the page goes on.`);
}

/** What an error says. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function show(): void {
  const alert = document.querySelector<HTMLElement>('#alert')!;
  alert.hidden = notices.size === 0;
  const lines = [...notices.values()].map((text) => {
    const line = document.createElement('p');
    line.textContent = text;
    return line;
  });
  alert.replaceChildren(...lines);
}
