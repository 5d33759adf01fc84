// Playing by keyboard or finger: the set of keys that are held, sent when it changes, cleared when the focus goes.

import { el } from "./explain.js";
import { key } from "./format.js";

const ORDER = ["ArrowLeft", "ArrowUp", "ArrowDown", "ArrowRight"];

/** Keys that do the same when pressed alone, as an arrow and a letter, are one: [{codes, does}], arrows first. */
function together(keys, actions) {
  const groups = new Map();
  for (const code of new Set(keys.flatMap(([codes]) => codes))) {
    const alone = keys.find(([codes]) => codes.length === 1 && codes[0] === code);
    const group = groups.get(alone ? alone[1] : code) ?? { codes: [], does: alone ? actions[alone[1]] : "with others" };
    groups.set(alone ? alone[1] : code, group);
    group.codes.push(code);
  }
  const place = ({ codes }) => (ORDER.includes(codes[0]) ? ORDER.indexOf(codes[0]) : ORDER.length);
  for (const { codes } of groups.values()) codes.sort((a, b) => b.startsWith("Arrow") - a.startsWith("Arrow"));
  return [...groups.values()].sort((a, b) => place(a) - place(b));
}

export class Keys {
  /** `keys` is the game's map [[codes], action]; `send` gets the held codes whenever they change. */
  constructor(canvas, keys, actions, send) {
    this.send = send;
    this.able = true;
    this.held = new Set();
    this.caps = new Map();
    const groups = together(keys, actions);
    for (const { codes, does } of groups) {
      const cap = this.cap(codes, does);
      for (const code of codes) this.caps.set(code, cap);
    }
    this.element = el("div", "keys", ...groups.map(({ codes }) => this.caps.get(codes[0])));
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "Keys");
    const say = (at) =>
      groups
        .map(({ codes }) => codes[at])
        .filter(Boolean)
        .map(key)
        .join("\u00a0");
    this.words = groups.some(({ codes }) => codes.length > 1) ? `${say(0)} (or ${say(1)})` : say(0);
    canvas.addEventListener("keydown", (event) => this.down(event));
    canvas.addEventListener("keyup", (event) => this.up(event));
    canvas.addEventListener("blur", () => this.clear());
    document.addEventListener("visibilitychange", () => document.hidden && this.clear());
    addEventListener("blur", () => this.clear());
  }

  cap(codes, does) {
    const [code, other] = codes;
    const cap = el(
      "span",
      "cap",
      el("kbd", "", key(code), ...(other ? [el("i", "", key(other))] : [])),
      el("small", "", does),
    );
    cap.dataset.code = code;
    cap.title = `${codes.map(key).join(" or ")}: ${does}. Press the key while the picture has the focus, or hold this.`;
    cap.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // keeps the focus where it is
      if (!this.able) return;
      cap.setPointerCapture(event.pointerId);
      this.set(code, true);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      cap.addEventListener(end, () => this.set(code, false));
    cap.addEventListener("contextmenu", (event) => event.preventDefault());
    return cap;
  }

  down(event) {
    if (!this.able || !this.caps.has(event.code) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (!event.repeat) this.set(event.code, true);
  }

  up(event) {
    if (this.caps.has(event.code)) this.set(event.code, false);
  }

  set(code, on) {
    if (this.held.has(code) === on) return;
    if (on) this.held.add(code);
    else this.held.delete(code);
    const cap = this.caps.get(code);
    cap.toggleAttribute(
      "data-held",
      [...this.held].some((each) => this.caps.get(each) === cap),
    );
    this.tell();
  }

  /** Light the keys that somebody else holds. */
  mirror(held) {
    for (const cap of this.caps.values()) cap.removeAttribute("data-held");
    for (const code of held ?? []) this.caps.get(code)?.setAttribute("data-held", "");
  }

  clear() {
    if (!this.held.size) return;
    this.held.clear();
    for (const cap of this.caps.values()) cap.removeAttribute("data-held");
    this.tell();
  }

  tell() {
    const held = [...this.held].sort();
    this.sent = { held: held.join(), at: performance.now() };
    this.send(held);
  }

  /** Milliseconds from the last change of keys to this painted packet, once per change; null when it answers none. */
  answered(held) {
    if (!this.sent || !held || [...held].sort().join() !== this.sent.held) return null;
    const { at } = this.sent;
    this.sent = null;
    return performance.now() - at;
  }
}
