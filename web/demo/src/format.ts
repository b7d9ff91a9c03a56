// Numbers as people read them.

import type { Backend } from 'oto-student';

const whole = wholeNumbers();

/** A count with separators. */
export function count(value: number): string {
  return whole(value);
}

/** The format of the page's language, that of the browser's default locale, or digits in threes: a page without any is none. */
function wholeNumbers(): (value: number) => string {
  for (const locale of ['en', undefined]) {
    try {
      const format = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
      return (value) => format.format(value);
    } catch {
      // The next one may be there.
    }
  }
  return (value) => value.toFixed(0).replace(/\B(?=(\d{3})+$)/g, ',');
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

/** A learning rate: two digits that count. */
export function rate(value: number): string {
  return String(Number(value.toPrecision(2)));
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
  const speed = (perSecond: number | null) => (perSecond === null ? 'not usable' : `${count(perSecond)}/s`);
  const figures = tried.map((each) => `${BACKENDS[each.name]} ${speed(each.updatesPerSecond)}`);
  if (lost !== null) figures.push(lost);
  return figures.length === 0 ? BACKENDS[name] : `${BACKENDS[name]} (${figures.join(', ')})`;
}
