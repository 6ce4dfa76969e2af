// The hub's page: two stock Socket.IO clients side by side, so that one can publish while the
// other is away. Verbs and events are those of the hub's public contract.
"use strict";

// The page's directory is the hub's base path, also where a proxy adds a prefix.
const SOCKET_IO = new URL("socket.io/", document.baseURI).pathname;
const FIRST_ROOM = "lobby";
const HISTORY = 10; // earlier messages shown on joining
const PATIENCE = 10_000; // milliseconds for the answer to a verb
const ENTRIES = 500; // lines a log keeps
const LENGTH = 2000; // characters of a message that it shows

class Pane {
  constructor(name, parent) {
    this.name = name;
    this.rooms = new Set(); // those the user joined, whatever the session still knows
    this.shown = new Map(); // room → its chip and its option
    this.id = ""; // the hub's name for it
    this.seen = new Map(); // room → offset up to which the log shows it
    this.cut = false; // away until the button is pressed
    this.complained = false; // of not getting through
    this.greeted = false; // a session was there before
    this.head = 0; // messages up to this offset are replay
    this.missed = 0; // how many of them follow
    this.got = 0; // how many of them have come
    this.build(parent);
    this.connect();
  }

  // ---------------------------------------------------------------------- the connection

  connect() {
    // A manager of its own: two clients with a connection each. Nothing else is configured;
    // recovery is what the stock client does by itself.
    this.socket = io({ forceNew: true, path: SOCKET_IO });
    this.socket.on("connect", () => {
      this.complained = false;
      this.show();
    });
    this.socket.on("disconnect", (reason) => this.lost(reason));
    this.socket.on("connect_error", (error) => {
      // One that a retry may mend is told once; of any other the client gives up.
      if (!this.socket.active) this.cut = true;
      if (!this.complained) this.say(`No connection: ${error.message}.`, "error");
      this.complained = true;
      this.show();
    });
    this.socket.io.on("open", () => {
      this.socket.io.engine.on("upgrade", () => this.show());
    });
    this.socket.onAny((event, ...rest) => this.receive(event, ...rest));
    this.show();
  }

  /** Close the connection as a lost network would, and stay away until asked back. */
  leave() {
    this.cut = true;
    this.socket.io.reconnection(false);
    // Not socket.disconnect(): that is a goodbye, and ends the session.
    this.socket.io.engine.close();
    this.show();
  }

  comeBack() {
    this.cut = false;
    this.socket.io.reconnection(true);
    this.socket.connect(); // sends the pid and the last offset, as after any lost connection
    this.show();
  }

  lost(reason) {
    this.missed = this.got = 0;
    if (this.cut) {
      this.say("Away. What is published now is kept for this client.");
    } else if (reason === "io server disconnect") {
      this.cut = true; // the stock client does not try again by itself
      this.say("The hub has closed this connection.", "error");
    } else {
      this.say(`Connection lost (${reason}); trying again.`);
    }
    this.show();
  }

  // ---------------------------------------------------------------------------- what comes

  receive(event, data, meta, offset) {
    if (event === "hub:session") {
      this.session(data);
    } else if (event === "hub:gap") {
      this.gap(data);
    } else if (!event.startsWith("hub:")) {
      this.message(event, data, meta, offset);
    }
    this.show();
  }

  /** The hub has told what this connection continues. */
  session({ client_id: id, resumed, missed, rooms, head }) {
    this.head = Number(head);
    this.missed = resumed ? missed : 0;
    this.got = 0;
    this.id = id;
    if (resumed) {
      const follow = { 0: "nothing was missed", 1: "1 missed message follows" };
      this.say(`Back: session recovered, ${follow[missed] ?? `${missed} missed messages follow`}.`);
      rooms.filter((room) => !room.startsWith("@")).forEach((room) => this.rooms.add(room));
    } else {
      this.say(this.greeted ? "Back with a new session: the old one has ended." : "Connected.");
      if (!this.greeted) this.rooms.add(FIRST_ROOM);
    }
    for (const room of this.rooms) if (!rooms.includes(room)) this.join(room);
    this.greeted = true;
    this.showRooms();
  }

