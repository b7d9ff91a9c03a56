// Reads and writes the binary frames of oto.v1 with nothing but a DataView, from PROTOCOL.md alone.
// It shares no code with the Rust crate: the vectors hold both to the same bytes.

import { inflateRawSync } from 'node:zlib';

export const HEADER_BYTES = 16;
export const KINDS = { states: 1, actions: 2, submit: 4, weights: 5, transitions: 6, logits: 7, gradients: 8 };
/** Kinds that only actors and learners, or workers and shared agents, exchange. */
const OF_ACTORS = [KINDS.weights, KINDS.transitions, KINDS.gradients];
const MAX_SEQUENCE = 2 ** 53;
export const DTYPES = { f32: 1, f16: 2, u8: 3, u16: 4 };
const BYTES = { f32: 4, f16: 2, u8: 1, u16: 2 };

/** A frame that the specification says to refuse; `reason` is one of its section 3. */
export class Refused extends Error {
  constructor(reason) {
    super(reason);
    this.reason = reason;
  }
}

/** How one direction of a connection is encoded. `space` is the student's observation or action space. */
export function format({ direction, space, dtype, quantization, order = false }) {
  const discrete = space.kind === 'discrete';
  return {
    kind: KINDS[direction],
    dtype,
    width: discrete ? 1 : space.low.length,
    choices: direction === 'actions' && discrete ? space.n : null,
    quantization,
    order,
  };
}

/** Checks a header as far as its own rules and the expected kind go. */
function readHeader(expected, bytes) {
  if (bytes.length < HEADER_BYTES) throw new Refused('too_short');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [kind, dtype, rows] = [view.getUint8(0), view.getUint8(1), view.getUint16(2, true)];
  if (kind < 1 || kind > 8) throw new Refused('unknown_kind');
  if (!Object.values(KINDS).includes(kind)) throw new Refused('not_supported');
  if (kind === KINDS.logits && expected !== kind) throw new Refused('not_supported');
  if (OF_ACTORS.includes(kind) && !OF_ACTORS.includes(expected)) throw new Refused('not_supported');
  if (dtype < 1 || dtype > 4) throw new Refused('unknown_dtype');
  if (rows === 0) throw new Refused('no_rows');
  if (kind !== expected) throw new Refused('wrong_kind');
  const [request, policy, version] = [4, 8, 12].map((at) => view.getUint32(at, true));
  return { view, dtype, rows, ids: { request, policy, version } };
}

/** Checks everything but the values in the order of the specification; `before` bytes stand before the rows. */
function open({ kind: expected, dtype: agreed }, bytes, before, rowBytes, maxRows) {
  const { view, dtype, rows, ids } = readHeader(expected, bytes);
  if (dtype !== DTYPES[agreed]) throw new Refused('wrong_dtype');
  if (rows > maxRows) throw new Refused('too_many_rows');
  if (bytes.length !== before + rows * rowBytes) throw new Refused('wrong_length');
  const places = Array.from({ length: rows }, (_, row) => before + row * rowBytes);
  return { view, places, ids };
}

const rowBytes = ({ width, dtype }) => width * BYTES[dtype];

/** Bytes before a row: the place of a state for a recurrent policy, its number and a bit that says that an episode begins. */
const placeBytes = ({ order }) => (order ? 4 : 0);
const BEGINS = 2 ** 31;

/** Checks a frame of states or actions and returns its header and rows. */
export function decode(format, bytes, maxRows) {
  const before = placeBytes(format);
  const { view, places, ids } = open(format, bytes, HEADER_BYTES, before + rowBytes(format), maxRows);
  const content = { ...ids, rows: places.map((at) => readRow(format, view, at + before)) };
  if (!format.order) return content;
  const words = places.map((at) => view.getUint32(at, true));
  return { ...content, places: words.map((word) => [word % BEGINS, word >= BEGINS]) };
}

/** How submissions are encoded. */
export function submissionFormat({ observation, action, dtype, action_dtype: actionDtype, quantization }) {
  const states = format({ direction: 'states', space: observation, dtype, quantization });
  const actions = format({ direction: 'actions', space: action, dtype: actionDtype });
  return { kind: KINDS.submit, dtype, states, actions, box: action.kind === 'box' ? action : null };
}

