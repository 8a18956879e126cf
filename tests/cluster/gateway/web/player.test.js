import assert from "node:assert/strict";
import { test } from "node:test";

import { Player } from "../../../../cluster/gateway/web/player.js";

/** A player over `length` frames, whose time moves when `tick` is called. */
function playerOver(length, { ended = true } = {}) {
  const seen = { drawn: [], states: [], length, ended, pending: null };
  const timer = { start: (tick) => (seen.pending = tick), stop: () => (seen.pending = null) };
  const film = {
    length: () => seen.length,
    ended: () => seen.ended,
    draw: (position) => seen.drawn.push(position),
    changed: (playing) => seen.states.push(playing),
  };
  const tick = () => {
    const due = seen.pending;
    seen.pending = null;
    due?.();
  };
  return { player: new Player(film, () => 100, timer), seen, tick };
}

test("it shows one frame after another and stops at the end", () => {
  const { player, seen, tick } = playerOver(3);
  player.play();
  for (let times = 0; times < 5; times += 1) tick();
  assert.deepEqual(seen.drawn, [0, 1, 2]);
  assert.deepEqual(seen.states, [true, false]);
});

test("it waits for frames that are still to come", () => {
  const { player, seen, tick } = playerOver(1, { ended: false });
  player.play();
  tick();
  seen.length = 2;
  tick();
  assert.deepEqual(seen.drawn, [0, 1]);
  seen.ended = true;
  tick();
  assert.equal(player.playing, false);
});

test("at the end it plays from the beginning again", () => {
  const { player, seen } = playerOver(3);
  player.seek(2);
  player.play();
  assert.deepEqual(seen.drawn, [2, 0]);
});

test("whoever moves it by hand pauses it", () => {
  const { player, seen, tick } = playerOver(9);
  player.play();
  player.seek(4);
  tick();
  assert.equal(player.position, 4);
  assert.deepEqual(seen.states, [true, false]);
});

test("it goes nowhere beyond its ends", () => {
  const { player } = playerOver(3);
  player.seek(99);
  assert.equal(player.position, 2);
  player.seek(-1);
  assert.equal(player.position, 0);
});
