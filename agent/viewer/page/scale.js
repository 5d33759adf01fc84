// A scale that stands still: round limits that widen at once and narrow only after a long while.

const PATIENCE_MS = 6000; // so long must values have used little of the scale before it narrows
const LITTLE = 0.35; // of the scale

const nice = (x) => {
  const power = 10 ** Math.floor(Math.log10(x));
  const digit = x / power;
  return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
};

export class Scale {
  /** `symmetric`: zero stays in the middle. */
  constructor(symmetric = false) {
    this.symmetric = symmetric;
    this.forget();
  }

  forget() {
    this.low = this.high = null;
    this.since = -Infinity;
  }

  get span() {
    return this.low === null ? 1 : this.high - this.low;
  }

  /** Take these values in; the clock is an argument so that a replay has its own. */
  include(values, now = performance.now()) {
    const known = values.filter(Number.isFinite);
    if (!known.length) return;
    let low = Math.min(...known);
    let high = Math.max(...known);
    const fits = this.low !== null && low >= this.low && high <= this.high;
    if (fits && this.since !== null) {
      this.used = [Math.min(this.used[0], low), Math.max(this.used[1], high)];
      if (now - this.since < PATIENCE_MS) return;
      const needed = this.symmetric ? 2 * Math.max(-this.used[0], this.used[1], 0) : this.used[1] - this.used[0];
      if (needed < LITTLE * this.span) [this.low, this.high] = this.round(...this.used);
    } else {
      if (this.low !== null) [low, high] = [Math.min(low, this.low), Math.max(high, this.high)];
      [this.low, this.high] = this.round(low, high);
    }
    this.since = now;
    this.used = [Math.min(...known), Math.max(...known)];
  }

  round(low, high) {
    if (this.symmetric) {
      const limit = nice(Math.max(-low, high, 1e-3));
      return [-limit, limit];
    }
    if (low > 0 && low < 0.6 * high) low = 0;
    if (high < 0 && high > 0.6 * low) high = 0;
    const step = nice(Math.max((high - low) / 4, 1e-3, Math.abs(high) * 1e-3));
    return [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step || step];
  }

  /** Where a value lies, 0 .. 1. */
  at(x) {
    return Math.min(1, Math.max(0, (x - this.low) / (this.high - this.low || 1)));
  }
}
