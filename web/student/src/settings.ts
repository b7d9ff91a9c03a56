// Generated from the engine's configuration: `OTO_WRITE_DOCS=1 cargo test -p oto-student --test generated`. Defaults are those in
// an environment of the page's own: the first algorithm's, then those of others by name. Left out, QR-DQN's learning rate and exploration
// take a share of the run.

/** The names of the algorithms. */
export type AlgorithmName = 'qrdqn' | 'sac' | 'ppo';

/** An algorithm with its settings. */
export type AlgorithmOptions = QrDqnOptions | SacOptions | PpoOptions;

/** Q-learning on quantiles of the return; with one quantile a DQN (Dabney et al. 2018). */
export interface QrDqnOptions {
  name?: 'qrdqn';
  /** Act with the target network, which averages the online one over time where it follows slowly, instead of the online network. Default: true. */
  actWithTarget?: boolean;
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 64. */
  batchSize?: number;
  /** What sees observations that are images; the hidden layers go on from there. Default: null. */
  convolution?: Convolution | null;
  /** Weight of the conservative term (OTO eq. 6 and 7) for learning from a dataset: pushes down what the data do not show. 0 leaves it out; discrete CQL's usual weight is 10 (Tianshou's `DiscreteCQL`). Default: 0. */
  cql?: number;
  /** Whether the online network chooses the next action (van Hasselt et al. 2016) instead of the target network. Default: true. */
  double?: boolean;
  /** Widths of the hidden layers, ReLU after each. Default: [128, 128]. */
  hidden?: number[];
  /** Quantiles for each action. Default: 25. */
  quantiles?: number;
  /** What teachers answer. Default: 'actions'. */
  teaching?: Teaching;
}

/** Soft actor-critic: the return and the policy's entropy, from replay (Haarnoja et al. 2018; discrete actions: Christodoulou 2019). */
export interface SacOptions {
  name?: 'sac';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Weight of the conservative term (CQL(H), OTO eq. 6) for learning from a dataset, over `samples` actions of a uniform, of the policy and of the policy at the next state. 0 leaves it out; the authors' code has 5 and 10 samples. Default: 0. */
  cql?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Temperature at the start. Default: 1. */
  initialAlpha?: number;
  /** Actions drawn for each state in the sum over actions of OTO eq. 10, from a uniform and from the policy each. Default: 4. */
  samples?: number;
}

/** Proximal policy optimisation: small steps of the policy, from its own rollouts (Schulman et al. 2017). */
export interface PpoOptions {
  name: 'ppo';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 0.00001 }. */
  adam?: Adam;
  /** Weight of the auxiliary loss. Default: 1. */
  auxiliary?: number;
  /** Steps in an update; divides `nSteps`. Default: 64. */
  batchSize?: number;
  /** How far the probability of an action may move (Schulman et al. 2017, eq. 7). Default: 0.2. */
  clip?: number;
  /** Weight of the policy's entropy. Default: 0. */
  entropyWeight?: number;
  /** How often each step is learnt from. Default: 10. */
  epochs?: number;
  /** Whether there are auxiliary critics: OTO's fusion policy. Default: false. */
  fusion?: boolean;
  /** Lambda of generalised advantage estimation. Default: 0.95. */
  gaeLambda?: number;
  /** Widths of the hidden layers of policy and value function (tanh after each), and of a fusion policy's critics (ReLU). Default: [64, 64]. */
  hidden?: number[];
  /** Logarithm of the standard deviation at the start. Default: 0. */
  initialLogStd?: number;
  /** Longest gradient of policy and value function together. Default: 0.5. */
  maxGradNorm?: number;
  /** Environment steps from one round of updates to the next. Default: 2048. */
  nSteps?: number;
  /** Actions drawn for each state in the sum over continuous actions of OTO eq. 10. Default: 8. */
  samples?: number;
  /** Temperature of the critics' targets and of the auxiliary loss. Default: 0.2. */
  temperature?: number;
  /** Weight of the value function's squared error. Default: 0.5. */
  valueWeight?: number;
}

/** The settings of a run, whatever its algorithm is. */
export interface RunOptions {
  /** "cpu", "webgpu", or "auto" for the faster of both. Default: 'cpu'. */
  backend?: 'cpu' | 'webgpu' | 'auto';
  /** Transitions kept. Default: 100000; sac: 1000000. */
  buffer?: number;
  /** How labels enter. Default: 'lockstep'. */
  clock?: Clock;
  /** Share of random actions over environment steps. Default: { start: 1, end: 0.1, steps: 6000 }; sac: { start: 1, end: 0, steps: 100 }; ppo: 0. */
  epsilon?: Schedule;
  /** Discount factor. Default: 0.99. */
  gamma?: number;
  /** Lockstep: labels enter so many environment steps after their request. Default: 8. */
  labelLag?: number;
  /** Learning rate over environment steps. Default: { start: 0.00063, end: 0.000063, steps: 50000 }; sac: 0.0003; ppo: 0.0003. */
  learningRate?: Schedule;
  /** Environment steps before the first update. Default: 128; sac: 100. */
  learningStarts?: number;
  /** Rewards summed before the bootstrap. Default: 1. */
  nStep?: number;
  /** States in a request to a teacher. Default: 8. */
  requestBatch?: number;
  /** Draws parameters, exploration, batches and the environment's episodes. Default: 0. */
  seed?: number;
  /** Slows learning down where evaluations are good. Default: null. */
  settle?: Settle | null;
  /** The stages and their ends. */
  stages?: Stages;
  /** Environment steps in all. Default: 50000; sac: 20000; ppo: 100000. */
  steps?: number;
  /** The target network is replaced every so many updates; 0 leaves that to `targetTau`. Default: 0. */
  targetEvery?: number;
  /** Share of the parameters that the target network takes over at every update, where `targetEvery` is 0. Default: 0.005. */
  targetTau?: number;
  /** Environment steps from one round of updates to the next. Default: 2; sac: 1; ppo: 1. */
  trainEvery?: number;
  /** The teachers' term. */
  transfer?: TransferOptions;
  /** Updates in a round. Default: 1. */
  updates?: number;
}