  message(event, data, meta, offset) {
    const replayed = Number(offset) <= this.head && this.got < this.missed;
    if (replayed) this.got += 1;
    this.seen.set(meta.room, offset);
    this.add({ event, data, meta, offset, kind: replayed ? "replay" : "live" });
  }

  gap({ room, reason, dropped }) {
    const why = {
      overflow: "more came than the hub keeps",
      expired: "they were kept no longer",
      reset: "the hub's store lost them",
    };
    const count = dropped === null ? "An unknown number of messages" : plural(dropped, "message");
    this.entry({ kind: "gap", tag: "gap", room, body: `${count} lost: ${why[reason] ?? reason}.` });
  }

  // ----------------------------------------------------------------------------- the verbs

  /** Call a verb and say what went wrong; returns its answer, or null where none came. */
  async call(verb, fields) {
    try {
      const answer = await this.socket.timeout(PATIENCE).emitWithAck(verb, fields);
      if (!answer.ok) this.say(`${verb}: ${answer.error.message}`, "error");
      return answer;
    } catch {
      this.say(`${verb}: no answer.`, "error");
      return null;
    }
  }

  /** Subscribe: the first time with some history, later with all since what was seen. */
  async join(room) {
    this.rooms.add(room); // where no answer comes, the next connection asks again
    const since = this.seen.get(room);
    const answer = await this.call("subscribe", since ? { room, since } : { room, history: HISTORY });
    if (answer?.ok === false) this.rooms.delete(room);
    if (answer?.ok) {
      this.seen.set(room, answer.offset);
      if (since && answer.gap) this.say(`${room}: some messages are no longer kept.`, "gap");
      for (const old of answer.messages) this.add({ ...old, kind: "past" });
      if (since && answer.more) {
        this.say(`${room}: more was missed than one answer holds; the rest is not shown.`, "gap");
      }
      this.say(`Joined ${room}.`);
    }
    this.showRooms();
  }

  async part(room) {
    if (!(await this.call("unsubscribe", { room }))?.ok) return;
    this.rooms.delete(room);
    this.seen.delete(room);
    this.say(`Left ${room}.`);
    this.showRooms();
  }

  publish(room, text) {
    return this.call("publish", { room, event: "message", data: { text, by: this.name } });
  }

  // ------------------------------------------------------------------------------ the page

