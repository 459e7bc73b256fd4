// Slides of the server's folder are predicted as jobs, whose progress and results are shown.
import { byId, hasKey, request, settings, showProblem, translate } from "./service.js";

const POLL_MS = 1500;
const STATES = { queued: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled" };
const RESULTS = { "report.html": "report", "result.zip": "everything", "predictions.csv": "table", "failures.csv": "failures" };

function made(tag, text = "", name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function button(text, act) {
  const one = made("button", text, "plain");
  one.type = "button";
  one.addEventListener("click", async () => {
    try { await act(); showProblem(null); } catch (error) { showProblem(error.message); }
    showJobs();
  });
  return one;
}

async function listFiles() {
  if (!hasKey()) return;
  try {
    const { slides, regions } = await (await request("/v1/slides")).json();
    const wanted = new URLSearchParams(location.search).get("slide");
    const chosen = [...byId("slides").selectedOptions].map((one) => one.value);
    byId("slides").replaceChildren(...slides.map((name) => new Option(name, name, false, chosen.includes(name) || name === wanted)));
    const none = settings.canDetect ? [new Option(translate("none: the server outlines the glomeruli"), "")] : [];
    byId("regions").replaceChildren(...none, ...regions.map((name) => new Option(name === "." ? translate("the folder, a file for each slide") : name, name)));
    suggestRegions();
    if (wanted && !slides.includes(wanted)) showProblem(translate("{name} is not in the slides folder of the server; put it there and look again.", { name: wanted }));
    else showProblem(null);
  } catch (error) {
    showProblem(error.message);
  }
}

// A region file is usually named after its slide.
function suggestRegions() {
  const [first, second] = byId("slides").selectedOptions;
  if (!first) return;
  if (second) {
    const folder = first.value.includes("/") ? first.value.replace(/\/[^/]*$/, "") : ".";
    const shared = [...byId("regions").options].find((one) => one.value === folder);
    if (shared) shared.selected = true;
    return;
  }
  const stem = first.value.replace(/\.[^./]+$/, "");
  const fitting = [...byId("regions").options].find((one) => one.value.startsWith(`${stem}.`));
  if (fitting) fitting.selected = true;
  else if (settings.canDetect) byId("regions").value = "";
}

async function download(address) {
  const content = await (await request(address)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = address.split("/").pop();
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function progressText({ state, progress, outcome, error }) {
  if (outcome?.error || error) return outcome?.error ?? error;
  if (state === "done") return translate("{n} images, {referred} to review, {failures} failures", { n: outcome.n_images, referred: outcome.n_referred, failures: outcome.n_failures });
  if (state !== "running" || !progress) return "";
  return progress.total ? `${translate(progress.stage)} ${progress.done} / ${progress.total}` : translate(progress.stage);
}

function line(job) {
  const entry = made("li");
  entry.dataset.state = job.state;
  const title = made("p");
  title.append(made("strong", job.request.patient ?? job.request.slides[0].path), ` ${job.created.slice(0, 16).replace("T", " ")} UTC, `, translate(STATES[job.state]));
  entry.append(title);
  if (job.state === "running") {
    const bar = made("progress");
    bar.setAttribute("aria-label", translate("Progress"));
    if (job.progress?.total) Object.assign(bar, { max: job.progress.total, value: job.progress.done });
    entry.append(bar);
  }
  const text = progressText(job);
  if (text) entry.append(made("p", text, "hint"));
  const actions = made("p", "", "actions");
  for (const address of job.results) {
    const name = RESULTS[address.split("/").pop()];
    if (name) actions.append(button(translate(`Download: ${name}`), () => download(address)));
  }
  if (["queued", "running"].includes(job.state)) actions.append(button(translate("Cancel"), () => request(`/v1/jobs/${job.id}/cancel`, { method: "POST" })));
  else actions.append(button(translate("Delete"), () => request(`/v1/jobs/${job.id}`, { method: "DELETE" })));
  entry.append(actions);
  return entry;
}

let shown = "";
async function showJobs() {
  if (document.hidden || !hasKey()) return;
  let jobs;
  try { ({ jobs } = await (await request("/v1/jobs")).json()); } catch (error) { return showProblem(error.message); }
  byId("none").hidden = jobs.length > 0;
  const now = JSON.stringify(jobs);
  if (now === shown) return;  // a button under the pointer stays
  shown = now;
  byId("jobs").replaceChildren(...jobs.map(line));
}

async function start() {
  const common = {};
  if (byId("stain").value) common.stain = byId("stain").value;
  if (byId("mpp").value) common.mpp = Number(byId("mpp").value);
  const slides = [...byId("slides").selectedOptions].map((one) => ({ path: one.value, ...common }));
  const regions = byId("regions").value;
  const body = { slides, language: settings.language, ...(regions ? { regions } : { detect: true }) };
  if (byId("patient").value.trim()) body.patient = byId("patient").value.trim();
  await request("/v1/jobs", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

if (settings.takesSlides) {
  byId("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try { await start(); showProblem(null); } catch (error) { showProblem(error.message); }
    showJobs();
  });
  byId("slides").addEventListener("change", suggestRegions);
  byId("refresh").addEventListener("click", listFiles);
  byId("key")?.addEventListener("change", () => { listFiles(); showJobs(); });
  listFiles();
  showJobs();
  setInterval(showJobs, POLL_MS);
}
