// Scales, axes and lines in SVG.
const scale = (from, to) => {
  const [a, b] = from;
  const [c, d] = to;
  const make = (x) => (b === a ? (c + d) / 2 : c + ((x - a) / (b - a)) * (d - c));
  make.from = from;
  make.to = to;
  return make;
};

function logScale(from, to) {
  const inner = scale(from.map(Math.log10), to);
  const make = (x) => inner(Math.log10(x));
  make.from = from;
  make.to = to;
  make.log = true;
  return make;
}

/** Round numbers between two ends. */
function ticks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
    for (const m of [1, 2, 5]) if (m * 10 ** e >= low * 0.999 && m * 10 ** e <= high * 1.001) found.push(m * 10 ** e);
  }
  return found.length >= 2 ? found : [low, high];
}

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e4 || size < 1e-3) return value.toExponential(0).replace("-", "−").replace("e+", "e");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function extent(values) {
  const numbers = values.filter((v) => typeof v === "number");
  return numbers.length ? [Math.min(...numbers), Math.max(...numbers)] : null;
}

const extended = ([low, high], part = 0.06) => {
  const room = (high - low || Math.abs(high) || 1) * part;
  return [low - room, high + room];
};

/** An SVG with axes; returns it with the scales. `x`, `y`: {range, log, label, format}. */
function frame({ width, height, x, y, left = 44, right = 12, top = 10, bottom = 32, label }) {
  const sx = (x.log ? logScale : scale)(x.range, [left, width - right]);
  const sy = (y.log ? logScale : scale)(y.range, [height - bottom, top]);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label });
  const xs = x.ticks || (x.log ? logTicks(...x.range) : ticks(...x.range, Math.max(2, Math.floor((width - left) / 90))));
  const ys = y.ticks || (y.log ? logTicks(...y.range) : ticks(...y.range, Math.max(2, Math.floor(height / 45))));
  for (const v of ys) {
    svg.append(
      s("line", { x1: left, x2: width - right, y1: sy(v), y2: sy(v), class: v === y.zero ? "zero" : "grid" }),
      s("text", { x: left - 6, y: sy(v) + 3.5, class: "tick end" }, (y.format || short)(v)),
    );
  }
  for (const v of xs) {
    if (x.grid) svg.append(s("line", { x1: sx(v), x2: sx(v), y1: top, y2: height - bottom, class: v === x.zero ? "zero" : "grid" }));
    svg.append(s("text", { x: sx(v), y: height - bottom + 15, class: "tick middle" }, (x.format || short)(v)));
  }
  if (x.label) svg.append(s("text", { x: width - right, y: height - 2, class: "axis end" }, x.label));
  if (y.label) svg.append(s("text", { x: left, y: top - 2, class: "axis" }, y.label));
  return { svg, sx, sy, width, height, left, right, top, bottom };
}

/** A path through the points; it is interrupted where a value is missing. */
function path(xs, ys, sx, sy) {
  let d = "";
  let pen = false;
  xs.forEach((x, i) => {
    const usable = typeof ys[i] === "number" && (!sy.log || ys[i] > 0);
    if (usable) d += `${pen ? "L" : "M"}${sx(x).toFixed(1)},${sy(ys[i]).toFixed(1)}`;
    pen = usable;
  });
  return d;
}

/** The area between two curves, one piece per stretch without gaps. */
function area(xs, low, high, sx, sy) {
  let d = "";
  let piece = [];
  const close = () => {
    if (piece.length > 1) {
      const there = piece.map((i) => `${sx(xs[i]).toFixed(1)},${sy(high[i]).toFixed(1)}`);
      const back = piece.reverse().map((i) => `${sx(xs[i]).toFixed(1)},${sy(low[i]).toFixed(1)}`);
      d += `M${there.join("L")}L${back.join("L")}Z`;
    }
    piece = [];
  };
  xs.forEach((_, i) => {
    const usable = typeof low[i] === "number" && typeof high[i] === "number" && (!sy.log || low[i] > 0);
    if (usable) piece.push(i);
    else close();
  });
  close();
  return d;
}

/** A line over the chart that follows the mouse; `lines(x)` gives the tooltip for the nearest of `xs`. */
function crosshair(parts, xs, lines) {
  const { svg, sx, top, bottom, height, left, right, width } = parts;
  const rule = s("line", { class: "crosshair", y1: top, y2: height - bottom, visibility: "hidden" });
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    return xs.reduce((best, x) => (Math.abs(sx(x) - at) < Math.abs(sx(best) - at) ? x : best), xs[0]);
  };
  const cover = s("rect", {
    x: left, y: top, width: Math.max(0, width - left - right), height: height - top - bottom, fill: "transparent",
    onmousemove: (event) => {
      const x = nearest(event);
      rule.setAttribute("x1", sx(x));
      rule.setAttribute("x2", sx(x));
      rule.setAttribute("visibility", "visible");
      showTip(event, lines(x, event));
    },
    onmouseleave: () => {
      rule.setAttribute("visibility", "hidden");
      hideTip();
      hover(null);
    },
  });
  svg.append(rule, cover);
}
