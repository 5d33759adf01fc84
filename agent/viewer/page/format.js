// Numbers as people read them: few digits, one width, never "NaN".

export const NONE = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** A value with so many digits after the point that it can be told apart within `span`; the same count every time. */
export function value(x, span = 1) {
  if (!known(x)) return NONE;
  const digits = span >= 100 ? 0 : span >= 10 ? 1 : span >= 0.5 ? 2 : 3;
  if (Math.abs(x) >= 1e5) return x.toExponential(1).replace("-", "−");
  return x
    .toFixed(digits)
    .replace(/^-(?=[0.]*$)/, "")
    .replace("-", "−");
}

/** A score or reward: whole when it is whole, else one digit. */
export function points(x) {
  if (!known(x)) return NONE;
  if (Math.abs(x) >= 1000) return count(x);
  const text = Number.isInteger(x) ? x.toString() : x.toFixed(Math.abs(x) < 1 ? 2 : 1);
  return text.replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

/** A count: exact below 100,000, then thousands and millions with three digits. */
export function count(x) {
  if (!known(x)) return NONE;
  const size = Math.abs(x);
  if (size >= 999.5e6) return `${(x / 1e9).toPrecision(3)} G`;
  if (size >= 999.5e3) return `${(x / 1e6).toPrecision(3)} M`;
  if (size >= 1e5) return `${Math.round(x / 1e3)} k`;
  return Math.round(x).toLocaleString("en").replace("-", "−");
}

/** A rate or another positive figure with three digits. */
export function three(x) {
  if (!known(x)) return NONE;
  if (x >= 999.5) return count(x);
  return x === 0 ? "0" : x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2);
}

/** A share of one as per cent. */
export const percent = (x, digits = 0) => (known(x) ? `${(100 * x).toFixed(digits)} %` : NONE);

/** Seconds as the two largest units. */
export function duration(seconds) {
  if (!known(seconds) || seconds < 0) return NONE;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** Bytes as people say them. */
export function bytes(n) {
  if (!known(n)) return NONE;
  const [size, unit] = n >= 999.5e6 ? [1e9, "GB"] : n >= 999.5e3 ? [1e6, "MB"] : [1e3, "kB"];
  return n < 1000 ? `${n} B` : `${(n / size).toPrecision(3)} ${unit}`;
}

/** Seconds since 1970 as a clock's time, with the day when it is not today. */
export function clock(seconds) {
  if (!known(seconds)) return NONE;
  const then = new Date(1000 * seconds);
  const time = then.toLocaleTimeString("en-GB");
  return then.toDateString() === new Date().toDateString() ? time : `${then.toLocaleDateString("en-GB")} ${time}`;
}

/** Whole per cents that add up to 100: the largest remainders are rounded up. */
export function hundred(shares) {
  const total = shares.reduce((sum, share) => sum + share, 0) || 1;
  const exact = shares.map((share) => (100 * share) / total);
  const whole = exact.map(Math.floor);
  let left = 100 - whole.reduce((sum, part) => sum + part, 0);
  const order = exact.map((part, k) => [part - whole[k], k]).sort((a, b) => b[0] - a[0]);
  for (const [, k] of order) if (left-- > 0) whole[k] += 1;
  return whole;
}

/** A KeyboardEvent.code as it is printed on the key. */
export function key(code) {
  const arrows = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
  return arrows[code] ?? code.replace(/^(Key|Digit)/, "");
}