/** Adam's constants (Kingma and Ba 2015, section 2). */
export interface Adam {
  /** Decay of the gradient's average. */
  beta1?: number;
  /** Decay of the squared gradient's average. */
  beta2?: number;
  /** Keeps the division finite. */
  epsilon?: number;
}

/** How time passes between acting, learning and being taught. */
export type Clock = 'lockstep' | 'async';

/** What sees an image. */
export interface Convolution {
  /** The layers, first to last. */
  layers: ConvolutionLayer[];
  /** Channels, height and width of an observation, whose numbers go from 0 to 255. */
  shape: [number, number, number];
}

/** One layer of kernels, ReLU after it, no padding. */
export interface ConvolutionLayer {
  /** How many kernels: channels of the result. */
  channels: number;
  /** Side of a kernel in pixels. */
  kernel: number;
  /** Pixels between two places of a kernel. */
  stride: number;
}

/** What ends a stage: whichever comes first; nothing set, and it never ends. */
export interface StageEnd {
  /** Once it is clear that it leads nowhere. */
  giveUp?: GiveUp | null;
  /** Once a greedy evaluation reaches this mean return. */
  returnAtLeast?: number | null;
  /** After so many seconds in the stage. */
  seconds?: number | null;
  /** After so many environment steps in the stage. */
  steps?: number | null;
}

/** When greedy evaluation episodes are played, in an environment of their own. */
export interface EvaluationOptions {
  /** How many episodes are averaged. Default: 10. */
  episodes?: number;
  /** Every so many environment steps; 0 never. Default: 5000; sac: 1000; ppo: 2000. */
  every?: number;
}

/** Ends a stage once `afterSteps` have passed without one evaluation of `belowReturn` or more: nothing good comes of its teachers. What they taught is forgotten: the student starts over with fresh parameters and schedules, and keeps its transitions. A stage that was good twice is not given up: a student that falls back under a good teacher is back sooner with it than without, and one good evaluation may be luck under a bad one (docs/decisions.md). */
export interface GiveUp {
  /** Environment steps since the stage began, or since its only good evaluation. */
  afterSteps: number;
  /** The mean return that no evaluation reached in them. */
  belowReturn: number;
}

/** A number, or one that moves from `start` to `end` over `steps` steps, then stays. */
export type Schedule = number | { end: number; start: number; steps: number };

/** Lets a student settle where it is good: every greedy evaluation that reaches `atReturn` multiplies the learning rate and `targetTau` by `factor` (down to `floor` of them), every other one divides them again (up to 1). With `setbacks` it is not left to itself where it was good and is not any more: it goes on from its parameters of the last good evaluation. */
export interface Settle {
  /** Mean return of an evaluation that is good. */
  atReturn: number;
  /** Above 0, at most 1. */
  factor: number;
  /** The smallest share that is left, from 0 to 1. */
  floor: number;
  /** How often in a row it goes back; then it goes on from where it is, as the world may be another now. 0: never. */
  setbacks: number;
}

/** Which stages there are. One left out (`null`) is passed over; the last one that never ends lasts to the run's end. */
export interface Stages {
  /** Start over when the last stage ends, instead of ending the run. */
  loop?: boolean;
  /** Optional training before the teachers. */
  offline?: StageEnd | null;
  /** Training after them. */
  online?: StageEnd | null;
  /** Training with them. */
  transfer?: StageEnd | null;
}

/** What teachers answer. */
export type Teaching = 'actions' | 'thoughts';

/** The weights of OTO eq. 13 during the Transfer stage; outside it `alphaAikd` is 0 and `alphaTask` 1. */
export interface TransferOptions {
  /** The whole teacher term, over the steps of the stage. Default: { start: 10, end: 1, steps: 5000 }. */
  alphaAikd?: Schedule;
  /** The student's own loss. Default: 1. */
  alphaTask?: number;
  /** BASE within it. Default: 1. */
  delta?: number;
  /** Both RKD terms within it. Default: 0.2; ppo: 5. */
  eta?: number;
  /** Learning rate over the steps of the stage; the run's own where there is none. Default: null. */
  learningRate?: Schedule | null;
}

/** The settings that there are, for what is refused before a worker is started. */
export const ALGORITHMS: Record<AlgorithmName, string[]> = {
  qrdqn: ['actWithTarget', 'adam', 'batchSize', 'convolution', 'cql', 'double', 'hidden', 'quantiles', 'teaching'],
  sac: ['adam', 'batchSize', 'cql', 'hidden', 'initialAlpha', 'samples'],
  ppo: ['adam', 'auxiliary', 'batchSize', 'clip', 'entropyWeight', 'epochs', 'fusion', 'gaeLambda', 'hidden', 'initialLogStd', 'maxGradNorm', 'nSteps', 'samples', 'temperature', 'valueWeight'],
};
export const RUN: string[] = ['backend', 'buffer', 'clock', 'epsilon', 'gamma', 'labelLag', 'learningRate', 'learningStarts', 'nStep', 'requestBatch', 'seed', 'settle', 'stages', 'steps', 'targetEvery', 'targetTau', 'trainEvery', 'transfer', 'updates'];
export const TRANSFER: string[] = ['alphaAikd', 'alphaTask', 'delta', 'eta', 'learningRate'];
export const EVALUATION: string[] = ['episodes', 'every'];
