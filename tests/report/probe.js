/* What a page is asked in the browser: put into its head by browser.py, so that it hears of every error. */
window.found = [];
addEventListener("error", (event) => found.push(`error: ${event.message}`));
addEventListener("unhandledrejection", (event) => found.push(`rejected: ${event.reason}`));
document.addEventListener("securitypolicyviolation", (event) => found.push(`refused: ${event.blockedURI}`));
console.error = (...words) => found.push(`console: ${words.join(" ")}`);
window.pwned = () => found.push("a name was run as code");

const wait = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));
const root = document.documentElement;

/* WCAG 2.1: the contrast ratio of a text and the ground that it stands on. */
const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
const contrast = (element) => {
  const [light, dark] = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
};

async function look() {
  const texts = "h1, h2, h3, h4, p, dt, dd, a, b, th, td, button, caption, figcaption, summary, pre";
  const plots = [...document.querySelectorAll(".canvas")].filter((plot) => !plot.closest("details.fold:not([open])"));
  return {
    faint: [...document.querySelectorAll(texts)].filter((e) => e.textContent.trim() && contrast(e) < 4.5)
      .map((e) => `${e.tagName} ${e.className} ${contrast(e).toFixed(2)}`),
    plots: plots.length,
    empty: plots.filter((plot) => !plot.querySelector(".trace, .hm")).length,
    wide: plots.filter((plot) => plot.querySelector("svg").getBoundingClientRect().right > innerWidth).length,
  };
}

async function use() {
  const theme = root.dataset.theme;
  document.getElementById("theme").click();
  const turned = root.dataset.theme;
  const chart = [...document.querySelectorAll(".plot")].find((plot) => plot.querySelector(".all"));
  const lines = () => [...chart.querySelectorAll(".legend button:not(.all)")];
  const before = lines().length;
  chart.querySelector(".all").click();
  await wait(2000);
  const after = lines().length;
  lines()[0].focus();
  lines()[0].click();
  await wait(500);
  return {
    theme, turned, before, after,
    focused: document.activeElement?.dataset?.line ?? null,
    pressed: lines()[0].getAttribute("aria-pressed"),
    unreachable: [...document.querySelectorAll("a, button, summary, .scroll, pre")].filter((e) => e.tabIndex < 0).length,
  };
}

async function tell(at, asked) {
  while (!root.dataset.drawn) await wait(20);
  const said = await asked();
  const overflow = root.scrollWidth - root.clientWidth;
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const { drawn, theme } = root.dataset;
  parent.postMessage(JSON.stringify({ at, found, overflow, requests, drawn, theme, said }), "*");
}

/* Opens what is folded, and says how many of its plots are drawn then. */
async function unfold() {
  const folds = [...document.querySelectorAll("details.fold")];
  const hidden = folds.flatMap((fold) => [...fold.querySelectorAll(".canvas")]);
  const before = hidden.filter((plot) => plot.querySelector(".trace, .hm")).length;
  for (const fold of folds) fold.open = true;
  await wait(2000);
  return { folds: folds.length, hidden: hidden.length, before, after: hidden.filter((plot) => plot.querySelector(".trace, .hm")).length };
}
