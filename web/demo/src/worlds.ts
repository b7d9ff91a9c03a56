// The worlds that can be chosen: what is learnt there, what counts as done, and how the page speaks of it.

import type { Evaluation, StudentOptions } from 'oto-student';
import { cartpole } from './views/cartpole';
import { cell } from './views/cell';
import { pendulum } from './views/pendulum';
import type { View } from './views/view';

export type WorldName = keyof typeof WORLDS;

/** A world, and everything about the page that depends on it. */
export interface World {
  view: View;
  /** What the students are, besides seed, teachers and backend. */
  student: StudentOptions;
  /** Beginnings of the environments whose policies can teach here, the most interesting first. */
  teachers: string[];
  /** The chart's lowest and highest return, and its first number of steps. */
  axis: { low: number; high: number; steps: number };
  /** A return that is marked in the chart. */
  mark: { at: number; text: string } | undefined;
  /** Whether an evaluation has reached what counts as done. */
  reached(evaluation: Evaluation): boolean;
  /** "The student ... after so many steps". */
  does: string;
  /** What a lane says before and afterwards. */
  before: string;
  done: string;
  /** Texts of the page. */
  title: string;
  pitch: string;
  invitation: string;
  /** What the picture's marks mean: a class for the mark, and the words. */
  key: [mark: string, text: string][];
  notes: string;
}

/** A mean return from which on CartPole counts as solved in Gymnasium. */
const SOLVED = 475;
/** Gymnasium names no such return for Pendulum; with this one it swings up at once and stays, from wherever it begins. */
const UPRIGHT = -200;
/** The part of the way from the strongest station to the best plan that counts as done in cell selection. */
const SHARE = 0.9;

export const WORLDS = {
  cartpole: {
    view: cartpole,
    student: { env: 'CartPole-v1' },
    teachers: ['InvertedPendulum', 'CartPole'],
    axis: { low: 0, high: 525, steps: 2000 },
    mark: { at: SOLVED, text: `solved at ${SOLVED}` },
    reached: ({ mean }) => mean >= SOLVED,
    does: 'balances',
    before: 'not solved yet',
    done: 'solved',
    title: 'Two students, one pole. Only one has a teacher.',
    pitch:
      'Both learn CartPole in this tab, from the same seed. The teacher sits on the server, was trained in another simulator on another observation, and sees nothing but the states it is asked about.',
    invitation: 'Press Start, and watch who balances first.',
    key: [],
    notes:
      'The carts show each student’s greedy policy at real speed. An episode is won at 500; 475 on average counts as solved.',
  },
  pendulum: {
    view: pendulum,
    // Smaller networks, smaller batches and larger steps than the engine's own, so that a tab sees the end of it.
    student: {
      env: 'Pendulum-v1',
      algorithm: { name: 'sac', hidden: [64, 64], batchSize: 64, samples: 2, learningRate: 1e-3 },
      evaluation: { every: 250 },
      steps: 10_000,
    },
    teachers: ['Pendulum'],
    axis: { low: -1800, high: 0, steps: 2000 },
    mark: { at: UPRIGHT, text: `upright at ${UPRIGHT}`.replace('-', '−') },
    reached: ({ mean }) => mean >= UPRIGHT,
    does: 'swings up and stays',
    before: 'not upright yet',
    done: 'upright',
    title: 'Two students, one pendulum. Only one has a teacher.',
    pitch:
      'Both learn in this tab, from the same seed, to swing a pendulum up and hold it there with a motor too weak to lift it in one go. Actions are torques, the students soft actor-critics; the teacher answers with torques of its own.',
    invitation: 'Press Start, and watch who swings up first.',
    key: [['arrow', 'torque on the rod: the longer, the larger']],
    notes:
      'The pendulums show each student’s greedy policy at real speed. A return is minus the cost of 200 steps, of which angle, speed and torque have a part: 0 would be upright and still from the start. From −200 on average the pendulum swings up at once and stays up.',
  },
  cell: {
    view: cell,
    student: { env: 'MobileCell-5G-v0', evaluation: { every: 100 }, steps: 10_000 },
    teachers: ['MobileCell'],
    axis: { low: -50, high: 75, steps: 1000 },
    mark: undefined,
    reached: ({ mean, yardsticks: [strongest, best] }) =>
      strongest !== undefined && best !== undefined && mean - strongest.mean >= SHARE * (best.mean - strongest.mean),
    does: 'closes 90 % of the gap',
    before: 'gap still open',
    done: '90 % closed',
    title: 'Two students, seven stations. Only one has a teacher.',
    pitch:
      'A device walks through a town, and each student learns, in this tab and from the same seed, which 5G stations it should be connected to. The teacher sits on the server, was trained on LTE at a sixth of the speed, and sees nothing but the states it is asked about.',
    invitation: 'Press Start, and watch who is well connected first.',
    key: [
      ['device', 'device, and the way it has walked'],
      ['cross', 'where it walks to'],
      ['station', 'station, and how far it reaches'],
      ['connection', 'connected; wider is stronger'],
    ],
    notes:
      'The scenario is mobile-env’s “medium” with one device. Utility is the logarithm of the data rate, from −1 (no connection) to 1; a return is its sum over 100 steps. An action connects or disconnects one station. Signals are given in dB above the weakest that can be used; the darker half of a reach has 10 dB and more. “Strongest station” is how cell selection is done in LTE; “best plan” knows the whole way in advance, so nobody can be above it; “90 % closed” is so much of the way from the one to the other. Both are computed in this tab for the very episodes of each evaluation.',
  },
} satisfies Record<string, World>;

/** The world with this name. */
export function world(name: WorldName): World {
  return WORLDS[name];
}

/** The world that the page's address asks for, as in `?world=cell`; CartPole otherwise. */
export function worldOfAddress(): WorldName {
  const name = new URLSearchParams(location.search).get('world') ?? '';
  return Object.hasOwn(WORLDS, name) ? (name as WorldName) : 'cartpole';
}

/** Puts a world into the page's address, so that it can be linked. */
export function toAddress(name: WorldName): void {
  const address = new URL(location.href);
  address.searchParams.set('world', name);
  history.replaceState(null, '', address);
}
