"use strict";
/* Draws the plots of a report from the numbers that the page carries. Names come in as text and stay text: what plotly
   would read as markup is escaped, everything else is set through textContent. */
(() => {
  const report = JSON.parse(document.getElementById("groupwise-report").textContent);
  const root = document.documentElement;
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b3509a", "#3ba0dc", "#b8860b", "#5f4bb6", "#6b7280"];
  const DARK = ["#58b4f0", "#ff8f4d", "#38cfa0", "#ec9fd2", "#a9dcfb", "#f0c350", "#ab9bf5", "#a8b0bb"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const DIVERGING = (middle) => [[0, "#c2510c"], [0.5, middle], [1, "#0b6cb8"]];
  const charts = [];

  const escaped = (name) => name.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const printable = (name) => (name.trim() ? name.replace(/\p{C}+/gu, "\ufffd") : "(no name)");
  const shortened = (name, most) => (name.length > most ? `${name.slice(0, Math.ceil(most / 2) - 1)}…${name.slice(-Math.floor(most / 2))}` : name);
  const label = (name, most) => escaped(shortened(printable(name), most));
  const number = (value) => (typeof value === "string" ? NaN : value);
  const said = (value) => (typeof value === "string" ? value : String(Number(value.toPrecision(4))));
  const dark = () => root.dataset.theme === "dark";
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  /* One colour for one name, on the whole page: its place among the lines of the first plot that shows it. */
  const places = new Map(), shown = (figure) => figure.lines.filter((line) => !line.faint);
  for (const run of report.runs) for (const panel of run.panels) for (const figure of panel.figures)
    if (figure.kind === "Lines" && figure.lines.length > 1) shown(figure).forEach((line, at) => { if (!places.has(line.name)) places.set(line.name, at); });
  const place = (figure, at) => places.get(figure.lines[at].name) ?? 0;
  const colour = (figure, at) => (figure.lines[at].faint ? css("--soft") : (dark() ? DARK : LIGHT)[place(figure, at) % LIGHT.length]);
  const dash = (figure, at) => DASHES[Math.floor(place(figure, at) / LIGHT.length) % DASHES.length];

  /* The range of all figures of one title, so that runs side by side can be compared by eye. */
  const alike = (panelKey, title, kind = "Lines") => report.runs.flatMap((run) => run.panels.filter((p) => p.key === panelKey)
    .flatMap((p) => p.figures.filter((f) => f.kind === kind && f.title === title)));
  function range(panelKey, figure) {
    const figures = alike(panelKey, figure.title), lows = [], highs = [];
    const usable = (v) => Number.isFinite(v) && (!figure.logarithmic || v > 0);
    for (const line of figures.flatMap((f) => f.lines)) {
      const values = line.values.map(number).filter(usable).sort((a, b) => a - b);
      if (!values.length) continue;
      lows.push(figure.logarithmic ? Math.max(values[0], values[Math.floor(values.length / 2)] / 100) : values[0]);
      highs.push(values.at(-1));
    }
    for (const guide of figures.flatMap((f) => f.guides)) if (usable(guide.value)) { lows.push(guide.value); highs.push(guide.value); }
    if (!lows.length) return figure.logarithmic ? [-1, 1] : [0, 1];
    let [low, high] = [Math.min(...lows), Math.max(...highs)];
    if (figure.logarithmic) [low, high] = [Math.log10(low), Math.log10(high)];
    else if (low > 0 && low < 0.5 * high) low = 0;
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    return [low === 0 && !figure.logarithmic ? 0 - room / 3 : low - room, high + room];
  }

  function steps(panelKey, figure) {
    const ends = alike(panelKey, figure.title).flatMap((f) => f.lines.flatMap((line) => [line.steps[0], line.steps.at(-1)]));
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    return low < high ? [low, high] : [low - 1, low + 1];
  }

  const font = () => ({ family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--soft") });
  const base = (height, margin) => ({
    height, margin, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: font(),
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--rule"), font: { color: css("--ink"), size: 12 }, align: "left" },
    hovermode: "closest", dragmode: "zoom",
  });
  const axis = () => ({ gridcolor: css("--rule"), linecolor: css("--rule"), zerolinecolor: css("--rule"), tickcolor: css("--rule"), automargin: true });

  function lines(chart) {
    const { figure, panel, on } = chart, [low, high] = range(panel.key, figure), traces = [];
    figure.lines.forEach((line, at) => {
      const name = escaped(printable(line.name)), strange = line.values.map((v, i) => (typeof v === "string" ? i : -1)).filter((i) => i >= 0);
      const text = line.values.map((v, i) => `${name}<br>step ${line.steps[i].toLocaleString("en")}: ${said(v)}`);
      const dots = line.steps.length === 1;
      traces.push({
        type: "scatter", x: line.steps, y: line.values.map((v) => { const n = number(v); return Number.isFinite(n) ? n : null; }),
        mode: dots ? "markers" : "lines", text, hoverinfo: "text", visible: on[at],
        line: { color: colour(figure, at), width: line.faint ? 1 : 1.8, dash: dash(figure, at) }, opacity: line.faint ? 0.45 : 1,
        marker: { color: colour(figure, at), size: 7 },
      });
      if (strange.length) traces.push({
        type: "scatter", mode: "markers", x: strange.map((i) => line.steps[i]), y: strange.map(() => (figure.logarithmic ? 10 ** high : high)),
        text: strange.map((i) => text[i]), hoverinfo: "text", visible: on[at], cliponaxis: false,
        marker: { symbol: "x", size: 9, color: css("--look") },
      });
    });
    const shapes = figure.guides.map((g) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: g.value, y1: g.value, line: { color: css("--soft"), width: 1, dash: "dot" } }));
    const annotations = figure.guides.map((g) => ({
      xref: "paper", x: 1, xanchor: "right", yref: "y", y: figure.logarithmic ? Math.log10(g.value) : g.value, yanchor: "bottom",
      text: label(g.text, 28), showarrow: false, font: { size: 11, color: css("--soft") }, bgcolor: css("--card"), opacity: 0.85, borderpad: 1,
    }));
    const y = { ...axis(), range: [low, high], type: figure.logarithmic ? "log" : "linear", zeroline: !figure.logarithmic };
    if (figure.logarithmic) Object.assign(y, decades(low, high));
    const x = { ...axis(), range: steps(panel.key, figure), tickformat: ",", title: { text: "step", standoff: 4, font: { size: 11 } }, zeroline: false, nticks: 7 };
    return [traces, { ...base(330, { l: 8, r: 14, t: 10, b: 8 }), xaxis: x, yaxis: y, shapes, annotations }];
  }

  function heat(chart) {
    const { figure, small } = chart, width = chart.canvas.clientWidth, most = width < 420 ? 14 : 30;
    const cells = figure.cells.map((row) => row.map((v) => { const n = number(v); return Number.isFinite(n) && (figure.ramp !== "log" || n > 0) ? n : null; }));
    const z = figure.ramp === "log" ? cells.map((row) => row.map((v) => (v === null ? null : Math.log10(v)))) : cells;
    const usable = (v) => Number.isFinite(v) && (figure.ramp !== "log" || v > 0), scaled = (v) => (figure.ramp === "log" ? Math.log10(v) : v);
    const found = alike(chart.panel.key, figure.title, "Heat").flatMap((f) => f.cells.flat().map(number).filter(usable).map(scaled)), text = figure.cells.map((row, i) => row.map((v, j) =>
      `${escaped(printable(figure.rows[i]))}<br>${figure.across === "step" ? "from step " : ""}${label(figure.columns[j], 60)}: ${said(v)}`));
    let [zmin, zmax] = found.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
    if (zmin > zmax) [zmin, zmax] = [0, 1];
    if (figure.ramp === "signed") { zmax = Math.max(Math.abs(zmin), Math.abs(zmax)); zmin = -zmax; }
    if (small) [zmin, zmax] = [0, 1];
    if (figure.ramp === "log") zmin = Math.max(zmin, zmax - 6);
    const paper = css("--card"), sequential = dark() ? [[0, "#1d2733"], [0.5, "#2a6fa8"], [1, "#a9dcfb"]] : [[0, "#eef4fa"], [0.5, "#5aa5d8"], [1, "#08427a"]];
    const ticks = figure.ramp === "log" ? { tickvals: span(zmin, zmax), ticktext: span(zmin, zmax).map((v) => power(Number(`1e${v}`))) } : {};
    const trace = {
      type: "heatmap", z, x: figure.columns.map((_, j) => j), y: figure.rows.map((_, i) => i), text, hoverinfo: "text", zmin, zmax,
      colorscale: figure.ramp === "signed" ? DIVERGING(paper) : small ? sequential : "Cividis", xgap: small ? 3 : 0, ygap: small ? 3 : figure.rows.length > 30 ? 0 : 2,
      showscale: !small, colorbar: { thickness: 9, outlinewidth: 0, len: 1, tickfont: { size: 11 }, ...ticks },
    };
    const every = Math.max(1, Math.ceil(figure.columns.length / (small ? 20 : width < 420 ? 4 : 7)));
    const xs = figure.columns.map((_, j) => j).filter((j) => j % every === 0), down = Math.max(1, Math.ceil(figure.rows.length / 28));
    const ys = figure.rows.map((_, i) => i).filter((i) => i % down === 0);
    const height = small ? Math.min(Math.max(figure.rows.length * 26 + 60, 130), 900) : Math.min(Math.max(figure.rows.length * 20 + 60, 330), 640);
    const layout = {
      ...base(height, { l: 8, r: small ? 8 : 14, t: 10, b: 8 }),
      xaxis: { ...axis(), tickvals: xs, ticktext: xs.map((j) => label(figure.columns[j], 14)), showgrid: false, zeroline: false, ticks: "", tickangle: small ? 0 : "auto", ...(small ? {} : { title: { text: figure.across, standoff: 4, font: { size: 11 } } }) },
      yaxis: { ...axis(), tickvals: ys, ticktext: ys.map((i) => label(figure.rows[i], small ? 16 : most)), autorange: "reversed", showgrid: false, zeroline: false, ticks: "" },
    };
    const blank = (v) => (v === null ? "" : v >= 0.995 || v < 0.005 ? v.toFixed(0) : v.toFixed(2));
    if (small && figure.rows.length <= 30) layout.annotations = cells.flatMap((row, i) => row.map((v, j) => ({
      x: j, y: i, text: blank(v), showarrow: false, font: { size: 11, color: v > 0.55 ? (dark() ? "#10161c" : "#ffffff") : css("--ink") },
    })));
    return [[trace], layout];
  }
  const span = (low, high) => Array.from({ length: Math.max(Math.floor(high) - Math.ceil(low) + 1, 0) }, (_, i) => Math.ceil(low) + i);

  const power = (v) => (v >= 0.01 && v < 1e5 ? String(Number(v.toPrecision(3))) : v.toExponential().replace("e+", "e"));
  function decades(low, high) {
    const every = Math.ceil((high - low) / 8), steps = high - low > 1.5 ? [1] : [1, 2, 5];
    const values = span(low - 1, high).filter((v) => v % every === 0).flatMap((v) => steps.map((s) => Number(`${s}e${v}`)));
    return { tickvals: values, ticktext: values.map(power) };
  }

  const config = { displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false, doubleClick: "reset" };
  const hidden = (chart) => chart.canvas.closest("details.fold:not([open])") !== null;
  async function draw(chart) {
    const [traces, layout] = chart.figure.kind === "Lines" ? lines(chart) : heat(chart);
    await Plotly.react(chart.canvas, traces, layout, config);
    if (chart.figure.kind === "Lines") legend(chart);
  }

  function legend(chart) {
    const { figure, on, box } = chart, active = document.activeElement?.dataset?.line;
    box.replaceChildren();
    const faint = figure.lines.some((line) => line.faint);
    figure.lines.forEach((line, at) => {
      if ((line.faint && !chart.all) || figure.lines.length === 1) return;
      const button = document.createElement("button"), swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      swatch.setAttribute("width", "22"); swatch.setAttribute("height", "8"); swatch.setAttribute("aria-hidden", "true");
      const stroke = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const dashes = { solid: "", dash: "6 3", dot: "2 3", dashdot: "6 3 2 3" }[dash(figure, at)];
      for (const [key, value] of Object.entries({ x1: 0, x2: 22, y1: 4, y2: 4, stroke: colour(figure, at), "stroke-width": 2.5, "stroke-dasharray": dashes })) stroke.setAttribute(key, value);
      swatch.append(stroke);
      button.type = "button"; button.dataset.line = String(at); button.setAttribute("aria-pressed", String(on[at]));
      button.title = `Show or hide ${printable(line.name)}`;
      button.append(swatch, printable(line.name));
      button.addEventListener("click", () => { on[at] = !on[at]; draw(chart); });
      box.append(button);
      if (active === String(at) && chart.focused) button.focus();
    });
    if (faint) {
      const all = document.createElement("button");
      all.type = "button"; all.className = "all"; all.setAttribute("aria-pressed", String(chart.all));
      all.textContent = chart.all ? "Show the extremes only" : `Show all ${figure.lines.length} lines`;
      all.addEventListener("click", () => { chart.all = !chart.all; figure.lines.forEach((line, at) => { if (line.faint) on[at] = chart.all; }); draw(chart).then(() => box.querySelector(".all").focus()); });
      box.prepend(all);
    }
  }

  for (const element of document.querySelectorAll(".plot[data-at]")) {
    const [run, panel, at] = element.dataset.at.split(" ").map(Number), held = report.runs[run].panels[panel], figure = held.figures[at];
    const chart = { figure, panel: held, canvas: element.querySelector(".canvas"), box: element.querySelector(".legend"), small: element.classList.contains("small"), all: false, focused: false };
    chart.on = (figure.lines ?? []).map((line) => !line.faint);
    chart.box?.addEventListener("focusin", () => { chart.focused = true; });
    chart.box?.addEventListener("focusout", (event) => { if (event.relatedTarget) chart.focused = false; });
    charts.push(chart);
  }

  async function drawAll() {
    let drawn = 0;
    const visible = charts.filter((chart) => !hidden(chart));
    for (const chart of visible) {
      try { await draw(chart); drawn += 1; } catch (error) { chart.canvas.textContent = "This plot could not be drawn; its numbers are in the table below."; console.error(error); }
    }
    root.dataset.drawn = `${drawn} of ${visible.length}`;
  }

  /* What is folded is drawn once it is opened: by hand, by a link that leads into it, or for paper. */
  const folds = [...document.querySelectorAll("details.fold")];
  for (const fold of folds) fold.addEventListener("toggle", () => { if (fold.open) for (const chart of charts) if (fold.contains(chart.canvas)) draw(chart); });
  const unfold = () => document.getElementById(location.hash.slice(1))?.querySelector("details.fold")?.setAttribute("open", "");
  addEventListener("hashchange", unfold);
  unfold();

  const toggle = document.getElementById("theme"), prefers = matchMedia("(prefers-color-scheme: dark)");
  const told = () => { toggle.textContent = dark() ? "Light" : "Dark"; toggle.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} scheme`); };
  const show = (theme) => { root.dataset.theme = theme; told(); return drawAll(); };
  toggle.hidden = false;
  toggle.addEventListener("click", () => { const theme = dark() ? "light" : "dark"; try { localStorage.setItem("groupwise-theme", theme); } catch { /* not kept, then */ } show(theme); });
  prefers.addEventListener("change", (event) => show(event.matches ? "dark" : "light"));
  let before = root.dataset.theme;
  addEventListener("beforeprint", () => { before = root.dataset.theme; folds.forEach((fold) => { fold.open = true; }); show("light"); });
  addEventListener("afterprint", () => show(before));

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const sections = [...document.querySelectorAll("main section")];
  const mark = () => {
    const above = sections.filter((section) => section.getBoundingClientRect().top < 120), current = above.at(-1) ?? sections[0];
    for (const [id, link] of links) if (id === current.id) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
  };
  addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
  mark();
  told();
  drawAll();
})();
