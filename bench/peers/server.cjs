// Socket.IO on Node with connection state recovery: in memory, or over Redis Streams where a Redis socket is named.
//
//   node server.cjs [REDIS_SOCKET]
//
// Prints the port that it listens on. Understands the hub's verbs `subscribe` and `publish`.

const http = require("node:http");
const { Server } = require("socket.io");

async function adapter(path) {
  const { createAdapter } = require("@socket.io/redis-streams-adapter");
  const redis = require("redis").createClient({ socket: { path } });
  await redis.connect();
  return createAdapter(redis);
}

async function main(path) {
  const server = http.createServer();
  const io = new Server(server, {
    connectionStateRecovery: {},
    ...(path && { adapter: await adapter(path) }),
  });
  io.on("connection", (socket) => {
    socket.on("subscribe", ({ room }, done) => {
      socket.join(room);
      done({ ok: true });
    });
    socket.on("publish", ({ room, event, data }, done) => {
      io.to(room).emit(event, data);
      done({ ok: true });
    });
  });
  server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => console.log(server.address().port));
}

main(process.argv[2]);
