// The page of offline to online: an agent that learned from recorded data meets other friction, and three methods continue it. The
// students are of a module of their own, which only this page loads.

import './language';
import '@fontsource-variable/bricolage-grotesque/wght.css';
import '@fontsource-variable/jetbrains-mono/wght.css';
import './style.css';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { Student, type AnyStudentOptions, type Metrics, type Scene } from 'oto-student/all';
import { showFigures } from './figures';
import { bytes, count, score, signed } from './format';
import { pendulum as environment } from './friction';
import { attempt, failed, reason, tell, withdraw } from './notices';
import { Showcase } from './showcase';
import { setUpTheme } from './theme';
import { pendulum as view } from './views/pendulum';

/** Steps from one evaluation to the next, episodes of each, and steps in all. */
const [EVERY, EPISODES, STEPS] = [500, 5, 6000];
const [RUN, DATA] = ['./offline/checkpoint.safetensors', './offline/data/main_data.hdf5'];

/** The methods. All continue the agent of `cal-ql`; what else they use is what the page is about. */
const METHODS: Record<string, AnyStudentOptions['algorithm']> = {
  sac: 'sac',
  wsrl: { name: 'wsrl', critics: 2, layerNorm: false },
  'cal-ql': { name: 'cal-ql', samples: 4 },
};

const byId = <E extends HTMLElement>(id: string) => document.querySelector<E>(`#${id}`)!;
const [start, reset] = [byId<HTMLButtonElement>('start'), byId<HTMLButtonElement>('reset')];
const [friction, seed] = [byId<HTMLInputElement>('friction'), byId<HTMLInputElement>('seed')];

type Phase = 'idle' | 'starting' | 'running' | 'paused' | 'ended';
let phase: Phase = 'idle';
/** Counts experiments, so that an old one shows nothing in a new one. */
let experiment = 0;

/** A method's lane: its elements, its student, its evaluations. */
class Lane {
  readonly points: [steps: number[], means: number[]] = [[], []];
  readonly showcase: Showcase;
  student: Student | undefined;

  constructor(readonly name: string, readonly root: HTMLElement) {
    const canvas = root.querySelector('canvas')!;
    this.showcase = new Showcase(canvas, view, (episode) => this.#moment(episode), () => {});
  }

  get colour(): string {
    return getComputedStyle(this.root).getPropertyValue('--lane');
  }

  set(key: string, text: string): void {
    const element = this.root.querySelector(`[data-value="${key}"]`)!;
    if (element.textContent !== text) element.textContent = text;
  }

  clear(): void {
    this.student?.dispose();
    this.student = undefined;
    this.showcase.show(undefined);
    this.points.forEach((numbers) => (numbers.length = 0));
    for (const [key, text] of Object.entries({ score: '–', step: '0', updates: '0', seam: '–', stage: 'waiting' })) this.set(key, text);
  }

  /** Fetches the agent, and with it what the method wants. */
  async begin(): Promise<void> {
    const dataset = this.name === 'cal-ql' ? { dataset: DATA, replay: { sampler: 'shares', recordedShare: 0.5 } as const } : {};
    this.set('stage', 'fetching');
    this.student = await Student.create({
      env: () => environment(() => friction.valueAsNumber),
      from: RUN,
      algorithm: METHODS[this.name]!,
      seed: seed.valueAsNumber,
      steps: STEPS,
      learningStarts: 400,
      evaluation: { every: EVERY, episodes: EPISODES },
      ...dataset,
    });
    const before = await this.student.evaluate({ episodes: EPISODES });
    this.add(0, before.mean);
    this.set('seam', score(before.mean));
    const student = this.student;
    this.showcase.show(async (seed) => turned(await student.watch(seed)));
  }

  /** Trains to the end of the run. */
  async train(current: number): Promise<void> {
    this.set('stage', 'online');
    for await (const metrics of this.student!.train({ interval: 200 })) {
      if (experiment === current) attempt('The numbers', () => this.#show(metrics));
    }
    if (experiment === current) this.set('stage', 'trained');
  }

  add(step: number, mean: number): void {
    this.points[0].push(step);
    this.points[1].push(mean);
    this.set('score', score(mean));
    chart.redraw();
  }

  #show(metrics: Metrics): void {
    this.set('step', count(metrics.step));
    this.set('updates', count(metrics.updates));
    for (const { step, mean } of metrics.newEvaluations) this.add(step, mean);
  }

  #moment(episode: Scene[]): void {
    showFigures(this.root.querySelector('.moment')!, episode.length === 0 ? [] : view.figures(episode));
  }
}

/** The scene with the state that the picture draws: angle and speed, of the observation's cosine, sine and speed. */
function turned(scene: Scene): Scene {
  const [cosine = 1, sine = 0, speed = 0] = scene.state;
  return { ...scene, state: [Math.atan2(sine, cosine), speed], limit: 200 };
}

