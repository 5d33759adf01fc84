// A room: one player of one game, with what it sees, what it expects, and what it does.

import { Bars } from "./bars.js";
import { request } from "./controls.js";
import { el, Figure, explain, figures, write } from "./explain.js";
import { bytes, count, NONE, percent, points, three } from "./format.js";
import { Keys } from "./keys.js";
import { Picture } from "./picture.js";
import { Strips } from "./strips.js";
import { decode } from "./wire.js";

const PLAIN = {
  live: "Learning as it plays, with some random moves.",
  latest: "The newest policy, without random moves.",
  saved: "A trained policy, without random moves.",
  frozen: "A finished copy that plays and no longer learns.",
  you: "The game in your own hands.",
  watched: "A person's game; this link only watches.",
};
const GOING = ["training", "inference only"]; // modes in which the trainer plays
const SPEEDS = [0.25, 0.5, 1, 2, 4];
const HOWS = { none: "No highlight", gradient: "Gradient", perturbation: "Perturbation" };

const FIGURES = {
  score: ["Score", "points", "The game's own points since this game began."],
  reward: ["Reward", "points", "What the last step of the game gave, in the game's own points."],
  step: ["Step", "steps", "Decisions taken since this game began."],
  episode: ["Games", "begun", "How many games this room has begun."],
  age: [
    "Age",
    "updates",
    "Age of the policy: how many learning updates the training network is ahead of the policy that plays here.",
  ],
  think: ["Latency", "ms", "How long the policy took to choose its last action."],
  agreement: ["Agreement", "%", "How often the frozen policy chooses the same action as the policy it was made from."],
  size: ["Size", "", "Size of the frozen policy's file, and the kind of numbers it computes with."],
  lag: ["Key lag", "ms", "Time from your last change of keys to the picture that shows it."],
  seed: ["Seed", "", "The number that fixes this game's chance: the same seed begins the same game for everyone."],
};
const SHOWN = {
  live: ["score", "reward", "step", "episode", "age", "think"],
  latest: ["score", "reward", "step", "episode", "age", "think", "seed"],
  frozen: ["score", "reward", "step", "episode", "agreement", "size", "think", "seed"],
  you: ["score", "reward", "step", "episode", "lag", "seed"],
};

export class Room {
  /** `wire` carries what is asked; `counters` is window.icebox. */
  constructor(about, wire, counters) {
    Object.assign(this, { id: about.id, kind: about.kind, wire, counters });
    this.you = about.kind === "you";
    this.picture = new Picture(`${about.title}: the game's picture`);
    this.bars = new Bars(about.actions, about.scores, about.range, this.you);
    this.strips = about.scores === "values" && !this.you ? new Strips() : null;
    this.heading = el("h2");
    this.state = el("span", "chip");
    this.state.hidden = true;
    this.note = el("p", "note", "Waiting for the first picture …");
    this.picture.box.append(this.note);
    this.figures = Object.fromEntries(SHOWN[this.kind].map((name) => [name, new Figure(...FIGURES[name])]));
    this.how = "none";
    this.plain = el("p", "plain");
    const title = el("header", "", this.heading, this.state, this.plain);
    const panel = el("div", "panel", this.bars.element);
    if (this.you) panel.prepend(this.play(about));
    if (this.strips) panel.append(this.strips.element);
    panel.append(figures(...Object.values(this.figures)));
    this.footer = el("footer", "controls");
    this.element = el("article", "room", title, this.picture.box, panel, this.footer);
    this.element.dataset.room = about.id;
    this.element.dataset.kind = about.kind;
    this.painting = 0;
  }

