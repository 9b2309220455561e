// Little by little what HTML cannot do: the CSRF token on requests, files dropped, tables saved, curves drawn.
"use strict";

document.addEventListener("htmx:configRequest", (event) => {
  const token = document.querySelector("meta[name=csrf]");
  if (token && event.detail.verb !== "get") event.detail.headers["X-CSRF-Token"] = token.content;
});

// What a page asks by itself waits while somebody signs in again, and hides no problem from a person.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.requestConfig.triggeringEvent) document.getElementById("problems").replaceChildren();
  else if (document.querySelector("#dialog dialog")) event.preventDefault();
});

// No answer at all: say so, and lose nothing.
document.addEventListener("htmx:sendError", () => {
  const said = document.createElement("p");
  said.className = "problem";
  said.role = "alert";
  said.textContent = "The server does not answer. What you wrote is still here; try again.";
  document.getElementById("problems").replaceChildren(said);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-download]");
  if (!button) return;
  const rows = [...document.getElementById(button.dataset.table).rows].map((row) =>
    [...row.cells].map((cell) => `"${cell.textContent.trim().replaceAll('"', '""')}"`).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = button.dataset.download;
  link.click();
  URL.revokeObjectURL(link.href);
});

for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    const place = event.target.closest && event.target.closest(".drop");
    if (!place) return;
    event.preventDefault();
    place.classList.toggle("over", kind === "dragover");
    const input = place.querySelector("input[type=file]");
    if (kind === "drop" && event.dataTransfer.files.length) {
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }
  });
}

function draw(place) {
  if (typeof uPlot === "undefined" || place.dataset.drawn) return;
  place.dataset.drawn = "1";
  const { x, lines, unit } = JSON.parse(place.dataset.curve);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const palette = ["--accent", "--second", "--third", "--fourth"].map(colour);
  new uPlot({
    width: place.clientWidth, height: 220, scales: { x: { time: false } },
    series: [{ label: unit }, ...lines.map((line, i) => ({
      label: line.name, stroke: palette[i % palette.length], width: 2, spanGaps: true }))],
    axes: [axis, { ...axis, size: 54 }],
    cursor: { points: { size: 6 } },
  }, [x, ...lines.map((line) => line.values)], place);
}

function drawAll(root) {
  for (const place of root.querySelectorAll("[data-curve]")) draw(place);
}

document.addEventListener("DOMContentLoaded", () => drawAll(document));
document.addEventListener("htmx:afterSettle", () => drawAll(document));

// What is over needs no more looking at.
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.querySelector && event.target.querySelector("[data-over]")) event.target.removeAttribute("hx-trigger");
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.id === "live" && event.target.querySelector("[data-over]")) event.preventDefault();
});
