"use strict";
(() => {
  const { data: { nodes, edges, front }, dark, style, short, element, plot, on_change } = shared;
  const LOW = [232, 106, 92], MIDDLE = [242, 203, 92], HIGH = [96, 188, 152], DARK = "#14171a";
  const sum = (key) => nodes.reduce((total, node) => total + (node[key] || 0), 0) || 1;
  const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

  // What a node can be coloured by: its value from 0 (red) to 1 (green), the text on it, and the ends of the legend.
  const shareOf = (key) => {
    const total = sum(key), most = Math.max(...nodes.map((node) => node[key] || 0), 1);
    return {
      at: (node) => 1 - Math.sqrt(node[key] / most), text: (node) => percent(node[key] / total),
      ends: ["most", "least"],
    };
  };
  const bitsOf = (key) => ({
    at: (node) => (node[key] - 2) / 14, text: (node) => `${node[key]} bits`, ends: ["2 bits", "16 bits and float"],
  });
  const COLOURS = {
    sqnr_db: {
      at: (node) => (node.sqnr_db - 10) / 35, ends: ["10 dB and less", "45 dB and more"],
      text: (node) => (node.sqnr_db >= 200 ? "same" : `${node.sqnr_db.toFixed(1)} dB`),
    },
    weight_bits: bitsOf("weight_bits"), bits: bitsOf("bits"), weight_bytes: shareOf("weight_bytes"),
    macs: shareOf("macs"), nanoseconds: shareOf("nanoseconds"),
  };
  const mixed = (share) => {
    const t = Math.min(Math.max(share, 0), 1);
    const [from, to, part] = t < 0.5 ? [LOW, MIDDLE, 2 * t] : [MIDDLE, HIGH, 2 * t - 1];
    return `rgb(${from.map((value, i) => Math.round(value + part * (to[i] - value))).join(",")})`;
  };

  // ---- the graph
  const LARGE = nodes.length > 600; // then lines are plain, and labels not drawn while the graph moves
  const container = document.getElementById("graph");
  const short_name = (name) => (name.length > 24 ? `…${name.slice(-23)}` : name);
  const colour = document.getElementById("colour");
  const kinds_of = (node, key) => [
    ["coloured", node[key] !== undefined], ["float", Boolean(node.left_float)], ["end", node.op === "input" || node.op === "output"],
  ];
  const look_of = (node, key) => ({
    fill: node[key] === undefined ? style("--line") : mixed(COLOURS[key].at(node)),
    label: `${short_name(node.name || "")}\n${node.op}${node[key] === undefined ? "" : `  ${COLOURS[key].text(node)}`}`,
  });
  const is_around = (from, to) => (to.y || 0) - (from.y || 0) > 80 && Math.abs((to.x || 0) - (from.x || 0)) < 60;
  const sheet = () => {
    const text = style("--text"), line = style("--soft"), accent = style("--accent");
    return [
      { selector: "node", style: {
        shape: "round-rectangle", width: 172, height: 46, "background-color": style("--card"), "border-width": 3,
        "border-color": "data(fill)", label: "data(label)", color: text, "font-size": 13, "text-wrap": "wrap",
        "text-valign": "center", "text-halign": "center", "min-zoomed-font-size": 7,
      } },
      { selector: "node.coloured", style: { "background-color": "data(fill)", color: DARK } },
      { selector: "node.float", style: { "border-style": "dashed" } },
      { selector: "node.end", style: { shape: "ellipse" } },
      { selector: "node.hit", style: { "border-color": accent, "border-width": 6 } },
      { selector: "node:selected", style: { "border-color": text, "border-width": 6 } },
      { selector: "edge", style: {
        width: 1.5, "line-color": line, "target-arrow-color": line, "target-arrow-shape": LARGE ? "none" : "triangle", "arrow-scale": 0.8,
        "curve-style": LARGE ? "haystack" : "straight", opacity: 0.7, events: "no",
      } },
      { selector: "edge.around", style: { "curve-style": "unbundled-bezier", "control-point-distances": 130, "control-point-weights": 0.5 } },
    ];
  };
  const graph = cytoscape({
    container, style: sheet(), layout: { name: "preset", fit: false }, autoungrabify: true, boxSelectionEnabled: false,
    pixelRatio: 1, hideEdgesOnViewport: LARGE, textureOnViewport: LARGE, minZoom: 0.01, maxZoom: 3,
    elements: {
      nodes: nodes.map((node, i) => ({
        data: { id: `n${i}`, ...look_of(node, colour.value) }, position: { x: node.x || 0, y: node.y || 0 },
        classes: kinds_of(node, colour.value).flatMap(([name, has]) => (has ? [name] : [])),
      })),
      edges: edges.map(([from, to], i) => ({
        data: { id: `e${i}`, source: `n${from}`, target: `n${to}` }, classes: is_around(nodes[from], nodes[to]) ? "around" : "",
      })),
    },
  });
  const paint = (key) => graph.batch(() => nodes.forEach((node, i) => {
    const drawn = graph.getElementById(`n${i}`);
    drawn.data(look_of(node, key));
    for (const [name, has] of kinds_of(node, key)) drawn.toggleClass(name, has);
  }));
  const explain = (key) => {
    const legend = document.getElementById("legend"), bar = document.createElement("i");
    bar.style.background = `linear-gradient(90deg, ${mixed(0)}, ${mixed(0.5)}, ${mixed(1)})`;
    legend.replaceChildren(COLOURS[key].ends[0], bar, COLOURS[key].ends[1], " · grey: does not apply · dashed: float");
  };

  // ---- plots
  const levels_over = (grid, colour) => (u) => {
    const at = (code) => u.valToPos(grid.scale * (code - (grid.zero || 0)), "x", true);
    const { left, top, width, height } = u.bbox, first = at(grid.low || 0), last = at(grid.high);
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(left, top, width, height);
    u.ctx.clip();
    u.ctx.fillStyle = u.ctx.strokeStyle = colour;
    u.ctx.globalAlpha = 0.13;
    u.ctx.fillRect(first, top, last - first, height);
    const step = (last - first) / (grid.high - (grid.low || 0)), every = Math.max(1, Math.ceil(3 / Math.max(step, 1e-9)));
    u.ctx.globalAlpha = 0.8;
    u.ctx.beginPath();
    for (let code = grid.low || 0; code <= grid.high; code += every) {
      u.ctx.moveTo(at(code), top + height - 9);
      u.ctx.lineTo(at(code), top + height);
    }
    for (const end of [first, last]) {
      u.ctx.moveTo(end, top);
      u.ctx.lineTo(end, top + height);
    }
    u.ctx.stroke();
    u.ctx.restore();
  };
  const bars = (parent, xs, counts, { grid, span, inside }) => {
    const colour = style("--accent"), bad = style("--bad");
    const fills = xs.map((x) => (inside(x) ? colour : bad));
    const shown = counts.map((count) => Math.log10(1 + count));
    return plot(parent, {
      scales: { x: { time: false, range: () => span }, y: { range: () => [0, Math.max(...shown, 1) * 1.05] } },
      axes: [{}, { size: 60, values: (_, ticks) => ticks.map((tick) => (tick % 1 ? "" : tick ? `1e${tick}` : "0")) }],
      series: [{}, {
        paths: uPlot.paths.bars({ size: [1, Infinity], disp: { fill: { unit: 3, values: () => fills } } }),
        fill: colour, width: 0, points: { show: false },
      }],
      hooks: grid ? { draw: [levels_over(grid, style("--good"))] } : {},
    }, [xs, shown]);
  };
  const draw_values = (node, title, parent) => {
    const seen = node.histogram, grid = node.grid;
    if (!seen || !seen.counts.length) return;
    element("h3", title, parent);
    const width = (seen.most - seen.least) / seen.counts.length || 1e-9;
    const ends = grid ? [grid.low, grid.high].map((code) => grid.scale * ((code || 0) - (grid.zero || 0))) : [seen.least, seen.most];
    const least = Math.min(seen.least, ends[0]), most = Math.max(seen.most, ends[1]), room = 0.03 * (most - least) || 1;
    const xs = seen.counts.map((_, i) => seen.least + (i + 0.5) * width), half = grid ? grid.scale / 2 : 0;
    bars(parent, xs, seen.counts, {
      grid, span: [least - room, most + room], inside: (x) => x >= ends[0] - half && x <= ends[1] + half,
    });
    const range = `Values ${short(seen.least)} to ${short(seen.most)}; counts on a logarithmic axis.`;
    const told = grid ? ` Shaded: what the grid covers, ${short(ends[0])} to ${short(ends[1])}, in steps of ${short(grid.scale)}; ticks: its levels.` : "";
    element("p", range + told, parent).className = "caption";
  };
  const draw_codes = (node, parent) => {
    if (!node.codes) return;
    element("h3", "Levels of its weights", parent);
    const { levels, counts } = node.codes, span = Math.max(...levels.map(Math.abs), 1) + 1;
    bars(parent, levels, counts, { span: [-span, span], inside: () => true });
    element("p", `${levels.length} levels are used; counts on a logarithmic axis.`, parent).className = "caption";
  };

  // ---- one node
  const detail = document.getElementById("detail");
  const facts = (node) => [
    ["operator", node.op], ["tensor", node.tensor], ["shape", node.shape],
    ["error", node.sqnr_db === undefined ? undefined : COLOURS.sqnr_db.text(node)],
    ["output", node.end !== undefined ? `stored behind ${nodes[node.end].name}` : node.grid ? `${node.bits} bits (${node.grid.kind}), step ${short(node.grid.scale)}, zero ${node.grid.zero || 0}` : node.left_float ? "float" : undefined],
    ["weights", node.weight_grid ? `${node.weight_grid}, ${percent((node.weight_bytes || 0) / sum("weight_bytes"))} of all bytes` : undefined],
    ["MACs", node.macs ? `${node.macs.toLocaleString("en")} (${percent(node.macs / sum("macs"))})` : undefined],
    ["time", node.nanoseconds ? `${short(node.nanoseconds / 1e6)} ms (${percent(node.nanoseconds / sum("nanoseconds"))})` : undefined],
    ["stays float", node.left_float],
  ].filter(([, text]) => text !== undefined && text !== "");
  let chosen = -1;
  const show = (place) => {
    const node = nodes[place];
    chosen = place;
    detail.replaceChildren();
    detail.dataset.node = node.name;
    element("h3", node.name, detail);
    const list = element("dl", undefined, detail);
    for (const [name, text] of facts(node)) {
      element("dt", name, list);
      element("dd", text, list);
    }
    const why = element("ul", undefined, detail);
    const stored = node.end !== undefined ? nodes[node.end].why || [] : [];
    for (const line of [...(node.why || []), ...stored]) element("li", line, why);
    draw_values(node, "Values of its output", detail);
    if (node.end !== undefined) draw_values(nodes[node.end], `Stored behind ${nodes[node.end].name}`, detail);
    draw_codes(node, detail);
    document.querySelectorAll("tr.chosen").forEach((row) => row.classList.remove("chosen"));
    document.querySelector(`tr[data-node="${place}"]`)?.classList.add("chosen");
  };
  const go_to = (place) => {
    const drawn = graph.getElementById(`n${place}`);
    graph.elements(":selected").unselect();
    drawn.select();
    graph.zoom(Math.max(graph.zoom(), 0.7));
    graph.center(drawn);
    show(place);
  };
  graph.on("tap", "node", (event) => show(Number(event.target.id().slice(1))));

  // ---- tools
  const search = document.getElementById("search"), found = document.getElementById("found");
  let hits = [], turn = -1;
  const look = () => {
    const text = search.value.trim().toLowerCase();
    graph.nodes(".hit").removeClass("hit");
    hits = text ? nodes.flatMap((node, i) => ([node.name, node.op, node.tensor].some((each) => (each || "").toLowerCase().includes(text)) ? [i] : [])) : [];
    turn = -1;
    found.textContent = text ? `${hits.length} found` : "";
    graph.batch(() => hits.forEach((i) => graph.getElementById(`n${i}`).addClass("hit")));
    if (hits.length) graph.center(graph.getElementById(`n${hits[0]}`));
  };
  search.addEventListener("input", look);
  document.getElementById("tools").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!hits.length) return;
    turn = (turn + 1) % hits.length;
    found.textContent = `${turn + 1} of ${hits.length}`;
    go_to(hits[turn]);
  });
  colour.addEventListener("change", () => { paint(colour.value); explain(colour.value); });
  document.getElementById("whole").addEventListener("click", () => graph.fit(undefined, 20));
  // All of a small network, else its worst layer; positions are known, so the library need not measure its labels.
  const look_from_afar = () => {
    if (!nodes.length) return;
    const xs = nodes.map((node) => node.x || 0), ys = nodes.map((node) => node.y || 0);
    const least = Math.min(...xs) - 100, top = Math.min(...ys) - 40;
    const across = Math.max(...xs) + 100 - least, down = Math.max(...ys) + 40 - top;
    const { clientWidth: width, clientHeight: height } = container, whole = Math.min(width / across, height / down, 1);
    const worst = nodes[rows.length ? Number(rows[0].dataset.node) : 0], zoom = whole < 0.45 ? 0.7 : whole;
    const [x, y] = whole < 0.45 ? [worst.x || 0, worst.y || 0] : [least + across / 2, top + down / 2];
    graph.viewport({ zoom, pan: { x: width / 2 - zoom * x, y: height / 2 - zoom * y } });
  };
  const rows = [...document.querySelectorAll("tr[data-node]")];
  document.getElementById("worst").addEventListener("click", () => rows.length && go_to(Number(rows[0].dataset.node)));
  for (const row of rows) {
    const open = () => { go_to(Number(row.dataset.node)); document.getElementById("network").scrollIntoView(); };
    row.addEventListener("click", open);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
  }

  // ---- the front
  const draw_front = () => {
    const parent = document.getElementById("plot");
    if (!front || !parent) return;
    parent.replaceChildren();
    const points = [...front.predicted.map(([x, y]) => [x, y, null, null])];
    front.measured.forEach(([x, y], i) => points.push([x, null, i ? y : null, i ? null : y]));
    points.sort((one, other) => one[0] - other[0]);
    const dots = (colour, size) => ({ stroke: colour, fill: colour, paths: () => null, points: { show: true, size, fill: colour, stroke: colour } });
    plot(parent, {
      height: 300, scales: { x: { time: false } }, axes: [{ values: (_, ticks) => ticks.map(percent) }, { label: "dB", stroke: style("--soft"), size: 55 }],
      series: [{}, { stroke: style("--soft"), width: 2, spanGaps: true, points: { show: false } }, dots(style("--accent"), 7), dots(style("--bad"), 13)],
    }, [0, 1, 2, 3].map((column) => points.map((point) => point[column])));
  };

  const redraw = () => {
    draw_front();
    if (chosen >= 0) show(chosen);
  };
  dark.addEventListener("change", () => {
    graph.style(sheet());
    paint(colour.value);
  });
  on_change(redraw);
  explain(colour.value);
  draw_front();
  look_from_afar();
  document.documentElement.dataset.ready = "yes";
})();
