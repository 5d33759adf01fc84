// Episodes that were kept: a list, and a player with a scrubber that shows every picture with its Q-values.

import { Bars } from "./bars.js";
import { request, say } from "./controls.js";
import { el, explain, Figure, figures, write } from "./explain.js";
import { clock, count, percent, points, three } from "./format.js";
import { Picture } from "./picture.js";
import { Strips } from "./strips.js";
import { decode, episode } from "./wire.js";

const WHY = {
  best: ["▲", "the highest score that this room has seen"],
  worst: ["▼", "the lowest score that this room has seen"],
  latest: ["●", "the last game that ended in this room"],
};
const KINDS = { webp: "WebP", gif: "GIF" };
const KEPT = ["·", "recorded on purpose"];
const USUAL_PER_S = 30; // pictures
const PACES = [0.25, 0.5, 1, 2, 4];
const FIGURES = {
  score: ["Score", "points", "The game's own points up to this picture."],
  reward: ["Reward", "points", "What this step of the game gave, in the game's own points."],
  step: ["Step", "steps", "Decisions taken up to this picture."],
  think: ["Latency", "ms", "How long the policy took to choose this action."],
};

export class Episodes {
  constructor(root, wire, counters) {
    Object.assign(this, { root, wire, counters, rooms: new Map(), list: [], packets: [], at: 0, waiting: new Map() });
    this.choices = el("ul", "choices");
    const none = "No game has been kept yet. The best, the worst and the latest game of each room will stand here.";
    this.empty = el("p", "empty", none);
    this.stale = el("p", "empty", "No connection: the list is as it was, and no other game can be opened.");
    this.stale.hidden = true;
    this.picture = new Picture("The recorded game's picture");
    this.note = el("p", "note", "Choose a game from the list.");
    this.picture.box.append(this.note);
    this.strips = new Strips("whole game");
    this.figures = Object.fromEntries(Object.entries(FIGURES).map(([name, texts]) => [name, new Figure(...texts)]));
    this.heading = el("h2", "", "No game chosen");
    this.words = el("p", "plain", "Choose a game to see it again with what its player expected.");
    this.values = el("div", "panel");
    this.element = el(
      "article",
      "room player",
      el("header", "", this.heading, this.words),
      this.picture.box,
      this.values,
      this.transport(),
    );
    const head = explain(el("h2", "", "Kept games"), "Of each room the best, the worst and the latest game are kept.");
    root.append(el("div", "kept", head, this.stale, this.choices, this.empty), this.element);
    this.bars = new Bars([], null);
    this.values.append(this.bars.element, this.strips.element, figures(...Object.values(this.figures)));
    this.element.dataset.idle = "";
    this.element.setAttribute("aria-label", "The chosen game");
    this.able(false);
  }

  transport() {
    const button = (text, sentence, act) => {
      const made = el("button", "", text);
      made.type = "button";
      made.title = sentence;
      made.setAttribute("aria-label", sentence);
      made.addEventListener("click", act);
      return made;
    };
    this.slider = el("input");
    this.slider.type = "range";
    this.slider.min = this.slider.value = 0;
    this.slider.max = 0;
    this.slider.setAttribute("aria-label", "Picture of the game; arrow keys go one picture on or back");
    this.slider.title = "Drag, or go picture by picture with the arrow keys.";
    this.slider.addEventListener("input", () => {
      this.play(false);
      this.seek(Number(this.slider.value));
    });
    this.back = button("−1", "One picture back", () => this.step(-1));
    this.toggle = button("▶", "Play or pause (space bar)", () => this.play(!this.playing));
    this.on = button("+1", "One picture on", () => this.step(1));
    this.pace = el("select", "", ...PACES.map((times) => new Option(`${times} ×`, times)));
    this.pace.value = 1;
    this.pace.title = "How fast the game is shown: 1 × is as fast as it was played.";
    this.pace.setAttribute("aria-label", "Speed");
    this.where = el("span", "where", "picture – of –");
    this.saves = Object.entries(KINDS).map(([kind, name]) => {
      const what = kind === "webp" ? "WebP: small and exact" : "GIF: larger, shown everywhere";
      const sentence = `Save this game as an animated ${what}.`;
      const made = button(`Save ${name}`, sentence, () => this.save(made, kind));
      return made;
    });
    const footer = el(
      "footer",
      "transport",
      el("div", "buttons", this.back, this.toggle, this.on, this.pace),
      this.slider,
      this.where,
      el("div", "buttons saves", ...this.saves),
    );
    footer.addEventListener("keydown", (event) => {
      if (event.key !== " " || event.target !== this.slider) return;
      event.preventDefault();
      this.play(!this.playing);
    });
    return footer;
  }

