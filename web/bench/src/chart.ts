// Bars as plain SVG: microseconds for an update on a logarithmic axis, since peers are orders of magnitude apart.

import type { Table } from './runner';

const NS = 'http://www.w3.org/2000/svg';
const [WIDTH, BAR, GAP, LEFT, RIGHT, BOTTOM] = [760, 20, 8, 230, 90, 28];

function element(parent: Element, name: string, attributes: Record<string, string | number>, text = ''): void {
  const child = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, String(value));
  child.textContent = text;
  parent.append(child);
}

/** A table's medians with their spread; rows without numbers are left out. */
export function chart({ name, rows }: Table): SVGSVGElement {
  const bars = rows.flatMap(({ peer, label, microseconds }) => (microseconds ? [{ peer, label, ...microseconds }] : []));
  const svg = document.createElementNS(NS, 'svg');
  const height = bars.length * (BAR + GAP) + BOTTOM;
  svg.setAttribute('viewBox', `0 0 ${WIDTH} ${height}`);
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', `Microseconds for an update, ${name}; the table above has the same numbers`);
  if (bars.length === 0) return svg;
  const low = Math.floor(Math.log10(Math.min(...bars.map(({ p10 }) => p10))));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...bars.map(({ p90 }) => p90)))), low + 1);
  const x = (us: number) => LEFT + ((Math.log10(us) - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  for (let power = low; power <= high; power++) {
    const at = x(10 ** power);
    element(svg, 'line', { x1: at, x2: at, y1: 0, y2: height - BOTTOM, class: 'grid' });
    element(svg, 'text', { x: at, y: height - 8, 'text-anchor': 'middle' }, duration(10 ** power));
  }
  bars.forEach(({ peer, label, median, p10, p90 }, i) => {
    const y = i * (BAR + GAP);
    const middle = y + BAR / 2;
    element(svg, 'text', { x: LEFT - 10, y: middle + 4, 'text-anchor': 'end' }, label);
    element(svg, 'rect', { x: LEFT, y, width: x(median) - LEFT, height: BAR, class: peer.startsWith('oto') ? 'oto' : 'peer' });
    element(svg, 'line', { x1: x(p10), x2: x(p90), y1: middle, y2: middle, class: 'spread' });
    element(svg, 'text', { x: x(p90) + 8, y: middle + 4 }, duration(median));
  });
  return svg;
}

/** Microseconds in words, three digits. */
export function duration(us: number): string {
  const [value, unit] = us < 1e3 ? [us, 'µs'] : us < 1e6 ? [us / 1e3, 'ms'] : [us / 1e6, 's'];
  return `${Number(value.toPrecision(3))} ${unit}`;
}
