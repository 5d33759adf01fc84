// One bar per action, under the game's own names; the chosen action is marked. What counts is how much better one
// action is than another, so the best fills its bar, and an empty bar lies one span below it; the span does not jump.

import { el, explain, write } from "./explain.js";
import { NONE, value } from "./format.js";
import { Scale } from "./scale.js";

const WHY = {
  logits: "How much the policy prefers each action: the best fills its bar, an empty one lies a span below.",
  q: "Q-value: the discounted reward expected after each action; an empty bar lies a span below the best.",
  continuous: "What the policy sends to each of the game's controls.",
  none: "The action that your keys stand for is marked.",
};

const HEADS = { q: "Expected reward (Q)", logits: "Preference", continuous: "Controls", none: "Action" };
const YOURS = { ...HEADS, q: "What the agent expects (Q)", logits: "What the agent prefers" };
const LONG_EM = 7.5; // longer names stand on their bars, not beside them

export class Bars {
  /**
   * `scores`: what the numbers of actions are, "values" (Q) or "logits" (preferences); `range`: [lowest, highest] of
   * continuous actions; `yours`: a person acts, and the numbers are what an agent thinks of it.
   */
  constructor(actions, scores, range = [], yours = false) {
    Object.assign(this, { scores, range, heads: yours ? YOURS : HEADS });
    this.scale = new Scale();
    this.head = el("h3");
    this.limits = el("span", "limits");
    this.list = el("ul", "bars");
    this.element = el("div", "values", el("div", "heading", this.head, this.limits), this.list);
    this.names(actions);
    this.say(scores === "logits" ? "logits" : "q");
  }

  say(kind) {
    if (this.kind === kind) return;
    this.kind = kind;
    this.head.textContent = this.heads[kind];
    explain(this.head, WHY[kind]);
  }

  names(names) {
    this.rows = names.map((name) => {
      const row = { fill: el("span", "fill"), number: el("span", "number", NONE) };
      row.element = el(
        "li",
        "bar",
        el("span", "mark"),
        el("span", "name", name),
        el("span", "track", row.fill),
        row.number,
      );
      row.element.title = name;
      return row;
    });
    this.list.replaceChildren(...this.rows.map((row) => row.element));
    const widest = Math.max(3, ...names.map((name) => name.length * (name === name.toUpperCase() ? 0.7 : 0.54)));
    this.list.style.setProperty("--name", `${widest}em`); // one width for all rows
    this.list.classList.toggle("many", names.length > 9);
    this.list.classList.toggle("over", names.length > 9 || widest > LONG_EM);
    this.list.style.setProperty("--bare", Math.ceil(names.length / 2));
    this.list.style.setProperty("--rows", names.length > 9 ? Math.ceil(names.length / 2) : names.length);
    this.chosen = null;
    this.valued = false;
  }

  /** Nobody thinks here any more. */
  forget(scores) {
    this.scores = scores;
    if (this.valued) this.names(this.rows.map((row) => row.element.title));
  }

  /** Let the scale hold these values, of one or several pictures. */
  include(all, now) {
    const gaps = (values) => values.map((x) => Math.max(...values.filter(Number.isFinite)) - x);
    this.scale.include(this.kind === "continuous" ? [...this.range, ...all.flat()] : [0, ...all.flatMap(gaps)], now);
  }

  /** Show what the policy thought in a packet, or only the action where nobody thought. */
  show({ q, action }, now) {
    const continuous = Array.isArray(action);
    if (continuous && this.rows.length !== action.length) this.names(action.map((_, k) => `control ${k + 1}`));
    const values = continuous ? action : q;
    this.valued ||= Boolean(values);
    if (values || !this.valued) {
      this.say(continuous ? "continuous" : !values ? "none" : this.scores === "logits" ? "logits" : "q");
      this.list.classList.toggle("bare", !values);
    }
    this.list.classList.toggle("old", !values && this.valued); // nobody thought here: the last values stay, dimmed
    if (values) {
      const best = continuous ? 0 : Math.max(...values.filter(Number.isFinite));
      this.include([values], now);
      const { low, high, span } = this.scale;
      const zero = continuous ? this.scale.at(0) : 0;
      write(this.limits, continuous ? `${value(low, span)} to ${value(high, span)}` : `span ${value(span, span)}`);
      this.list.style.setProperty("--zero", `${100 * zero}%`);
      values.forEach((x, k) => {
        const row = this.rows[k];
        if (!row || !Number.isFinite(x)) return;
        const at = continuous ? this.scale.at(x) : 1 - this.scale.at(best - x);
        row.fill.style.left = `${100 * Math.min(at, zero)}%`;
        row.fill.style.width = `${100 * Math.abs(at - zero)}%`;
        write(row.number, value(x, span));
      });
    }
    const chosen = continuous ? null : this.rows[action];
    if (chosen !== this.chosen) {
      this.chosen?.element.removeAttribute("aria-current");
      chosen?.element.setAttribute("aria-current", "true");
      this.chosen = chosen;
    }
  }
}
