"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("has-js");
  const store = (value) => {
    // a file that was opened without a server may not be allowed to store anything
    try { return value ? localStorage.setItem("synque-theme", value)
      : localStorage.getItem("synque-theme"); } catch { return null; }
  };
  const kept = store();
  if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store(root.dataset.theme);
  });

  const copy = async (text, button) => {
    const words = button.textContent;
    let done = true;
    try { await navigator.clipboard.writeText(text); } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = words; }, 1500);
  };
  const markdown = document.getElementById("markdown");
  document.getElementById("copy").addEventListener("click", (event) =>
    copy(markdown.value, event.currentTarget));
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", () => copy(button.previousElementSibling.textContent, button));
  }

  for (const filter of document.querySelectorAll("select.filter")) {
    const map = filter.closest("figure").querySelector("svg.map");
    filter.addEventListener("change", () => {
      const name = filter.selectedIndex > 0 ? filter.value : null;
      map.classList.toggle("filtered", name !== null);
      for (const path of map.querySelectorAll("path.on, path.off")) {
        path.classList.toggle("chosen", path.dataset.n === name);
      }
    });
  }

  const points = [...document.querySelectorAll(".area circle[data-n]")];
  const mark = (name) => {
    for (const point of points) {
      const hot = point.dataset.n === name;
      point.classList.toggle("hot", hot);
      if (hot) {
        point.closest("figure").querySelector("output").textContent =
          point.firstElementChild.textContent;
      }
    }
  };
  for (const point of points) {
    point.addEventListener("pointerenter", () => mark(point.dataset.n));
    point.addEventListener("click", () => mark(point.dataset.n));
  }
})();
