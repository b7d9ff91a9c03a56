// What may be claimed of the two students, and in which words. Pure: reports go in, sentences come out.
//
// A student has solved its task once two evaluations in a row have reached the mark, and until one does not. A teacher is
// credited only with what came after labels of its own.

import { count } from './format';

/** An evaluation, and whether it reached what counts as solved. */
export interface Judged {
  step: number;
  reached: boolean;
}

/** Where a student stands. */
export interface Standing {
  /** The step of the first of the evaluations that reached the mark without a break, up to the newest. */
  since: number | undefined;
  /** How many those are. */
  inARow: number;
  /** Labels that had come by that first one. */
  labels: number;
  /** The step of the evaluation with which a solved task was lost. */
  lostAt: number | undefined;
  /** Labels that had come by the newest report. */
  labelsNow: number;
  /** Whether there was an evaluation. */
  evaluated: boolean;
}

export const BEGINNING: Standing = { since: undefined, inARow: 0, labels: 0, lostAt: undefined, labelsNow: 0, evaluated: false };

/** Evaluations in a row that must reach the mark: one may be luck. */
export const ENOUGH = 2;

/** Where a student stands after a report: its evaluations, and all labels by now. Labels of this report may be younger than its evaluations. */
export function after(standing: Standing, evaluations: Judged[], labels: number): Standing {
  const judged = evaluations.reduce(judge, standing);
  return { ...judged, labelsNow: labels };
}

function judge(standing: Standing, { step, reached }: Judged): Standing {
  const { inARow, labelsNow } = standing;
  if (!reached) {
    const lostAt = solved(standing) === undefined ? standing.lostAt : step;
    return { ...standing, since: undefined, inARow: 0, labels: 0, lostAt, evaluated: true };
  }
  if (inARow > 0) return { ...standing, inARow: inARow + 1, evaluated: true };
  return { ...standing, since: step, inARow: 1, labels: labelsNow, evaluated: true };
}

/** The step from which on the task is solved, if it is. */
export function solved({ since, inARow }: Standing): number | undefined {
  return inARow >= ENOUGH ? since : undefined;
}

/** The words of an environment. */
export interface Words {
  /** "The student ...": what one does that has solved the task. */
  does: string;
  /** What a lane says before and afterwards. */
  before: string;
  done: string;
  /** What else differs between the two students, in a sentence. */
  besides?: string;
}

/** What a lane says of its student. */
export function laneText(standing: Standing, { before, done }: Words): string {
  const [at, { since, lostAt }] = [solved(standing), standing];
  if (at !== undefined) return `${done} after ${count(at)} steps`;
  if (since !== undefined) return `once, at step ${count(since)}`;
  return lostAt === undefined ? before : `lost at step ${count(lostAt)}`;
}

/** What the page says of both; nothing before there is something to say. */
export function verdict(alone: Standing, taught: Standing, words: Words): string | undefined {
  const [aloneAt, taughtAt] = [solved(alone), solved(taught)];
  const { does } = words;
  if (taught.labelsNow === 0) {
    const told = alone.evaluated || taught.evaluated;
    return told ? 'No teacher has answered yet: both students learn alone, and nothing is compared.' : undefined;
  }
  if (taughtAt !== undefined && taught.labels === 0) {
    return `The taught student ${does} after ${count(taughtAt)} steps, before its first label: nothing is compared.`;
  }
  if (taughtAt !== undefined && aloneAt !== undefined) return compared(aloneAt, taughtAt, taught.labels, words);
  if (taughtAt !== undefined) {
    return `The taught student ${does} after ${count(taughtAt)} steps and ${labels(taught.labels)}. ${other(alone, 'The other')}`;
  }
  if (aloneAt !== undefined) return `The student alone ${does} after ${count(aloneAt)} steps. ${other(taught, 'The taught one')}`;
  const lost = [...lostBy('taught', taught), ...lostBy('alone', alone)];
  return lost.length === 0 ? undefined : lost.join(' ');
}

function compared(alone: number, taught: number, taughtLabels: number, { besides = '' }: Words): string {
  const ratio = (alone / taught).toFixed(1);
  const text = `Taught: ${count(taught)} steps, with ${labels(taughtLabels)}. Alone: ${count(alone)} steps, ${ratio} times as many.`;
  return besides === '' ? text : `${text} ${besides}`;
}

function other(standing: Standing, who: string): string {
  return standing.lostAt === undefined ? `${who} is still at it.` : `${who} did, and lost it at step ${count(standing.lostAt)}.`;
}

function lostBy(name: string, { lostAt }: Standing): string[] {
  return lostAt === undefined ? [] : [`The student ${name} had solved the task, and lost it at step ${count(lostAt)}.`];
}

const labels = (number: number): string => (number === 1 ? '1 label' : `${count(number)} labels`);
