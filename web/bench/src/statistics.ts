// Order statistics of a few repeats.

/** Median, and the tenth and ninetieth percentile. */
export interface Summary {
  median: number;
  p10: number;
  p90: number;
}

/** The value below which `share` of the sorted numbers lie, between two of them where it falls between. */
function quantile(sorted: number[], share: number): number {
  const at = share * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!];
  return below + (above - below) * (at - Math.floor(at));
}

/** Sums up at least one number. */
export function summarise(numbers: number[]): Summary {
  const sorted = [...numbers].sort((a, b) => a - b);
  const [median, p10, p90] = [0.5, 0.1, 0.9].map((share) => quantile(sorted, share));
  return { median: median!, p10: p10!, p90: p90! };
}
