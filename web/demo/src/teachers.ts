// Who can teach: the policies of the server that this page came from, and the adapter each of them needs.

import type { Adapter, TeacherOptions } from 'oto-student';

/** What `GET /policies` tells about one policy, as far as this page needs it. */
interface ServedPolicy {
  name: string;
  env?: string;
  algorithm?: string;
  evaluation?: { mean_return?: number };
}

/** A policy that can teach CartPole. */
export interface Policy {
  name: string;
  /** What the visitor chooses by. */
  title: string;
  adapter: Adapter | undefined;
}

/**
 * InvertedPendulum orders its observation (position, angle, velocity, angular velocity) and answers with a force;
 * CartPole's angle comes third, and only the force's direction matters.
 */
const FROM_INVERTED_PENDULUM: Adapter = {
  observation: { permutation: [0, 2, 1, 3] },
  action: { kind: 'sign' },
};

/** Every server has this baseline: even useless answers must not keep a student from learning. */
const RANDOM: Policy = { name: 'scripted:random', title: 'Uniformly random answers', adapter: undefined };

/** The policies that fit CartPole, the one from another simulator first. */
export async function fetchTeachers(): Promise<Policy[]> {
  const response = await fetch(new URL('policies', document.baseURI));
  if (!response.ok) throw new Error(`/policies answered ${response.status}`);
  const policies = ((await response.json()) as ServedPolicy[]).flatMap(toPolicy);
  policies.sort((a, b) => Number(b.adapter !== undefined) - Number(a.adapter !== undefined));
  return [...policies, RANDOM];
}

/** How a student reaches this policy. */
export function teacherOptions({ name, adapter }: Policy): TeacherOptions {
  const url = new URL('v1/teach', document.baseURI);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return { url: url.href, policy: name, ...(adapter && { adapter }) };
}

function toPolicy({ name, env = '', algorithm, evaluation }: ServedPolicy): Policy[] {
  const score = evaluation?.mean_return;
  const scored = score === undefined ? '' : `, return ${score.toFixed(0)}`;
  const title = algorithm === undefined ? name : `${algorithm.replace('stable-baselines3 ', '')} of ${env}${scored}`;
  if (env.startsWith('InvertedPendulum')) return [{ name, title, adapter: FROM_INVERTED_PENDULUM }];
  return env.startsWith('CartPole') ? [{ name, title, adapter: undefined }] : [];
}
