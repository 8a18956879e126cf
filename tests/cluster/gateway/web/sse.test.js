import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser } from "../../../../cluster/gateway/web/sse.js";

const TEXT = 'id: a/1/7\ndata: {"x":"ü"}\n\n: still here\n\nevent: error\ndata: one\ndata: two\n\ndata: [DONE]\n\n';
const EVENTS = [
  { event: "message", id: "a/1/7", data: '{"x":"ü"}' },
  { event: "error", id: "", data: "one\ntwo" },
  { event: "message", id: "", data: "[DONE]" },
];

for (const size of [1, 2, 3, 7, 1000]) {
  test(`a stream in pieces of ${size} gives the same events`, () => {
    const parser = new EventParser();
    const pieces = TEXT.match(new RegExp(`[^]{1,${size}}`, "g"));
    assert.deepEqual(pieces.flatMap((piece) => parser.push(piece)), EVENTS);
  });
  test(`so does one whose lines end with carriage returns, in pieces of ${size}`, () => {
    const parser = new EventParser();
    const pieces = TEXT.replaceAll("\n", "\r\n").match(new RegExp(`[^]{1,${size}}`, "g"));
    assert.deepEqual(pieces.flatMap((piece) => parser.push(piece)), EVENTS);
  });
}

test("an event is not told before its last line is there", () => {
  assert.deepEqual(new EventParser().push("data: x\n"), []);
});