/** Checks a submission and returns its header, its batch and its transitions. */
export function decodeSubmission(format, bytes, maxRows) {
  const { states, actions } = format;
  const size = 2 * rowBytes(states) + rowBytes(actions) + 5;
  const { view, places, ids } = open(format, bytes, HEADER_BYTES + 16, size, maxRows);
  const name = [...bytes.subarray(HEADER_BYTES, HEADER_BYTES + 16)];
  const batch = name.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const rows = places.map((at) => {
    const observation = readRow(states, view, at);
    const action = readRow(actions, view, (at += rowBytes(states)));
    checkBox(format, action);
    const reward = view.getFloat32((at += rowBytes(actions)), true);
    if (!Number.isFinite(reward)) throw new Refused('not_finite');
    const nextObservation = readRow(states, view, (at += 4));
    const end = view.getUint8(at + rowBytes(states));
    if (end > 3) throw new Refused('unknown_flags');
    return {
      observation,
      action,
      reward,
      next_observation: nextObservation,
      terminated: (end & 1) !== 0,
      truncated: (end & 2) !== 0,
    };
  });
  return { ...ids, batch, rows };
}

function checkBox({ box, actions }, action) {
  if (!box) return;
  const slack = (bound) => (actions.dtype === 'f16' ? Math.fround(Math.abs(bound) / 1024) : 0);
  const at = (bound, none) => (bound === null ? none : Math.fround(bound));
  action.forEach((number, i) => {
    const [low, high] = [at(box.low[i], -Infinity), at(box.high[i], Infinity)];
    if (number < Math.fround(low - (Number.isFinite(low) ? slack(low) : 0))) throw new Refused('out_of_range');
    if (number > Math.fround(high + (Number.isFinite(high) ? slack(high) : 0))) throw new Refused('out_of_range');
  });
}

/** Writes what `decodeSubmission` reads. */
export function encodeSubmission({ kind, dtype, states, actions }, { request, policy, version, batch, rows }) {
  const size = 2 * rowBytes(states) + rowBytes(actions) + 5;
  const bytes = new Uint8Array(HEADER_BYTES + 16 + rows.length * size);
  const view = new DataView(bytes.buffer);
  writeHeader(view, kind, dtype, { request, policy, version, rows });
  batch.match(/../g).forEach((pair, i) => view.setUint8(HEADER_BYTES + i, parseInt(pair, 16)));
  rows.forEach((row, i) => {
    let at = HEADER_BYTES + 16 + i * size;
    writeRow(states, view, at, row.observation);
    writeRow(actions, view, (at += rowBytes(states)), [row.action].flat());
    view.setFloat32((at += rowBytes(actions)), row.reward, true);
    writeRow(states, view, (at += 4), row.next_observation);
    view.setUint8(at + rowBytes(states), row.terminated * 1 + row.truncated * 2);
  });
  return bytes;
}

/** How the rows of an actor's stream are encoded. */
export function streamFormat(given) {
  return { ...submissionFormat(given), kind: KINDS.transitions };
}

const streamRowBytes = ({ states, actions }) => rowBytes(states) + rowBytes(actions) + 1;

/** Checks a frame of rows and returns its header, the first sequence number and the rows. */
export function decodeStream(format, bytes, maxRows) {
  const { states, actions } = format;
  const { view, places, ids } = open(format, bytes, HEADER_BYTES + 8, streamRowBytes(format), maxRows);
  const first = view.getBigUint64(HEADER_BYTES, true);
  if (first + BigInt(places.length) > BigInt(MAX_SEQUENCE)) throw new Refused('out_of_range');
  const rows = places.map((at) => {
    const observation = readRow(states, view, at);
    const flags = view.getUint8(at + streamRowBytes(format) - 1);
    let action = actions.choices === null ? Array(actions.width).fill(0) : 0;
    // The last row of an episode has no action.
    if ((flags & 3) === 0) {
      action = readRow(actions, view, at + rowBytes(states));
      checkBox(format, action);
    }
    if (flags > 31) throw new Refused('unknown_flags');
    return { observation, action, flags };
  });
  return { ...ids, first: Number(first), rows };
}

/** Writes what `decodeStream` reads. */
export function encodeStream(format, { request, policy, version, first, rows }) {
  const { kind, dtype, states, actions } = format;
  const size = streamRowBytes(format);
  const bytes = new Uint8Array(HEADER_BYTES + 8 + rows.length * size);
  const view = new DataView(bytes.buffer);
  writeHeader(view, kind, dtype, { request, policy, version, rows });
  view.setBigUint64(HEADER_BYTES, BigInt(first), true);
  rows.forEach((row, i) => {
    const at = HEADER_BYTES + 8 + i * size;
    writeRow(states, view, at, row.observation);
    if ((row.flags & 3) === 0) writeRow(actions, view, at + rowBytes(states), [row.action].flat());
    view.setUint8(at + size - 1, row.flags);
  });
  return bytes;
}

