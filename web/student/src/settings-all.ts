// Generated from the engine's configuration: `OTO_WRITE_DOCS=1 cargo test -p oto-agent --test generated`. The algorithms that
// `oto-student/all` has beside those of every page.

import { ALGORITHMS, type Adam, type AlgorithmName, type AlgorithmOptions, type Convolution, type ReplayOptions, type SamplerName } from './settings.js';

/** The names of all algorithms. */
export type AnyAlgorithmName = AlgorithmName | 'a3c' | 'td3-bc' | 'iql' | 'awac' | 'edac' | 'cal-ql' | 'redq' | 'rlpd' | 'wsrl' | 'pex' | 'sac-ml' | 'aca' | 'balanced-replay' | 'upq' | 'adaptive-bc' | 'td3-bc-refined' | 'gcql' | 'gctd3bc' | 'mopo';

/** Any algorithm with its settings. */
export type AnyAlgorithmOptions = AlgorithmOptions | A3cOptions | Td3BcOptions | IqlOptions | AwacOptions | EdacOptions | CalQlOptions | RedqOptions | RlpdOptions | WsrlOptions | PexOptions | SacMlOptions | AcaOptions | BalancedReplayOptions | UpqOptions | AdaptiveBcOptions | Td3BcRefinedOptions | GcqlOptions | Gctd3bcOptions | MopoOptions;

/** Advantage actor-critic: one step of policy and value function after each short rollout (Mnih et al. 2016; Lin et al. 2017). */
export interface A3cOptions {
  name: 'a3c';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Convolutional layers for image observations, before the hidden layers. Default: null. */
  convolution?: Convolution | null;
  /** Weight of the policy's entropy. Default: 0.01. */
  entropyWeight?: number;
  /** Lambda of generalised advantage estimation. Default: 1. */
  gaeLambda?: number;
  /** Widths of the hidden layers, which policy and value function share (tanh after each, ReLU after convolutions). Default: [128]. */
  hidden?: number[];
  /** Units of an LSTM layer after the hidden layers, which policy and value function read: 1 to 4096; none without one. It is unrolled over the steps of a rollout, 256 at most. Default: null. */
  lstm?: number | null;
  /** Limit of the gradients' norm, over all parameters together. Default: 40. */
  maxGradNorm?: number;
  /** Environment steps in a rollout, which is one update. Default: 20. */
  tMax?: number;
  /** Weight of the value function's squared error; 1 as printed, 0.25 in the authors' code. Default: 0.25. */
  valueWeight?: number;
}

/** TD3 with behaviour cloning: an actor that stays near the data's actions (Fujimoto and Gu 2021). */
export interface Td3BcOptions {
  name: 'td3-bc';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Weight of the Q-values in the actor's loss, over their mean size; the constraint has the weight 1. Default: 2.5. */
  alpha?: number;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Standard deviation of the noise on actions that explore. Default: 0.1. */
  exploration?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Whether observations are normalised by the mean and the standard deviation of the dataset. Default: true. */
  normalise?: boolean;
  /** Updates from one step of the actor and all target networks to the next. Default: 2. */
  policyPeriod?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Whether the mean size is that of the data's actions, as printed, instead of the policy's actions, as in the authors' code. Default: false. */
  scaleByData?: boolean;
  /** Standard deviation of the noise on the target's action. Default: 0.2. */
  smoothing?: number;
  /** Largest noise on the target's action. Default: 0.5. */
  smoothingClip?: number;
}

/** Implicit Q-learning: values of the data's actions alone, and an advantage-weighted policy (Kostrikov et al. 2022). */
export interface IqlOptions {
  name: 'iql';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Continuous actions: whether the policy is deterministic, with a weighted squared error, instead of a Gaussian. Default: false. */
  deterministic?: boolean;
  /** The expectile of the value: 0.5 is the mean, near 1 the largest value among the data's actions. The authors use 0.9 for AntMaze. Default: 0.7. */
  expectile?: number;
  /** Widths of the hidden layers of all networks, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Inverse temperature of the advantages' weights: 0 clones the data. The authors use 10 for AntMaze. Default: 3. */
  inverseTemperature?: number;
  /** Sampled actions for each state in the sum over continuous actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
}

/** Advantage-weighted actor-critic: the data's actions, imitated by their advantage (Nair et al. 2020). */
export interface AwacOptions {
  name: 'awac';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256, 256]. */
  hidden?: number[];
  /** Sampled actions for each state in the sum over continuous actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Temperature of the advantages' weights, the paper's lambda. Default: 1. */
  temperature?: number;
}

