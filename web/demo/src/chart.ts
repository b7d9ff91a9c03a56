// The learning curves: greedy evaluations as thick lines with points, training returns as thin ones, and what the
// evaluations are compared with as dashed ones.

import './language';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { Metrics } from 'oto-student';
import { signed } from './format';
import { attempt } from './notices';
import type { DemoEnvironment } from './environments';

export type LaneName = 'alone' | 'taught';

/** Episodes in a point of a training curve. */
const WINDOW = 10;

/** Dashes of the first baseline, the second, and so on. */
const DASHES = [[2, 5], [9, 5]];

/** Points of a curve, by steps. */
type Points = [steps: number[], means: number[]];

/** One student's points. */
interface Curve {
  evaluations: Points;
  training: Points;
  recent: number[];
}

/** Both students' curves in one chart. */
export class Chart {
  #host: HTMLElement;
  #environment: DemoEnvironment;
  #plot: uPlot;
  #curves = { alone: emptyCurve(), taught: emptyCurve() };
  #baselines = new Map<string, Points>();
  #drawing = 0;

  constructor(host: HTMLElement, environment: DemoEnvironment) {
    // uPlot draws later, where nobody could catch that there is no canvas.
    if (document.createElement('canvas').getContext('2d') === null) throw new Error('this browser gives no canvas');
    this.#host = host;
    this.#environment = environment;
    this.#plot = this.#build();
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(host);
  }

  /** Adds what a student reported. */
  add(lane: LaneName, { newEpisodes, newEvaluations }: Metrics): void {
    const curve = this.#curves[lane];
    for (const { step, mean, baselines } of newEvaluations) {
      addPoint(curve.evaluations, step, mean);
      for (const baseline of baselines) this.#addBaseline(baseline.name, step, baseline.mean);
    }
    for (const episode of newEpisodes) {
      curve.recent.push(episode.return);
      if (curve.recent.length < WINDOW) continue;
      addPoint(curve.training, episode.step, curve.recent.reduce((sum, value) => sum + value) / WINDOW);
      curve.recent.shift();
    }
    this.#redraw();
  }

  /** Both students' evaluations are of the same episodes, so that one of them is enough. */
  #addBaseline(name: string, step: number, mean: number): void {
    if (!this.#baselines.has(name)) {
      this.#baselines.set(name, [[], []]);
      this.restyle();
    }
    const points = this.#baselines.get(name)!;
    if (step > (points[0].at(-1) ?? -1)) addPoint(points, step, mean);
  }

  /** Forgets everything, and shows this environment from now on. */
  clear(environment: DemoEnvironment): void {
    this.#environment = environment;
    this.#curves = { alone: emptyCurve(), taught: emptyCurve() };
    this.#baselines.clear();
    this.restyle();
  }

  /** Takes over the colours of the page, which follow its theme. */
  restyle(): void {
    cancelAnimationFrame(this.#drawing);
    this.#plot.destroy();
    this.#plot = this.#build();
  }

  /** Draws once in the next frame, however often it was asked for. */
  #redraw(): void {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = requestAnimationFrame(() => attempt('The learning curves', () => this.#plot.setData(this.#data())));
  }

  #data(): uPlot.AlignedData {
    const { alone, taught } = this.#curves;
    return uPlot.join([alone.training, taught.training, ...this.#baselines.values(), alone.evaluations, taught.evaluations]);
  }

  #size(): { width: number; height: number } {
    const width = this.#host.clientWidth;
    return { width, height: Math.round(Math.min(360, Math.max(240, width * 0.4))) };
  }

  #build(): uPlot {
    const style = getComputedStyle(this.#host);
    const colour = (name: string) => style.getPropertyValue(name);
    const font = `12px ${colour('--mono')}`;
    const axis = { stroke: colour('--muted'), font, ticks: { show: false }, grid: { stroke: colour('--line'), width: 1 } };
    const { low, high, steps } = this.#environment.axis;
    const curve = (label: string, stroke: string, thick: boolean): uPlot.Series => ({
      label,
      stroke: colour(stroke) + (thick ? '' : '80'),
      width: thick ? 3 : 1.25,
      spanGaps: true,
      points: thick ? { show: true, size: this.#host.clientWidth < 500 ? 4 : 7, fill: colour('--panel'), width: 2 } : { show: false },
    });
    const baselines = [...this.#baselines.keys()].map((label, index): uPlot.Series => ({
      label,
      stroke: colour('--text'),
      width: 1.5,
      dash: DASHES[index % DASHES.length]!,
      spanGaps: true,
      points: { show: false },
    }));
    const mark = (plot: uPlot) => drawMark(plot, this.#environment.mark, colour('--muted'), font);
    return new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { y: false, points: { show: false } },
        scales: { x: { time: false, range: (_, __, max) => [0, Math.max(steps, max ?? 0)] }, y: { range: [low, high] } },
        axes: [
          { ...axis, values: (_, steps) => steps.map(shortNumber), space: 70 },
          { ...axis, size: 56, values: (_, returns) => returns.map((value) => signed(value, 0)) },
        ],
        series: [
          {},
          curve('alone, training', '--alone', false),
          curve('taught, training', '--taught', false),
          ...baselines,
          curve('alone, greedy', '--alone', true),
          curve('taught, greedy', '--taught', true),
        ],
        hooks: { drawAxes: [mark] },
      },
      this.#data(),
      this.#host,
    );
  }
}

function emptyCurve(): Curve {
  return { evaluations: [[], []], training: [[], []], recent: [] };
}

function addPoint([steps, means]: Points, step: number, mean: number): void {
  steps.push(step);
  means.push(mean);
}

function drawMark(plot: uPlot, mark: DemoEnvironment['mark'], colour: string, font: string): void {
  if (mark === undefined) return;
  const { ctx, bbox } = plot;
  const y = plot.valToPos(mark.at, 'y', true);
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([6 * devicePixelRatio, 6 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.font = font.replace('12px', `${12 * devicePixelRatio}px`);
  ctx.textAlign = 'left';
  ctx.fillText(mark.text, bbox.left + 6 * devicePixelRatio, y + 16 * devicePixelRatio);
  ctx.restore();
}

function shortNumber(steps: number): string {
  return steps < 1000 ? String(steps) : `${steps / 1000}k`;
}
