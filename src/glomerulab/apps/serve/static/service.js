// What the pages share: texts, the API key, and requests.
export const settings = JSON.parse(document.getElementById("settings").textContent);
export const byId = (id) => document.getElementById(id);

export function translate(text, values = {}) {
  let translated = settings.translations[text] ?? text;
  for (const [name, value] of Object.entries(values)) translated = translated.replaceAll(`{${name}}`, value);
  return translated;
}

export function showProblem(problem, link) {
  const place = byId("problem");
  place.hidden = !problem;
  place.replaceChildren(problem ?? "");
  if (!link) return;
  const anchor = document.createElement("a");
  [anchor.href, anchor.textContent] = link;
  place.append(" ", anchor);
}

const key = byId("key");
if (key) key.value = sessionStorage.getItem("glomerulab-key") ?? "";

export async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key) {
    sessionStorage.setItem("glomerulab-key", key.value);
    headers.Authorization = `Bearer ${key.value}`;
  }
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error(translate("The server cannot be reached."));
  }
  if (!response.ok) throw new Error((await response.json()).detail);
  return response;
}
export const hasKey = () => !key || key.value !== "";