/** Ensemble-diversified actor-critic: SAC with many critics that are kept apart; SAC-N with eta 0 (An et al. 2021). */
export interface EdacOptions {
  name: 'edac';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Critics. Default: 10. */
  critics?: number;
  /** Weight of the diversity. 0: SAC-N. Default: 1. */
  eta?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
}

/** Calibrated Q-learning: conservative values that stay above the data's returns (Nakamoto et al. 2023). */
export interface CalQlOptions {
  name: 'cal-ql';
  /** Learning rate of the actor and of the temperature, as a share of the run's. Default: 0.3333333333333333. */
  actorRate?: number;
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Continuous actions: whether the target takes the best of the policy's sampled actions instead of one. Default: true. */
  maxTarget?: boolean;
  /** Whether the conservative term is the printed one, the mean over the policy's actions beside half the squared error, instead of the log-sum-exp of the authors' code. Default: false. */
  printed?: boolean;
  /** Continuous actions: actions in the conservative term, from a uniform distribution, from the policy and from the policy at the next state each. Default: 10. */
  samples?: number;
  /** Weight of the conservative term. Default: 5. */
  weight?: number;
}

/** Randomised ensembled double Q-learning: soft actor-critic with an ensemble and many updates a step (Chen et al. 2021). */
export interface RedqOptions {
  name: 'redq';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Critics. Default: 10. */
  critics?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Updates from one step of actor and temperature to the next. Default: 20. */
  policyPeriod?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Critics whose smallest value is the target, drawn for each update. Default: 2. */
  subset?: number;
}

/** Online learning with prior data: an ensemble with layer normalisation, half of each batch recorded (Ball et al. 2023). */
export interface RlpdOptions {
  name: 'rlpd';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Critics. Default: 10. */
  critics?: number;
  /** Whether the target has the entropy of the next action. Default: true. */
  entropyBackup?: boolean;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Whether critics have layer normalisation before each ReLU. Default: true. */
  layerNorm?: boolean;
  /** Updates from one step of actor and temperature to the next. Default: 20. */
  policyPeriod?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Critics whose smallest value is the target, drawn for each update. Default: 2. */
  subset?: number;
}

/** Warm-start: the offline policy acts first, then an ensemble learns from these steps without recorded data (Zhou et al. 2024). */
export interface WsrlOptions {
  name: 'wsrl';
  /** Factor of the run's learning rate for actor and temperature. Default: 0.3333333333333333. */
  actorRate?: number;
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 1024. */
  batchSize?: number;
  /** Critics. Default: 10. */
  critics?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Whether critics have layer normalisation before each ReLU. Default: true. */
  layerNorm?: boolean;
  /** Updates from one step of actor and temperature to the next. Default: 4. */
  policyPeriod?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Critics whose smallest value is the target, drawn for each update. Default: 2. */
  subset?: number;
}

