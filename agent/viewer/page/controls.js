// Asking the server for something: the button shows that nobody has answered yet, then the answer is told.

import { el, write } from "./explain.js";

const SLOW_MS = 8000;
const SHOWN_MS = 6000;
let hiding;

/** Tell something for a few seconds at the head of the page, where it covers no control. */
export function say(text, bad = false) {
  const place = document.getElementById("said");
  place.toggleAttribute("data-bad", bad);
  write(place, text);
  place.title = text;
  place.toggleAttribute("data-shown", true);
  clearTimeout(hiding);
  hiding = setTimeout(() => place.removeAttribute("data-shown"), SHOWN_MS);
}

const SLOW = "No answer yet; what is shown is still how things stand.";

/** Mark a control as waiting until `answer` has come, tell what was answered, and return it. */
export async function request(control, answer, meanwhile = SLOW) {
  const focused = document.activeElement === control;
  control.setAttribute("aria-busy", "true");
  control.disabled = true;
  const slow = setTimeout(() => say(meanwhile), SLOW_MS);
  const done = await answer;
  clearTimeout(slow);
  control.removeAttribute("aria-busy");
  control.disabled = false;
  if (focused && document.activeElement === document.body) control.focus();
  window.icebox.acks.push(done);
  say(done.said || (done.ok ? "Done." : "Refused."), !done.ok);
  return done;
}

const button = (text, sentence) => {
  const made = el("button", "", text);
  made.type = "button";
  made.title = sentence;
  return made;
};

/** What can be asked of a run. What looks switched on is what the run has acknowledged, never what was clicked. */
export class Controls {
  constructor(wire) {
    this.freezes = false; // whether this server can freeze the run
    this.pause = button("Pause", "Halt the run where it is; nothing is lost.");
    this.pause.addEventListener("click", () =>
      request(this.pause, wire.ask(this.mode === "paused" ? "go on" : "pause")),
    );
    const modes = {
      training: ["Training", "train", "The agent plays and learns from what it sees."],
      "inference only": [
        "Inference only",
        "inference only",
        "The agent goes on playing, but nothing is learned and no weight changes.",
      ],
    };
    this.modes = Object.entries(modes).map(([mode, [text, what, sentence]]) => {
      const made = button(text, sentence);
      made.dataset.mode = mode;
      made.addEventListener("click", () => this.mode !== mode && request(made, wire.ask(what)));
      return made;
    });
    this.save = button("Save checkpoint", "Write everything needed to go on from here to the disk now.");
    this.save.addEventListener("click", () => request(this.save, wire.ask("checkpoint")));
    this.freeze = button(
      "Freeze now",
      "Make a small policy that only plays, check it, and open it in a room of its own.",
    );
    this.freeze.className = "freeze";
    this.freeze.addEventListener("click", () => request(this.freeze, wire.ask("freeze")));
    this.stop = button("Stop …", "Save and end the run; it can be resumed later.");
    this.stop.addEventListener("click", () => this.sure(true));
    this.yes = button("Yes, stop", "Save and end the run now.");
    this.yes.addEventListener("click", async () => {
      await request(this.yes, wire.ask("stop"));
      this.sure(false);
    });
    this.no = button("No, go on", "Let the run go on.");
    this.no.addEventListener("click", () => this.sure(false));
    this.progress = el("span");
    this.question = el("span", "", "End this run? It is saved first and can be resumed.");
    this.question.id = "stop-question";
    this.yes.setAttribute("aria-describedby", this.question.id);
    this.no.setAttribute("aria-describedby", this.question.id);
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.question.hidden) this.sure(false);
    });
    this.line = el("p", "freezing", this.progress, this.question);
    this.line.setAttribute("role", "status");
    const group = el("div", "segments", ...this.modes);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Mode");
    this.switch = el("div", "switch", this.pause, group);
    this.element = el("div", "asks", this.save, this.freeze, this.stop, this.yes, this.no);
    this.sure(false);
  }

  /** Ask once more before the run is stopped. */
  sure(asked) {
    clearTimeout(this.unsure);
    const inside = this.element.contains(document.activeElement);
    this.save.hidden = this.stop.hidden = asked;
    this.freeze.hidden = asked || !this.freezes;
    this.yes.hidden = this.no.hidden = this.question.hidden = !asked;
    this.progress.hidden = asked;
    if (inside) [asked ? this.no : this.stop, this.freeze].find((each) => each.offsetParent)?.focus();
    if (asked) this.unsure = setTimeout(() => this.sure(false), 15000);
  }

  /** Show how far freezing has come. */
  freezing({ progress, done, ok = true }) {
    this.busy = !done;
    this.line.toggleAttribute("data-long", done);
    this.freeze.disabled = this.busy;
    this.freeze.toggleAttribute("data-working", this.busy);
    write(this.progress, done ? progress : `Freezing: ${progress}`);
    this.line.title = progress;
    this.line.toggleAttribute("data-bad", !ok);
  }

  /** Show the state that the run has acknowledged; what is over can still be frozen. */
  show(mode, able, freezable) {
    this.mode = mode;
    write(this.pause, mode === "paused" ? "Go on" : "Pause");
    for (const each of this.modes) each.setAttribute("aria-pressed", each.dataset.mode === mode);
    for (const each of [this.pause, ...this.modes, this.save, this.stop, this.yes]) {
      if (!each.hasAttribute("aria-busy")) each.disabled = !able;
    }
    if (!this.freeze.hasAttribute("aria-busy")) this.freeze.disabled = !freezable || Boolean(this.busy);
  }
}
