// Translations of the page's texts into the language that the server chose; the English text is the key.
const translations = JSON.parse(document.getElementById("translations").textContent);

export function translate(text, values = {}) {
  let translated = translations[text] ?? text;
  for (const [name, value] of Object.entries(values)) translated = translated.replaceAll(`{${name}}`, value);
  return translated;
}
