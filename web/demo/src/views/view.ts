// What every environment's view can do.

import type { Scene } from 'oto-student';
import type { Picture } from './pen';

/** An episode's end in words, and whether it is a failure that one should see. */
export interface Ending {
  text: string;
  failed: boolean;
}

/** How an episode is shown. `episode` has its scenes so far, the present one last; it is never empty. */
export interface View {
  /** What the picture is of, in words. */
  name: string;
  /** Seconds that a step takes on the page. */
  seconds: number;
  draw(picture: Picture, episode: Scene[]): void;
  /** The present moment in numbers, with their units. */
  figures(episode: Scene[]): [label: string, value: string][];
  /** How an episode ended, by its last moment. */
  ending(last: Scene): Ending;
}
