// The page of the swarm: this tab plays CartPole and sends its gradients to the agent that the server shares. Every tab that joins speeds the
// agent up. The students are of the module of all algorithms, which only this page and offline.html load.

import './language';
import '@fontsource-variable/bricolage-grotesque/wght.css';
import '@fontsource-variable/jetbrains-mono/wght.css';
import './style.css';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { Student, type Metrics } from 'oto-student/all';
import { showFigures } from './figures';
import { bytes, count, score, signed } from './format';
import { attempt, failed, reason, tell, withdraw } from './notices';
import { Showcase } from './showcase';
import { setUpTheme } from './theme';
import { cartpole as view } from './views/cartpole';

/** Steps of a worker: days of work. Steps from one of its evaluations to the next, and episodes of each. */
const [STEPS, EVERY, EPISODES] = [1e9, 4000, 5];
/** From one measurement of the agent's speed to the next, in milliseconds. */
const SPEED_MS = 1000;

const byId = <E extends HTMLElement>(id: string) => document.querySelector<E>(`#${id}`)!;
const value = (name: string) => document.querySelector<HTMLElement>(`[data-value=${name}]`)!;
const [start, workersHere] = [byId<HTMLButtonElement>('start'), byId<HTMLSelectElement>('workers')];

let phase: 'idle' | 'running' | 'paused' = 'idle';
/** The workers of this tab, and what each reported last. */
let workers: Student[] = [];
let newest: Metrics[] = [];
/** Evaluations of the agent, by seconds since this tab joined. */
const points: [seconds: number[], means: number[]] = [[], []];
let joined = 0;
/** When the agent's version was measured last, and what it was; this tab's gradients until then. */
let mark: { at: number; version: number; sent: number } | undefined;

function set(name: string, text: string): void {
  const element = value(name);
  if (element.textContent !== text) element.textContent = text;
}

function enter(next: typeof phase): void {
  phase = next;
  start.textContent = { idle: 'Join', running: 'Pause', paused: 'Resume' }[phase];
  workersHere.disabled = phase !== 'idle';
}

/** Joins with so many workers, and works until the page is left, or the server refuses. */
async function join(): Promise<void> {
  enter('running');
  withdraw('The worker');
  [newest, mark, joined] = [[], undefined, performance.now()];
  points.forEach((numbers) => (numbers.length = 0));
  try {
    const numbers = Array.from({ length: Number(workersHere.value) }, (_, i) => i);
    workers = await Promise.all(numbers.map(worker));
    const [first] = workers;
    showcase.show((seed) => first!.watch(seed));
    await Promise.all(workers.map((student, i) => work(student, i)));
  } catch (error) {
    tell('The worker', `The workers stopped: ${reason(error)}`);
  } finally {
    showcase.show(undefined);
    workers.forEach((student) => student.dispose());
    workers = [];
    set('state', 'stopped');
    enter('idle');
  }
}

/** A worker; the first one of the tab evaluates the agent. Settings are the agent's: server/shares/swarm.toml. */
function worker(i: number): Promise<Student> {
  return Student.create({
    env: 'CartPole-v1',
    algorithm: { name: 'a3c', hidden: [64], tMax: 20 },
    steps: STEPS,
    evaluation: { every: i === 0 ? EVERY : 0, episodes: EPISODES },
    share: { cloud: '/', agent: 'swarm' },
  });
}

async function work(student: Student, i: number): Promise<void> {
  for await (const metrics of student.train({ interval: 200 })) {
    newest[i] = metrics;
    attempt('The numbers', () => show(metrics));
  }
}