/** Policy expansion: a frozen offline policy and a new one, chosen by their Q-values, to continue iql online (Zhang et al. 2023; IQL: Kostrikov et al. 2022). */
export interface PexOptions {
  name: 'pex';
  /** The optimiser's constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Inverse temperature of the choice between the two policies. Default: 10. */
  choice?: number;
  /** Probability of a sampled choice, instead of the action with the larger value, in evaluations. Default: 0.1. */
  evaluationEpsilon?: number;
  /** The expectile that the value function learns. The authors use 0.9 for AntMaze. Default: 0.7. */
  expectile?: number;
  /** Widths of the hidden layers of all networks, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Inverse temperature of the advantages' weights. The authors use 10 for AntMaze. Default: 3. */
  inverseTemperature?: number;
  /** Sampled actions for each state in the sum over continuous actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
}

/** Soft actor-critic with maximum likelihood: a policy that is likely to act as the data do, and what aca needs (Yu and Zhang 2023). */
export interface SacMlOptions {
  name: 'sac-ml';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Weight of the Q-values beside the likelihood, over their mean size. Default: 30. */
  lambda?: number;
  /** Whether the weight is `lambda` itself, as printed. Default: false. */
  printed?: boolean;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
}

/** Actor-critic alignment: critics rebuilt from an offline policy, to continue sac-ml online (Yu and Zhang 2023). */
export interface AcaOptions {
  name: 'aca';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Standard deviations from the offline policy's mean beyond which its log density is softly cut. The authors use 7 for data of random and medium policies and of replays, 15 for those of experts, 3 for AntMaze. Default: 7. */
  clip?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Longest gradient of the actor. Default: 0.25. */
  maxGradient?: number;
  /** Whether the log density is taken as it is, as printed. Default: false. */
  printed?: boolean;
}

/** Balanced replay and a pessimistic Q-ensemble: recorded transitions that look like the run's own, to continue cql-ensemble online (Lee et al. 2021). */
export interface BalancedReplayOptions {
  name: 'balanced-replay';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Agents, as many as the run of `cql-ensemble` has. Default: 5. */
  agents?: number;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Temperature of density ratios: the larger, the more alike are the priorities. Default: 5. */
  densityTemperature?: number;
  /** Widths of the hidden layers of actors, critics and the density network, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Continuous actions: initial temperature of the policy. Default: 1. */
  initialAlpha?: number;
}

/** Uncertainty-driven pessimism: the target is the mean of an ensemble less its standard deviation (Guo et al. 2022; CQL: Kumar et al. 2020). */
export interface UpqOptions {
  name: 'upq';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** How many standard deviations of the critics the target is below their mean. Default: 0.01. */
  beta?: number;
  /** Actions in CQL's term, from a uniform distribution, from the policy and from the policy at the next state each. Default: 10. */
  conservativeSamples?: number;
  /** Critics. Default: 5. */
  critics?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Weight of CQL's term, for the recorded transitions of a batch. Default: 5. */
  weight?: number;
}

/** Adaptive behaviour cloning: a constraint whose weight follows the returns of episodes (Zhao et al. 2022). */
export interface AdaptiveBcOptions {
  name: 'adaptive-bc';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Whether the controller changes the weight after each episode of training. Default: true. */
  adaptive?: boolean;
  /** Weight of the constraint at first, and its largest weight. Default: 0.4. */
  alpha?: number;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Critics. Default: 10. */
  critics?: number;
  /** The mean return of an expert, which has the score 1. Default: 1. */
  expertReturn?: number;
  /** Standard deviation of the noise on actions that explore. Default: 0.1. */
  exploration?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** The controller's gain of a drop below the average score. Default: 0.0001. */
  kD?: number;
  /** The controller's gain of the difference between the average score and `target`. Default: 0.00003. */
  kP?: number;
  /** Whether observations are normalised by the mean and the standard deviation of the dataset. Default: false. */
  normalise?: boolean;
  /** Updates from one step of the actor and all target networks to the next. Default: 2. */
  policyPeriod?: number;
  /** Whether an episode's length has no influence on the weight, as printed. Default: false. */
  printed?: boolean;
  /** The mean return of a random policy, which has the score 0. Default: 0. */
  randomReturn?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Standard deviation of the noise on the target's action. Default: 0.2. */
  smoothing?: number;
  /** Largest noise on the target's action. Default: 0.5. */
  smoothingClip?: number;
  /** Critics whose smallest value is the target, drawn for each update. Default: 2. */
  subset?: number;
  /** The score from which on the constraint is no longer needed. Default: 1.05. */
  target?: number;
}

/** TD3+BC with policy refinement, and with a constraint that relaxes online (Beeson and Montana 2022). */
export interface Td3BcRefinedOptions {
  name: 'td3-bc-refined';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Weight of the constraint, beside Q-values over their mean size. Default: 0.4. */
  alpha?: number;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Standard deviation of the noise on actions that explore. Default: 0.1. */
  exploration?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Whether observations are normalised by the mean and the standard deviation of the dataset. Default: true. */
  normalise?: boolean;
  /** Updates from one step of the actor and all target networks to the next. Default: 2. */
  policyPeriod?: number;
  /** Whether Q-values count as they are, as printed, and not over their mean size. Default: false. */
  printed?: boolean;
  /** Policy refinement: the weight is divided by this number, and where it is above 1 the actor alone learns from critics that stay as they are. The authors use 5 after offline training. 1: no refinement. Default: 1. */
  refine?: number;
  /** Environment steps over which the weight goes from `alpha` to `relaxedAlpha`, by one factor a step. The authors use 250,000 online. 0: the weight stays. Default: 0. */
  relaxSteps?: number;
  /** Relaxed constraint: the weight after `relaxSteps`. Default: 0.2. */
  relaxedAlpha?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Standard deviation of the noise on the target's action. Default: 0.2. */
  smoothing?: number;
  /** Largest noise on the target's action. Default: 0.5. */
  smoothingClip?: number;
}

/** Greedy-conservative Q-learning: conservative for recorded data, greedy for online data (Zheng et al. 2023; CQL: Kumar et al. 2020). */
export interface GcqlOptions {
  name: 'gcql';
  /** Factor of the run's learning rate for actor and temperature. Default: 0.3333333333333333. */
  actorRate?: number;
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Actions in CQL's term, from a uniform distribution, from the policy and from the policy at the next state each. Default: 10. */
  conservativeSamples?: number;
  /** Critics. Default: 5. */
  critics?: number;
  /** Whether the target has the entropy of the next action. Default: false. */
  entropyBackup?: boolean;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256, 256]. */
  hidden?: number[];
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Critics whose smallest value is the target, drawn for each update. Default: 2. */
  subset?: number;
  /** Weight of CQL's term, for the recorded transitions of a batch. Default: 5. */
  weight?: number;
}

