// The page's address keeps what an experiment is: its environment, seed, teacher, backend, and whether the picture moves. Pure: an
// address's query goes in, settings come out, and back.

export const BACKENDS = ['cpu', 'webgpu', 'auto'] as const;
export type BackendChoice = (typeof BACKENDS)[number];

/** What a visitor has chosen. */
export interface Settings {
  environment: string;
  seed: number;
  /** The name of a policy; the environment's first one where there is none. */
  teacher: string | undefined;
  backend: BackendChoice;
  /** Whether the picture moves; as the system prefers where there is nothing. */
  animate: boolean | undefined;
}

/** The largest seed that the page takes. */
export const MAX_SEED = 4_294_967_295;

const DEFAULT_SEED = 1;
const ANIMATE: Record<string, boolean> = { on: true, off: false };

/** What the query of an address asks for; what it asks for wrongly, or not at all, is as on a first visit. The first environment is the default. */
export function fromQuery(query: string, environments: string[]): Settings {
  const asked = new URLSearchParams(query);
  // `world` is the name in older addresses.
  const environment = asked.get('environment') ?? asked.get('world') ?? '';
  const backend = BACKENDS.find((name) => name === asked.get('backend'));
  return {
    environment: environments.includes(environment) ? environment : environments[0]!,
    seed: seedOf(asked.get('seed') ?? '') ?? DEFAULT_SEED,
    teacher: asked.get('teacher') || undefined,
    backend: backend ?? BACKENDS[0],
    animate: Object.hasOwn(ANIMATE, asked.get('animate') ?? '') ? ANIMATE[asked.get('animate')!] : undefined,
  };
}

/** The seed that a text is, if it is one. */
export function seedOf(text: string): number | undefined {
  const seed = /^\d{1,10}$/.test(text) ? Number(text) : Infinity;
  return seed <= MAX_SEED ? seed : undefined;
}

/** The query for these settings: what is as on a first visit is left out, and what `query` has besides stays. */
export function toQuery(settings: Settings, query: string, environments: string[]): string {
  const { environment, seed, teacher, backend, animate } = settings;
  const asked = new URLSearchParams(query);
  const set = (name: string, value: string, usual: string) => (value === usual ? asked.delete(name) : asked.set(name, value));
  set('environment', environment, environments[0]!);
  asked.delete('world');
  set('seed', String(seed), String(DEFAULT_SEED));
  set('teacher', teacher ?? '', '');
  set('backend', backend, BACKENDS[0]);
  set('animate', animate === undefined ? '' : animate ? 'on' : 'off', '');
  const text = asked.toString();
  return text === '' ? '' : `?${text}`;
}
