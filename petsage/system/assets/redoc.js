// Draws /redoc: Redoc over openapi.json, with nothing fetched from another host.
import { init } from "./redoc.standalone.js";

const SOURCE = "openapi.json"; // relative to the page, so that a proxy's path prefix is kept
const page = document.getElementById("redoc");

/** The OpenAPI document, as an object. */
async function loadDocument() {
  const answer = await fetch(SOURCE);
  if (!answer.ok) {
    throw new Error(`${answer.url} answered ${answer.status}`);
  }
  return answer.json();
}

// Redoc's search makes a worker by `eval`, which the page's policy forbids; without workers it
// searches in the page.
globalThis.Worker = undefined;

// Redoc keeps its layout in a cookie, which would travel with every request to the API.
Object.defineProperty(document, "cookie", { get: () => "", set: () => {} });

try {
  // An object, not its address (nor `downloadUrls`): with an address Redoc adds menus that send
  // the document to chat services.
  init(await loadDocument(), { disableTelemetry: true }, page);
} catch (error) {
  const notice = document.createElement("p");
  notice.className = "notice";
  notice.setAttribute("role", "alert");
  notice.textContent = `The description of the API did not load: ${error.message}. Open ${SOURCE} to see why.`;
  page.replaceChildren(notice);
}
