// Greedy play in environments of the page's own: for evaluations, and to look at. The policy is in the worker.

import type { Action, OwnEnvironment } from './environment.js';
import { EnvironmentError } from './errors.js';
import type { Scene } from './scene.js';

/** The greedy action for an observation's plain numbers. */
export type Act = (observation: Float64Array) => Promise<Action>;

/** Plays greedy episodes, the first one with the seed; gives their returns. An episode is cut short after `maxSteps`. */
export async function playEpisodes(env: OwnEnvironment, act: Act, episodes: number, seed: number | undefined, maxSteps: number): Promise<number[]> {
  const returns: number[] = [];
  while (returns.length < episodes) {
    let observation = await env.reset(returns.length === 0 ? seed : undefined);
    let sum = 0;
    for (let step = 0; step < maxSteps; step++) {
      const taken = await env.step(asArray(await act(observation)));
      sum += taken.reward;
      if (taken.terminated || taken.truncated) break;
      observation = taken.observation;
    }
    returns.push(sum);
  }
  return returns;
}

/** An episode to look at, moment by moment. */
export class GreedyEpisode {
  readonly env: OwnEnvironment;
  #act: Act;
  #scene: Scene;
  #observation: Float64Array;

  private constructor(env: OwnEnvironment, act: Act, observation: Float64Array) {
    this.env = env;
    this.#act = act;
    this.#observation = observation;
    this.#scene = { state: Array.from(observation), step: 0, limit: null, trained: null, action: [], reward: 0, return: 0, over: false, map: null };
  }

  static async begin(env: OwnEnvironment, act: Act, seed: number): Promise<GreedyEpisode> {
    return new this(env, act, await env.reset(seed));
  }

  get scene(): Scene {
    return this.#scene;
  }

  /** The next step. */
  async step(): Promise<Scene> {
    const before = this.#scene;
    if (before.over) throw new EnvironmentError('the episode is over: watch(seed) begins another one');
    const action = asArray(await this.#act(this.#observation));
    const { observation, reward, terminated, truncated } = await this.env.step(action);
    this.#observation = observation;
    this.#scene = {
      ...before,
      state: Array.from(observation),
      step: before.step + 1,
      action: typeof action === 'number' ? [action] : action,
      reward,
      return: before.return + reward,
      over: terminated || truncated,
    };
    return this.#scene;
  }
}

/** An action as `step` gets it while training, too. */
function asArray(action: Action): number | number[] {
  return typeof action === 'number' ? action : Array.from(action);
}
