// Moves through the frames of a replay, one after another, waiting at the end for more. No DOM.

/**
 * @typedef {object} Film
 * @property {() => number} length          frames there are by now
 * @property {() => boolean} ended          whether no more will come
 * @property {(position: number) => void} draw
 * @property {(playing: boolean) => void} changed  play or pause
 */

/**
 * @typedef {object} Timer  so that a test can move time
 * @property {(tick: () => void, milliseconds: number) => unknown} start
 * @property {(handle: unknown) => void} stop
 */

/** @type {Timer} */
const TIMER = { start: (tick, pace) => setTimeout(tick, pace), stop: (handle) => clearTimeout(/** @type {number} */ (handle)) };

export class Player {
  position = 0;
  playing = false;
  /** @type {unknown} */
  #handle = null;

  /**
   * @param {Film} film
   * @param {() => number} pace  milliseconds a frame stays
   * @param {Timer} [timer]
   */
  constructor(film, pace, timer = TIMER) {
    this.film = film;
    this.pace = pace;
    this.timer = timer;
  }

  /** From here on; from the beginning where this is the end. */
  play() {
    if (this.film.ended() && this.position >= this.film.length() - 1) this.position = 0;
    this.#set(true);
    this.film.draw(this.position);
    this.#next();
  }

  /** From the first frame on. */
  restart() {
    this.position = 0;
    this.play();
  }

  pause() {
    this.timer.stop(this.#handle);
    this.#set(false);
  }

  /** @param {number} position */
  seek(position) {
    this.pause();
    this.position = Math.max(0, Math.min(position, this.film.length() - 1));
    this.film.draw(this.position);
  }

  #next() {
    this.timer.stop(this.#handle);
    this.#handle = this.timer.start(() => this.#tick(), this.pace());
  }

  #tick() {
    if (!this.playing) return;
    if (this.position < this.film.length() - 1) {
      this.position += 1;
      this.film.draw(this.position);
    } else if (this.film.ended()) {
      this.pause();
      return;
    }
    this.#next();
  }

  /** @param {boolean} playing */
  #set(playing) {
    if (this.playing === playing) return;
    this.playing = playing;
    this.film.changed(playing);
  }
}