  /** Take in what the server says of this room and of all: whether this page may ask, and how many rooms play. */
  tell(about, { controls, run, rooms }) {
    const others = rooms.filter((room) => room.kind !== "live").length > 1;
    write(this.heading, about.title);
    this.element.setAttribute("aria-label", about.title);
    this.heading.title = [about.title, about.game, about.policy].filter(Boolean).join(" · ");
    this.fault = about.fault ?? "";
    const kind = this.kind === "latest" && !run ? "saved" : this.you && !controls ? "watched" : this.kind;
    write(this.plain, this.fault || PLAIN[kind]);
    this.plain.title = this.plain.textContent;
    this.plain.toggleAttribute("data-bad", Boolean(this.fault));
    if (about.frozen) {
      this.figures.agreement?.set(percent(about.frozen.agreement, 1).replace(" %", ""));
      this.figures.size?.set(bytes(about.frozen.bytes), (about.frozen.precision ?? "").replace("float", "f"));
    }
    if (this.you) this.lend(controls);
    this.advice = about.advice;
    if (this.advice === false) this.bars.forget(about.scores);
    this.bars.scores = about.scores;
    const advised = typeof about.advice === "boolean";
    const able = `${controls} ${about.saliency} ${others} ${advised}`;
    if (this.able !== able)
      this.footer.replaceChildren(...(controls ? this.buttons(about.saliency, others, advised) : []));
    this.able = able;
    this.ask?.setAttribute("aria-pressed", about.advice);
  }

  buttons(saliency, others, advised) {
    const all = [];
    if (advised) {
      this.ask = el("button", "advice", "Advice");
      this.ask.title = "Show what the agent expects of each action while you play.";
      this.ask.addEventListener("click", () =>
        request(this.ask, this.wire.ask("advise", this.id, this.advice ? 0 : 1)),
      );
    }
    if (this.kind !== "live") {
      const speed = el("select", "", ...SPEEDS.map((times) => new Option(`Speed ${times} ×`, times)));
      speed.value = this.speed ?? 1;
      speed.addEventListener("change", async () => {
        const wanted = Number(speed.value);
        speed.value = this.speed ?? 1; // until the answer has come
        if ((await request(speed, this.wire.ask("speed", this.id, wanted))).ok) this.speed = wanted;
        speed.value = this.speed ?? 1;
      });
      speed.title = "How fast this room plays: 1 × is the speed at which people play the game.";
      all.push(this.named(speed, "Speed"));
    }
    if (saliency) {
      const how = el("select", "", ...Object.entries(HOWS).map(([value, text]) => new Option(text, value)));
      how.value = this.how;
      how.addEventListener("change", () => this.look(how.value));
      how.title =
        "Mark what the choice hangs on, orange much, blue little: by its gradient, or by hiding patches (slow, true).";
      all.push(this.named(how, "Highlight"));
    }
    if (this.kind !== "live") {
      this.halt = el("button", "halt");
      this.halt.addEventListener("click", async () => {
        if ((await request(this.halt, this.wire.ask(this.halted ? "go on" : "pause", this.id))).ok)
          this.hold(!this.halted);
      });
      this.hold(Boolean(this.halted));
      const restart = el("button", "", "Restart");
      restart.title = "Begin a new game in this room.";
      restart.addEventListener("click", async () => {
        if ((await request(restart, this.wire.ask("restart", this.id))).ok) this.hold(false);
      });
      const same = el("button", "", "Same seed in all");
      same.title = "Begin this game's seed anew in every room but the live one, so that all play the same game.";
      same.addEventListener("click", () => request(same, this.wire.ask("same seed", this.id, this.seed ?? null)));
      all.push(this.halt, restart, ...(this.ask ? [this.ask] : []), ...(others ? [same] : []));
    }
    return all;
  }

  /** Show whether this room stands still, as the server has answered. */
  hold(still) {
    this.halted = still;
    write(this.halt, still ? "▶" : "❚❚");
    this.halt.title = still ? "Let this room go on." : "Let this room stand still.";
    this.halt.setAttribute("aria-label", this.halt.title);
  }

  named(control, name) {
    control.setAttribute("aria-label", name);
    return control;
  }

  /** Ask for another overlay; also again after a reconnection. */
  look(how) {
    this.how = how;
    if (how === "none") this.picture.clear();
    this.wire.send({ type: "saliency", room: this.id, how });
  }

