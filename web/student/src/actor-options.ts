// An actor's options, and the engine's configuration that they become.

import { ACTOR, type ActorSettings } from './actor-settings.js';
import type { Environment, EnvironmentFactory, EnvironmentName } from './environment.js';
import { ConfigError } from './errors.js';
import { builtIn, checkKnown, given, plain, property, ticketAddress, wholeAddress, type EnginePage } from './options.js';
import { show } from './spaces.js';

/** The options of an actor. */
export interface ActorOptions extends ActorSettings {
  /** `ws://` or `wss://` address of the learner's server, with or without its path `/v1/teach`; or a path of the page's own server. The server must know the page's origin: `oto serve --origin`. */
  cloud: string;
  /** Name of one of its learners: `oto serve --learn NAME=FILE`. */
  policy: string;
  /** A built-in environment by name, the page's own environment, or a function that makes it. */
  env: EnvironmentName | Environment | EnvironmentFactory;
  /** The source of a ticket before each connection, for a server with tickets: `true` for that server, or an address. */
  ticket?: boolean | string;
  /** Aborts `create` immediately; it fails with the signal's reason. After `create` the signal has no effect. */
  signal?: AbortSignal;
}

const OPTIONS = ['cloud', 'policy', 'env', 'ticket', 'signal', ...ACTOR];

/** What the engine makes an actor of (`crates/oto-web/src/actor.rs`). */
export interface ActorConfig {
  actor: ActorSettings;
  cloud: string;
  policy: string;
  env: string | EnginePage;
}

/** Reads every option once. Plain data comes out; what is none is refused, and so is a name that is no option. */
export function readActorOptions(options: ActorOptions): ActorOptions {
  checkKnown('', options, OPTIONS);
  const kept = ['env', 'signal'];
  return given(Object.keys(options), (key) => (kept.includes(key) ? property(options, key, key) : plain(property(options, key, key), key))) as unknown as ActorOptions;
}

/** The engine's configuration, and the address of tickets; `page` is there for an environment of the page's own. */
export function toActorConfig(options: ActorOptions, page?: EnginePage): { config: ActorConfig; ticket: string | null } {
  const { cloud, policy, env, ticket = false, signal: _signal, ...actor } = options;
  if (typeof policy !== 'string' || policy === '') throw new ConfigError(`policy must be the name of a learner, it is ${show(policy)}`, 'policy');
  const config = { actor, cloud: wholeAddress('cloud', cloud), policy, env: page ?? builtIn(env) };
  return { config, ticket: ticketAddress('ticket', config.cloud, ticket) };
}
