// The stage of one lane: plays the student's greedy policy, episode after episode, and has the environment's view draw it. An episode
// is played to its end by the policy that began it, so that one sees a student fail before it has learnt.

import type { Scene } from 'oto-student';
import { attempt } from './notices';
import { picture } from './views/pen';
import type { View } from './views/view';

/** Begins the episode of a seed, or takes the next step of it. */
export type Play = (seed?: number) => Promise<Scene>;

/** The seed of the first episode shown; the next ones count on. Both lanes show the same. */
const FIRST = 1;

/** How long the end of an episode is shown, and one that failed, in milliseconds. */
const REST_MS = 600;
const FAILURE_MS = 1600;

/** Steps at once, at most, after the page was held up. */
const CATCH_UP = 4;

/** Steps that are asked for at once where nobody watches them one by one. */
const AT_ONCE = 32;

/** Whether what plays now may go on. */
type On = () => boolean;

/** Plays episodes on a canvas while it has a student: step by step where it is animated, otherwise to their end after each evaluation. */
export class Showcase {
  #canvas: HTMLCanvasElement;
  #view: View;
  #onScene: (episode: Scene[]) => void;
  #onEnd: (last: Scene) => void;
  #play: Play | undefined;
  /** Counts what has played: only the newest may go on. */
  #turn = 0;
  #animated = true;
  /** Whether an evaluation is not shown yet, and the turn that shows them. */
  #due = false;
  #still = 0;
  #seed = FIRST;
  #episode: Scene[] = [];

  /** `onScene` is told about every moment that is shown, and about none as an empty episode; `onEnd` about the last of each episode. */
  constructor(canvas: HTMLCanvasElement, view: View, onScene: (episode: Scene[]) => void, onEnd: (last: Scene) => void) {
    this.#canvas = canvas;
    this.#view = view;
    this.#onScene = onScene;
    this.#onEnd = onEnd;
    attempt('The picture', () => new ResizeObserver(() => this.draw()).observe(canvas));
  }

  /** Clears the stage for an environment. */
  setUp(view: View): void {
    this.#view = view;
    this.show(undefined);
    this.#display([]);
  }

  /** The student that plays, from the first episode on; `undefined` takes it off the stage, which stays as it is. */
  show(play: Play | undefined): void {
    this.#play = play;
    this.#due = false;
    this.#seed = FIRST;
    this.#take(this.#animated ? this.#loop : this.#first);
  }

  /** Shows the first moment of the first episode, unless a student is on the stage by then. */
  async rehearse(play: Play): Promise<void> {
    const view = this.#view;
    const scene = await play(FIRST);
    if (this.#play === undefined && this.#view === view) this.#display([scene]);
  }

  /** Whether the picture moves. A still one shows how the last moment was, and after each evaluation how the first episode ends. */
  animate(on: boolean): void {
    if (on === this.#animated) return;
    this.#animated = on;
    if (on) this.#take(this.#loop);
    else this.#turn += 1;
  }

  /** The student was evaluated. */
  evaluated(): void {
    if (this.#animated) return;
    this.#due = true;
    if (this.#still !== this.#turn) this.#take(this.#endings);
  }

  /** Ends what plays, and lets something else play. */
  #take(activity: (play: Play, on: On) => Promise<void>): void {
    const turn = ++this.#turn;
    if (this.#play !== undefined) void activity.call(this, this.#play, () => this.#turn === turn).catch(gone);
  }

  async #first(play: Play, on: On): Promise<void> {
    const scene = await play(this.#seed);
    if (on()) this.#display([scene]);
  }

  /** Plays episode after episode: as many steps as real time asks for, but never more than a few at once after a pause. */
  async #loop(play: Play, on: On): Promise<void> {
    const { seconds } = this.#view;
    while (on()) {
      await this.#first(play, on);
      let last = await frame();
      let owed = 0;
      while (on() && !this.#over()) {
        const now = await frame();
        owed = Math.min(owed + (now - last) / 1000, CATCH_UP * seconds);
        last = now;
        for (; owed >= seconds && on() && !this.#over(); owed -= seconds) {
          const scene = await play();
          if (!on()) return;
          this.#episode.push(scene);
          this.#display(this.#episode);
        }
      }
      if (!on()) return;
      this.#end();
      const rest = this.#view.ending(this.#episode.at(-1)!).failed ? FAILURE_MS : REST_MS;
      await new Promise((resolve) => setTimeout(resolve, rest));
      this.#seed += 1;
    }
  }

  /** Shows the last moment of the first episode for the newest evaluation, until there is no newer one. */
  async #endings(play: Play, on: On): Promise<void> {
    this.#still = this.#turn;
    while (on() && this.#due) {
      this.#due = false;
      const episode = await playOut(play, on);
      if (!on()) return;
      this.#display(episode);
      this.#end();
    }
    if (on()) this.#still = 0;
  }

  #display(episode: Scene[]): void {
    this.#episode = episode;
    attempt('The picture', () => this.#onScene(episode));
    this.draw();
  }

  #over(): boolean {
    return this.#episode.at(-1)?.over === true;
  }

  #end(): void {
    this.#onEnd(this.#episode.at(-1)!);
  }

  /** Draws the moment as it is, in the page's colours. */
  draw(): void {
    attempt('The picture', () => {
      const empty = picture(this.#canvas);
      if (empty !== undefined && this.#episode.length > 0) this.#view.draw(empty, this.#episode);
    });
  }
}

/** The whole first episode. Steps are asked for many at once, because each answer waits for a slice of training; those beyond the end fail. */
async function playOut(play: Play, on: On): Promise<Scene[]> {
  const episode = [await play(FIRST)];
  while (on() && !episode.at(-1)!.over) {
    const steps = await Promise.allSettled(Array.from({ length: AT_ONCE }, () => play()));
    for (const step of steps) {
      if (step.status === 'fulfilled') episode.push(step.value);
      else if (!episode.at(-1)!.over) throw step.reason;
    }
  }
  return episode;
}

/** A student that is disposed of in the middle of a step has nothing more to show. */
function gone(): void {}

function frame(): Promise<number> {
  return new Promise((resolve) => requestAnimationFrame(resolve));
}
