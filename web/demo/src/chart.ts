// The learning curves: greedy evaluations as thick lines with points, training returns as thin ones.

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { Metrics } from 'oto-student';

export type LaneName = 'alone' | 'taught';

/** What counts as solved. */
export const SOLVED = 475;

/** Episodes in a point of a training curve. */
const WINDOW = 10;

/** One student's points. */
interface Curve {
  evaluations: [steps: number[], means: number[]];
  training: [steps: number[], means: number[]];
  recent: number[];
}

/** Both students' curves in one chart. */
export class Chart {
  #host: HTMLElement;
  #plot: uPlot;
  #curves = { alone: emptyCurve(), taught: emptyCurve() };
  #drawing = 0;

  constructor(host: HTMLElement) {
    this.#host = host;
    this.#plot = this.#build();
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(host);
  }

  /** Adds what a student reported. */
  add(lane: LaneName, { newEpisodes, newEvaluations }: Metrics): void {
    const curve = this.#curves[lane];
    for (const evaluation of newEvaluations) {
      curve.evaluations[0].push(evaluation.step);
      curve.evaluations[1].push(evaluation.mean);
    }
    for (const episode of newEpisodes) {
      curve.recent.push(episode.return);
      if (curve.recent.length < WINDOW) continue;
      curve.training[0].push(episode.step);
      curve.training[1].push(curve.recent.reduce((sum, value) => sum + value) / WINDOW);
      curve.recent.shift();
    }
    this.#redraw();
  }

  /** Forgets everything. */
  clear(): void {
    this.#curves = { alone: emptyCurve(), taught: emptyCurve() };
    this.#redraw();
  }

  /** Takes over the colours of the page, which follow its theme. */
  restyle(): void {
    this.#plot.destroy();
    this.#plot = this.#build();
  }

  /** Draws once in the next frame, however often it was asked for. */
  #redraw(): void {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = requestAnimationFrame(() => this.#plot.setData(this.#data()));
  }

  #data(): uPlot.AlignedData {
    const { alone, taught } = this.#curves;
    return uPlot.join([alone.training, taught.training, alone.evaluations, taught.evaluations]);
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
    const curve = (label: string, stroke: string, thick: boolean): uPlot.Series => ({
      label,
      stroke: colour(stroke) + (thick ? '' : '80'),
      width: thick ? 3 : 1.25,
      spanGaps: true,
      points: thick ? { show: true, size: this.#host.clientWidth < 500 ? 4 : 7, fill: colour('--panel'), width: 2 } : { show: false },
    });
    return new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { y: false, points: { show: false } },
        scales: { x: { time: false, range: (_, __, max) => [0, Math.max(2000, max ?? 0)] }, y: { range: [0, 525] } },
        axes: [
          { ...axis, values: (_, steps) => steps.map(shortNumber), space: 70 },
          { ...axis, size: 44, splits: [0, 100, 200, 300, 400, 500] },
        ],
        series: [
          {},
          curve('alone, training', '--alone', false),
          curve('taught, training', '--taught', false),
          curve('alone, greedy', '--alone', true),
          curve('taught, greedy', '--taught', true),
        ],
        hooks: { drawAxes: [(plot) => drawSolvedLine(plot, colour('--muted'), font)] },
      },
      this.#data(),
      this.#host,
    );
  }
}

function emptyCurve(): Curve {
  return { evaluations: [[], []], training: [[], []], recent: [] };
}

function drawSolvedLine(plot: uPlot, colour: string, font: string): void {
  const { ctx, bbox } = plot;
  const y = plot.valToPos(SOLVED, 'y', true);
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
  ctx.fillText(`solved at ${SOLVED}`, bbox.left + 6 * devicePixelRatio, y + 16 * devicePixelRatio);
  ctx.restore();
}

function shortNumber(steps: number): string {
  return steps < 1000 ? String(steps) : `${steps / 1000}k`;
}