  able(yes) {
    for (const each of [this.slider, this.back, this.toggle, this.on, this.pace, ...this.saves]) each.disabled = !yes;
  }

  /** Learn the rooms' titles and actions. */
  tell(rooms) {
    for (const room of rooms) this.rooms.set(room.id, room);
    this.show(this.list);
  }

  /** Ask for the list anew. */
  async refresh() {
    if (!this.wire.welcome) return; // `status` says it, and the list comes with the connection
    try {
      this.show(await this.wire.fetch("/episodes", "json"));
    } catch (error) {
      say(`The list of games could not be read. ${error.message}`, true);
    }
  }

  /** Say whether games can be opened. */
  status(connection) {
    this.stale.hidden = connection === "connected";
  }

  /** Show a list of episodes, by room; the chosen one stays chosen. */
  show(list) {
    this.list = list;
    this.empty.hidden = list.length > 0;
    const place = (names, name) => (names.includes(name) ? names.indexOf(name) : names.length);
    const known = [...this.rooms.keys()];
    const rooms = [...new Set(list.map((each) => each.room))].sort((a, b) => place(known, a) - place(known, b));
    const ordered = [...list].sort((a, b) => place(Object.keys(WHY), a.why) - place(Object.keys(WHY), b.why));
    const groups = rooms.map((room) => {
      const head = el("h3", "", this.rooms.get(room)?.title ?? room);
      return el(
        "li",
        "",
        head,
        el("ul", "", ...ordered.filter((each) => each.room === room).map((each) => this.choice(each))),
      );
    });
    const focused = document.activeElement?.dataset?.episode;
    this.choices.replaceChildren(...groups);
    if (focused) this.choices.querySelector(`[data-episode="${CSS.escape(focused)}"]`)?.focus();
  }

  choice(each) {
    const [sign, sentence] = WHY[each.why] ?? KEPT;
    const mark = el("span", `sign ${each.why}`, sign);
    mark.setAttribute("aria-hidden", "true");
    const made = el(
      "button",
      "choice",
      mark,
      el("span", "why", each.why),
      el("b", "", `${points(each.score)} points`),
      el("span", "unit", `${count(each.length)} steps · ${clock(each.time)}`),
    );
    made.type = "button";
    made.title = `${each.why}: ${sentence}${each.seed === null ? "" : `; seed ${each.seed}`}. ${each.cut ?? ""}`;
    made.dataset.episode = each.id;
    made.setAttribute("aria-pressed", each.id === this.chosen?.id);
    made.addEventListener("click", () => this.open(each));
    return el("li", "", made);
  }

  /** Load an episode and play it from its first picture; until it is there, what is shown stays. */
  async open(each) {
    this.play(false);
    const turn = (this.opening = (this.opening ?? 0) + 1);
    const made = this.choices.querySelector(`[data-episode="${CSS.escape(each.id)}"]`);
    made?.setAttribute("aria-busy", "true");
    let packets = [];
    let fault = "There is nothing to show in this game's file.";
    try {
      packets = episode(await this.wire.fetch(`/episodes/${encodeURIComponent(each.id)}.ep`, "arrayBuffer"));
    } catch (error) {
      fault = `This game could not be opened. ${error.message}`;
    }
    made?.removeAttribute("aria-busy");
    if (turn !== this.opening) return;
    if (packets.length) return this.put(each, packets);
    say(fault, true);
    this.refresh();
  }

