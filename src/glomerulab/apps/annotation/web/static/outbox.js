// Saves on their way to the server. Each is written into the browser's storage before it is sent and
// removed when the server has acknowledged it, so that no reload, crash or dead server loses a label.
// A save that is sent again carries the same key: the server stores it once.
import { ask, ServerError } from "./server.js";

const MAX_WAIT_MS = 10_000;

export class Outbox {
  // handlers: onChange(n, error), onSaved(entry, answer), onConflict(entry, current),
  //           onRefused(entry, error), onLoggedOut()
  constructor(name, handlers) {
    this.prefix = `glomerulab:pending:${name}:`;
    this.handlers = handlers;
    this.entries = this.#stored();
    this.error = null;
    this.waitMs = 500;
    this.isSending = false;
    this.timer = null;
    window.addEventListener("online", () => this.tryNow());
    window.addEventListener("beforeunload", (event) => {
      if (this.entries.length && !this.#isStored()) event.preventDefault();
    });
  }

  get size() { return this.entries.length; }
  pendingFor(subject) { return this.entries.findLast((entry) => entry.subject === subject); }

  // path: where it goes; subject: what it is about (a later save of the same builds on it);
  // place: what the page calls it; body: what is sent.
  add({ path, subject, place, body }) {
    const entry = { path, subject, place, body: { ...body, save_key: randomKey() }, order: Date.now() + Math.random() };
    this.entries.push(entry);
    this.#store(entry);
    this.handlers.onChange(this.size, this.error);
    this.tryNow();
  }

  tryNow() {
    clearTimeout(this.timer);
    if (!this.isSending) this.#send();
  }

  async #send() {
    this.isSending = true;
    while (this.entries.length) {
      const entry = this.entries[0];
      try {
        const answer = await ask(entry.path, entry.body);
        this.#remove(entry);
        this.#raiseVersions(entry, answer.saved.version);
        this.error = null;
        this.waitMs = 500;
        this.handlers.onSaved(entry, answer);
      } catch (error) {
        if (!(error instanceof ServerError)) { this.isSending = false; throw error; }
        if (this.#settle(entry, error)) continue;
        break;
      }
      this.handlers.onChange(this.size, null);
    }
    this.isSending = false;
    this.handlers.onChange(this.size, this.error);
  }

  // Says whether the entries behind this one may be sent now.
  #settle(entry, error) {
    this.error = error;
    if (error.isLoggedOut) { this.handlers.onLoggedOut(); return false; }
    if (error.mayPass) {
      this.timer = setTimeout(() => this.tryNow(), this.waitMs);
      this.waitMs = Math.min(this.waitMs * 2, MAX_WAIT_MS);
      return false;
    }
    this.#remove(entry);
    this.error = null;
    if (error.status === 409 && error.body.current) this.handlers.onConflict(entry, error.body.current);
    else this.handlers.onRefused(entry, error);
    return true;
  }

  // A second save of the same item made while the first was under way builds on the first.
  #raiseVersions(done, version) {
    for (const entry of this.entries) {
      if (entry.subject === done.subject && entry.body.expected_version < version) {
        entry.body.expected_version = version;
        this.#store(entry);
      }
    }
  }

  #store(entry) {
    try { localStorage.setItem(this.prefix + entry.body.save_key, JSON.stringify(entry)); } catch { /* told by beforeunload */ }
  }
  #remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    try { localStorage.removeItem(this.prefix + entry.body.save_key); } catch { /* was never there */ }
  }
  #isStored() {
    try { return this.entries.every((entry) => localStorage.getItem(this.prefix + entry.body.save_key)); } catch { return false; }
  }
  #stored() {
    try {
      return Object.keys(localStorage).filter((key) => key.startsWith(this.prefix))
        .map((key) => JSON.parse(localStorage.getItem(key)))
        .sort((one, other) => one.order - other.order);
    } catch { return []; }
  }
}

// crypto.randomUUID exists on secure pages only; a server on the local network may have no TLS.
export function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
