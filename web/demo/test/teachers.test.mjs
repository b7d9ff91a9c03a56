// The server's list of teachers, as it should be and as it may come.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { aboutTeacher, readPolicies, teachersOf } = await load('teachers.ts');

const PPO = { name: 'ppo', env: 'CartPole-v1', algorithm: 'stable-baselines3 PPO', evaluation: { mean_return: 499.6 } };

test('what is no policy is passed over, and the rest is listed', () => {
  const bare = { name: 'bare', env: undefined, algorithm: undefined, evaluation: undefined };
  for (const [entry, expected] of [
    [PPO, [PPO]],
    [{ name: 'bare' }, [bare]],
    [{ name: 'bare', env: 5, algorithm: {}, evaluation: 'good' }, [bare]],
    [{ name: 'bare', evaluation: { mean_return: '500' } }, [bare]],
    [{ name: 'bare', evaluation: { mean_return: null } }, [bare]],
    [{ name: 'bare', evaluation: null }, [bare]],
    ...[null, 3, 'ppo', [], {}, { name: 7 }, { name: null }].map((other) => [other, []]),
  ]) {
    assert.deepEqual(readPolicies([entry]), expected, JSON.stringify(entry));
    assert.deepEqual(readPolicies([entry, PPO]).at(-1), PPO);
  }
  for (const answer of [null, undefined, {}, 'x', 3, true]) assert.throws(() => readPolicies(answer), /did not answer with a list/);
});

test('the teachers that fit an environment come in its order, random answers last', () => {
  const sac = { name: 'sac', env: 'InvertedPendulum-v5' };
  const other = { name: 'lte', env: 'MobileCell-LTE-v0' };
  const policies = teachersOf({ teachers: ['InvertedPendulum', 'CartPole'] }, readPolicies([other, PPO, sac, { name: 'x' }]));
  assert.deepEqual(policies.map(({ name }) => name), ['sac', 'ppo', 'scripted:random']);
  assert.equal(policies[1].title, 'PPO of CartPole-v1, return 500');
});

test('what is said of a teacher is true of it', () => {
  const environment = { teachers: ['InvertedPendulum', 'CartPole'], foreign: [{ env: 'InvertedPendulum', text: 'was trained elsewhere' }] };
  const [sac, ppo, random] = teachersOf(environment, readPolicies([PPO, { name: 'sac', env: 'InvertedPendulum-v5' }])).map((policy) => aboutTeacher(environment, policy));
  assert.equal(sac, 'The teacher sits on the server, was trained elsewhere, and sees nothing but the states it is asked about.');
  assert.equal(ppo, 'The teacher sits on the server and sees nothing but the states it is asked about.');
  assert.match(random, /answers at random/);
  assert.match(aboutTeacher(environment, undefined), /no teacher here/);
});
