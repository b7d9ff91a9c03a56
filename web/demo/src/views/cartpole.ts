// CartPole: the cart on its track, the pole, at real speed.

import type { Scene } from 'oto-student';
import { count, degrees, signed } from '../format';
import { disc, line, type Picture } from './pen';
import type { View } from './view';

/** Where the track ends, in metres from its middle. */
const TRACK = 2.4;

export const cartpole: View = {
  name: 'cart',
  seconds: 0.02,

  draw(picture, episode) {
    const { pen, width, height, colour, font } = picture;
    const { state, step } = episode.at(-1)!;
    const [position = 0, , angle = 0] = state;
    const metre = width / (2 * TRACK + 0.8);
    const ground = height - 0.16 * height;
    const at = width / 2 + position * metre;
    drawTrack(picture, metre, ground);

    // The pole is drawn at 1.6 times its length to scale, which is easier to see.
    const length = Math.min(1.6 * metre, ground * 0.8);
    const [cartWidth, cartHeight] = [Math.max(44, 0.62 * metre), Math.max(18, 0.26 * metre)];
    const pivot = ground - cartHeight - 5;
    pen.strokeStyle = colour('--lane');
    pen.lineWidth = Math.max(6, 0.09 * metre);
    pen.globalAlpha = fell(episode.at(-1)!) ? 0.45 : 1;
    line(pen, [at, pivot], [at + length * Math.sin(angle), pivot - length * Math.cos(angle)]);
    pen.globalAlpha = 1;

    pen.fillStyle = colour('--text');
    pen.beginPath();
    pen.roundRect(at - cartWidth / 2, pivot, cartWidth, cartHeight, 4);
    pen.fill();
    for (const side of [-0.3, 0.3]) disc(pen, at + side * cartWidth, ground - 4, 4.5);
    pen.fillStyle = colour('--panel');
    disc(pen, at, pivot, 4);
    if (fell(episode.at(-1)!)) {
      pen.fillStyle = colour('--text');
      pen.font = font(13);
      pen.textAlign = 'center';
      pen.fillText(`fell at step ${count(step)}`, width / 2, height - 3);
    }
  },

  ending(last) {
    return fell(last) ? { text: `fell at ${count(last.step)}`, failed: true } : { text: `stood all ${count(last.step)}`, failed: false };
  },

  figures(episode) {
    const { state, action } = episode.at(-1)!;
    const [position = 0, , angle = 0] = state;
    return [
      ['Pole', degrees(angle)],
      ['Cart', `${signed(position, 2)} m`],
      ['Push', action.length === 0 ? '–' : action[0] === 1 ? 'right' : 'left'],
    ];
  },
};

/** Whether the pole fell or the cart left the track, before the episode was won. */
const fell = ({ over, step, limit }: Scene): boolean => over && step !== limit;

function drawTrack({ pen, width, height, colour }: Picture, metre: number, ground: number): void {
  pen.strokeStyle = colour('--line-strong');
  pen.lineWidth = 2;
  line(pen, [width / 2 - TRACK * metre, ground], [width / 2 + TRACK * metre, ground]);
  for (const side of [-1, 1]) {
    const end = width / 2 + side * TRACK * metre;
    line(pen, [end, ground - 8], [end, ground + 8]);
  }
  pen.strokeStyle = colour('--muted');
  pen.lineWidth = 1;
  for (let tick = -2; tick <= 2; tick++) {
    const x = width / 2 + tick * metre;
    line(pen, [x, ground + 6], [x, ground + (tick === 0 ? 0.09 : 0.06) * height]);
  }
}
