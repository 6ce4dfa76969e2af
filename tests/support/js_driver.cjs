// The stock JavaScript client under remote control: JSON lines in, JSON lines out.
"use strict";
const path = require("node:path");
const readline = require("node:readline");
const { io } = require(path.join(process.argv[2], "socket.io-client"));

const pack = (value) => {
  if (Buffer.isBuffer(value) || value instanceof ArrayBuffer || ArrayBuffer.isView(value))
    return { $bytes: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(pack);
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, pack(v)]));
  return value;
};
const unpack = (value) => {
  if (Array.isArray(value)) return value.map(unpack);
  if (value && typeof value === "object") {
    if (typeof value.$bytes === "string") return Buffer.from(value.$bytes, "base64");
    // Deeper than Python can write JSON.
    if (typeof value.$deep === "number") return Array.from({ length: value.$deep }).reduce((inner) => [inner], 1);
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, unpack(v)]));
  }
  return value;
};
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let socket;
const throwing = new Set();
const state = () => ({
  connected: socket.connected,
  recovered: socket.recovered,
  sid: socket.id,
  pid: socket._pid,
  offset: socket._lastOffset,
  transport: socket.io.engine && socket.io.engine.transport.name,
  active: socket.active,
});

const commands = {
  connect({ url, options }) {
    socket = io(url, { ...options, auth: unpack(options.auth) });
    socket.on("connect", () => say({ kind: "connect", ...state() }));
    socket.on("disconnect", (reason) => say({ kind: "disconnect", reason }));
    socket.on("connect_error", (error) =>
      say({ kind: "connect_error", message: error.message, data: error.data, active: socket.active }));
    socket.onAny((name, ...args) => {
      if (throwing.has(name)) throw new Error("as asked");
      if (typeof args.at(-1) === "function") args.pop()("acknowledged");
      say({ kind: "event", name, args: pack(args) });
    });
    process.on("uncaughtException", (error) => say({ kind: "uncaught", message: String(error) }));
  },
  emit({ name, args }) {
    socket.emit(name, ...unpack(args));
  },
  async ask({ name, args, timeout }) {
    return pack(await socket.timeout(timeout).emitWithAck(name, ...unpack(args)));
  },
  // Through the queue of the option `retries`, with its `ackTimeout`.
  retried({ name, args }) {
    return new Promise((resolve, reject) =>
      socket.emit(name, ...unpack(args), (error, answer) => (error ? reject(error) : resolve(pack(answer)))));
  },
  closeEngine() { socket.io.engine.close(); },
  // As a lost network looks to the client; the hub's side may not notice.
  dropTransport() { socket.io.engine.transport.onClose(); },
  disconnect() { socket.disconnect(); },
  reconnect() { socket.connect(); },
  throwOn({ name, on }) { on ? throwing.add(name) : throwing.delete(name); },
  auth({ auth }) { socket.auth = auth; },
  state,
};

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const { id, command, ...rest } = JSON.parse(line);
  try {
    say({ kind: "answer", id, result: (await commands[command](rest)) ?? null });
  } catch (error) {
    say({ kind: "answer", id, error: String(error) });
  }
}).on("close", () => process.exit(0));