  /** Show another episode. */
  put(each, packets) {
    this.chosen = each;
    for (const made of this.choices.querySelectorAll("[data-episode]"))
      made.setAttribute("aria-pressed", made.dataset.episode === each.id);
    const about = this.rooms.get(each.room);
    write(this.heading, `${about?.title ?? each.room}: ${each.why} game`);
    const seed = each.seed === null ? "" : `, seed ${each.seed}`;
    const played = `${points(each.score)} points in ${count(each.length)} steps${seed}, ${clock(each.time)}.`;
    write(this.words, `${played} ${each.cut ?? ""}`);
    this.note.hidden = true;
    this.packets = packets;
    this.able(true);
    delete this.element.dataset.idle;
    this.rate = each.pictures_per_s || USUAL_PER_S;
    this.points = packets.map(({ meta }, k) => [k, meta.value ?? NaN, meta.td_error ?? NaN]);
    this.bars.element.remove();
    this.bars = new Bars(about?.actions ?? [], about?.scores, about?.range, about?.kind === "you");
    const values = packets.map(({ meta }) => meta.q ?? (Array.isArray(meta.action) ? meta.action : []));
    if (packets.some(({ meta }) => Array.isArray(meta.action))) this.bars.say("continuous");
    this.bars.include(values, 0); // one scale for the whole game
    this.values.prepend(this.bars.element);
    this.slider.max = packets.length - 1;
    this.element.scrollIntoView({ block: "nearest" });
    this.seek(0);
    this.play(true);
  }

  step(by) {
    this.play(false);
    this.seek(this.at + by);
  }

  /** Go to a picture. Only the newest wish is painted, however fast the scrubber moves. */
  async seek(to) {
    this.at = Math.min(this.packets.length - 1, Math.max(0, to));
    const { meta, image } = this.packets[this.at];
    this.slider.value = this.at;
    this.slider.setAttribute("aria-valuetext", `picture ${this.at + 1} of ${this.packets.length}, step ${meta.step}`);
    write(this.where, `picture ${this.at + 1} of ${this.packets.length}`);
    this.bars.show(meta, 0);
    this.strips.drawAll(this.points, this.at);
    this.figures.score.set(points(meta.score));
    this.figures.reward.set(points(meta.reward));
    this.figures.step.set(count(meta.step));
    this.figures.think.set(three(meta.act_ms));
    this.counters.replay = { id: this.chosen.id, at: this.at, of: this.packets.length };
    const wanted = this.packets[this.at];
    try {
      const bitmap = await decode(image, meta.format);
      if (this.packets[this.at] === wanted) this.picture.paint(bitmap);
      else bitmap.close();
    } catch (error) {
      this.counters.broken.push(`${this.chosen.id}: ${error}`);
    }
  }

  /** Play or halt; at the end playing starts over. */
  play(on) {
    clearTimeout(this.timer);
    this.playing = on && this.packets.length > 1;
    write(this.toggle, this.playing ? "❚❚" : "▶");
    this.toggle.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    if (!this.playing) return;
    if (this.at >= this.packets.length - 1) this.seek(0);
    let due = performance.now();
    const next = () => {
      if (this.at >= this.packets.length - 1) return this.play(false);
      this.seek(this.at + 1);
      due = Math.max(due + 1000 / (this.rate * Number(this.pace.value)), performance.now());
      this.timer = setTimeout(next, due - performance.now());
    };
    this.timer = setTimeout(next, 1000 / this.rate);
  }

  /** Download the chosen game as an animation; its button shows how much of it is done. */
  async save(made, kind) {
    const { id } = this.chosen;
    this.waiting.set(`${id}.${kind}`, made);
    await request(made, this.download(id, kind), "Every picture is encoded: that takes a while for a long game.");
    this.waiting.delete(`${id}.${kind}`);
    write(made, `Save ${KINDS[kind]}`);
  }

  saving({ id, form, share }) {
    const made = this.waiting.get(`${id}.${form}`);
    if (made) write(made, `${KINDS[form]}: ${percent(share)}`);
  }

  async download(id, kind) {
    const name = `${id}.${kind}`;
    try {
      const data = await this.wire.fetch(`/episodes/${encodeURIComponent(id)}.${kind}`, "blob");
      const link = el("a");
      link.href = URL.createObjectURL(data);
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      return { ok: true, said: `${name} is saved.` };
    } catch (error) {
      return { ok: false, said: `${name} could not be saved. ${error.message}` };
    }
  }
}
