// Listens to a room with the stock JavaScript client. Enter loses the connection for five seconds.
//   node examples/listen.cjs [url] [room]
const { io } = require("../static/node_modules/socket.io-client");

const [url = "http://127.0.0.1:8000", room = "news"] = process.argv.slice(2);
const socket = io(url, { reconnectionDelay: 5000, reconnectionDelayMax: 5000, randomizationFactor: 0 });

socket.on("connect", async () => {
  if (socket.recovered) return console.log("back, with the same session");
  await socket.emitWithAck("subscribe", { room });
  console.log(`listening to ${room}`);
});
socket.on("disconnect", () => console.log("connection lost"));
socket.on("headline", (data, meta, offset) => console.log("headline", data.text));
socket.on("hub:gap", (gap) => console.log("gap", gap));

process.stdin.on("data", () => socket.io.engine.close());
process.stdin.on("end", () => process.exit());
