// Draws /docs: Swagger UI over openapi.json, with nothing fetched from another host.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const followColours = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followColours);
followColours();

SwaggerUIBundle({
  url: "openapi.json", // relative to the page, so that a proxy's path prefix is kept
  dom_id: "#swagger-ui",
  validatorUrl: null, // no badge from validator.swagger.io, whatever the layout
  deepLinking: true,
  displayRequestDuration: true,
});
