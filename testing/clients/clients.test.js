// Other people's clients, against a running stack at GATEWAY_URL and INGEST_URL. They present the
// key NEWCYCLE_KEY. They are used as their own documentation shows, so what fails here fails for
// their users.

import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { after, test } from "node:test";
import axios from "axios";
import compression from "compression";
import { EventSourcePolyfill } from "event-source-polyfill";
import express from "express";

const gateway = new URL(process.env.GATEWAY_URL);
const ingest = process.env.INGEST_URL;
const PATH = "/statistics/item-creation/minute";
const authorization = `Bearer ${process.env.NEWCYCLE_KEY}`;

const post = async (path, body) => {
  const headers = { authorization, "content-type": "application/json" };
  const answer = await fetch(`${ingest}/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
  assert.equal(answer.status, 201);
  return answer.json();
};
const item = await post("base-items", { description: "of a client" });
const postItem = () => post("items", { base_item_id: item.id });
// The gateway has a count to send.
await postItem();

const servers = [];
after(() => servers.forEach((server) => server.close()));
const listen = (server) =>
  new Promise((resolve) => {
    servers.push(server);
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${server.address().port}`));
  });

/** The next event of a kind. */
const next = (source, kind) =>
  new Promise((resolve, reject) => {
    source.addEventListener(kind, resolve, { once: true });
    source.addEventListener("error", () => source.readyState === 2 && reject(new Error("closed for good")));
  });

test("event-source-polyfill resumes by the address after a cut", async () => {
  const asked = [];
  const sockets = new Set();
  // Passes bytes on, notes each request line, and can cut all connections.
  const proxy = net.createServer((client) => {
    const upstream = net.connect(gateway.port, gateway.hostname);
    sockets.add(client);
    client.once("data", (head) => asked.push(head.toString().split("\r\n")[0]));
    client.on("data", (bytes) => upstream.write(bytes));
    upstream.pipe(client);
    for (const [socket, other] of [[client, upstream], [upstream, client]]) {
      socket.on("error", () => {});
      socket.on("close", () => other.destroy());
    }
  });
  const url = await listen(proxy);
  const source = new EventSourcePolyfill(`${url}${PATH}`, { headers: { authorization } });
  try {
    await next(source, "snapshot");
    const patched = next(source, "patch");
    for (const socket of sockets) socket.destroy();
    await postItem();
    const { data, lastEventId } = await patched;
    assert.equal(JSON.parse(data).topic, "item-creation/minute");
    assert.notEqual(lastEventId, "");
    assert.match(asked.at(-1), /lasteventid=/i, "it sends the id in the address");
  } finally {
    source.close();
  }
});

test("axios gets JSON, not an endless stream", async () => {
  const { data, headers } = await axios.get(`${gateway.origin}${PATH}`, { headers: { authorization }, timeout: 10_000 });
  assert.match(headers["content-type"], /^application\/json/);
  assert.equal(data.topic, "item-creation/minute");
});

test("express with compression passes each event on at once", async () => {
  const app = express();
  app.use(compression());
  app.get("/statistics/*path", (request, response) => {
    const upstream = http.get(`${gateway.origin}${request.originalUrl}`, { headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    response.on("close", () => upstream.destroy());
  });
  const url = await listen(http.createServer(app));
  const headers = { authorization, accept: "text/event-stream", "accept-encoding": "gzip, br" };
  const stream = await fetch(`${url}${PATH}`, { headers });
  assert.equal(stream.headers.get("content-encoding"), null);
  const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
  let received = "";
  const until = async (what) => {
    while (!received.includes(what)) {
      const { value, done } = await reader.read();
      assert.ok(!done, "the stream has ended");
      received += value;
    }
  };
  await until("event: snapshot");
  received = "";
  await postItem();
  await until("event: patch");
  await reader.cancel();
});
