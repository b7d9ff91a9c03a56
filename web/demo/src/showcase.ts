// The stage of one lane: plays the student's greedy policy, episode after episode, and has the world's view draw it.

import type { Scene } from 'oto-student';
import { picture } from './views/pen';
import type { View } from './views/view';

/** Begins the episode of a seed, or takes the next step of it. */
export type Play = (seed?: number) => Promise<Scene>;

/** The seed of the first episode shown; the next ones count on. Both lanes show the same. */
const FIRST = 1;

/** How long the end of an episode is shown, in milliseconds. */
const REST_MS = 600;

/** Steps at once, at most, after the page was held up. */
const CATCH_UP = 4;

/** Plays episodes on a canvas while it has a student and is animated. */
export class Showcase {
  #canvas: HTMLCanvasElement;
  #view: View;
  #onScene: (episode: Scene[]) => void;
  #play: Play | undefined;
  /** The player whose loop runs. */
  #looping: Play | undefined;
  #animated = true;
  #seed = FIRST;
  #episode: Scene[] = [];

  /** `onScene` is told about every moment that is shown, and about none as an empty episode. */
  constructor(canvas: HTMLCanvasElement, view: View, onScene: (episode: Scene[]) => void) {
    this.#canvas = canvas;
    this.#view = view;
    this.#onScene = onScene;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Clears the stage for a world. */
  setUp(view: View): void {
    this.#view = view;
    this.#play = undefined;
    this.#display([]);
  }

  /** The student that plays, from the first episode on; `undefined` takes it off the stage, which stays as it is. */
  show(play: Play | undefined): void {
    this.#play = play;
    if (play !== undefined) this.#begin(play, FIRST).then(() => this.#wake(), gone);
  }

  /** Shows the first moment of the first episode, unless a student is on the stage by then. */
  async rehearse(play: Play): Promise<void> {
    const view = this.#view;
    const scene = await play(FIRST);
    if (this.#play === undefined && this.#view === view) this.#display([scene]);
  }

  /** Whether the picture moves; a still one shows how the last moment was. */
  animate(on: boolean): void {
    this.#animated = on;
    this.#wake();
  }

  async #begin(play: Play, seed: number): Promise<void> {
    this.#seed = seed;
    const scene = await play(seed);
    if (this.#play === play) this.#display([scene]);
  }

  #display(episode: Scene[]): void {
    this.#episode = episode;
    this.#onScene(episode);
    this.draw();
  }

  #wake(): void {
    const play = this.#play;
    if (play === undefined || this.#looping === play || !this.#animated) return;
    this.#looping = play;
    const over = () => {
      if (this.#looping === play) this.#looping = undefined;
    };
    void this.#loop(play).catch(gone).then(over);
  }

  /** Steps as many times as real time asks for, but never more than a few at once after a pause. */
  async #loop(play: Play): Promise<void> {
    const { seconds } = this.#view;
    const on = () => this.#play === play && this.#animated;
    let last = await frame();
    let owed = 0;
    while (on()) {
      const now = await frame();
      owed = Math.min(owed + (now - last) / 1000, CATCH_UP * seconds);
      last = now;
      for (; owed >= seconds && on() && !this.#over(); owed -= seconds) {
        const scene = await play();
        if (!on()) return;
        this.#episode.push(scene);
        this.#display(this.#episode);
      }
      if (on() && this.#over()) {
        await new Promise((resolve) => setTimeout(resolve, REST_MS));
        // Nobody may see a new episode begin after asking for a still picture.
        if (on()) await this.#begin(play, this.#seed + 1);
        last = performance.now();
        owed = 0;
      }
    }
  }

  #over(): boolean {
    return this.#episode.at(-1)?.over === true;
  }

  /** Draws the moment as it is, in the page's colours. */
  draw(): void {
    const empty = picture(this.#canvas);
    if (empty !== undefined && this.#episode.length > 0) this.#view.draw(empty, this.#episode);
  }
}

/** A student that is disposed of in the middle of a step has nothing more to show. */
function gone(): void {}

function frame(): Promise<number> {
  return new Promise((resolve) => requestAnimationFrame(resolve));
}
