// The measurement: every peer is checked, warmed up, and then timed in turns, so that what slows the machine for a while
// slows all of them.

import initModule, { workload as workloadJson } from '../wasm/oto_bench_web.js';
import { compare, follow, TOLERANCE, type Difference, type Trail } from './check';
import { PEERS, REFERENCE, type PeerInfo } from './peer';
import { RemotePeer } from './remote';
import { summarise, type Summary } from './statistics';
import { parseWorkload, SEED, type Kind, type Shape, type Workload } from './workload';

/** What to measure. */
export interface Plan {
  shapes: Shape[];
  distillation: boolean;
  peers: string[];
  repeats: number;
}

/** One peer's part of a table. */
export interface Row {
  peer: string;
  label: string;
  /** Microseconds for an update; missing where the peer failed. */
  microseconds?: Summary;
  /** How many times as long as oto an update takes: the median of the ratios of repeats side by side. */
  ratio?: number;
  /** Updates in one repeat, and repeats. */
  updates?: number;
  repeats?: number;
  /** Milliseconds from nothing to the first update done: code, compilation, kernels. */
  startMs?: number;
  /** The largest difference from oto. */
  difference?: Difference;
  /** Why there are no numbers. */
  failure?: string;
}

/** One workload's measurements. */
export interface Table {
  kind: Kind;
  name: string;
  shape: Shape;
  rows: Row[];
}

/** Told what goes on: a line for people, and how much is done, from 0 to 1. */
export type Progress = (what: string, done: number) => void;

/** How long one repeat should take. */
const REPEAT_MS = 150;
/** A repeat of a slow peer may have a single update, a fast one's has this many at most. */
const MOST_UPDATES = 4096;
/** A peer that has taken so long leaves the later rounds to the others. */
const MOST_MS = 20_000;

interface Contender {
  row: Row;
  peer: RemotePeer;
  updates: number;
  /** Microseconds for an update, round by round. */
  times: number[];
  /** Milliseconds that all its rounds took. */
  spent: number;
}

/** Measures all workloads of a plan, one after the other. */
export async function measure(plan: Plan, progress: Progress): Promise<Table[]> {
  await initModule();
  const jobs: { kind: Kind; shape: Shape }[] = plan.shapes.map((shape) => ({ kind: 'update', shape }));
  if (plan.distillation) jobs.push({ kind: 'distillation', shape: { hidden: 64, quantiles: 1 } });
  const tables: Table[] = [];
  for (const [i, { kind, shape }] of jobs.entries()) {
    const json = workloadJson(kind, shape.hidden, shape.quantiles, SEED);
    const workload = parseWorkload(kind, shape, json);
    const name = kind === 'update' ? `${shape.hidden}x${shape.quantiles}` : 'distillation';
    const part: Progress = (what, done) => progress(`${name}: ${what}`, (i + done) / jobs.length);
    tables.push({ kind, name, shape, rows: await measureWorkload(workload, plan, part) });
  }
  return tables;
}

async function measureWorkload(workload: Workload, plan: Plan, progress: Progress): Promise<Row[]> {
  const chosen = PEERS.filter(({ name }) => plan.peers.includes(name) || name === REFERENCE);
  const rows: Row[] = [];
  const contenders: Contender[] = [];
  let reference: Trail | undefined;
  for (const [i, info] of chosen.entries()) {
    progress(`checking ${info.label}`, (0.3 * i) / chosen.length);
    const row: Row = { peer: info.name, label: info.label };
    rows.push(row);
    try {
      const { contender, trail } = await prepare(row, info, workload, reference);
      reference ??= trail;
      contenders.push(contender);
    } catch (error) {
      row.failure = error instanceof Error ? error.message : String(error);
    }
  }
  await timeInTurns(contenders, plan.repeats, (what, done) => progress(what, 0.3 + 0.7 * done));
  contenders.forEach(({ peer }) => peer.dispose());
  return rows;
}

/** Starts a peer, holds it against the reference, and finds how many updates fill a repeat. */
async function prepare(
  row: Row,
  info: PeerInfo,
  workload: Workload,
  reference: Trail | undefined,
): Promise<{ contender: Contender; trail: Trail }> {
  const start = performance.now();
  const peer = await RemotePeer.start(info.name, workload);
  try {
    const trail = await follow({
      step: async (updates) => {
        await peer.step(updates);
        row.startMs ??= performance.now() - start;
      },
      loss: () => peer.loss(),
      parameters: () => peer.parameters(),
    });
    if (reference === undefined && info.name !== REFERENCE) throw new Error('there is no reference to compare with');
    row.difference = compare(trail, reference ?? trail);
    if (!(row.difference.size <= TOLERANCE)) {
      throw new Error(`differs from oto by ${row.difference.size.toPrecision(2)} in ${row.difference.what}`);
    }
    const updates = await fill(peer);
    row.updates = updates;
    return { contender: { row, peer, updates, times: [], spent: 0 }, trail };
  } catch (error) {
    peer.dispose();
    throw error;
  }
}

/** Warms a peer up with growing numbers of updates until they fill a repeat. */
async function fill(peer: RemotePeer): Promise<number> {
  for (let updates = 1; ; ) {
    const ms = await peer.step(updates);
    if (ms >= REPEAT_MS / 2 || updates === MOST_UPDATES) {
      const fitting = Math.round((updates * REPEAT_MS) / Math.max(ms, 1));
      return Math.min(Math.max(fitting, 1), MOST_UPDATES);
    }
    updates = Math.min(updates * 2, MOST_UPDATES);
  }
}

/** Every round times every peer once, each round beginning with another. */
async function timeInTurns(contenders: Contender[], repeats: number, progress: Progress): Promise<void> {
  for (let round = 0; round < repeats; round++) {
    progress(`repeat ${round + 1} of ${repeats}`, round / repeats);
    for (let i = 0; i < contenders.length; i++) {
      const contender = contenders[(i + round) % contenders.length]!;
      const { peer, row, updates, times } = contender;
      if (row.failure !== undefined || contender.spent > MOST_MS) continue;
      try {
        const ms = await peer.step(updates);
        contender.spent += ms;
        times.push((ms * 1000) / updates);
      } catch (error) {
        row.failure = error instanceof Error ? error.message : String(error);
      }
    }
  }
  const base = contenders.find(({ row }) => row.peer === REFERENCE)?.times;
  for (const { row, times } of contenders.filter(({ row }) => row.failure === undefined)) {
    row.repeats = times.length;
    row.microseconds = summarise(times);
    if (base !== undefined) row.ratio = summarise(times.map((time, round) => time / base[round]!)).median;
  }
}