/** Greedy-conservative TD3+BC: a constraint for recorded data, none for online data (Zheng et al. 2023; TD3+BC: Fujimoto and Gu 2021). */
export interface Gctd3bcOptions {
  name: 'gctd3bc';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Weight of the Q-values in the actor's loss, over their mean size; the constraint has the weight 1. Default: 2.5. */
  alpha?: number;
  /** Transitions in an update. Default: 256. */
  batchSize?: number;
  /** Standard deviation of the noise on actions that explore. Default: 0.1. */
  exploration?: number;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Whether observations are normalised by the mean and the standard deviation of the dataset. Default: true. */
  normalise?: boolean;
  /** Updates from one step of the actor and all target networks to the next. Default: 2. */
  policyPeriod?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
  /** Standard deviation of the noise on the target's action. Default: 0.2. */
  smoothing?: number;
  /** Largest noise on the target's action. Default: 0.5. */
  smoothingClip?: number;
}

/** Model-based policy optimisation: rollouts in learned dynamics, with a penalty for what they do not know; MOORe online (Yu et al. 2020; MOORe: Mao et al. 2022). */
export interface MopoOptions {
  name: 'mopo';
  /** The optimisers' constants. Default: { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }. */
  adam?: Adam;
  /** Transitions in an update: a whole number of `horizon`. Default: 255. */
  batchSize?: number;
  /** Whether the uncertainty is the distance of the models from their mean instead of their largest standard deviation. Default: false. */
  byDisagreement?: boolean;
  /** Widths of the hidden layers of actor and critics, ReLU after each. Default: [256, 256]. */
  hidden?: number[];
  /** Steps of a rollout, at most as many as models. Default: 5. */
  horizon?: number;
  /** Initial temperature. Default: 1. */
  initialAlpha?: number;
  /** The most that the penalty takes from a reward. Default: 100. */
  largestPenalty?: number;
  /** Widths of the hidden layers of the models, ReLU after each. Default: [200, 200, 200, 200]. */
  modelHidden?: number[];
  /** Factor of the run's learning rate for the models. Default: 3.3333333333333335. */
  modelRate?: number;
  /** Models of the dynamics. Default: 7. */
  models?: number;
  /** Weight of the uncertainty in a rollout's rewards. Default: 5. */
  penalty?: number;
  /** Weight of the batch's own transitions beside those of rollouts. Default: 0.05. */
  realShare?: number;
  /** Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution. Default: 8. */
  samples?: number;
}

/** How transitions are chosen. */
export type AnySamplerName = SamplerName | 'whole' | 'balanced' | 'forgetting';

