// The learning curve with its confidence band, drawn by uPlot.

import { colours, el, explain, write } from "./explain.js";
import { count, points } from "./format.js";

const WHY = "Mean score of the games played to judge the agent; the band is where it lies with 95 % confidence.";

/** Steps along the axis, all in the unit of the largest. */
const thousands = (x, most) => (most >= 1e6 ? `${x / 1e6} M` : most >= 1e4 ? `${x / 1e3} k` : count(x));

export class Curve {
  constructor() {
    this.caption = el("span", "limits");
    this.box = el("div", "curve");
    this.empty = el("p", "empty", "No score yet: it comes with the first evaluation.");
    this.box.append(this.empty);
    const head = explain(el("h3", "", "Mean score"), WHY);
    this.element = el("div", "chart", el("div", "heading", head, this.caption), this.box);
    this.rows = [];
    new ResizeObserver(() => this.fit()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build());
  }

  /** Show [[steps, mean, low, high], ...]. */
  show(rows) {
    this.rows = rows;
    this.empty.hidden = rows.length > 0;
    if (!rows.length) return;
    if (this.plot) this.plot.setData(this.columns());
    else this.build();
    this.tell(null);
  }

  columns() {
    return [0, 1, 2, 3].map((column) => this.rows.map((row) => row[column]));
  }

  tell(at) {
    const row = this.rows[at ?? this.rows.length - 1];
    if (row)
      write(
        this.caption,
        `${points(row[1])} points (${points(row[2])} to ${points(row[3])}) at ${count(row[0])} steps`,
      );
  }

  fit() {
    if (this.plot) this.plot.setSize({ width: this.box.clientWidth, height: this.box.clientHeight });
    else if (this.rows.length) this.build();
  }

  build() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (!width || !height || !this.rows.length) return;
    this.plot?.destroy();
    const ink = colours();
    const axis = {
      stroke: ink.quiet,
      font: "10px sans-serif",
      grid: { stroke: ink.line, width: 1 },
      ticks: { show: false },
    };
    const edge = { stroke: "transparent", points: { show: false } };
    const options = {
      width,
      height,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: false } },
      axes: [
        { ...axis, size: 22, gap: 3, space: 46, values: (_, all) => all.map((x) => thousands(x, all.at(-1))) },
        { ...axis, size: 38, gap: 4, space: 28, values: (_, all) => all.map((x) => points(x)) },
      ],
      series: [{}, { stroke: ink.blue, width: 2, points: { show: this.rows.length === 1 } }, edge, edge],
      bands: [{ series: [3, 2], fill: `color-mix(in srgb, ${ink.blue} 25%, transparent)` }],
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)] },
    };
    this.plot = new uPlot(options, this.columns(), this.box);
  }
}
