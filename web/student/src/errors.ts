// What can go wrong, as classes a page author can tell apart. Every message says what was expected and what came.

/** The base of every error this package throws. */
export class OtoError extends Error {
  override name = 'OtoError';
}

/**
 * An option is missing, misspelt or out of its range. `field` names it, such as `algorithm.gamma`. `cause` is the exception of a
 * getter in the page's object.
 */
export class ConfigError extends OtoError {
  override name = 'ConfigError';
  readonly field: string | undefined;

  constructor(message: string, field?: string, options?: ErrorOptions) {
    super(message, options);
    this.field = field;
  }
}

/**
 * An environment broke its contract or threw. `field` names the wrong value, such as `observation[2]`. `cause` is the
 * environment's own exception.
 */
export class EnvironmentError extends OtoError {
  override name = 'EnvironmentError';
  readonly field: string | undefined;

  constructor(message: string, field?: string, options?: ErrorOptions) {
    super(message, options);
    this.field = field;
  }
}

/** Training cannot continue, for example because the loss is not finite. */
export class TrainingError extends OtoError {
  override name = 'TrainingError';
}

/**
 * The bytes for `load` are no checkpoint of this student, or `from` names no run that it can begin with: then `field` is `from`.
 * `cause` is the browser's own exception.
 */
export class CheckpointError extends OtoError {
  override name = 'CheckpointError';
  readonly field: string | undefined;

  constructor(message: string, field?: string, options?: ErrorOptions) {
    super(message, options);
    this.field = field;
  }
}

/** The student or actor was used after `dispose()`, or its worker did not start or died. */
export class WorkerError extends OtoError {
  override name = 'WorkerError';
}

/** The server refused an actor, or a worker of a shared agent, for good: another edge of the same name replaced it, or the server has no such learner, or another network. */
export class LearnerError extends OtoError {
  override name = 'LearnerError';
}

/** An error as it crosses from the worker to the page. */
export interface ErrorMessage {
  kind: ErrorKind;
  message: string;
  field?: string | undefined;
}

/** Which class an `ErrorMessage` becomes. */
export type ErrorKind = 'config' | 'environment' | 'training' | 'checkpoint' | 'worker' | 'learner';

/** The error a message stands for. */
export function toError({ kind, message, field }: ErrorMessage): OtoError {
  switch (kind) {
    case 'config':
      return new ConfigError(message, field);
    case 'environment':
      return new EnvironmentError(message, field);
    case 'training':
      return new TrainingError(message);
    case 'checkpoint':
      return new CheckpointError(message, field);
    case 'worker':
      return new WorkerError(message);
    case 'learner':
      return new LearnerError(message);
  }
}

/** Why something was thrown, in words; anything can be. */
export function reasonOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? String(thrown.message) : String(thrown);
  } catch {
    return 'something that cannot be shown';
  }
}

/** What to send for anything that was thrown: our own errors as they are, all else as a fault of the worker. */
export function toMessage(thrown: unknown): ErrorMessage {
  if (thrown instanceof ConfigError) return { kind: 'config', message: thrown.message, field: thrown.field };
  if (thrown instanceof WorkerError) return { kind: 'worker', message: thrown.message };
  if (isMessage(thrown)) return thrown;
  return { kind: 'worker', message: `the engine failed: ${reasonOf(thrown)}` };
}

/** Whether this was thrown on purpose, and nothing is broken. */
export function isExpected(thrown: unknown): boolean {
  return thrown instanceof OtoError || isMessage(thrown);
}

/** Whether the engine threw this on purpose (see `crates/oto-web/src/error.rs`). */
function isMessage(thrown: unknown): thrown is ErrorMessage {
  return typeof thrown === 'object' && thrown !== null && 'kind' in thrown && 'message' in thrown;
}