/** Checks a frame of weights for a network of so many parameters and returns its header, its base and the new weights. */
export function decodeWeights(parameters, held, bytes) {
  const { view, dtype, rows, ids } = readHeader(KINDS.weights, bytes);
  if (rows > 1) throw new Refused('too_many_rows');
  if (bytes.length < HEADER_BYTES + 8) throw new Refused('too_short');
  const [base, length] = [view.getUint32(HEADER_BYTES, true), view.getUint32(HEADER_BYTES + 4, true)];
  const complete = dtype === DTYPES.f32 || dtype === DTYPES.f16;
  if (base === 0 ? !complete : dtype !== DTYPES.u8) throw new Refused('wrong_dtype');
  const size = dtype === DTYPES.f32 ? 4 : 2;
  const expected = base === 0 ? size * parameters : 4 + 2 * parameters;
  const payload = bytes.subarray(HEADER_BYTES + 8);
  if (length !== expected || (base === 0 && payload.length !== expected)) throw new Refused('wrong_length');
  if (base === 0) {
    const read = (i) =>
      dtype === DTYPES.f32
        ? view.getFloat32(HEADER_BYTES + 8 + 4 * i, true)
        : fromHalf(view.getUint16(HEADER_BYTES + 8 + 2 * i, true));
    return { ...ids, base, weights: finite(Array.from({ length: parameters }, (_, i) => read(i))) };
  }
  if (held?.version !== base) throw new Refused('missing_base');
  const difference = inflate(payload, expected);
  const codes = new DataView(difference.buffer, difference.byteOffset, difference.byteLength);
  const step = codes.getFloat32(0, true);
  if (!Number.isFinite(step) || step < 0) throw new Refused('corrupt');
  const weights = held.weights.map((weight, i) => {
    const code = codes.getUint8(4 + i) + 256 * codes.getUint8(4 + parameters + i);
    const steps = code % 2 === 0 ? code / 2 : -(code + 1) / 2;
    return Math.fround(Math.fround(weight) + Math.fround(steps * step));
  });
  return { ...ids, base, weights: finite(weights) };
}

/** Checks a frame of a peer's logits, so many for each state, and returns its header and the logits. */
export function decodeLogits(actions, maxRows, bytes) {
  const { view, places, ids } = open({ kind: KINDS.logits, dtype: 'f32' }, bytes, HEADER_BYTES, 4 * actions, maxRows);
  const row = (at) => finite(Array.from({ length: actions }, (_, i) => view.getFloat32(at + 4 * i, true)));
  return { ...ids, logits: places.map(row) };
}

/** Writes what `decodeLogits` reads. */
export function encodeLogits({ request, policy, version, logits }) {
  const numbers = logits.flat();
  const bytes = new Uint8Array(HEADER_BYTES + 4 * numbers.length);
  const view = new DataView(bytes.buffer);
  writeHeader(view, KINDS.logits, 'f32', { request, policy, version, rows: logits });
  numbers.forEach((number, i) => view.setFloat32(HEADER_BYTES + 4 * i, number, true));
  return bytes;
}

/** Checks a frame of gradients for an agent of so many parameters and returns its header and the gradients. */
export function decodeGradients(parameters, bytes) {
  const size = 4 * parameters;
  const { view, ids } = open({ kind: KINDS.gradients, dtype: 'f32' }, bytes, HEADER_BYTES, size, 1);
  const read = (_, i) => view.getFloat32(HEADER_BYTES + 4 * i, true);
  return { ...ids, gradients: finite(Array.from({ length: parameters }, read)) };
}

/** Writes what `decodeGradients` reads. */
export function encodeGradients({ request, policy, version, gradients }) {
  const bytes = new Uint8Array(HEADER_BYTES + 4 * gradients.length);
  const view = new DataView(bytes.buffer);
  writeHeader(view, KINDS.gradients, 'f32', { request, policy, version, rows: [gradients] });
  gradients.forEach((number, i) => view.setFloat32(HEADER_BYTES + 4 * i, number, true));
  return bytes;
}

function finite(numbers) {
  if (!numbers.every(Number.isFinite)) throw new Refused('not_finite');
  return numbers;
}

