// Talking to the server: JSON in and out, the write token, and errors that say what to do next.
export class ServerError extends Error {
  constructor(status, body) {
    super(body.detail ?? `HTTP ${status}`);
    this.status = status;
    this.body = body;
  }
  // Also where someone has logged in anew in another tab: this page's token is then of no use.
  get isLoggedOut() { return this.status === 401 || this.body.reason === "out-of-date"; }
  // Trying the same again may help: nobody answered, or the server could not write just now.
  get mayPass() { return this.status === 0 || this.status === 429 || this.status >= 500; }
}

let csrf = "";
export function useToken(token) { csrf = token; }

export async function ask(path, body) {
  const options = body === undefined
    ? { headers: { Accept: "application/json" } }
    : {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify(body),
    };
  let answer;
  try {
    answer = await fetch(path, { ...options, credentials: "same-origin", signal: AbortSignal.timeout(30_000) });
  } catch {
    throw new ServerError(0, { detail: "The server does not answer." });
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ServerError(answer.status, content);
  return content;
}

// A new session without leaving the page; the token of its writes is used from then on.
export async function logInAgain(login, password) {
  useToken((await ask("/api/entry")).csrf_token);
  const session = await ask("/api/session", { login, password });
  useToken(session.csrf_token);
  return session;
}
