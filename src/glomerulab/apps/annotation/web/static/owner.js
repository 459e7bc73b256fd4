// What an owner's page said may be false after an action: messages of earlier actions are cleared, and
// the parts that show the study are loaded anew ("changed", see templates/refreshed.html.j2).
const error = document.getElementById("error");
const isAction = (event) => event.detail.requestConfig.verb !== "get";

document.body.addEventListener("htmx:beforeRequest", (event) => {
  if (!isAction(event)) return;
  for (const message of document.querySelectorAll("#error, main [role=status]")) message.replaceChildren();
});
document.body.addEventListener("htmx:afterRequest", (event) => {
  if (!event.detail.successful) return;
  if (error.dataset.shows === "unreachable") error.replaceChildren();
  error.dataset.shows = "";
  if (isAction(event)) htmx.trigger(document.body, "changed");
});
document.body.addEventListener("htmx:sendError", () => {
  const line = document.createElement("p");
  line.className = "problem";
  line.textContent = error.dataset.unreachable;
  error.replaceChildren(line);
  error.dataset.shows = "unreachable";
});
