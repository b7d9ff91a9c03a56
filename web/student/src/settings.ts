// Generated from the engine's configuration: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`. Defaults are those in
// an environment of the page's own: the first algorithm's, then those of others by name. Left out, QR-DQN's learning rate and exploration
// take a share of the run.

/** The names of the algorithms. */
export type AlgorithmName = 'qrdqn' | 'sac' | 'ppo' | 'td3' | 'ddpg';

/** An algorithm with its settings. */
export type AlgorithmOptions = QrDqnOptions | SacOptions | PpoOptions | Td3Options | DdpgOptions;

/** Q-learning on quantiles of the return; with one quantile a DQN (Dabney et al. 2018). */
export interface QrDqnOptions {
  name?: 'qrdqn';
  /** Act with the target network instead of the online network. With soft updates the target network is an average over time. Default: true. */
  actWithTarget?: boolean;
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 64. */
  batchSize?: number;
  /** Convolutional layers for image observations, before the hidden layers. Default: null. */
  convolution?: Convolution | null;
  /** Weight of the conservative term (OTO eq. 6 and 7) for offline training: it lowers the values of actions outside the data. 0: no such term. Discrete CQL's usual weight is 10 (Tianshou's `DiscreteCQL`). Default: 0. */
  cql?: number;
  /** Double Q-learning (van Hasselt et al. 2016): the online network, not the target network, selects the next action. Default: true. */
  double?: boolean;
  /** Widths of the hidden layers, ReLU after each. Default: [128, 128]. */
  hidden?: number[];
  /** Quantiles for each action. Default: 25. */
  quantiles?: number;
  /** The content of teachers' answers. Default: 'actions'. */
  teaching?: Teaching;
}

/** Soft actor-critic: the return and the policy's entropy, from replay (Haarnoja et al. 2018; discrete actions: Christodoulou 2019). */
export interface SacOptions {
  name?: 'sac';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Convolutional layers for image observations, before the hidden layers. Actor and critics share them, and the critics' loss trains them. Default: null. */
  convolution?: Convolution | null;
  /** Weight of the conservative term (CQL(H), OTO eq. 6) for offline training, over `samples` actions each of a uniform distribution, of the policy, and of the policy at the next state. 0: no such term. The authors' code uses 5, with 10 samples. Default: 0. */
  cql?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution and from the policy each. Default: 4. */
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
  /** Clipping range of the probability ratio (Schulman et al. 2017, eq. 7). Default: 0.2. */
  clip?: number;
  /** Convolutional layers for image observations, before the hidden layers: for the policy and for the value function each. Default: null. */
  convolution?: Convolution | null;
  /** Weight of the policy's entropy. Default: 0. */
  entropyWeight?: number;
  /** Epochs over each rollout. Default: 10. */
  epochs?: number;
  /** Train auxiliary critics: OTO's fusion policy. Default: false. */
  fusion?: boolean;
  /** Lambda of generalised advantage estimation. Default: 0.95. */
  gaeLambda?: number;
  /** Widths of the hidden layers of policy and value function (tanh after each, ReLU after convolutions), and of a fusion policy's critics (ReLU). Default: [64, 64]. */
  hidden?: number[];
  /** Initial logarithm of the standard deviation. Default: 0. */
  initialLogStd?: number;
  /** Limit of the gradient's norm, over policy and value function together. Default: 0.5. */
  maxGradNorm?: number;
  /** Environment steps between rounds of updates. Default: 2048. */
  nSteps?: number;
  /** Sampled actions for each state in the sum over continuous actions of OTO eq. 10. Default: 8. */
  samples?: number;
  /** Temperature of the critics' targets and of the auxiliary loss. Default: 0.2. */
  temperature?: number;
  /** Weight of the value function's squared error. Default: 0.5. */
  valueWeight?: number;
}

