// A session that ends while someone works: they log in again without leaving the page.
import { logInAgain } from "./server.js";
import { say } from "./words.js";

const $ = (id) => document.getElementById(id);

let afterLogin = [];
export function askToLogIn(then) {
  afterLogin.push(then);
  if (!$("login-dialog").open) { $("login-dialog").showModal(); $("again-password").focus(); }
}
$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await logInAgain($("again-login").value, $("again-password").value);
  } catch (error) {
    $("login-problem").textContent = say(error.message);
    $("login-problem").hidden = false;
    return;
  }
  $("again-password").value = "";
  $("login-problem").hidden = true;
  $("login-dialog").close();
  const then = afterLogin;
  afterLogin = [];
  for (const act of then) act();
});
$("login-dialog").addEventListener("cancel", (event) => event.preventDefault());
