// The page's words in the language the server chose; English itself is the key.
const chinese = JSON.parse(document.getElementById("words").textContent);

export function say(text, parts = {}) {
  let said = chinese[text] ?? text;
  for (const [name, value] of Object.entries(parts)) said = said.replaceAll(`{${name}}`, value);
  return said;
}
