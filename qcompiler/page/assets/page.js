"use strict";
// What the scripts of all pages share.
const shared = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const short = (value) => Number(value.toPrecision(4)).toString();
  const element = (tag, text, parent) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };
  const plot = (parent, options, data) => {
    const axis = { stroke: style("--soft"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
    const width = Math.max(240, Math.min(parent.clientWidth || 600, options.most || 640));
    return new uPlot({
      width, height: 220, cursor: { drag: { setScale: false } }, legend: { show: false }, ...options,
      axes: options.axes.map((each) => ({ ...axis, ...each })),
    }, data, parent);
  };
  // Calls `redraw` where colours or widths have changed.
  const on_change = (redraw) => {
    let resized;
    dark.addEventListener("change", redraw);
    addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(redraw, 200); });
  };
  return { data: JSON.parse(document.getElementById("data").textContent), dark, style, short, element, plot, on_change };
})();
