// The environment of host.mjs: nine places in a row, a prize in the last one. jco's module imports it as oto:edge/environment.
let place = 0;
let steps = 0;

export const observationSpace = () => ({ tag: 'box', val: { low: [0], high: [1] } });
export const actionSpace = () => ({ tag: 'discrete', val: 2 }); // back, ahead

/** What is thrown as a string reaches the caller of `train` as an error. */
export function reset(_seed) {
  [place, steps] = [0, 0];
  return [0];
}

export function step(action) {
  place = Math.max(0, place + (action.val === 1 ? 1 : -1));
  steps += 1;
  const terminated = place === 8;
  return { observation: [place / 8], reward: terminated ? 1 : -0.01, terminated, truncated: steps === 40 };
}
