// Pendulum-v1 of Gymnasium, with friction in its pivot: an environment of the page's own.

import { defineEnvironment, spaces, type Environment } from 'oto-student/all';

const [GRAVITY, STEP, TORQUE, SPEED, STEPS] = [10, 0.05, 2, 8, 200];

/** A pendulum whose friction takes the share `friction()` of its speed away in a second. */
export function pendulum(friction: () => number): Environment {
  let [angle, speed, steps] = [0, 0, 0];
  const observation = () => [Math.cos(angle), Math.sin(angle), speed];
  let random = Math.random;
  return defineEnvironment({
    observationSpace: spaces.box([-1, -1, -SPEED], [1, 1, SPEED]),
    actionSpace: spaces.box([-TORQUE], [TORQUE]),
    reset(seed) {
      if (seed !== undefined) random = seeded(seed);
      [angle, speed, steps] = [Math.PI * (2 * random() - 1), 2 * random() - 1, 0];
      return observation();
    },
    step(action) {
      const torque = Math.max(-TORQUE, Math.min(TORQUE, action[0]!));
      const off = Math.atan2(Math.sin(angle), Math.cos(angle));
      const reward = -(off ** 2 + 0.1 * speed ** 2 + 0.001 * torque ** 2);
      const faster = speed + (1.5 * GRAVITY * Math.sin(angle) + 3 * torque - friction() * speed) * STEP;
      speed = Math.max(-SPEED, Math.min(SPEED, faster));
      angle += speed * STEP;
      steps += 1;
      return { observation: observation(), reward, terminated: false, truncated: steps === STEPS };
    },
  });
}

/** Random numbers from 0 to 1 of a seed (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
