// Who can teach: the policies of the server that this page came from, as far as they fit CartPole.

import type { TeacherOptions } from 'oto-student';

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
  /** Whether it was trained in another simulator. */
  foreign: boolean;
}

/** Every server has this baseline: even useless answers must not keep a student from learning. */
const RANDOM: Policy = { name: 'scripted:random', title: 'Uniformly random answers', foreign: false };

/** The policies that fit CartPole, the one from another simulator first. */
export async function fetchTeachers(): Promise<Policy[]> {
  const response = await fetch(new URL('policies', document.baseURI));
  if (!response.ok) throw new Error(`/policies answered ${response.status}`);
  const policies = ((await response.json()) as ServedPolicy[]).flatMap(toPolicy);
  policies.sort((a, b) => Number(b.foreign) - Number(a.foreign));
  return [...policies, RANDOM];
}

/** How a student reaches this policy. */
export function teacherOptions({ name }: Policy): TeacherOptions {
  const url = new URL('v1/teach', document.baseURI);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return { url: url.href, policy: name };
}

function toPolicy({ name, env = '', algorithm, evaluation }: ServedPolicy): Policy[] {
  const score = evaluation?.mean_return;
  const scored = score === undefined ? '' : `, return ${score.toFixed(0)}`;
  const title = algorithm === undefined ? name : `${algorithm.replace('stable-baselines3 ', '')} of ${env}${scored}`;
  // The engine knows how InvertedPendulum's observations and actions relate to CartPole's.
  const foreign = env.startsWith('InvertedPendulum');
  return foreign || env.startsWith('CartPole') ? [{ name, title, foreign }] : [];
}
