// A game's picture: crisp at any size, with the saliency overlay on top.

import { el } from "./explain.js";

const WASTE = 0.8; // a whole-numbered scale must fill at least this much of what a broken one would
const SMALL = 32; // a map of so few cells is shown cell by cell
const OVERLAY_MS = 2500; // an overlay comes more rarely than pictures, and is shown for so long

/** A canvas in a box of fixed size. Whole-numbered scales are drawn as they are; others twice as fine, then shrunk. */
export class Picture {
  constructor(label) {
    this.canvas = el("canvas", "picture");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.canvas.width = this.canvas.height = 1;
    this.overlay = el("canvas", "overlay");
    this.box = el("div", "stage", this.canvas, this.overlay);
    this.bitmap = null;
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  /** Paint a picture; it is kept until the next one, for when the box changes. */
  paint(bitmap) {
    this.bitmap?.close();
    this.bitmap = bitmap;
    this.draw();
  }

  draw() {
    const { bitmap, box, canvas } = this;
    if (!bitmap || !box.clientWidth || !box.clientHeight) return;
    const ratio = devicePixelRatio;
    const fits = ratio * Math.min(box.clientWidth / bitmap.width, box.clientHeight / bitmap.height);
    const whole = Math.floor(fits);
    const scale = whole >= 1 && whole / fits >= WASTE ? whole : fits;
    const drawn = Math.max(1, Math.ceil(scale));
    if (canvas.width !== bitmap.width * drawn || canvas.height !== bitmap.height * drawn) {
      canvas.width = bitmap.width * drawn;
      canvas.height = bitmap.height * drawn;
    }
    canvas.dataset.crisp = drawn === scale;
    for (const each of [canvas, this.overlay]) {
      each.style.width = `${(bitmap.width * scale) / ratio}px`;
      each.style.height = `${(bitmap.height * scale) / ratio}px`;
    }
    const context = canvas.getContext("2d", { alpha: false });
    context.imageSmoothingEnabled = false;
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  }

  /** Lay a grey map over the picture: what counts little is blue, what counts much is orange, the rest is clear. */
  lay(map) {
    const { overlay } = this;
    overlay.width = map.width;
    overlay.height = map.height;
    const context = overlay.getContext("2d", { willReadFrequently: true });
    context.drawImage(map, 0, 0);
    map.close();
    const pixels = context.getImageData(0, 0, overlay.width, overlay.height);
    for (let k = 0; k < pixels.data.length; k += 4) {
      const weight = pixels.data[k] / 255;
      const much = Math.min(1, Math.max(0, (weight - 0.4) / 0.3));
      pixels.data[k] = 40 + 215 * much;
      pixels.data[k + 1] = 130 + 10 * much;
      pixels.data[k + 2] = 255 - 255 * much;
      pixels.data[k + 3] = 255 * Math.min(0.7, 1.1 * weight);
    }
    context.putImageData(pixels, 0, 0);
    overlay.dataset.small = overlay.width <= SMALL;
    this.box.toggleAttribute("data-laid", true);
    this.laid = performance.now();
  }

  /** Take the overlay away: at once, or only when it has grown old. */
  clear(old = false) {
    if (old && performance.now() - (this.laid ?? 0) < OVERLAY_MS) return;
    if (this.overlay.width) this.overlay.width = this.overlay.height = 0;
    this.box.removeAttribute("data-laid");
  }
}
