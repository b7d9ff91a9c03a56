// What the pictures are drawn with: a canvas in the page's colours, and the few shapes that they share.

/** A canvas of this size in CSS pixels, cleared. */
export interface Picture {
  pen: CanvasRenderingContext2D;
  width: number;
  height: number;
  /** A colour of the page, as in `--muted`. */
  colour(name: string): string;
  /** The page's font for numbers, at a size. */
  font(size: number): string;
}

/** A part of a picture. */
export interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Clears a canvas and takes its size and colours from the page; nothing while it is not laid out. */
export function picture(canvas: HTMLCanvasElement): Picture | undefined {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const pen = canvas.getContext('2d');
  if (width === 0 || pen === null) return undefined;
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(height * devicePixelRatio);
  pen.scale(devicePixelRatio, devicePixelRatio);
  pen.lineCap = 'round';
  pen.lineJoin = 'round';
  const style = getComputedStyle(canvas);
  const colour = (name: string) => style.getPropertyValue(name);
  return { pen, width, height, colour, font: (size) => `500 ${size}px ${colour('--mono')}` };
}

export function line(pen: CanvasRenderingContext2D, ...points: [x: number, y: number][]): void {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
}

export function disc(pen: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

export function ring(pen: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.stroke();
}

/** A number over an episode. */
export interface Strip {
  title: string;
  /** The axis: its ends, which are labelled, and the middle. */
  low: number;
  high: number;
  unit: string;
  /** Steps in a whole episode. */
  steps: number;
  values: number[];
  /** A second curve over the first. */
  mean?: number[];
}

/** Draws a strip: every step as a bar from the middle, the mean as a line. */
export function drawStrip({ pen, colour, font }: Picture, { left, top, width, height }: Frame, strip: Strip): void {
  const { low, high, steps, values, mean = [] } = strip;
  pen.font = font(11);
  pen.fillStyle = colour('--muted');
  pen.textAlign = 'left';
  pen.textBaseline = 'middle';
  pen.fillText(strip.title, left, top + 6);
  const labels = [high, (high + low) / 2, low].map((value) => `${value}${strip.unit}`);
  const gutter = Math.max(...labels.map((label) => pen.measureText(label).width)) + 8;
  const plot = { left: left + gutter, right: left + width, top: top + 20, bottom: top + height - 6 };
  const x = (step: number) => plot.left + (step / steps) * (plot.right - plot.left);
  const y = (value: number) => plot.bottom - ((Math.min(high, Math.max(low, value)) - low) / (high - low)) * (plot.bottom - plot.top);

  pen.textAlign = 'right';
  pen.strokeStyle = colour('--line');
  pen.lineWidth = 1;
  [high, (high + low) / 2, low].forEach((value, index) => {
    pen.fillText(labels[index]!, plot.left - 8, y(value));
    line(pen, [plot.left, y(value)], [plot.right, y(value)]);
  });

  const bar = Math.max(1, x(1) - x(0) - (x(1) - x(0) > 3 ? 1 : 0));
  pen.fillStyle = colour('--lane');
  pen.globalAlpha = 0.5;
  values.forEach((value, step) => {
    const [from, to] = [y((high + low) / 2), y(value)];
    pen.fillRect(x(step), Math.min(from, to), bar, Math.max(1, Math.abs(to - from)));
  });
  pen.globalAlpha = 1;
  if (mean.length > 1) {
    pen.strokeStyle = colour('--text');
    pen.lineWidth = 2;
    line(pen, ...mean.map((value, step): [number, number] => [x(step + 0.5), y(value)]));
  }
  pen.textBaseline = 'alphabetic';
}
