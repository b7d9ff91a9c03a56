// CartPole as in Gymnasium's cartpole.py (Euler integration, 50 steps a second), for showing a policy on the page.
// Training uses the engine's own environment, which is checked against Gymnasium's recordings.

const GRAVITY = 9.8;
const CART_MASS = 1.0;
const POLE_MASS = 0.1;
const TOTAL_MASS = CART_MASS + POLE_MASS;
/** Half the pole's length, in metres. */
const HALF_LENGTH = 0.5;
const FORCE = 10.0;
/** Seconds in a step. */
export const TIME_STEP = 0.02;
/** Where the track ends, in metres from its middle. */
export const TRACK = 2.4;
const FALLEN = (12 * Math.PI) / 180;
/** The longest episode. */
export const MAX_STEPS = 500;

/** Position (m), velocity (m/s), angle (rad), angular velocity (rad/s): the observation, in its order. */
export type State = [x: number, velocity: number, angle: number, spin: number];

/** One step of 0.02 s with the force to the right (action 1) or to the left (action 0). */
export function step([x, velocity, angle, spin]: State, action: number): State {
  const force = action === 1 ? FORCE : -FORCE;
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
  const push = (force + POLE_MASS * HALF_LENGTH * spin ** 2 * sin) / TOTAL_MASS;
  const spinRate = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - (POLE_MASS * cos ** 2) / TOTAL_MASS));
  const acceleration = push - (POLE_MASS * HALF_LENGTH * spinRate * cos) / TOTAL_MASS;
  return [
    x + TIME_STEP * velocity,
    velocity + TIME_STEP * acceleration,
    angle + TIME_STEP * spin,
    spin + TIME_STEP * spinRate,
  ];
}

/** Whether the pole has fallen or the cart has left its track. */
export function over([x, , angle]: State): boolean {
  return Math.abs(x) > TRACK || Math.abs(angle) > FALLEN;
}

/** A state near the middle; the same for the same episode number, so that both students face the same start. */
export function start(episode: number): State {
  const noise = (k: number) => {
    const wave = Math.sin(episode * 127.1 + k * 311.7) * 43758.5453;
    return (wave - Math.floor(wave)) * 0.1 - 0.05;
  };
  return [noise(0), noise(1), noise(2), noise(3)];
}
