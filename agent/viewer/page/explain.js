// Elements, and figures that explain themselves: a hover for the mouse, a bubble for the keyboard and for fingers.

import { NONE } from "./format.js";

/** An element with a class, text and children. Text is never markup. */
export function el(tag, name = "", ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

/** Write text only where it changed, so that nothing is laid out anew for nothing. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Let an element explain itself in one sentence; within a group one Tab stop is enough, arrows go on from there. */
export function explain(element, sentence) {
  element.title = sentence;
  element.dataset.why = sentence;
  if (element.tabIndex < 0) element.tabIndex = 0;
  return element;
}

/** A labelled number with its unit and its sentence; `set` writes the number. */
export class Figure {
  constructor(label, unit, sentence) {
    this.number = el("b", "", NONE);
    this.unit = el("span", "unit", unit);
    this.element = explain(
      el("div", "figure", el("span", "label", label), el("span", "amount", this.number, " ", this.unit)),
      sentence,
    );
    this.element.setAttribute("role", "note");
  }

  set(text, unit) {
    write(this.number, text);
    if (unit !== undefined) write(this.unit, unit);
  }
}

/** Figures side by side that are one Tab stop: arrows, Home and End walk among them. */
export function figures(...all) {
  const group = el("div", "figures", ...all.map((figure) => figure.element));
  rove(group);
  return group;
}

/** Make the explained elements of a group one Tab stop. */
export function rove(group) {
  const stops = () => [...group.querySelectorAll("[data-why]")];
  stops().forEach((stop, k) => (stop.tabIndex = k ? -1 : 0));
  group.addEventListener("keydown", (event) => {
    const all = stops();
    const here = all.indexOf(document.activeElement);
    const moves = {
      ArrowRight: here + 1,
      ArrowDown: here + 1,
      ArrowLeft: here - 1,
      ArrowUp: here - 1,
      Home: 0,
      End: all.length - 1,
    };
    const next = all[moves[event.key]];
    if (here < 0 || !next) return;
    event.preventDefault();
    all.forEach((stop) => (stop.tabIndex = stop === next ? 0 : -1));
    next.focus();
  });
}

/** Show the sentence of whatever has the focus in a bubble beside it; Escape, scrolling and leaving close it. */
export function listen(bubble) {
  const hide = () => (bubble.hidden = true);
  document.addEventListener("focusin", (event) => {
    const why = event.target.dataset?.why;
    if (!why) return hide();
    bubble.textContent = why;
    bubble.hidden = false;
    const at = event.target.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = bubble;
    const below = at.bottom + 6 + height < innerHeight;
    bubble.style.left = `${Math.max(6, Math.min(at.left, innerWidth - width - 6))}px`;
    bubble.style.top = `${below ? at.bottom + 6 : Math.max(6, at.top - height - 6)}px`;
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

/** The colours of the page as it looks now, for canvases. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ink", "quiet", "line", "blue", "orange"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}