/** The evaluations of all lanes; the seam is step 0. */
class Chart {
  #plot: uPlot | undefined;
  #drawing = 0;

  constructor(readonly host: HTMLElement) {
    new ResizeObserver(() => this.restyle()).observe(host);
  }

  restyle(): void {
    attempt('The learning curves', () => {
      this.#plot?.destroy();
      const style = getComputedStyle(this.host);
      const colour = (name: string) => style.getPropertyValue(name);
      const axis = { stroke: colour('--muted'), font: `12px ${colour('--mono')}`, ticks: { show: false }, grid: { stroke: colour('--line'), width: 1 } };
      const series = lanes.map((lane) => ({ label: lane.name, stroke: lane.colour, width: 3, spanGaps: true, points: { show: true, size: 7, fill: colour('--panel'), width: 2 } }));
      const width = this.host.clientWidth;
      this.#plot = new uPlot(
        {
          width,
          height: Math.round(Math.min(360, Math.max(240, width * 0.4))),
          legend: { show: false },
          cursor: { y: false, points: { show: false } },
          scales: { x: { time: false, range: [0, STEPS] }, y: { range: [-1700, 0] } },
          axes: [axis, { ...axis, size: 56, values: (_, returns) => returns.map((value) => signed(value, 0)) }],
          series: [{}, ...series],
        },
        this.#data(),
        this.host,
      );
    });
  }

  redraw(): void {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = requestAnimationFrame(() => attempt('The learning curves', () => this.#plot?.setData(this.#data())));
  }

  #data(): uPlot.AlignedData {
    return uPlot.join(lanes.map(({ points }) => points as uPlot.AlignedData));
  }
}

const lanes = [...document.querySelectorAll<HTMLElement>('.lane')].map((root) => new Lane(root.dataset['lane']!, root));
const chart = new Chart(byId('chart'));

function enter(next: Phase): void {
  phase = next;
  start.textContent = { idle: 'Start', starting: 'Starting', running: 'Pause', paused: 'Resume', ended: 'Start again' }[phase];
  start.disabled = phase === 'starting';
  reset.disabled = phase === 'idle';
  seed.disabled = phase !== 'idle' && phase !== 'ended';
}

async function begin(): Promise<void> {
  clear();
  const current = ++experiment;
  enter('starting');
  withdraw('The students');
  try {
    await Promise.all(lanes.map((lane) => lane.begin()));
    if (experiment !== current) return;
    enter('running');
    showSizes();
    byId('verdict').textContent = 'The same agent, three ways to continue it. Change the friction at any time.';
    await Promise.all(lanes.map((lane) => lane.train(current)));
    if (experiment !== current) return;
    enter('ended');
    const best = lanes.map((lane) => [lane.name, lane.points[1].at(-1) ?? -Infinity] as const).sort(([, a], [, b]) => b - a);
    byId('verdict').textContent = `After ${count(STEPS)} steps: ${best.map(([name, mean]) => `${name} ${score(mean)}`).join(', ')}.`;
  } catch (error) {
    if (experiment !== current) return;
    tell('The students', `The students stopped: ${reason(error)}`);
    enter('ended');
  }
}

function clear(): void {
  experiment += 1;
  for (const lane of lanes) lane.clear();
  chart.redraw();
  byId('verdict').textContent = 'Press Start: each lane fetches the same agent, which learned from 4,000 recorded steps without friction.';
  enter('idle');
}

/** What the lanes have downloaded beside the module. */
function showSizes(): void {
  for (const [id, address] of [['agent-size', RUN], ['data-size', DATA]] as const) {
    const [entry] = performance.getEntriesByName(new URL(address, location.href).href) as PerformanceResourceTiming[];
    if (entry !== undefined) byId(id).textContent = bytes(entry.decodedBodySize);
  }
}

function showFriction(): void {
  byId('friction-value').textContent = `${friction.value} / s`;
}

byId<HTMLFormElement>('controls').addEventListener('submit', (event) => {
  event.preventDefault();
  if (phase === 'idle' || phase === 'ended') return void begin();
  const pause = phase === 'running';
  enter(pause ? 'paused' : 'running');
  for (const { student } of lanes) (pause ? student?.pause() : student?.resume())?.catch((error) => failed('A change', error));
});
reset.addEventListener('click', clear);
friction.addEventListener('input', showFriction);
addEventListener('error', ({ error }) => error && failed('Something', error));
addEventListener('unhandledrejection', (event) => failed('Something', event.reason));
const restyle = () => {
  chart.restyle();
  for (const lane of lanes) lane.showcase.draw();
};
attempt('The theme', () => setUpTheme(byId<HTMLButtonElement>('theme'), restyle));
showFriction();
clear();
