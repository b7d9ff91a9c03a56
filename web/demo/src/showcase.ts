// The cart of one lane: plays the student's greedy policy at real speed and draws it.

import { MAX_STEPS, TIME_STEP, TRACK, over, start, step, type State } from './cartpole';

/** Asks the student for its greedy action. */
export type Act = (observation: number[]) => Promise<number>;

/** How long a fallen pole lies before the next episode, in milliseconds. */
const REST_MS = 600;

/** Plays episodes on a canvas while it has a student and is animated. */
export class Showcase {
  #canvas: HTMLCanvasElement;
  #act: Act | undefined;
  #animated = true;
  #looping = false;
  #episode = 0;
  #state: State = start(0);
  #steps = 0;
  #fallen = false;

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** The student whose policy is shown; `undefined` takes it off the stage. */
  show(act: Act | undefined): void {
    this.#act = act;
    if (act === undefined) this.#begin(0);
    this.#wake();
  }

  /** Whether the cart moves; a still one shows how the last moment was. */
  animate(on: boolean): void {
    this.#animated = on;
    this.#wake();
  }

  #begin(episode: number): void {
    [this.#episode, this.#state, this.#steps, this.#fallen] = [episode, start(episode), 0, false];
    this.draw();
  }

  #wake(): void {
    if (!this.#looping && this.#act !== undefined && this.#animated) void this.#loop();
  }

  /** Steps as many times as real time asks for, but never more than a few at once after a pause. */
  async #loop(): Promise<void> {
    this.#looping = true;
    let last = await frame();
    let owed = 0;
    while (this.#act !== undefined && this.#animated) {
      const now = await frame();
      owed = Math.min(owed + (now - last) / 1000, 4 * TIME_STEP);
      last = now;
      for (; owed >= TIME_STEP && this.#act !== undefined; owed -= TIME_STEP) await this.#step(this.#act);
      this.draw();
      if (this.#fallen || this.#steps >= MAX_STEPS) {
        await new Promise((resolve) => setTimeout(resolve, REST_MS));
        // Nobody may see a new episode begin after asking for a still picture.
        if (this.#act !== undefined && this.#animated) this.#begin(this.#episode + 1);
        last = performance.now();
        owed = 0;
      }
    }
    this.#looping = false;
  }

  async #step(act: Act): Promise<void> {
    if (this.#fallen || this.#steps >= MAX_STEPS) return;
    const action = await act(this.#state).catch(() => undefined);
    if (action === undefined || this.#act !== act) return;
    this.#state = step(this.#state, action);
    this.#steps += 1;
    this.#fallen = over(this.#state);
  }

  /** Draws the moment as it is, in the page's colours. */
  draw(): void {
    const canvas = this.#canvas;
    const ratio = devicePixelRatio;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (width === 0) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext('2d');
    if (pen === null) return;
    pen.scale(ratio, ratio);
    pen.lineCap = 'round';
    pen.lineJoin = 'round';
    const style = getComputedStyle(canvas);
    const colour = (name: string) => style.getPropertyValue(name);

    const metre = width / (2 * TRACK + 0.8);
    const ground = height - 0.16 * height;
    const at = width / 2 + this.#state[0] * metre;
    this.#drawTrack(pen, colour('--line-strong'), colour('--muted'), metre, ground, width, height);

    // The pole is drawn at 1.6 times its length to scale, which is easier to see.
    const length = Math.min(1.6 * metre, ground * 0.8);
    const angle = this.#state[2];
    const [cartWidth, cartHeight] = [Math.max(44, 0.62 * metre), Math.max(18, 0.26 * metre)];
    const pivot = ground - cartHeight - 5;
    pen.strokeStyle = colour('--lane');
    pen.lineWidth = Math.max(6, 0.09 * metre);
    pen.globalAlpha = this.#fallen ? 0.45 : 1;
    line(pen, at, pivot, at + length * Math.sin(angle), pivot - length * Math.cos(angle));
    pen.globalAlpha = 1;

    pen.fillStyle = colour('--text');
    pen.beginPath();
    pen.roundRect(at - cartWidth / 2, pivot, cartWidth, cartHeight, 4);
    pen.fill();
    for (const side of [-0.3, 0.3]) disc(pen, at + side * cartWidth, ground - 4, 4.5);
    pen.fillStyle = colour('--panel');
    disc(pen, at, pivot, 4);

    pen.fillStyle = colour('--muted');
    pen.font = `500 12px ${style.getPropertyValue('--mono')}`;
    pen.textAlign = 'right';
    pen.fillText(`${this.#steps} / ${MAX_STEPS}`, width - 12, 20);
  }

  #drawTrack(pen: CanvasRenderingContext2D, rail: string, ticks: string, metre: number, ground: number, width: number, height: number): void {
    pen.strokeStyle = rail;
    pen.lineWidth = 2;
    line(pen, width / 2 - TRACK * metre, ground, width / 2 + TRACK * metre, ground);
    for (const side of [-1, 1]) {
      const end = width / 2 + side * TRACK * metre;
      line(pen, end, ground - 8, end, ground + 8);
    }
    pen.strokeStyle = ticks;
    pen.lineWidth = 1;
    for (let tick = -2; tick <= 2; tick++) {
      const x = width / 2 + tick * metre;
      line(pen, x, ground + 6, x, ground + (tick === 0 ? 0.09 : 0.06) * height);
    }
  }
}

function line(pen: CanvasRenderingContext2D, x0: number, y0: number, x1: number, y1: number): void {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}

function disc(pen: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

function frame(): Promise<number> {
  return new Promise((resolve) => requestAnimationFrame(resolve));
}
