// Requests to the server: JSON in and out, the CSRF token of writes, typed errors, and logging in again
// without leaving the page when the session has ended.
import { translate } from "./translate.js";

const $ = (id) => document.getElementById(id);

export class ServerError extends Error {
  constructor(status, body) {
    super(body.detail ?? `HTTP ${status}`);
    this.status = status;
    this.body = body;
  }
  // Also true if the user logged in again in another tab: the token of this page is then stale.
  get isLoggedOut() { return this.status === 401 || this.body.reason === "out-of-date"; }
  // The same request may succeed later: no response, too many log-ins, or the server could not write.
  get isRetryable() { return this.status === 0 || this.status === 429 || this.status >= 500; }
}

let csrfToken = "";
export function setCsrfToken(token) { csrfToken = token; }

export async function request(path, body) {
  const options = body === undefined
    ? { headers: { Accept: "application/json" } }
    : {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrfToken },
      body: JSON.stringify(body),
    };
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin", signal: AbortSignal.timeout(30_000) });
  } catch {
    throw new ServerError(0, { detail: "The server does not respond." });
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new ServerError(response.status, content);
  return content;
}

async function logInAgain(login, password) {
  setCsrfToken((await request("/api/entry")).csrf_token);
  setCsrfToken((await request("/api/session", { login, password })).csrf_token);
}

let callbacks = [];
export function promptLogin(callback) {
  callbacks.push(callback);
  if (!$("login-dialog").open) { $("login-dialog").showModal(); $("again-password").focus(); }
}
$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await logInAgain($("again-login").value, $("again-password").value);
  } catch (error) {
    $("login-problem").textContent = translate(error.message);
    $("login-problem").hidden = false;
    return;
  }
  $("again-password").value = "";
  $("login-problem").hidden = true;
  $("login-dialog").close();
  const waiting = callbacks;
  callbacks = [];
  for (const callback of waiting) callback();
});
$("login-dialog").addEventListener("cancel", (event) => event.preventDefault());
