// What all entrances of the package give beside their `Student`.

export type { TrainOptions } from './student.js';
export type { StudentOptions, TeacherOptions, Adapter, ActionMap, ObservationMap } from './options.js';
export type * from './settings.js';
export type { Action, Environment, EnvironmentFactory, EnvironmentName, EnvironmentOf, StepResult } from './environment.js';
export type { ActionOf, ActionSpace, BoxSpace, DictSpace, DiscreteSpace, MultiBinarySpace, MultiDiscreteSpace, Observation, ObservationOf, Space, TupleSpace } from './spaces.js';
export type { Backend, Episode, Evaluation, LinkState, LinkStats, Loss, Metrics, ShareMetrics, Stage, TeacherMetrics, TriedBackend, Baseline } from './metrics.js';
export type { CellMap, MapStation, Scene } from './scene.js';
export { defineEnvironment } from './environment.js';
export { spaces } from './spaces.js';
export { CheckpointError, ConfigError, EnvironmentError, LearnerError, OtoError, TrainingError, WorkerError } from './errors.js';
