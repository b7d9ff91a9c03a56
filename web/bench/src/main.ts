// The page: what to measure, how far it is, what came out. `?auto` measures at once and leaves the result in
// `window.__result`; `shapes`, `peers`, `repeats` and `distillation` choose as the form does.

import { chart, duration } from './chart';
import { PEERS, REFERENCE } from './peer';
import { measure, type Plan, type Row, type Table } from './runner';
import './style.css';

/** Everything that is measured, and where. */
export interface Result {
  date: string;
  browser: string;
  cores: number;
  isolated: boolean;
  /** What WebGPU runs on, as far as the browser tells; a software adapter says nothing about graphics cards. */
  adapter: string | null;
  repeats: number;
  tables: Table[];
}

declare global {
  interface Window {
    __result?: Result | { error: string };
    __progress?: string;
  }
}

const SHAPES = ['64x32', '128x51', '128x200'];
const query = new URLSearchParams(location.search);
const get = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const form = get<HTMLFormElement>('plan');
const status = get('status');
const bar = get<HTMLProgressElement>('progress');
const results = get('results');
const download = get<HTMLAnchorElement>('download');

function listed(name: string, all: string[]): string[] {
  return query.get(name)?.split(',') ?? all;
}

function boxes(id: string, name: string, options: { value: string; label: string }[], chosen: string[]): void {
  for (const { value, label } of options) {
    const box = Object.assign(document.createElement('input'), { type: 'checkbox', name, value, checked: chosen.includes(value) });
    const line = document.createElement('label');
    line.append(box, ` ${label}`);
    get(id).append(line);
  }
}

function setUp(): void {
  const shapes = [...new Set([...SHAPES, ...listed('shapes', [])])];
  boxes('shapes', 'shape', shapes.map((shape) => ({ value: shape, label: shape })), listed('shapes', SHAPES));
  boxes('shapes', 'distillation', [{ value: 'yes', label: 'distillation' }], query.get('distillation') === 'no' ? [] : ['yes']);
  const names = PEERS.map(({ name }) => name);
  boxes('peers', 'peer', PEERS.map(({ name, label }) => ({ value: name, label })), [REFERENCE, ...listed('peers', names)]);
  // The reference is always measured.
  (document.querySelector(`input[value=${REFERENCE}]`) as HTMLInputElement).disabled = true;
  (form.elements.namedItem('repeats') as HTMLInputElement).value = query.get('repeats') ?? '15';
}

function readPlan(): Plan {
  const data = new FormData(form);
  const shape = (text: string) => {
    const [hidden, quantiles] = text.split('x').map(Number);
    if (!(hidden! > 0 && quantiles! > 0)) throw new Error(`a shape is written HIDDENxQUANTILES, not ${text}`);
    return { hidden: hidden!, quantiles: quantiles! };
  };
  return {
    shapes: data.getAll('shape').map((text) => shape(String(text))),
    distillation: data.has('distillation'),
    peers: data.getAll('peer').map(String),
    repeats: Number(data.get('repeats')),
  };
}

async function run(): Promise<Result> {
  const plan = readPlan();
  const unknown = plan.peers.find((name) => !PEERS.some((peer) => peer.name === name));
  if (unknown !== undefined) throw new Error(`there is no peer ${unknown}, only ${PEERS.map(({ name }) => name).join(', ')}`);
  const tables = await measure(plan, (what, done) => {
    window.__progress = what;
    status.textContent = what;
    bar.value = done;
  });
  return {
    date: new Date().toISOString(),
    browser: navigator.userAgent,
    cores: navigator.hardwareConcurrency,
    isolated: crossOriginIsolated,
    adapter: await adapter(),
    repeats: plan.repeats,
    tables,
  };
}

async function adapter(): Promise<string | null> {
  const found = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' });
  if (!found) return null;
  const { vendor, architecture, description } = found.info;
  return [vendor, architecture, description].filter((part) => part !== '').join(' ') || 'not told';
}

function cells(row: Row): string[] {
  if (row.microseconds === undefined) return [row.label, '–', '', '', '', row.failure ?? 'not measured'];
  const { median, p10, p90 } = row.microseconds;
  const ratio = row.peer === REFERENCE ? '1' : (row.ratio?.toPrecision(3) ?? '');
  const equal = row.difference === undefined ? '' : row.difference.size.toExponential(0);
  return [row.label, duration(median), `${duration(p10)} – ${duration(p90)}`, ratio, Math.round(1e6 / median).toLocaleString('en'), equal];
}

function show(result: Result): void {
  results.replaceChildren();
  for (const table of result.tables) {
    const section = document.createElement('section');
    const title = document.createElement('h2');
    title.textContent = table.kind === 'update' ? `Update, ${table.shape.hidden} hidden units, ${table.shape.quantiles} quantiles` : 'Distillation step';
    const element = document.createElement('table');
    const head = element.createTHead().insertRow();
    for (const name of ['', 'median', 'tenth – ninetieth percentile', 'times oto', 'updates per second', 'difference from oto']) {
      head.append(Object.assign(document.createElement('th'), { textContent: name, scope: 'col' }));
    }
    const body = element.createTBody();
    for (const row of table.rows) {
      const line = body.insertRow();
      for (const text of cells(row)) line.insertCell().textContent = text;
    }
    section.append(title, element, chart(table));
    results.append(section);
  }
  const file = new Blob([JSON.stringify(result, null, 1)], { type: 'application/json' });
  download.href = URL.createObjectURL(file);
  download.hidden = false;
}

async function start(): Promise<void> {
  form.inert = true;
  try {
    const result = await run();
    show(result);
    status.textContent = 'Done.';
    bar.value = 1;
    window.__result = result;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    status.textContent = `Stopped: ${message}`;
    window.__result = { error: message };
  } finally {
    form.inert = false;
  }
}

setUp();
form.addEventListener('submit', (event) => {
  event.preventDefault();
  void start();
});
if (query.has('auto')) void start();
