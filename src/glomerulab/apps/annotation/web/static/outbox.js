// A queue of saves that are not yet acknowledged. Each is stored in the browser before it is sent and
// removed when the server has acknowledged it, so that no reload, crash or dead server loses a label.
// A save that is sent again carries the same key: the server stores it once.
import { request, ServerError } from "./server.js";

const MAX_DELAY_MS = 10_000;

export class Outbox {
  // handlers: onChange(n, error), onSaved(entry, response), onConflict(entry, current),
  //           onRefused(entry, error), onLoggedOut()
  constructor(name, handlers) {
    this.prefix = `glomerulab:pending:${name}:`;
    this.handlers = handlers;
    this.entries = this.#readStored();
    this.error = null;
    this.retryDelayMs = 500;
    this.isSending = false;
    this.timer = null;
    window.addEventListener("online", () => this.flush());
    window.addEventListener("beforeunload", (event) => {
      if (this.entries.length && !this.#isStored()) event.preventDefault();
    });
  }

  get size() { return this.entries.length; }
  // Resolves when nothing is being sent.
  async settled() { while (this.isSending) await new Promise((resolve) => setTimeout(resolve, 50)); }
  pendingFor(subject) { return this.entries.findLast((entry) => entry.subject === subject); }

  // path: address of the request; subject: id of the record (a later save of it follows this one);
  // place: number of the image on the page; body: content of the request.
  add({ path, subject, place, body }) {
    const entry = { path, subject, place, body: { ...body, save_key: randomKey() }, order: Date.now() + Math.random() };
    this.entries.push(entry);
    this.#writeStored(entry);
    this.handlers.onChange(this.size, this.error);
    this.flush();
  }

  flush() {
    clearTimeout(this.timer);
    if (!this.isSending) this.#send();
  }

  async #send() {
    this.isSending = true;
    while (this.entries.length) {
      const entry = this.entries[0];
      try {
        const response = await request(entry.path, entry.body);
        this.#remove(entry);
        this.#updateVersions(entry, response.saved.version);
        this.error = null;
        this.retryDelayMs = 500;
        this.handlers.onSaved(entry, response);
      } catch (error) {
        if (!(error instanceof ServerError)) { this.isSending = false; throw error; }
        if (this.#handleError(entry, error)) continue;
        break;
      }
      this.handlers.onChange(this.size, null);
    }
    this.isSending = false;
    this.handlers.onChange(this.size, this.error);
  }

  // Return whether the entries after this one can be sent now.
  #handleError(entry, error) {
    this.error = error;
    if (error.isLoggedOut) { this.handlers.onLoggedOut(); return false; }
    if (error.isRetryable) {
      this.timer = setTimeout(() => this.flush(), this.retryDelayMs);
      this.retryDelayMs = Math.min(this.retryDelayMs * 2, MAX_DELAY_MS);
      return false;
    }
    this.#remove(entry);
    this.error = null;
    if (error.status === 409 && error.body.current) this.handlers.onConflict(entry, error.body.current);
    else this.handlers.onRefused(entry, error);
    return true;
  }

  // A second save of the same record, made while the first was being sent, follows the first.
  #updateVersions(sent, version) {
    for (const entry of this.entries) {
      if (entry.subject === sent.subject && entry.body.expected_version < version) {
        entry.body.expected_version = version;
        this.#writeStored(entry);
      }
    }
  }

  #writeStored(entry) {
    try { localStorage.setItem(this.prefix + entry.body.save_key, JSON.stringify(entry)); } catch { /* beforeunload warns */ }
  }
  #remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    try { localStorage.removeItem(this.prefix + entry.body.save_key); } catch { /* was never stored */ }
  }
  #isStored() {
    try { return this.entries.every((entry) => localStorage.getItem(this.prefix + entry.body.save_key)); } catch { return false; }
  }
  #readStored() {
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