/** Inflates exactly one raw DEFLATE stream to exactly so many bytes. */
function inflate(stream, length) {
  let inflated;
  try {
    inflated = inflateRawSync(stream, { maxOutputLength: length, info: true });
  } catch {
    throw new Refused('corrupt');
  }
  if (inflated.buffer.length !== length || inflated.engine.bytesWritten !== stream.length) throw new Refused('corrupt');
  return inflated.buffer;
}

/** Writes complete weights, as `decodeWeights` reads them. */
export function encodeWeights(dtype, { request, policy, version, weights }) {
  const size = BYTES[dtype];
  const bytes = new Uint8Array(HEADER_BYTES + 8 + size * weights.length);
  const view = new DataView(bytes.buffer);
  writeHeader(view, KINDS.weights, dtype, { request, policy, version, rows: [weights] });
  view.setUint32(HEADER_BYTES + 4, size * weights.length, true);
  weights.forEach((weight, i) => {
    const at = HEADER_BYTES + 8 + size * i;
    if (dtype === 'f32') view.setFloat32(at, weight, true);
    else view.setUint16(at, toHalf(weight), true);
  });
  return bytes;
}

/** Writes what `decode` reads. */
export function encode(format, { request, policy, version, rows, places }) {
  const [size, before] = [BYTES[format.dtype], placeBytes(format)];
  const length = before + rowBytes(format);
  const bytes = new Uint8Array(HEADER_BYTES + rows.length * length);
  const view = new DataView(bytes.buffer);
  writeHeader(view, format.kind, format.dtype, { request, policy, version, rows });
  rows.forEach((row, i) => {
    const at = HEADER_BYTES + i * length;
    if (format.order) view.setUint32(at, places[i][0] + places[i][1] * BEGINS, true);
    [row].flat().forEach((number, j) => writeNumber(format, view, at + before + j * size, j, number));
  });
  return bytes;
}

function writeHeader(view, kind, dtype, { request, policy, version, rows }) {
  view.setUint8(0, kind);
  view.setUint8(1, DTYPES[dtype]);
  view.setUint16(2, rows.length, true);
  [request, policy, version].forEach((word, i) => view.setUint32(4 + 4 * i, word, true));
}

function writeRow(format, view, at, row) {
  row.forEach((number, i) => writeNumber(format, view, at + i * BYTES[format.dtype], i, number));
}

function readRow(format, view, at) {
  if (format.choices !== null) {
    const index = format.dtype === 'u8' ? view.getUint8(at) : view.getUint16(at, true);
    if (index >= format.choices) throw new Refused('out_of_range');
    return index;
  }
  return Array.from({ length: format.width }, (_, i) => {
    const number = readNumber(format, view, at + i * BYTES[format.dtype], i);
    if (!Number.isFinite(number)) throw new Refused('not_finite');
    return number;
  });
}

function readNumber({ dtype, quantization }, view, at, i) {
  if (dtype === 'f32') return view.getFloat32(at, true);
  if (dtype === 'f16') return fromHalf(view.getUint16(at, true));
  const scaled = Math.fround(view.getUint8(at) * Math.fround(quantization.scale[i]));
  return Math.fround(scaled + Math.fround(quantization.offset[i]));
}

function writeNumber({ dtype, choices, quantization }, view, at, i, number) {
  if (dtype === 'f32') view.setFloat32(at, number, true);
  else if (dtype === 'f16') view.setUint16(at, toHalf(number), true);
  else if (dtype === 'u16') view.setUint16(at, number, true);
  else if (choices !== null) view.setUint8(at, number);
  else {
    const steps = (number - Math.fround(quantization.offset[i])) / Math.fround(quantization.scale[i]);
    view.setUint8(at, Math.min(255, Math.max(0, Math.round(steps))));
  }
}

/** IEEE 754 half precision to a number. */
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The nearest half, ties to even. */
export function toHalf(number) {
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0;
  const size = Math.abs(number);
  if (Number.isNaN(size)) return sign | 0x7e00;
  if (size === Infinity) return sign | 0x7c00;
  // The spacing of halves around `size`; it does not shrink below that of the subnormals.
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const steps = roundToEven(size / 2 ** (exponent - 10));
  // Numbering all halves in order is numbering their bits, so a carry into the exponent is right by itself.
  return sign | Math.min(0x7c00, (exponent + 14) * 1024 + steps);
}

function roundToEven(number) {
  const below = Math.floor(number);
  const rest = number - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