/** Twin delayed deterministic policy gradient: twin critics, a smoothed target, a delayed actor (Fujimoto et al. 2018). */
export interface Td3Options {
  name: 'td3';
  /** Environment steps before the actor's first update (N_a of Cao et al. 2022, section III-B), at least the run's `learningStarts` (N_c), from which on the critics learn. Absent: the actor learns from the beginning, too. Default: null. */
  actorStarts?: number | null;
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Correlation time of this noise in environment steps: Ornstein-Uhlenbeck noise. 0: independent noise. Default: 0. */
  correlationTime?: number;
  /** Standard deviation of the noise on actions that explore. Default: 0.1. */
  exploration?: number;
  /** Factor of `exploration` over environment steps. Default: 1. */
  explorationFactor?: Schedule;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [400, 300]. */
  hidden?: number[];
  /** Updates from one step of the actor and all target networks to the next. Default: 2. */
  policyPeriod?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Standard deviation of the noise on the target's action. Default: 0.2. */
  smoothing?: number;
  /** Largest noise on the target's action. Default: 0.5. */
  smoothingClip?: number;
}

/** Deep deterministic policy gradient: one critic, a smoothed target (Lillicrap et al. 2016; target policy smoothing: Cao et al. 2022). */
export interface DdpgOptions {
  name: 'ddpg';
  /** Environment steps before the actor's first update (N_a of Cao et al. 2022, section III-B), at least the run's `learningStarts` (N_c), from which on the critic learns. Absent: the actor learns from the beginning, too. Default: null. */
  actorStarts?: number | null;
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Correlation time of this noise in environment steps: Ornstein-Uhlenbeck noise. 0: independent noise. Default: 0. */
  correlationTime?: number;
  /** Standard deviation of the noise on actions that explore. Default: 0.1. */
  exploration?: number;
  /** Factor of `exploration` over environment steps. Default: 1. */
  explorationFactor?: Schedule;
  /** Widths of the hidden layers of actor and critic, ReLU after each. Default: [400, 300]. */
  hidden?: number[];
  /** Updates from one step of the actor and all target networks to the next, as in TD3. 1: every update. Default: 1. */
  policyPeriod?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Standard deviation of the noise on the target's action (Cao et al. 2022, eq. 6). 0: plain DDPG. Default: 0.2. */
  smoothing?: number;
  /** Largest noise on the target's action. Default: 0.5. */
  smoothingClip?: number;
}

