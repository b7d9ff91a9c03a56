// Numbers as people read them.

import type { Backend } from 'oto-student';

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** A count with separators. */
export function count(value: number): string {
  return whole.format(value);
}

/** A return: one decimal while it is short. */
export function score(value: number): string {
  return signed(value, Math.abs(value) < 100 ? 1 : 0);
}

/** A number with its sign; a hyphen would be read as a dash. */
export function signed(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** An angle in radians, as degrees. */
export function degrees(angle: number): string {
  return `${signed((angle * 180) / Math.PI, 1)}°`;
}

/** A number of bytes in the unit that fits. */
export function bytes(value: number): string {
  if (value < 1000) return `${value} B`;
  if (value < 1e6) return `${(value / 1e3).toFixed(1)} kB`;
  return `${(value / 1e6).toFixed(2)} MB`;
}

const BACKENDS = { cpu: 'CPU', webgpu: 'WebGPU' };

/** Why what was tried cannot be used, as long as it is. */
export function backendTitle({ tried }: Backend): string {
  return tried.flatMap(({ name, error }) => (error === null ? [] : [`${BACKENDS[name]}: ${error}`])).join('; ');
}

/** What runs the updates, and how fast what was tried is. */
export function backend({ name, tried, lost }: Backend): string {
  const rate = (perSecond: number | null) => (perSecond === null ? 'not usable' : `${count(perSecond)}/s`);
  const figures = tried.map((each) => `${BACKENDS[each.name]} ${rate(each.updatesPerSecond)}`);
  if (lost !== null) figures.push(lost);
  return figures.length === 0 ? BACKENDS[name] : `${BACKENDS[name]} (${figures.join(', ')})`;
}
