// Who can teach: the policies of the server that this page came from, as far as they fit the environment.

import type { TeacherOptions } from 'oto-student';
import type { DemoEnvironment } from './environments';

/** What `GET /policies` tells about one policy, as far as this page needs it. */
export interface ServedPolicy {
  name: string;
  env: string | undefined;
  algorithm: string | undefined;
  evaluation: { mean_return: number } | undefined;
}

/** A policy that can teach in an environment. */
export interface Policy {
  name: string;
  /** What the visitor chooses by. */
  title: string;
  /** The environment of its training, if the server names one. */
  env?: string | undefined;
}

/** Every server has this baseline: even useless answers must not keep a student from learning. */
const RANDOM: Policy = { name: 'scripted:random', title: 'Uniformly random answers' };

/** What the server has. */
export async function fetchPolicies(): Promise<ServedPolicy[]> {
  const response = await fetch(new URL('policies', document.baseURI));
  if (!response.ok) throw new Error(`/policies answered ${response.status}`);
  return readPolicies(await response.json());
}

/** The policies in what a server answered; what is no policy is passed over, what is not as declared is left out of it. */
export function readPolicies(answer: unknown): ServedPolicy[] {
  if (!Array.isArray(answer)) throw new Error('/policies did not answer with a list');
  return answer.flatMap((entry: Partial<Record<string, unknown>> | null) => {
    const text = (key: string) => (typeof entry?.[key] === 'string' ? entry[key] : undefined);
    const name = text('name');
    if (name === undefined) return [];
    const mean = (entry?.['evaluation'] as { mean_return?: unknown } | null | undefined)?.mean_return;
    const evaluation = typeof mean === 'number' && Number.isFinite(mean) ? { mean_return: mean } : undefined;
    return [{ name, env: text('env'), algorithm: text('algorithm'), evaluation }];
  });
}

/** Those that fit an environment, in the environment's order. The engine knows how their observations and actions relate to its own. */
export function teachersOf(environment: DemoEnvironment, served: ServedPolicy[]): Policy[] {
  const fitting = environment.teachers.flatMap((beginning) => served.filter(({ env = '' }) => env.startsWith(beginning)));
  return [...fitting.map(toPolicy), RANDOM];
}

/** What there is to say of a teacher in an environment, in a sentence. */
export function aboutTeacher(environment: DemoEnvironment, policy: Policy | undefined): string {
  if (policy === undefined) return 'There is no teacher here: both learn alone.';
  if (policy.name === RANDOM.name) return 'The teacher sits on the server, knows nothing, and answers at random.';
  const foreign = environment.foreign.find(({ env }) => policy.env?.startsWith(env));
  const origin = foreign === undefined ? '' : `, ${foreign.text},`;
  return `The teacher sits on the server${origin} and sees nothing but the states it is asked about.`;
}

/** How a student reaches this policy. */
export function teacherOptions({ name }: Policy): TeacherOptions {
  const url = new URL('v1/teach', document.baseURI);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return { url: url.href, policy: name };
}

function toPolicy({ name, env = '', algorithm, evaluation }: ServedPolicy): Policy {
  const score = evaluation?.mean_return;
  const scored = score === undefined ? '' : `, return ${score.toFixed(0).replace('-', '−')}`;
  const title = algorithm === undefined ? name : `${algorithm.replace('stable-baselines3 ', '')} of ${env}${scored}`;
  return { name, title, env };
}
