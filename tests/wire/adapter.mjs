// Checks and runs adapters as section 5 of PROTOCOL.md describes them.

/** An adapter or a row that the specification says to refuse; `code` is an error code of oto.v1. */
export class Refused extends Error {
  constructor(code) {
    super(code);
    this.code = code;
  }
}

const refuseUnless = (fine, code) => {
  if (!fine) throw new Refused(code);
};
const width = (space) => (space.kind === 'discrete' ? 1 : space.low.length);
const isIndex = (i, n) => Number.isInteger(i) && i >= 0 && i < n;
const isFinite32 = (x) => typeof x === 'number' && Number.isFinite(Math.fround(x));
const fits = (list, length) => list.length === length && list.every(isFinite32);
const same = (a, b) => a.kind === b.kind && (a.kind === 'discrete' ? a.n === b.n : width(a) === width(b));
const clip = (x, i, { low, high }) => Math.min(high[i] ?? Infinity, Math.max(low[i] ?? -Infinity, x));

/** Checks an adapter between a student's and a teacher's spaces; returns the two maps. */
export function plan(adapter, student, teacher) {
  const { observation, action } = adapter ?? {};
  checkObservation(observation, student.observation, teacher.observation);
  checkAction(action, teacher.action, student.action);
  return {
    observation: (row) => mapObservation(observation, row, student.observation, teacher.observation),
    action: (answer) => mapAction(action, answer, teacher.action, student.action),
  };
}

function checkObservation(map, student, teacher) {
  if (!map) return refuseUnless(same(student, teacher), 'space_mismatch');
  refuseUnless(student.kind === 'box' && teacher.kind === 'box', 'bad_adapter');
  const n = width(teacher);
  if (map.permutation) {
    const inside = map.permutation.every((from) => isIndex(from, width(student)));
    refuseUnless(map.permutation.length === n && inside, 'bad_adapter');
  } else {
    refuseUnless(same(student, teacher), 'space_mismatch');
  }
  refuseUnless((!map.scale || fits(map.scale, n)) && (!map.offset || fits(map.offset, n)), 'bad_adapter');
}

function mapObservation(map, row, student, teacher) {
  refuseUnless(row.length === width(student), 'bad_shape');
  const { permutation, scale, offset } = map ?? {};
  return Array.from({ length: width(teacher) }, (_, i) => {
    const scaled = Math.fround(Math.fround(row[permutation ? permutation[i] : i]) * Math.fround(scale?.[i] ?? 1));
    const mapped = Math.fround(scaled + Math.fround(offset?.[i] ?? 0));
    refuseUnless(Number.isFinite(mapped), 'not_finite');
    refuseUnless(teacher.kind === 'box' || isIndex(mapped, teacher.n), 'out_of_range');
    return mapped;
  });
}

const KINDS = {
  sign: ['box', 'discrete'],
  threshold: ['box', 'discrete'],
  affine: ['box', 'box'],
  table: ['discrete', 'discrete'],
  levels: ['discrete', 'box'],
};

function checkAction(map, teacher, student) {
  const kind = map?.kind ?? 'identity';
  if (kind === 'identity') return refuseUnless(same(teacher, student), 'space_mismatch');
  const [from, to] = KINDS[kind];
  refuseUnless(teacher.kind === from && student.kind === to, 'bad_adapter');
  if (kind === 'affine') refuseUnless(same(teacher, student), 'space_mismatch');
  const { component = 0, negative = 0, positive = 1 } = map;
  const fine = {
    sign: () => isIndex(component, width(teacher)) && isIndex(negative, student.n) && isIndex(positive, student.n),
    threshold: () => isIndex(component, width(teacher)) && areThresholds(map.at, student.n),
    affine: () => fits(map.scale, width(student)) && fits(map.offset, width(student)),
    table: () => map.map.length === teacher.n && map.map.every((to) => isIndex(to, student.n)),
    levels: () => map.values.length === teacher.n && map.values.every((value) => isInside(value, student)),
  };
  refuseUnless(fine[kind](), 'bad_adapter');
}

const areThresholds = (at, n) =>
  fits(at, at.length) && at.length >= 1 && at.length < n && at.every((x, i) => i === 0 || at[i - 1] < x);
const isInside = (value, box) => fits(value, width(box)) && value.every((x, i) => clip(x, i, box) === x);

function mapAction(map, answer, teacher, student) {
  const known = teacher.kind === 'discrete' ? isIndex(answer, teacher.n) : Array.isArray(answer) && fits(answer, width(teacher));
  refuseUnless(known, 'policy_failed');
  const { kind = 'identity', component = 0, negative = 0, positive = 1 } = map ?? {};
  if (kind === 'sign') return answer[component] < 0 ? negative : positive;
  if (kind === 'threshold') return map.at.filter((x) => answer[component] >= Math.fround(x)).length;
  if (kind === 'table') return map.map[answer];
  if (student.kind === 'discrete') return answer;
  const vector = kind === 'levels' ? map.values[answer] : kind === 'affine' ? affine(map, answer) : answer;
  const clipped = vector.map((x, i) => clip(x, i, student));
  refuseUnless(clipped.every(isFinite32), 'policy_failed');
  return clipped;
}

const affine = ({ scale, offset }, answer) =>
  answer.map((x, i) => Math.fround(Math.fround(Math.fround(x) * Math.fround(scale[i])) + Math.fround(offset[i])));
