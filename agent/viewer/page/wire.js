// The connection to the server: packets in, requests out, answers matched to requests, and coming back by itself.

const LATEST_S = 4; // longest wait between two attempts
const REFUSED = 1008; // how the server closes when the token is wrong

/** One packet: u32 length | JSON | picture | saliency, taken apart without copying. */
function unpack(buffer, offset = 0, length = buffer.byteLength - offset) {
  const head = new DataView(buffer, offset, length).getUint32(0, true);
  const meta = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, offset + 4, head)));
  const rest = new Uint8Array(buffer, offset + 4 + head, length - 4 - head);
  const split = rest.length - (meta.saliency_bytes ?? 0);
  return { meta, image: rest.subarray(0, split), saliency: rest.subarray(split) };
}

/** The packets of an .ep file, in order. */
export function episode(buffer) {
  const view = new DataView(buffer);
  const packets = [];
  for (let at = 0; at + 4 <= buffer.byteLength;) {
    const length = view.getUint32(at, true);
    if (at + 4 + length > buffer.byteLength) break; // cut off while it was written: show what there is
    packets.push(unpack(buffer, at + 4, length));
    at += 4 + length;
  }
  return packets;
}

/** A packet's picture, ready to be painted. */
export const decode = (bytes, format) => createImageBitmap(new Blob([bytes], { type: `image/${format}` }));

/** The socket. Calls `on.state(state, seconds)`, `on.message(object)` and `on.packet(packet)`. */
export class Wire {
  constructor(token, on) {
    this.token = token;
    this.on = on;
    this.asked = new Map(); // id -> what to call with the answer
    this.next = 1;
    this.failures = 0;
    this.said = 0; // when, on the page's clock
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.welcome = false;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ token: this.token }));
    socket.onmessage = ({ data }) => this.heard(data);
    socket.onclose = ({ code }) => this.closed(code);
    this.socket = socket;
  }

  heard(data) {
    if (typeof data !== "string") {
      this.on.packet(unpack(data));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "hello") {
      this.welcome = true;
      this.failures = 0;
      this.on.state("connected");
    }
    if (message.type === "run") this.send({ type: "got", room: "run", n: 0 }); // or the server takes this page for gone
    if (message.type === "done") {
      this.asked.get(message.id)?.(message);
      this.asked.delete(message.id);
    }
    this.on.message(message);
  }

  closed(code) {
    const said = "The connection was lost before the answer came: look at the state shown.";
    for (const answer of this.asked.values()) answer({ ok: false, said });
    this.asked.clear();
    const refused = code === REFUSED && !this.welcome;
    const wait_s = refused ? LATEST_S : Math.min(LATEST_S, 0.5 * 2 ** this.failures);
    this.failures += 1;
    this.welcome = false;
    this.on.state(refused ? "refused" : "lost", wait_s);
    this.timer = setTimeout(() => this.connect(), 1000 * wait_s);
  }

  /** Say something that needs no answer; dropped when nobody listens. */
  send(message) {
    if (!this.welcome || this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(JSON.stringify(message));
    this.said = performance.now();
  }

  /** Ask for something; the promise holds the server's own answer {ok, said}. */
  ask(what, room = null, value = null) {
    if (!this.welcome) return Promise.resolve({ ok: false, said: "There is no connection: nothing was asked." });
    const id = this.next++;
    const answer = new Promise((resolve) => this.asked.set(id, resolve));
    this.send({ type: "do", id, what, room, value });
    return answer;
  }

  /** Fetch something with the token, as "json", "blob" or "arrayBuffer"; throws a sentence when that cannot be had. */
  async fetch(path, as) {
    let response;
    try {
      response = await fetch(path, { headers: { authorization: `Bearer ${this.token}` } });
    } catch {
      throw new Error("There is no connection to the viewer.");
    }
    if (!response.ok)
      throw new Error((await response.text()).slice(0, 200) || `The viewer refused: ${response.status}.`);
    try {
      return await response[as]();
    } catch {
      throw new Error("The connection was lost before all had come.");
    }
  }
}
