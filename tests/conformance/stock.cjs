// The stock JavaScript client, unmodified, put through one scenario; prints one line of JSON.
"use strict";
const path = require("node:path");

// What a page has and Node has not: how the client hears that the network is gone.
const listeners = new Map();
globalThis.addEventListener = (type, listener) =>
  listeners.set(type, [...(listeners.get(type) ?? []), listener]);
globalThis.removeEventListener = (type, listener) =>
  listeners.set(type, (listeners.get(type) ?? []).filter((other) => other !== listener));
const dispatch = (type) => (listeners.get(type) ?? []).forEach((listener) => listener());

const [, , modules, url, scenario] = process.argv;
const client = require(path.join(modules, "socket.io-client"));

const sockets = [];
const io = (...given) => sockets[sockets.push(client.io(...given)) - 1];

const quick = { reconnectionDelay: 10, reconnectionDelayMax: 50, forceNew: true };
const once = (target, event) => new Promise((resolve) => target.once(event, resolve));
const upgraded = (socket) =>
  new Promise((resolve) =>
    socket.io.once("open", () => socket.io.engine.once("upgrade", resolve)));
const transport = (socket) => socket.io.engine.transport.name;

const scenarios = {
  // Events sent before, during and after the upgrade: each comes back once, in order.
  async upgrade() {
    const socket = io(url, quick);
    const back = [];
    const all = new Promise((resolve) =>
      socket.on("message-back", (number) => back.push(number) === 300 && resolve()));
    const over = upgraded(socket);
    await once(socket.io, "open");
    const before = transport(socket);
    for (let number = 0; number < 300; number++) {
      socket.emit("message", number);
      if (number % 20 === 0) await new Promise(setImmediate);
    }
    await over;
    await all;
    return { before, after: transport(socket), ordered: back.every((n, i) => n === i) };
  },

  async rememberUpgrade() {
    const socket = io(url, { ...quick, rememberUpgrade: true });
    await upgraded(socket);
    socket.io.engine.close();
    await once(socket, "connect");
    return { first: transport(socket) };
  },

  async tryAllTransports() {
    const socket = io(url, { ...quick, transports: ["websocket", "polling"], tryAllTransports: true });
    await once(socket, "connect");
    return { transport: transport(socket) };
  },

  async binary() {
    const result = {};
    for (const name of ["polling", "websocket"]) {
      const socket = io(url, { ...quick, transports: [name] });
      const data = Buffer.alloc(100_000, 7);
      const [a, b] = await socket.emitWithAck("message-with-ack", data, { deep: [Buffer.alloc(0)] })
        .then((answer) => (Array.isArray(answer) ? answer : [answer]));
      const back = once(socket, "message-back");
      socket.emit("message", data);
      result[name] = Buffer.compare(Buffer.from(a), data) === 0 && Buffer.compare(await back, data) === 0;
      socket.disconnect();
    }
    return result;
  },

  // The server swallows every first try.
  async retries() {
    const socket = io(url, { ...quick, retries: 3, ackTimeout: 100 });
    const answers = [];
    for (let number = 0; number < 3; number++)
      answers.push(new Promise((resolve) => socket.emit("flaky", number, (error, value) => resolve(value))));
    return { answers: await Promise.all(answers) };
  },

  async volatile() {
    const socket = io(url, { ...quick, transports: ["websocket"] });
    const back = [];
    socket.on("message-back", (value) => back.push(value));
    socket.volatile.emit("message", "not connected yet");
    await once(socket, "connect");
    socket.volatile.emit("message", "connected");
    await once(socket, "message-back");
    return { back };
  },

  async offline() {
    const result = {};
    for (const name of ["polling", "websocket"]) {
      const socket = io(url, { ...quick, transports: [name] });
      await once(socket, "connect");
      const gone = once(socket, "disconnect");
      dispatch("offline");
      const reason = await gone;
      await once(socket, "connect");
      const back = once(socket, "message-back");
      socket.emit("message", "again");
      result[name] = [reason, await back];
      // One at a time: told of the loss, the client skips a socket behind one that is closing.
      const closed = once(socket.io.engine, "close");
      socket.disconnect();
      await closed;
    }
    return result;
  },

  // Stays until the server ends it; tells whether it comes back.
  async goodbye() {
    const result = {};
    for (const name of ["polling", "websocket"]) {
      const socket = io(url, { ...quick, transports: [name] });
      await once(socket, "connect");
      const gone = once(socket, "disconnect");
      socket.emit("bye");
      await gone;
      await once(socket, "connect");
      const away = once(socket, "disconnect");
      socket.emit("replaced");
      const reason = await away;
      result[name] = [reason, socket.active];
      socket.disconnect();
    }
    return result;
  },
};

scenarios[scenario]().then((result) => {
  process.stdout.write(JSON.stringify(result));
  // Node ends by itself when all connections have.
  sockets.forEach((socket) => socket.disconnect());
  // All but what the client left behind when it was told that the network is gone.
  if (scenario === "offline") process.exit(0);
});