  build(parent) {
    const pane = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    const find = (selector) => pane.querySelector(selector);
    const title = find("h2");
    title.textContent = this.name;
    title.id = `title-${parent.childElementCount}`;
    pane.setAttribute("aria-labelledby", title.id);
    this.pane = pane;
    this.state = find(".state");
    this.line = find(".session");
    this.button = find(".cut");
    this.chips = find(".rooms");
    this.log = find(".log");
    this.lines = this.log.firstElementChild;
    this.log.setAttribute("aria-label", `What ${this.name} received`);
    this.select = find("select");
    this.forms = [find(".join"), find(".publish")];

    this.button.addEventListener("click", () => {
      if (this.cut) this.comeBack();
      else if (this.socket.connected) this.leave();
    });
    this.forms[0].addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.socket.connected) return;
      const field = event.target.elements.room;
      if (field.value.trim()) this.join(field.value.trim());
      field.value = "";
    });
    this.forms[1].addEventListener("submit", async (event) => {
      event.preventDefault();
      if (!this.socket.connected) return;
      const { room, text } = event.target.elements;
      const message = text.value;
      text.value = "";
      // What could not be published goes back where it was typed.
      if (!(await this.publish(room.value, message))?.ok && !text.value) text.value = message;
    });
    parent.append(pane);
  }

  show() {
    const { connected } = this.socket;
    const catching = connected && this.got < this.missed;
    const transport = this.socket.io.engine?.transport?.name;
    this.pane.dataset.state = this.cut ? "cut" : connected && !catching ? "live" : "busy";
    const text = this.cut
      ? "away"
      : catching
        ? `catching up, ${this.got} of ${this.missed}`
        : connected
          ? "live"
          : "connecting…";
    if (this.state.textContent !== text) this.state.textContent = text;
    this.line.textContent = this.id
      ? `Known to the hub as ${this.id}${connected ? `, connected by ${transport}` : ""}`
      : "";
    this.button.textContent = this.cut ? "Come back" : "Cut connection";
    for (const control of this.pane.querySelectorAll("input, button")) {
      enable(control, connected || (this.cut && control === this.button));
    }
  }

  /** Add and remove what has changed: what stays keeps the keyboard's focus and the choice. */
  showRooms() {
    for (const room of this.rooms) {
      if (!this.shown.has(room)) this.showRoom(room);
    }
    for (const [room, { chip, option }] of this.shown) {
      if (this.rooms.has(room)) continue;
      const next = chip.nextElementSibling ?? chip.previousElementSibling;
      if (chip.contains(document.activeElement)) {
        (next?.querySelector("button") ?? this.forms[0].elements.room).focus();
      }
      chip.remove();
      option.remove();
      this.shown.delete(room);
    }
    this.show();
  }

  showRoom(room) {
    const chip = document.createElement("li");
    const name = document.createElement("span");
    name.textContent = room;
    const leave = document.createElement("button");
    leave.type = "button";
    leave.textContent = "×";
    leave.setAttribute("aria-label", `Leave ${room}`);
    leave.addEventListener("click", () => this.socket.connected && this.part(room));
    chip.append(name, leave);
    this.chips.append(chip);
    const option = new Option(room, room);
    this.select.append(option);
    this.shown.set(room, { chip, option });
  }

  /** Add a message to the log. */
  add({ event, data, meta, offset, kind }) {
    const tag = { replay: "replay", past: "earlier" }[kind];
    const ours = event === "message" && typeof data?.text === "string";
    const body = ours ? cut(data.text) : `${event} ${render(data)}`;
    // Anybody may publish anything as `by`.
    const from = (ours && typeof data.by === "string" && cut(data.by)) || meta?.from || "";
    this.entry({ kind, tag, room: meta?.room, from, body, when: Number(offset) / 1000 });
  }

  /** Add a sentence about the connection to the log. */
  say(body, kind = "note") {
    this.entry({ kind, body });
  }

  entry({ kind, tag, room, from, body, when }) {
    const line = document.getElementById("entry").content.firstElementChild.cloneNode(true);
    const at = new Date(when || Date.now());
    line.classList.add(kind);
    line.querySelector("time").dateTime = at.toISOString();
    line.querySelector("time").textContent = at.toTimeString().slice(0, 8);
    line.querySelector(".tag").textContent = tag ?? "";
    line.querySelector(".tag").hidden = !tag;
    line.querySelector(".room").textContent = room ?? "";
    line.querySelector(".from").textContent = from ? `${from}:` : "";
    line.querySelector(".body").textContent = body;
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    this.lines.append(line);
    while (this.lines.childElementCount > ENTRIES) this.lines.firstElementChild.remove();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }
}

/** Say whether a control is of use now. `disabled` would take the keyboard's focus from it. */
function enable(control, useful) {
  control.setAttribute("aria-disabled", !useful);
  if (control instanceof HTMLInputElement) control.readOnly = !useful;
}

function plural(count, noun) {
  return count === 1 ? `1 ${noun}` : `${count} ${noun}s`;
}

function render(data) {
  if (data instanceof ArrayBuffer) return `(${plural(data.byteLength, "byte")})`;
  const text = JSON.stringify(data, (_, value) =>
    value instanceof ArrayBuffer ? `(${plural(value.byteLength, "byte")})` : value,
  );
  return cut(text);
}

/** What is kept of a long text: a log of whole ones could fill the memory. */
function cut(text) {
  return text.length > LENGTH ? `${text.slice(0, LENGTH)}…` : text;
}

if (typeof io === "undefined") {
  document.getElementById("broken").hidden = false;
} else {
  const panes = document.getElementById("panes");
  new Pane("Client A", panes);
  new Pane("Client B", panes);
}
