// The environments that can be chosen: what is learnt there, what counts as done, and how the page speaks of it.

import type { Evaluation, StudentOptions } from 'oto-student';
import { ENOUGH, type Words } from './claims';
import { count, rate } from './format';
import { cartpole } from './views/cartpole';
import { cell } from './views/cell';
import { pendulum } from './views/pendulum';
import type { View } from './views/view';

export type EnvironmentName = keyof typeof ENVIRONMENTS;

/** An environment, and everything about the page that depends on it. */
export interface DemoEnvironment extends Words {
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
  /** Texts of the page. */
  title: string;
  pitch: string;
  /** What a teacher from another environment was trained on, by the beginning of that environment's name. */
  foreign: { env: string; text: string }[];
  invitation: string;
  /** What the picture's marks mean: a class for the mark, and the words. */
  key: [mark: string, text: string][];
  notes: string;
}

/** CartPole's learning rates as the engine has them by default: alone, and in the Transfer stage. */
const ALONE_RATE = { start: 3e-3, end: 3e-4, steps: 20_000 };
const TRANSFER_RATE = { start: 2e-3, end: 1e-5, steps: 8_000 };

/** A mean return from which on CartPole counts as solved in Gymnasium. */
const SOLVED = 475;
/** Gymnasium names no such return for Pendulum; with this one it swings up at once and stays, from wherever it begins. */
const UPRIGHT = -200;
/** The part of the way from the strongest station to the best plan that counts as done in cell selection. */
const SHARE = 0.9;

export const ENVIRONMENTS = {
  cartpole: {
    view: cartpole,
    student: { env: 'CartPole-v1', learningRate: ALONE_RATE, transfer: { learningRate: TRANSFER_RATE } },
    teachers: ['InvertedPendulum', 'CartPole'],
    axis: { low: 0, high: 525, steps: 2000 },
    mark: { at: SOLVED, text: `solved at ${SOLVED}` },
    reached: ({ mean }) => mean >= SOLVED,
    does: 'balances',
    before: 'not solved yet',
    done: 'solved',
    besides: 'A part of that may be the learning rate of the Transfer stage, which is another: see the end of this page.',
    title: 'Two students, one pole. Only one has a teacher.',
    pitch:
      'Both learn CartPole in this tab, from the same seed.',
    foreign: [{ env: 'InvertedPendulum', text: 'was trained in another simulator on another observation' }],
    invitation: 'Press Start, and watch who balances first.',
    key: [],
    notes: `The carts show each student’s greedy policy at real speed; a policy plays its episode to the end, while training goes on. An episode is won at 500; 475 on average in ${ENOUGH} evaluations in a row counts as solved. In the Transfer stage the taught student’s learning rate ${falls(TRANSFER_RATE)}, alone it ${falls(ALONE_RATE)}; each evaluation of ${SOLVED} or more lowers either further. A part of the difference between the two may be the rate’s, and not the teacher’s.`,
  },
  pendulum: {
    view: pendulum,
    // Smaller networks, smaller batches and larger steps than the engine's own, so that a tab sees the end of it.
    student: {
      env: 'Pendulum-v1',
      algorithm: { name: 'sac', hidden: [64, 64], batchSize: 64, samples: 2 },
      learningRate: 1e-3,
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
      'Both learn in this tab, from the same seed, to swing a pendulum up and hold it there with a motor too weak to lift it in one go. Actions are torques, the students soft actor-critics.',
    foreign: [],
    invitation: 'Press Start, and watch who swings up first.',
    key: [['arrow', 'torque on the rod: the longer, the larger']],
    notes:
      'The pendulums show each student’s greedy policy at real speed; a policy plays its episode to the end. A return is minus the cost of 200 steps, of which angle, speed and torque have a part: 0 would be upright and still from the start. From −200 on average, in two evaluations in a row, the pendulum counts as upright: it swings up at once and stays up.',
  },
  cell: {
    view: cell,
    student: { env: 'MobileCell-5G-v0', evaluation: { every: 100 }, steps: 10_000 },
    teachers: ['MobileCell'],
    axis: { low: -50, high: 75, steps: 1000 },
    mark: undefined,
    reached: ({ mean, baselines: [strongest, best] }) =>
      strongest !== undefined && best !== undefined && mean - strongest.mean >= SHARE * (best.mean - strongest.mean),
    does: 'closes 90 % of the gap',
    before: 'gap still open',
    done: '90 % closed',
    title: 'Two students, seven stations. Only one has a teacher.',
    pitch:
      'A device walks through a town, and each student learns, in this tab and from the same seed, which 5G stations it should be connected to.',
    foreign: [{ env: 'MobileCell-LTE', text: 'was trained on LTE at a sixth of the speed' }],
    invitation: 'Press Start, and watch who is well connected first.',
    key: [
      ['device', 'device, and the way it has walked'],
      ['cross', 'where it walks to'],
      ['station', 'station, and how far it reaches'],
      ['connection', 'connected; wider is stronger'],
    ],
    notes:
      'The scenario is mobile-env’s “medium” with one device. Utility is the logarithm of the data rate, from −1 (no connection) to 1; a return is its sum over 100 steps. An action connects or disconnects one station. Signals are given in dB above the weakest that can be used; the darker half of a reach has 10 dB and more. “Strongest station” is how cell selection is done in LTE; “best plan” knows the whole way in advance, so nobody can be above it; “90 % closed” is so much of the way from the one to the other, in two evaluations in a row. Both are computed in this tab for the very episodes of each evaluation.',
  },
} satisfies Record<string, DemoEnvironment>;

/** The environment with this name. */
export function environment(name: EnvironmentName): DemoEnvironment {
  return ENVIRONMENTS[name];
}

/** How a learning rate goes, in words. */
function falls({ start, end, steps }: typeof ALONE_RATE): string {
  return `falls from ${rate(start)} to ${rate(end)} over ${count(steps)} steps`;
}
