// The page: takes messages in, hands them to the rooms, the run panel and the episodes, and redraws ten times a second.

import { Episodes } from "./episodes.js";
import { el, listen, write } from "./explain.js";
import { Room } from "./room.js";
import { Run } from "./run.js";
import { Wire } from "./wire.js";

const TICK_MS = 100;
const QUIET_MS = 3000;
const find = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 899px)");

/** What tests and the curious may look at. */
const counters = {
  frames: {},
  acks: [],
  latency_ms: [],
  broken: [],
  hellos: 0,
  reconnects: 0,
  state: "connecting",
  replay: null,
};
window.icebox = counters;

const rooms = new Map();
let run = null;
let episodes = null;
let wire = null;
let visible = new Set();
let looked = "";
let bye = null; // what a server that was ended has said last

/** Tell the server which rooms are in view; it encodes no others. */
function look(again = false) {
  const shown =
    document.hidden || document.body.dataset.view !== "rooms" ? [] : [...rooms.keys()].filter((id) => visible.has(id));
  if (!again && shown.join() === looked) return;
  looked = shown.join();
  wire?.send({ type: "look", rooms: shown });
}

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) visible.add(target.dataset.room);
    else visible.delete(target.dataset.room);
  }
  look();
});

/** Switch between rooms, run and episodes; where there is space the run stands beside the rooms. */
function view(name) {
  document.body.dataset.view = name;
  for (const button of find("views").children) button.setAttribute("aria-pressed", button.dataset.view === name);
  if (name === "episodes") episodes?.refresh();
  else episodes?.play(false);
  look();
}

function hello(message) {
  counters.hellos += 1;
  bye = null;
  write(find("title"), message.title);
  find("title").title = message.title;
  document.title = `${message.title} · Icebox`;
  find("rights").hidden = message.controls;
  find("rights").title = "This link shows everything and changes nothing.";
  document.body.toggleAttribute("data-run", message.run);
  find("run").hidden = !message.run;
  if (message.run) {
    run ??= new Run(find("run"), wire);
    run.tell(message.controls, message.freezes);
    run.status("connected");
  }
  const told = new Set(message.rooms.map((room) => room.id));
  for (const [id, room] of rooms) {
    if (told.has(id)) continue;
    sight.unobserve(room.element);
    room.element.remove();
    rooms.delete(id);
    visible.delete(id);
  }
  for (const [place, about] of message.rooms.entries()) {
    const known = rooms.get(about.id);
    const room = known ?? new Room(about, wire, counters);
    rooms.set(about.id, room);
    room.tell(about, message);
    if (find("rooms").children[place] !== room.element)
      find("rooms").insertBefore(room.element, find("rooms").children[place] ?? null);
    if (!known) {
      visible.add(about.id);
      sight.observe(room.element);
    } else if (room.how !== "none") room.look(room.how);
  }
  find("rooms").dataset.count = rooms.size;
  episodes ??= new Episodes(find("episodes"), wire, counters);
  episodes.tell(message.rooms);
  if (document.body.dataset.view === "episodes") episodes.refresh();
  look(true);
}

function state(name, wait_s = 0) {
  if (name === "lost" && bye) name = "over";
  if (name === "connected" && counters.hellos) counters.reconnects += 1;
  counters.state = name;
  const chip = find("connection");
  chip.dataset.state = name;
  const back = `trying again in ${Math.ceil(wait_s)} s`;
  const words = { connected: "connected", lost: `no connection · ${back}`, refused: `link refused · ${back}` };
  write(chip, words[name] ?? "viewer ended");
  chip.title = {
    connected: "The page hears the server.",
    lost: "The server does not answer; the page comes back by itself when it does.",
    refused: "The server is there but does not accept this link.",
    over: "The viewer was ended; the page comes back by itself when it runs again.",
  }[name];
  const stopper = find("stopper");
  stopper.hidden = !["refused", "over"].includes(name);
  if (name === "over") stopper.replaceChildren(`${bye.said} To look again: `, el("code", "", bye.again));
  if (name === "refused")
    write(
      stopper,
      "The server does not accept this link. Open the newest link that icebox printed; it ends in #token=…",
    );
  run?.status(name);
  episodes?.status(name);
}

function message(heard) {
  if (heard.type === "hello") hello(heard);
  else if (heard.type === "run") run?.show(heard);
  else if (heard.type === "freeze") run?.controls.freezing(heard);
  else if (heard.type === "episodes") episodes?.show(heard.list);
  else if (heard.type === "saving") episodes?.saving(heard);
  else if (heard.type === "bye") bye = heard;
}

function start() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) {
    find("stopper").hidden = false;
    find("connection").dataset.state = "refused";
    write(find("connection"), "no token");
    write(find("stopper"), "This page needs the whole link that icebox printed; it ends in #token=…");
    return;
  }
  wire = new Wire(token, { state, message, packet: (packet) => rooms.get(packet.meta.room)?.show(packet) });
  setInterval(() => {
    if (document.hidden) return;
    if (performance.now() - wire.said > QUIET_MS) look(true); // the server tells nothing more to those who say nothing
    if (document.body.dataset.view === "episodes") return;
    const now = performance.now();
    for (const room of rooms.values()) room.tick(now, counters.state, run?.mode);
  }, TICK_MS);
}

for (const button of find("views").children) button.addEventListener("click", () => view(button.dataset.view));
narrow.addEventListener("change", () => !narrow.matches && document.body.dataset.view === "run" && view("rooms"));
document.addEventListener("visibilitychange", () => look());
addEventListener("hashchange", () => location.reload());
listen(find("bubble"));
start();
