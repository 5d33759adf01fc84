// Value and TD error over time, on plain canvases: the last seconds of a room, or a whole episode with a cursor.

import { colours, el, explain, write } from "./explain.js";
import { NONE, value } from "./format.js";
import { Scale } from "./scale.js";

const SECONDS = 10;
const GAP_MS = 600; // between two games, for instance: no line is drawn across
const WHY = {
  value: "Value: how much reward, discounted, the policy expects from here to the end of the game.",
  td_error: "TD error (temporal difference): by how much a step turned out better (up) or worse (down) than expected.",
};
const NAMES = { value: "Value", td_error: "TD error" };

let palette = null;
const forget = () => (palette = null);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", forget);

class Strip {
  constructor(what, span) {
    this.what = what;
    this.scale = new Scale(what === "td_error");
    this.number = el("b", "", NONE);
    this.canvas = el("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    const label = el("span", "label", `${NAMES[what]}, ${span}`);
    const head = el("div", "figure", label, el("span", "amount", this.number, el("span", "unit", " reward")));
    this.element = explain(el("div", "strip", head, this.canvas), WHY[what]);
  }

  /** `points` are [x, value, td_error]; `range` is what the width shows, `cursor` where a replay stands. */
  draw(points, range, now, cursor = null) {
    const { canvas, scale } = this;
    const column = this.what === "value" ? 1 : 2;
    const shown = points.filter((point) => point[0] >= range[0] && Number.isFinite(point[column]));
    const last = cursor === null ? shown.at(-1) : shown.findLast((point) => point[0] <= cursor);
    scale.include(
      shown.map((point) => point[column]),
      now,
    );
    write(this.number, value(last?.[column], scale.span));
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    const height = Math.round(canvas.clientHeight * devicePixelRatio);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    palette ??= colours();
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    const x = (point) => ((point - range[0]) / (range[1] - range[0])) * width;
    const y = (amount) => height - 1 - scale.at(amount) * (height - 2);
    pen.fillStyle = palette.line;
    if (scale.low !== null && scale.low <= 0 && scale.high >= 0) pen.fillRect(0, Math.round(y(0)), width, 1);
    if (column === 1) {
      pen.strokeStyle = palette.blue;
      pen.lineWidth = 1.5 * devicePixelRatio;
      pen.beginPath();
      shown.forEach((point, k) => {
        const gap = cursor === null && k > 0 && point[0] - shown[k - 1][0] > GAP_MS;
        if (gap) pen.moveTo(x(point[0]), y(point[1]));
        else pen.lineTo(x(point[0]), y(point[1]));
      });
      pen.stroke();
    } else {
      pen.fillStyle = palette.orange;
      const wide = Math.max(1, devicePixelRatio);
      shown.forEach((point) =>
        pen.fillRect(x(point[0]), Math.min(y(0), y(point[2])), wide, Math.max(1, Math.abs(y(point[2]) - y(0)))),
      );
    }
    if (cursor !== null) {
      pen.fillStyle = palette.ink;
      pen.fillRect(x(cursor), 0, devicePixelRatio, height);
    }
  }
}

export class Strips {
  constructor(span = `last ${SECONDS} s`) {
    this.parts = [new Strip("value", span), new Strip("td_error", span)];
    this.element = el("div", "strips", ...this.parts.map((part) => part.element));
    this.points = [];
  }

  /** Remember a packet of a room that is on. */
  add({ value: v, td_error: error }, now) {
    this.points.push([now, v ?? NaN, error ?? NaN]);
    if (this.points.length > 60 * SECONDS * 2) this.points.splice(0, 60 * SECONDS);
  }

  /** Draw the last seconds. */
  draw(now) {
    while (this.points.length && this.points[0][0] < now - 1000 * SECONDS) this.points.shift();
    for (const part of this.parts) part.draw(this.points, [now - 1000 * SECONDS, now], now);
  }

  /** Draw an episode whose packets are all known, with a cursor. */
  drawAll(points, cursor) {
    for (const part of this.parts) part.draw(points, [0, Math.max(1, points.length - 1)], 0, cursor);
  }
}