/** The settings of a run, whatever its algorithm is. */
export interface RunOptions {
  /** "cpu", "webgpu", or "auto" for the faster of the two. Default: 'cpu'. */
  backend?: 'cpu' | 'webgpu' | 'auto';
  /** Capacity of the replay buffer, in transitions. Default: 100000; sac: 1000000; td3: 1000000; ddpg: 1000000. */
  buffer?: number;
  /** The clock of labels. Default: 'lockstep'. */
  clock?: Clock;
  /** Share of random actions over environment steps. Default: { start: 1, end: 0.1, steps: 6000 }; sac: { start: 1, end: 0, steps: 100 }; ppo: 0; td3: { start: 1, end: 0, steps: 100 }; ddpg: { start: 1, end: 0, steps: 100 }. */
  epsilon?: Schedule;
  /** Discount factor. Default: 0.99. */
  gamma?: number;
  /** Lockstep: environment steps from the request of a label to its use. Default: 8. */
  labelLag?: number;
  /** Learning rate over environment steps. Default: { start: 0.00063, end: 0.000063, steps: 50000 }; sac: 0.0003; ppo: 0.0003; td3: 0.001; ddpg: 0.001. */
  learningRate?: Schedule;
  /** Environment steps before the first update. Default: 128; sac: 100; td3: 100; ddpg: 100. */
  learningStarts?: number;
  /** Rewards summed before the bootstrap. Default: 1. */
  nStep?: number;
  /** Slower learning after good evaluations. Default: null. */
  plateauDecay?: PlateauDecay | null;
  /** The choice of transitions for an update. */
  replay?: ReplayOptions;
  /** States in a request to a teacher. Default: 8. */
  requestBatch?: number;
  /** Seed of initial parameters, exploration, batches and the environment's episodes. Default: 0. */
  seed?: number;
  /** The stages and their ends. */
  stages?: Stages;
  /** Environment steps of the run. Default: 50000; sac: 20000; ppo: 100000; td3: 20000; ddpg: 20000. */
  steps?: number;
  /** Updates between hard updates of the target network; 0: soft updates by `targetTau`. Default: 0. */
  targetEvery?: number;
  /** Coefficient of the target network's soft update, at every update, if `targetEvery` is 0. Default: 0.005. */
  targetTau?: number;
  /** Environment steps between rounds of updates. Default: 2; sac: 1; ppo: 1; td3: 1; ddpg: 1. */
  trainEvery?: number;
  /** The weights of the teachers' term. */
  transfer?: TransferOptions;
  /** Updates in each round. Default: 1. */
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

/** When labels enter the replay buffer. */
export type Clock = 'lockstep' | 'async';

/** Convolutional layers for images. */
export interface Convolution {
  /** The layers, first to last. */
  layers: ConvolutionLayer[];
  /** Channels, height and width of an observation of numbers from 0 to 255. */
  shape: [number, number, number];
}

/** One layer of kernels, ReLU after it, no padding. */
export interface ConvolutionLayer {
  /** Number of kernels: the channels of the result. */
  channels: number;
  /** Side of a kernel in pixels. */
  kernel: number;
  /** Stride in pixels. */
  stride: number;
}

/** The end of a stage: the first condition that is met. Without a condition the stage never ends. */
export interface StageEnd {
  /** End the stage if it is fruitless. */
  giveUp?: GiveUp | null;
  /** End the stage at a greedy evaluation with this mean return. */
  returnAtLeast?: number | null;
  /** End the stage after this number of seconds. */
  seconds?: number | null;
  /** End the stage after this number of environment steps. */
  steps?: number | null;
}

/** Greedy evaluations, in a separate environment. */
export interface EvaluationOptions {
  /** Episodes in an evaluation. Default: 10. */
  episodes?: number;
  /** Environment steps between evaluations; 0: no evaluations. Default: 5000; sac: 1000; ppo: 2000; td3: 1000; ddpg: 1000. */
  every?: number;
}

/** Ends a stage after `afterSteps` without an evaluation of `belowReturn` or more. The student then restarts with fresh parameters and schedules, and keeps its transitions. Two good evaluations prevent this: a student that falls back under a good teacher recovers sooner with it than without, and one good evaluation may be luck under a bad teacher (docs/decisions.md). */
export interface GiveUp {
  /** Environment steps since the start of the stage, or since its only good evaluation. */
  afterSteps: number;
  /** The mean return of a good evaluation. */
  belowReturn: number;
}

/** A number, or one that moves from `start` to `end` over `steps` steps, then stays. */
export type Schedule = number | { end: number; start: number; steps: number };

/** A run's place in a group: a part of its configuration. */
export interface PeerOptions {
  /** The group's name. */
  group: string;
  /** The member's name. */
  member: string;
  /** The members that teach this one, in the order of the last teachers of `algorithm.distillation`. */
  teachers: string[];
  /** The server's address. */
  url: string;
}

/** Slower learning after good evaluations: every greedy evaluation of at least `atReturn` multiplies the learning rate and `targetTau` by `factor` (down to the share `floor`), every other one divides them again (up to 1). With `setbacks` the student returns to its parameters of the last good evaluation after a worse one. */
export interface PlateauDecay {
  /** Mean return of a good evaluation. */
  atReturn: number;
  /** Above 0, at most 1. */
  factor: number;
  /** Lower limit of the remaining share, from 0 to 1. */
  floor: number;
  /** Limit of consecutive returns to earlier parameters. After them the student continues from its current ones, because the environment may have changed. 0: no returns. */
  setbacks: number;
}

/** The sampler of a run, and its settings. */
export interface ReplayOptions {
  /** `prioritised`: exponent of priorities. 0: all transitions have the same probability. Default: 0.6. */
  alpha?: number;
  /** `prioritised`: exponent of importance weights over environment steps. 1: full correction. Default: { start: 0.4, end: 1, steps: 100000 }. */
  beta?: Schedule;
  /** `prioritised`: number added to each TD error, so that no priority is 0. Default: 1e-6. */
  epsilon?: number;
  /** `shares`: share of a batch that comes from recorded transitions. `whole`: probability of a recorded batch. Default: 0.5. */
  recordedShare?: number;
  /** How a batch is chosen from the replay buffer. Default: 'uniform'. */
  sampler?: SamplerName;
}

/** How a batch is chosen from the replay buffer. */
export type SamplerName = 'uniform' | 'combined' | 'shares' | 'prioritised';

/** The stages of a run. An absent stage (`null`) is skipped. A stage without an end lasts to the end of the run. */
export interface Stages {
  /** Repeat all stages after the last one, instead of ending the run. */
  loop?: boolean;
  /** Training before the teachers. */
  offline?: StageEnd | null;
  /** Training after them. */
  online?: StageEnd | null;
  /** Training with them. */
  transfer?: StageEnd | null;
}

/** The content of teachers' answers. */
export type Teaching = 'actions' | 'soft_targets';

/** The weights of OTO eq. 13 during the Transfer stage; outside it `alphaAikd` is 0 and `alphaTask` 1. */
export interface TransferOptions {
  /** Weight of the whole teachers' term, over the steps of the stage. Default: { start: 10, end: 1, steps: 5000 }. */
  alphaAikd?: Schedule;
  /** Weight of the student's own loss. Default: 1. */
  alphaTask?: number;
  /** Weight of BASE within the teachers' term. Default: 1. */
  delta?: number;
  /** Weight of both RKD terms within the teachers' term. Default: 0.2; ppo: 5. */
  eta?: number;
  /** Learning rate over the steps of the stage; without it the run's own. Default: null. */
  learningRate?: Schedule | null;
}

/** The settings that there are, for what is refused before a worker is started. */
export const ALGORITHMS: Record<AlgorithmName, string[]> = {
  qrdqn: ['actWithTarget', 'adam', 'batchSize', 'convolution', 'cql', 'double', 'hidden', 'quantiles', 'teaching'],
  sac: ['adam', 'batchSize', 'convolution', 'cql', 'hidden', 'initialAlpha', 'samples'],
  ppo: ['adam', 'auxiliary', 'batchSize', 'clip', 'convolution', 'entropyWeight', 'epochs', 'fusion', 'gaeLambda', 'hidden', 'initialLogStd', 'maxGradNorm', 'nSteps', 'samples', 'temperature', 'valueWeight'],
  td3: ['actorStarts', 'adam', 'batchSize', 'correlationTime', 'exploration', 'explorationFactor', 'hidden', 'policyPeriod', 'samples', 'smoothing', 'smoothingClip'],
  ddpg: ['actorStarts', 'adam', 'batchSize', 'correlationTime', 'exploration', 'explorationFactor', 'hidden', 'policyPeriod', 'samples', 'smoothing', 'smoothingClip'],
};
export const RUN: string[] = ['backend', 'buffer', 'clock', 'epsilon', 'gamma', 'labelLag', 'learningRate', 'learningStarts', 'nStep', 'plateauDecay', 'replay', 'requestBatch', 'seed', 'stages', 'steps', 'targetEvery', 'targetTau', 'trainEvery', 'transfer', 'updates'];
export const REPLAY: string[] = ['alpha', 'beta', 'epsilon', 'recordedShare', 'sampler'];
export const TRANSFER: string[] = ['alphaAikd', 'alphaTask', 'delta', 'eta', 'learningRate'];
export const EVALUATION: string[] = ['episodes', 'every'];
