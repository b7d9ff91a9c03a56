// Pendulum: the rod, the torque that turns it, at real speed; beside them the torque of every step.

import { degrees, score, signed } from '../format';
import { disc, drawStrip, line, type Picture } from './pen';
import type { View } from './view';

/** The largest torque, in newton metres. */
const TORQUE = 2;

export const pendulum: View = {
  name: 'pendulum',
  seconds: 0.05,

  draw(picture, episode) {
    const { width, height } = picture;
    const { state, action, limit } = episode.at(-1)!;
    const side = Math.min(0.46 * width, height);
    drawRod(picture, side / 2, height / 2, side * 0.4, state[0] ?? 0, action[0] ?? 0);
    drawStrip(
      picture,
      { left: side + 12, top: 0.12 * height, width: width - side - 14, height: 0.76 * height },
      { title: 'Torque of each step, N m', low: -TORQUE, high: TORQUE, unit: '', steps: limit ?? 200, values: episode.slice(1).map((scene) => scene.action[0] ?? 0) },
    );
  },

  ending: (last) => ({ text: `return ${score(last.return)}`, failed: false }),

  figures(episode) {
    const { state, action } = episode.at(-1)!;
    return [
      ['From upright', degrees(wrapped(state[0] ?? 0))],
      ['Turning', `${signed(((state[1] ?? 0) * 180) / Math.PI, 0)} °/s`],
      ['Torque', action.length === 0 ? '–' : `${signed(clipped(action[0]!), 2)} N m`],
    ];
  },
};

/** Angles are from upright, counter-clockwise. */
function drawRod({ pen, colour }: Picture, x: number, y: number, length: number, angle: number, torque: number): void {
  pen.strokeStyle = colour('--line');
  pen.lineWidth = 1;
  pen.setLineDash([4, 5]);
  line(pen, [x, y], [x, y - length]);
  pen.setLineDash([]);
  pen.beginPath();
  pen.arc(x, y, length, 0, 2 * Math.PI);
  pen.stroke();

  pen.strokeStyle = colour('--lane');
  pen.lineWidth = Math.max(8, length * 0.16);
  line(pen, [x, y], [x - length * 0.92 * Math.sin(angle), y - length * 0.92 * Math.cos(angle)]);
  pen.fillStyle = colour('--text');
  disc(pen, x, y, Math.max(5, length * 0.08));
  drawTorque(pen, colour('--text'), x, y, length * 0.5, clipped(torque) / TORQUE);
}

/** An arrow around the pivot, as long as the torque is large: up to three quarters of a turn. */
function drawTorque(pen: CanvasRenderingContext2D, colour: string, x: number, y: number, radius: number, share: number): void {
  const sweep = share * 0.75 * Math.PI;
  if (Math.abs(sweep) < 0.06) return;
  // The canvas counts angles clockwise from the right; the arrow is centred below the pivot.
  const [from, to] = [Math.PI / 2 + sweep, Math.PI / 2 - sweep];
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 2.5;
  pen.beginPath();
  pen.arc(x, y, radius, from, to, sweep > 0);
  pen.stroke();
  const [tipX, tipY] = [x + radius * Math.cos(to), y + radius * Math.sin(to)];
  const ahead = to - Math.sign(sweep) * (Math.PI / 2);
  pen.beginPath();
  for (const turn of [0, 2.5, -2.5]) pen.lineTo(tipX + 8 * Math.cos(ahead + turn), tipY + 8 * Math.sin(ahead + turn));
  pen.fill();
}

/** The environment clips torques, and has an angle that counts turns. */
const clipped = (torque: number) => Math.max(-TORQUE, Math.min(TORQUE, torque));
const wrapped = (angle: number) => Math.atan2(Math.sin(angle), Math.cos(angle));