function show(metrics: Metrics): void {
  const shares = newest.flatMap(({ share }) => share ?? []);
  const sum = (of: (share: NonNullable<Metrics['share']>) => number) => shares.reduce((all, share) => all + of(share), 0);
  const version = Math.max(0, ...shares.map((share) => share.version));
  const problem = shares.find((share) => share.problem !== null)?.problem;
  set('state', shares.every(({ state }) => state === 'ready') ? 'the server answers' : 'no connection');
  set('version', count(version));
  set('steps', count(newest.reduce((all, { step }) => all + step, 0)));
  set('sent', count(sum(({ stats }) => stats.sent)));
  set('refused', count(sum(({ stats }) => stats.refused)));
  set('bytesUp', bytes(sum(({ stats }) => stats.bytesUp)));
  set('bytesDown', bytes(sum(({ stats }) => stats.bytesDown)));
  measure(version, sum(({ stats }) => stats.sent));
  for (const { mean } of metrics.newEvaluations) add(mean);
  byId('verdict').textContent = problem ? `This tab waits: ${problem}` : 'This tab plays, the server updates. Open another worker: the agent is the same.';
}

/** How fast the agent is updated, and this tab's share of that. */
function measure(version: number, sent: number): void {
  const now = performance.now();
  if (mark === undefined) mark = { at: now, version, sent };
  const seconds = (now - mark.at) / 1000;
  if (seconds * 1000 < SPEED_MS) return;
  const [updates, own] = [(version - mark.version) / seconds, (sent - mark.sent) / seconds];
  set('speed', `${count(updates)} / s`);
  set('own', `${count(own)} / s`);
  set('share', updates > 0 ? `${Math.min(100, (100 * own) / updates).toFixed(0)} %` : '–');
  mark = { at: now, version, sent };
}

function add(mean: number): void {
  points[0].push((performance.now() - joined) / 1000);
  points[1].push(mean);
  set('score', score(mean));
  showcase.evaluated();
  redraw();
}

let plot: uPlot | undefined;

function restyle(): void {
  attempt('The learning curve', () => {
    plot?.destroy();
    const host = byId('chart');
    const style = getComputedStyle(host);
    const colour = (name: string) => style.getPropertyValue(name);
    const axis = { stroke: colour('--muted'), font: `12px ${colour('--mono')}`, ticks: { show: false }, grid: { stroke: colour('--line'), width: 1 } };
    const width = host.clientWidth;
    plot = new uPlot(
      {
        width,
        height: Math.round(Math.min(320, Math.max(220, width * 0.34))),
        legend: { show: false },
        cursor: { y: false, points: { show: false } },
        scales: { x: { time: false, range: (_, __, max) => [0, Math.max(30, max ?? 0)] }, y: { range: [0, 520] } },
        axes: [{ ...axis, values: (_, seconds) => seconds.map((second) => `${second} s`) }, { ...axis, size: 50, values: (_, means) => means.map((mean) => signed(mean, 0)) }],
        series: [{}, { label: 'agent', stroke: colour('--taught'), width: 3, points: { show: true, size: 7, fill: colour('--panel'), width: 2 } }],
      },
      points,
      host,
    );
  });
}

function redraw(): void {
  attempt('The learning curve', () => plot?.setData(points));
}

const showcase = new Showcase(
  byId<HTMLCanvasElement>('picture'),
  view,
  (episode) => showFigures(byId('moment'), episode.length === 0 ? [] : view.figures(episode)),
  () => {},
);

byId<HTMLFormElement>('controls').addEventListener('submit', (event) => {
  event.preventDefault();
  if (phase === 'idle') return void join();
  const pause = phase === 'running';
  enter(pause ? 'paused' : 'running');
  for (const student of workers) (pause ? student.pause() : student.resume()).catch((error) => failed('A change', error));
});
addEventListener('error', ({ error }) => error && failed('Something', error));
addEventListener('unhandledrejection', (event) => failed('Something', event.reason));
attempt('The theme', () =>
  setUpTheme(byId<HTMLButtonElement>('theme'), () => {
    restyle();
    showcase.draw();
  }),
);
new ResizeObserver(restyle).observe(byId('chart'));
// A tab that was opened as another worker joins at once.
if (new URLSearchParams(location.search).has('join')) void join();
