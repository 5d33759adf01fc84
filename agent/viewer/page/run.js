// The run panel: where training stands, where its time goes, what has happened, and what can be asked of it.

import { Controls } from "./controls.js";
import { Curve } from "./curve.js";
import { el, explain, Figure, figures, rove, write } from "./explain.js";
import { clock, count, duration, hundred, NONE, percent, three } from "./format.js";

const STATES = {
  training: ["Training", "The agent plays and learns."],
  paused: ["Paused", "The training stands still; the other rooms play on."],
  "inference only": ["Inference only", "The agent plays; nothing is learned."],
  starting: ["Starting", "The first games are being set up."],
  done: ["Finished", "The run has taken all its steps."],
  stopped: ["Stopped", "The run was ended; it can be resumed."],
  crashed: ["Crashed", "The run's process ended on its own."],
  ended: ["Ended", "The run's process is over."],
  unknown: ["Connection lost", "This was heard last."],
};
const GOING = ["training", "inference only", "paused"];
const PHASES = {
  acting: "choosing actions",
  simulating: "waiting for the games",
  learning: "learning updates",
  storing: "storing what was seen",
  telemetry: "measuring what the dashboards show",
  other: "evaluating, saving, writing logs",
};
const FIGURES = {
  left: ["Time left", "", "How long the run will still take at its present speed."],
  speed: ["Speed", "steps/s", "Decisions per second, over all games together."],
  updates: ["Learning", "updates/s", "Changes made to the network's weights per second."],
  epsilon: [
    "Random moves",
    "of moves",
    "Epsilon: the share of moves that are made at random, to find out something new.",
  ],
  replay: [
    "Memory of play",
    "full",
    "Replay: how much of the store of past steps, from which the agent learns, is filled.",
  ],
  memory: ["RAM", "GiB", "Memory that the training process holds on this machine."],
};

export class Run {
  constructor(root, wire) {
    this.root = root;
    this.state = el("b", "state");
    this.words = el("span", "plain");
    this.head = el("header", "", this.state, this.words);
    this.head.setAttribute("role", "status");
    this.controls = new Controls(wire);
    this.curve = new Curve();
    this.figures = Object.fromEntries(Object.entries(FIGURES).map(([name, texts]) => [name, new Figure(...texts)]));
    this.steps = new Figure("Steps", "steps", "Decisions taken in all games of this run, of those it shall take.");
    this.done = el("progress");
    this.done.max = 1;
    this.done.setAttribute("aria-label", "Steps done");
    const done = el("div", "done", this.steps.element, this.done);
    this.bar = el("div", "sharebar");
    this.bar.setAttribute("role", "img");
    this.legend = el("ul", "legend");
    this.events = el("ol", "events");
    this.events.tabIndex = 0;
    this.events.setAttribute("aria-label", "Events, newest first");
    const why = "Where each second of the training process goes; the parts add up to 100 %.";
    this.alive = true;
    const shares = el(
      "div",
      "shares",
      el("div", "heading", explain(el("h3", "", "Where the time goes"), why)),
      this.bar,
      this.legend,
    );
    const heard = el(
      "div",
      "heard",
      el("div", "heading", explain(el("h3", "", "Events"), "What happened in the run, newest first.")),
      this.events,
    );
    this.watching = el("p", "readonly", "Read-only: this link changes nothing.");
    root.replaceChildren(
      this.head,
      this.controls.switch,
      this.curve.element,
      done,
      figures(...Object.values(this.figures)),
      shares,
      heard,
      this.controls.line,
      this.controls.element,
      this.watching,
    );
  }

  /** Take in who may do what. */
  tell(controls, freezes) {
    if (this.able !== controls || this.controls.freezes !== freezes) {
      this.controls.freezes = freezes;
      this.controls.sure(false);
    }
    this.able = controls;
    const { switch: modes, line, element } = this.controls;
    for (const each of [modes, line, element]) each.hidden = !controls;
    this.watching.hidden = controls;
  }

  /** Show a message of the run. */
  show(run) {
    this.run = run;
    this.mode = run.alive === false && !(run.mode in STATES && !GOING.includes(run.mode)) ? "ended" : run.mode;
    this.alive = run.alive !== false;
    if (run.curve) this.curve.show(run.curve);
    const all = this.figures;
    this.steps.set(count(run.steps), `of ${count(run.total_steps)} steps`);
    this.done.value = run.total_steps ? Math.min(1, run.steps / run.total_steps) : 0;
    all.left.set(this.mode === "training" || this.mode === "inference only" ? duration(run.eta_s) : NONE);
    all.speed.set(three(run.steps_per_s));
    all.updates.set(three(run.updates_per_s));
    all.epsilon.set(percent(run.epsilon, 1));
    all.replay.set(
      run.replay_capacity ? percent(run.replay_size / run.replay_capacity) : NONE,
      `of ${count(run.replay_capacity)}`,
    );
    all.memory.set(three(run.memory_gib));
    this.share(run.shares ?? {});
    this.happen(run.events ?? []);
    this.status("connected");
  }

  /** Show how the run stands, as far as that is known; of a viewer that was ended the last word holds. */
  status(connection) {
    const ended = connection === "over";
    if (ended) connection = "connected";
    const mode = connection === "connected" ? (this.mode ?? "unknown") : "unknown";
    const [name, sentence] =
      connection === "connected" && !this.mode
        ? ["Waiting", "Nothing has been heard of the run yet."]
        : (STATES[mode] ?? [mode, ""]);
    this.root.dataset.mode = mode;
    write(this.state, name);
    write(this.words, (mode !== "unknown" && this.run?.ended) || sentence);
    const heard = connection === "connected" && Boolean(this.run);
    this.root.toggleAttribute("data-over", heard && !this.alive);
    const able = this.able && heard && !ended;
    this.controls.show(mode, able && this.alive, able);
  }

  share(shares) {
    this.bar.parentElement.hidden = !Object.keys(shares).length;
    const names = Object.keys(shares);
    if (names.join() !== this.phases) {
      this.phases = names.join();
      this.parts = names.map((name, k) => {
        const part = el("span", `phase p${k % 6}`);
        const number = el("b", "", NONE);
        const sentence = `Time spent ${PHASES[name] ?? `on ${name}`}, as a part of all of the training process's time.`;
        const entry = explain(el("li", "", el("span", `dot p${k % 6}`), `${name} `, number), sentence);
        part.title = sentence;
        return { part, number, entry };
      });
      this.bar.replaceChildren(...this.parts.map(({ part }) => part));
      this.legend.replaceChildren(...this.parts.map(({ entry }) => entry));
      rove(this.legend);
    }
    const whole = hundred(Object.values(shares));
    this.parts.forEach(({ part, number }, k) => {
      part.style.flexGrow = Math.max(0, shares[names[k]]);
      write(number, `${whole[k]} %`);
    });
    this.bar.setAttribute("aria-label", names.map((name, k) => `${name} ${whole[k]} %`).join(", "));
  }

  happen(events) {
    const key = JSON.stringify(events);
    if (key === this.known) return;
    this.known = key;
    const line = ([time, text]) => el("li", "", el("time", "", clock(time)), " ", String(text));
    this.events.replaceChildren(...[...events].reverse().map(line));
    if (!events.length) this.events.append(el("li", "", "Nothing said since this viewer looks; train.log has the rest."));
  }
}
