"use strict";
(() => {
  const { data: { layers, waves, names }, style, short, plot, on_change } = shared;
  const MOST = 80;
  const shown = (value) => (value === null ? null : Math.min(Math.max(value, 0), MOST));
  const told = (value) => (value === null ? "not known" : value >= 200 ? "same" : `${value.toFixed(1)} dB`);

  // ---- decibels along the layers
  const mark = (place) => (u) => {
    if (place === null) return;
    const x = u.valToPos(place, "x", true), { top, height } = u.bbox;
    u.ctx.save();
    u.ctx.strokeStyle = style("--bad");
    u.ctx.lineWidth = 2;
    u.ctx.setLineDash([5, 4]);
    u.ctx.beginPath();
    u.ctx.moveTo(x, top);
    u.ctx.lineTo(x, top + height);
    u.ctx.stroke();
    u.ctx.restore();
  };
  const here = document.getElementById("here"), line = document.getElementById("line");
  const rows = [...document.querySelectorAll("#rows tbody tr")];
  const tell = (place) => {
    if (place === null || place === undefined) return;
    here.textContent = `${layers.names[place]}: ${told(layers.worst[place])} on the worst feed, ${told(layers.first[place])} on the first.`;
  };
  const draw_line = () => {
    if (!line) return;
    line.replaceChildren();
    const dots = layers.names.length < 120;
    const series = (colour, width) => ({ stroke: colour, width, spanGaps: true, points: { show: dots, size: 5, fill: colour, stroke: colour } });
    const drawn = plot(line, {
      height: 280, most: 1200, scales: { x: { time: false, range: [-0.5, layers.names.length - 0.5] }, y: { range: [0, MOST + 2] } },
      axes: [{ values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick + 1 : "")) }, { label: "dB", stroke: style("--soft"), size: 50 }],
      series: [{}, series(style("--soft"), 1.5), series(style("--accent"), 2)],
      hooks: { draw: [mark(layers.at)], setCursor: [(u) => tell(u.cursor.idx)] },
    }, [layers.names.map((_, place) => place), layers.first.map(shown), layers.worst.map(shown)]);
    drawn.over.addEventListener("click", () => rows[drawn.cursor.idx]?.scrollIntoView({ block: "center" }));
    tell(layers.at ?? layers.names.length - 1);
  };

  // ---- waveforms: an input has one line, an output one of each model
  const draw_waves = () => document.querySelectorAll(".wave").forEach((parent, i) => {
    parent.replaceChildren();
    const series = (colour, width) => ({ stroke: colour, width, spanGaps: false, points: { show: false } });
    const lines = [series(style("--accent"), 1.5), series(style("--bad"), 1)].slice(0, waves[i].length - 1);
    plot(parent, {
      height: 160, scales: { x: { time: false } }, axes: [{}, { size: 60, values: (_, ticks) => ticks.map(short) }], series: [{}, ...lines],
    }, waves[i]);
    if (lines.length === 2) {
      const caption = shared.element("p", undefined, parent);
      caption.className = "caption";
      shared.element("span", names[0], caption).className = "now";
      caption.append(", ");
      shared.element("span", names[1], caption).className = "second";
    }
  });

  const redraw = () => { draw_line(); draw_waves(); };
  on_change(redraw);
  redraw();
  document.documentElement.dataset.ready = "yes";
})();