/** The sampler of a run, and its settings. */
export interface AnyReplayOptions extends Omit<ReplayOptions, 'sampler'> {
  /** The choice of transitions for an update. */
  sampler?: AnySamplerName;
  /** `forgetting`: environment steps in an epoch. Default: 1000. */
  forgettingEpoch?: number;
  /** `forgetting`: rate of the fall of recorded transitions' priorities: in epoch i they are 1 / (rate i), the run's own 1. Default: 1. */
  forgettingRate?: number;
  /** `balanced`: the number of the run's own transitions at which they have this share. Default: 1000. */
  onlineReference?: number;
  /** `balanced`: share of the run's own transitions in batches at first. Default: 0.5. */
  onlineShare?: number;
  /** `whole`: transitions of the run's own before the first batch of them. Default: 10000. */
  ownFrom?: number;
}

export const ALL_ALGORITHMS: Record<AnyAlgorithmName, string[]> = {
  ...ALGORITHMS,
  'a3c': ['adam', 'convolution', 'entropyWeight', 'gaeLambda', 'hidden', 'lstm', 'maxGradNorm', 'tMax', 'valueWeight'],
  'td3-bc': ['adam', 'alpha', 'batchSize', 'exploration', 'hidden', 'normalise', 'policyPeriod', 'samples', 'scaleByData', 'smoothing', 'smoothingClip'],
  'iql': ['adam', 'batchSize', 'deterministic', 'expectile', 'hidden', 'inverseTemperature', 'samples'],
  'awac': ['adam', 'batchSize', 'hidden', 'samples', 'temperature'],
  'edac': ['adam', 'batchSize', 'critics', 'eta', 'hidden', 'initialAlpha', 'samples'],
  'cal-ql': ['actorRate', 'adam', 'batchSize', 'hidden', 'initialAlpha', 'maxTarget', 'printed', 'samples', 'weight'],
  'redq': ['adam', 'batchSize', 'critics', 'hidden', 'initialAlpha', 'policyPeriod', 'samples', 'subset'],
  'rlpd': ['adam', 'batchSize', 'critics', 'entropyBackup', 'hidden', 'initialAlpha', 'layerNorm', 'policyPeriod', 'samples', 'subset'],
  'wsrl': ['actorRate', 'adam', 'batchSize', 'critics', 'hidden', 'initialAlpha', 'layerNorm', 'policyPeriod', 'samples', 'subset'],
  'pex': ['adam', 'batchSize', 'choice', 'evaluationEpsilon', 'expectile', 'hidden', 'inverseTemperature', 'samples'],
  'sac-ml': ['adam', 'batchSize', 'hidden', 'initialAlpha', 'lambda', 'printed', 'samples'],
  'aca': ['adam', 'batchSize', 'clip', 'hidden', 'initialAlpha', 'maxGradient', 'printed'],
  'balanced-replay': ['adam', 'agents', 'batchSize', 'densityTemperature', 'hidden', 'initialAlpha'],
  'upq': ['adam', 'batchSize', 'beta', 'conservativeSamples', 'critics', 'hidden', 'initialAlpha', 'samples', 'weight'],
  'adaptive-bc': ['adam', 'adaptive', 'alpha', 'batchSize', 'critics', 'expertReturn', 'exploration', 'hidden', 'kD', 'kP', 'normalise', 'policyPeriod', 'printed', 'randomReturn', 'samples', 'smoothing', 'smoothingClip', 'subset', 'target'],
  'td3-bc-refined': ['adam', 'alpha', 'batchSize', 'exploration', 'hidden', 'normalise', 'policyPeriod', 'printed', 'refine', 'relaxSteps', 'relaxedAlpha', 'samples', 'smoothing', 'smoothingClip'],
  'gcql': ['actorRate', 'adam', 'batchSize', 'conservativeSamples', 'critics', 'entropyBackup', 'hidden', 'initialAlpha', 'samples', 'subset', 'weight'],
  'gctd3bc': ['adam', 'alpha', 'batchSize', 'exploration', 'hidden', 'normalise', 'policyPeriod', 'samples', 'smoothing', 'smoothingClip'],
  'mopo': ['adam', 'batchSize', 'byDisagreement', 'hidden', 'horizon', 'initialAlpha', 'largestPenalty', 'modelHidden', 'modelRate', 'models', 'penalty', 'realShare', 'samples'],
};
export const ALL_REPLAY: string[] = ['alpha', 'beta', 'epsilon', 'forgettingEpoch', 'forgettingRate', 'onlineReference', 'onlineShare', 'ownFrom', 'recordedShare', 'sampler'];