  /** Make the picture a place to play in. */
  play(about) {
    const { canvas, box } = this.picture;
    this.keys = new Keys(canvas, about.keys, about.actions, (held) =>
      this.wire.send({ type: "keys", room: this.id, held }),
    );
    canvas.addEventListener("keydown", (event) => event.key === "Escape" && canvas.blur());
    box.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      if (this.keys.able) canvas.focus({ preventScroll: true });
    });
    this.lets = el("span", "limits", "Esc lets go");
    const focus = () => {
      this.on = document.activeElement === canvas;
      box.toggleAttribute("data-on", this.on);
      this.lets.hidden = !this.on;
    };
    canvas.addEventListener("focus", focus);
    canvas.addEventListener("blur", focus);
    focus();
    const head = explain(el("h3", "", "Keys"), "Your keys, lit while they are held; on a touch screen hold them here.");
    return el("div", "play", el("div", "heading", head, this.lets), this.keys.element);
  }

  /** Let this page play, or only look on. */
  lend(able) {
    const { canvas, box } = this.picture;
    if (!able) this.keys.clear();
    this.keys.able = able;
    canvas.tabIndex = able ? 1 : -1; // the first Tab of the page leads here, as the hint says
    canvas.setAttribute("role", able ? "application" : "img");
    const label = able ? `Your game. Play with ${this.keys.words}; Escape lets go.` : "The game of whoever may play.";
    canvas.setAttribute("aria-label", label);
    box.toggleAttribute("data-lent", able);
  }

  /** Paint a packet, then tell the server that the next may come. */
  async show({ meta, image, saliency }) {
    const turn = ++this.painting;
    try {
      const bitmap = await decode(image, meta.format);
      if (turn === this.painting) {
        this.element.dataset.shape = bitmap.width > 1.2 * bitmap.height ? "wide" : "tall";
        this.picture.paint(bitmap);
        if (saliency.length && this.how !== "none") this.picture.lay(await decode(saliency, "png"));
        else this.picture.clear(this.how !== "none");
        this.counters.frames[this.id] = (this.counters.frames[this.id] ?? 0) + 1;
      } else bitmap.close();
    } catch (error) {
      this.counters.broken.push(`${this.id}: ${error}`); // it is left out, the next may be right
    }
    this.wire.send({ type: "got", room: this.id, n: meta.n });
    const now = performance.now();
    this.strips?.add(meta, now);
    if (this.you && !this.keys.able) this.keys.mirror(meta.held);
    const lag = this.keys?.answered(meta.held);
    if (lag !== null && lag !== undefined) {
      this.counters.latency_ms.push(lag);
      this.figures.lag.set(three(lag));
    }
    this.meta = meta;
    this.seen = now;
    this.fresh = true;
  }

  /** Redraw the instruments, ten times a second. `state` is of the connection, `mode` of the run. */
  tick(now, state, mode) {
    this.status(state, mode);
    if (this.strips && state === "connected" && this.meta) this.strips.draw(now);
    if (!this.fresh) return;
    this.fresh = false;
    const { meta, figures: all } = this;
    this.bars.show(this.advice === false ? { ...meta, q: null } : meta, now); // one may still come with advice
    all.score.set(points(meta.score));
    all.reward.set(points(meta.reward));
    all.step.set(count(meta.step));
    all.episode.set(count(meta.episode));
    all.age?.set(count(meta.policy_age_updates));
    all.think?.set(three(meta.act_ms));
    this.seed = meta.seed;
    all.seed?.set(Number.isFinite(meta.seed) ? String(meta.seed) : NONE);
  }

  status(state, mode) {
    let still = "";
    if (!this.meta)
      still = state === "connected" ? this.fault || "Waiting for the first picture …" : "Not connected yet.";
    else if (state === "over") still = "The viewer has ended: this is the last picture.";
    else if (state !== "connected") still = "Connection lost: this is the last picture.";
    else if (this.kind === "live" && mode === "paused") still = "Training is paused.";
    else if (this.kind === "live" && mode && !GOING.includes(mode)) still = "The run does not train now.";
    const held = this.keys?.held.size;
    let hint = "";
    if (this.you && !this.keys.able) {
      if (this.meta?.waiting) hint = "This link only watches: nobody plays at the moment.";
    } else if (this.you && !this.on && !held) hint = `Click here or press Tab, then play with ${this.keys.words}`;
    else if (this.meta?.waiting) hint = "Your game begins with the first key.";
    this.note.hidden = !(still || hint);
    write(this.note, still || hint);
    const chip = still ? "" : this.meta?.ended ? "game over" : this.halted ? "paused" : "";
    this.state.hidden = !chip;
    write(this.state, chip);
    this.element.toggleAttribute("data-still", Boolean(still) && Boolean(this.meta));
  }
}
