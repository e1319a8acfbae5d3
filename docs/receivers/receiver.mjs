#!/usr/bin/env node
// Takes ScaiVault's webhooks, each event once. It needs Node 18 or newer and nothing else.
//
//     SCAIVAULT_WEBHOOK_SECRET=whsec_… PORT=8080 node receiver.mjs
//
// It listens on loopback, behind a proxy of yours that speaks TLS. What it has seen is kept in memory and in
// `receiver-seen.txt`, in the folder where it was started: one event_id a line, some thirty bytes each.

import { createHmac, timingSafeEqual } from "node:crypto";
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { createServer } from "node:http";
import process from "node:process";

const SECRET = process.env.SCAIVAULT_WEBHOOK_SECRET;
const PORT = Number(process.env.PORT);
const SEEN_FILE = "receiver-seen.txt";
const LARGEST_BODY_BYTES = 256 * 1024;
const TOLERANCE_SECONDS = 300;

if (!SECRET || !PORT) {
  console.error("SCAIVAULT_WEBHOOK_SECRET and PORT are needed");
  process.exit(1);
}
const seen = new Set(existsSync(SEEN_FILE) ? readFileSync(SEEN_FILE, "utf8").split("\n") : []);

// Whether one of the values (there are two while the secret is rotated) is right, and the timestamp recent.
function isSigned(timestamp, signatures, body) {
  if (!/^[0-9]{1,12}$/.test(timestamp)) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
  const mac = createHmac("sha256", SECRET).update(`${timestamp}.`).update(body).digest("hex");
  const expected = Buffer.from(`sha256=${mac}`);
  return signatures.split(" ").some((value) => {
    const given = Buffer.from(value);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}

// A file is in no transaction with the work: after a crash between the two the work is done once more. Do it so that this
// does no harm, or keep the ids in the database that the work writes to.
function take(event) {
  if (seen.has(event.event_id)) return;
  console.log(`${event.event_type} ${event.path} ${event.sequence}`); // your work goes here
  remember(event.event_id);
}

function remember(eventId) {
  const file = openSync(SEEN_FILE, "a");
  try {
    writeSync(file, `\n${eventId}`); // a line that a crash cut off stays a line of its own
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  seen.add(eventId);
}

function eventIn(body) {
  try {
    const event = JSON.parse(body.toString("utf8"));
    return typeof event?.event_id === "string" ? event : null;
  } catch {
    return null;
  }
}

function statusFor(request, size, body) {
  const timestamp = request.headers["x-scaivault-timestamp"];
  const signatures = request.headers["x-scaivault-signature"];
  if (request.method !== "POST") return 405;
  if (size > LARGEST_BODY_BYTES) return 413;
  if (timestamp === undefined || signatures === undefined) return 400;
  if (!isSigned(timestamp, signatures, body)) return 401;
  const event = eventIn(body);
  if (event === null) return 400;
  take(event);
  return 204;
}

const server = createServer((request, response) => {
  const chunks = [];
  let size = 0;
  request.on("data", (chunk) => {
    size += chunk.length;
    if (size <= LARGEST_BODY_BYTES) chunks.push(chunk);
  });
  request.on("end", () => {
    let status = 500; // an error of ours: the event comes again
    try {
      status = statusFor(request, size, Buffer.concat(chunks));
    } catch (error) {
      console.error(error);
    }
    response.writeHead(status).end();
  });
});
server.requestTimeout = 10_000;
server.listen(PORT, "127.0.0.1");
