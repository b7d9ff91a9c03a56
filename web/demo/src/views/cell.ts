// Mobile cell selection: the map with its stations, the way the device has walked, whom it is connected to, and below the
// utility of every step. The map lies on its side (y to the right, x down), which fits a page better.

import type { CellMap, MapStation, Scene } from 'oto-student';
import { count, score, signed } from '../format';
import { disc, drawStrip, line, ring, type Picture, type Strip } from './pen';
import type { View } from './view';

/** The map's size in metres: the device walks in the square of its shorter side, and stations stand beyond. */
const [LONG, SHORT] = [300, 200];
/** What is shown around it, so that nothing is cut off at an edge. */
const MARGIN = 6;

/** Where a position of the map is in the picture. */
type Place = (position: [x: number, y: number]) => [x: number, y: number];

export const cell: View = {
  name: 'map',
  seconds: 0.12,

  draw(picture, episode) {
    const { pen, width, height } = picture;
    const metre = width / (LONG + 2 * MARGIN);
    const bottom = (SHORT + 2 * MARGIN) * metre;
    const map = episode.at(-1)!.map;
    if (map === null) return;
    pen.save();
    pen.beginPath();
    pen.roundRect(0, 0, width, bottom, 8);
    pen.clip();
    const place: Place = ([x, y]) => [(y + MARGIN) * metre, (x + MARGIN) * metre];
    drawGround(picture, bottom, place);
    for (const station of map.stations) drawReach(picture, station, place(station.position), metre);
    drawWay(picture, episode, place);
    for (const station of map.stations) if (station.connected) drawConnection(picture, map, station, place);
    map.stations.forEach((station, index) => drawStation(picture, station, index + 1, place(station.position)));
    drawDevice(picture, map, place);
    drawScale(picture, bottom, metre);
    pen.restore();
    const top = bottom + 14;
    drawStrip(picture, { left: 0, top, width, height: height - top }, utilities(episode));
  },

  ending: (last) => ({ text: `return ${score(last.return)}`, failed: false }),

  figures(episode) {
    const { map, step } = episode.at(-1)!;
    const stations = map?.stations ?? [];
    const inRange = stations.filter(({ margin }) => margin > 0).length;
    const strongest = Math.max(...stations.map(({ margin }) => margin));
    const { values, mean } = utilities(episode);
    return [
      ['Utility now', step === 0 ? '–' : signed(values.at(-1)!, 2)],
      ['Mean so far', step === 0 ? '–' : signed(mean.at(-1)!, 2)],
      ['Connected', `${count(stations.filter(({ connected }) => connected).length)} of ${count(inRange)} in range`],
      ['Strongest signal', `${signed(strongest, 1)} dB`],
    ];
  },
};

/** The utility of each step, and its mean until then. */
function utilities(episode: Scene[]): Strip & { mean: number[] } {
  const steps = episode.slice(1);
  const values = steps.map(({ reward }) => reward);
  const mean = steps.map((scene) => scene.return / scene.step);
  return { title: 'Utility of each step (bars), mean so far (line)', low: -1, high: 1, unit: '', steps: episode[0]!.limit ?? 100, values, mean };
}

function drawGround({ pen, width, colour }: Picture, bottom: number, place: Place): void {
  pen.fillStyle = colour('--page');
  pen.fillRect(0, 0, width, bottom);
  pen.strokeStyle = colour('--line');
  pen.lineWidth = 1;
  for (let y = 0; y <= LONG; y += 50) line(pen, [place([0, y])[0], 0], [place([0, y])[0], bottom]);
  for (let x = 0; x <= SHORT; x += 50) line(pen, [0, place([x, 0])[1]], [width, place([x, 0])[1]]);
  // Beyond this line there are stations, but the device never walks.
  pen.strokeStyle = colour('--line-strong');
  pen.setLineDash([2, 5]);
  line(pen, place([0, SHORT]), place([SHORT, SHORT]));
  pen.setLineDash([]);
}

/** Where a station can be connected to: the stronger its signal, the darker. */
function drawReach({ pen, colour }: Picture, station: MapStation, [x, y]: [number, number], metre: number): void {
  const near = station.near * metre;
  pen.fillStyle = colour(station.connected ? '--lane' : '--muted');
  for (const [radius, alpha] of [[station.reach * metre, 0.09], [near, 0.12]] as const) {
    pen.globalAlpha = alpha;
    disc(pen, x, y, radius);
  }
  pen.strokeStyle = pen.fillStyle;
  pen.lineWidth = station.connected ? 1.5 : 1;
  pen.globalAlpha = station.connected ? 0.9 : 0.45;
  ring(pen, x, y, station.reach * metre);
  pen.globalAlpha = 1;
}

/** The way walked: a dot for each step, and the line between them. */
function drawWay({ pen, colour }: Picture, episode: Scene[], place: Place): void {
  const points = episode.flatMap(({ map }) => (map === null ? [] : [place(map.position)]));
  pen.strokeStyle = pen.fillStyle = colour('--text');
  pen.globalAlpha = 0.35;
  pen.lineWidth = 1.5;
  line(pen, ...points);
  pen.globalAlpha = 0.6;
  for (const [x, y] of points) disc(pen, x, y, 1.6);
  pen.globalAlpha = 1;
}

/** The stronger the signal, the wider the line. */
function drawConnection({ pen, colour }: Picture, map: CellMap, station: MapStation, place: Place): void {
  pen.strokeStyle = colour('--lane');
  pen.lineWidth = 1.5 + Math.min(20, Math.max(0, station.margin)) / 5;
  line(pen, place(map.position), place(station.position));
}

function drawStation({ pen, colour, font }: Picture, station: MapStation, number: number, [x, y]: [number, number]): void {
  const radius = 10;
  pen.fillStyle = colour(station.connected ? '--lane' : '--panel');
  pen.strokeStyle = colour(station.connected ? '--lane' : station.margin > 0 ? '--text' : '--line-strong');
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.roundRect(x - radius, y - radius, 2 * radius, 2 * radius, 4);
  pen.fill();
  pen.stroke();
  pen.fillStyle = colour(station.connected ? '--on-accent' : '--text');
  pen.font = font(12);
  pen.textAlign = 'center';
  pen.textBaseline = 'middle';
  pen.fillText(String(number), x, y + 1);
  pen.textBaseline = 'alphabetic';
}

function drawDevice({ pen, colour }: Picture, map: CellMap, place: Place): void {
  const [[x, y], [toX, toY]] = [place(map.position), place(map.waypoint)];
  pen.strokeStyle = colour('--text');
  pen.lineWidth = 1;
  pen.setLineDash([3, 4]);
  line(pen, [x, y], [toX, toY]);
  pen.setLineDash([]);
  pen.lineWidth = 2;
  line(pen, [toX - 4, toY - 4], [toX + 4, toY + 4]);
  line(pen, [toX - 4, toY + 4], [toX + 4, toY - 4]);
  pen.fillStyle = colour('--panel');
  disc(pen, x, y, 8.5);
  pen.fillStyle = colour('--text');
  disc(pen, x, y, 6);
}

function drawScale({ pen, width, colour, font }: Picture, mapBottom: number, metre: number): void {
  const [right, bottom, length] = [width - 12, mapBottom - 12, 50 * metre];
  pen.strokeStyle = pen.fillStyle = colour('--text');
  pen.lineWidth = 1.5;
  line(pen, [right - length, bottom - 4], [right - length, bottom], [right, bottom], [right, bottom - 4]);
  pen.font = font(11);
  pen.textAlign = 'center';
  pen.fillText('50 m', right - length / 2, bottom - 6);
}
