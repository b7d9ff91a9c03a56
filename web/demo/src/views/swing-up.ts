// The cart-pole swing-up: the cart on its short track, the pole above or below it, the voltage's share, at real speed.

import type { Scene } from 'oto-student';
import { count, degrees, score, signed } from '../format';
import { disc, line, type Picture } from './pen';
import type { View } from './view';

/** Half the track and the pole's length, in metres. */
const TRACK = 0.34;
const POLE = 0.64;
/** Distance of the pole's tip from its target that counts as on target, in metres. */
const TARGET = 0.05;

export const swingUp: View = {
  name: 'swing-up',
  seconds: 1 / 30,

  draw(picture, episode) {
    const { pen, width, height, colour } = picture;
    const last = episode.at(-1)!;
    const { position, angle } = read(last);
    const metre = scale(width, height);
    const middle = height / 2;
    const at = width / 2 + position * metre;
    drawTrack(picture, metre, middle);
    drawVoltage(picture, at, middle, metre, clipped(last.action[0] ?? 0));

    pen.strokeStyle = colour('--lane');
    pen.lineWidth = Math.max(5, 0.04 * metre);
    pen.globalAlpha = failed(last) ? 0.45 : 1;
    line(pen, [at, middle], [at + POLE * metre * Math.sin(angle), middle - POLE * metre * Math.cos(angle)]);
    pen.globalAlpha = 1;

    const [cartWidth, cartHeight] = [Math.max(30, 0.16 * metre), Math.max(12, 0.06 * metre)];
    pen.fillStyle = colour('--text');
    pen.beginPath();
    pen.roundRect(at - cartWidth / 2, middle - cartHeight / 2, cartWidth, cartHeight, 3);
    pen.fill();
    pen.fillStyle = colour('--panel');
    disc(pen, at, middle, 4);
  },

  ending(last) {
    if (failed(last)) return { text: `stopped at step ${count(last.step)}`, failed: true };
    return { text: `return ${score(last.return)}`, failed: false };
  },

  figures(episode) {
    const last = episode.at(-1)!;
    const { position, angle, onTarget } = read(last);
    return [
      ['From upright', degrees(angle)],
      ['Cart', `${signed(100 * position, 1)} cm`],
      ['Voltage', last.action.length === 0 ? '–' : `${signed(100 * clipped(last.action[0]!), 0)} %`],
      ['On target', `${count(onTarget)} steps`],
    ];
  },
};

/** Pixels of a metre: the pole fits above, below and beside the track. */
const scale = (width: number, height: number): number => Math.min(width / (2 * TRACK + 2 * POLE), height / (2 * POLE + 0.2));

/** The place on the track below a point of the picture, in metres from the middle. */
export const placeAt = (x: number, { clientWidth, clientHeight }: HTMLCanvasElement): number => (x - clientWidth / 2) / scale(clientWidth, clientHeight);

/** The state's numbers by their names. */
function read({ state }: Scene): { position: number; angle: number; onTarget: number } {
  const [position = 0, , angle = 0, , onTarget = 0] = state;
  return { position, angle, onTarget };
}

/** Whether the cart reached an end of the track, or the pole its largest speed. */
const failed = ({ over, step, limit }: Scene): boolean => over && step !== limit;

/** The environment clips actions. */
const clipped = (action: number): number => Math.max(-1, Math.min(1, action));

/** The track between its ends, and the circle that the pole's tip should be in. */
function drawTrack({ pen, width, colour }: Picture, metre: number, y: number): void {
  pen.strokeStyle = colour('--line-strong');
  pen.lineWidth = 2;
  const [left, right] = [width / 2 - TRACK * metre, width / 2 + TRACK * metre];
  line(pen, [left, y], [right, y]);
  for (const end of [left, right]) line(pen, [end, y - 10], [end, y + 10]);
  pen.strokeStyle = colour('--line');
  pen.lineWidth = 1;
  pen.setLineDash([4, 5]);
  pen.beginPath();
  pen.arc(width / 2, y - POLE * metre, TARGET * metre, 0, 2 * Math.PI);
  pen.stroke();
  pen.setLineDash([]);
}

/** A bar below the cart, to the side that the motor pushes to. */
function drawVoltage({ pen, colour }: Picture, x: number, y: number, metre: number, share: number): void {
  pen.strokeStyle = colour('--muted');
  pen.lineWidth = 3;
  if (Math.abs(share) > 0.01) line(pen, [x, y + 0.09 * metre], [x + 0.3 * metre * share, y + 0.09 * metre]);
}
