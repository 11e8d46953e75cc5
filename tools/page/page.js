const $ = id => document.getElementById(id);
const escape = text => String(text).replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[c]);
const number = (x, digits = 0) => x === null ? "–" : x.toLocaleString("en", {maximumFractionDigits: digits, minimumFractionDigits: digits});
const percent = x => number(100 * x, 1) + " %";
const short = x => x >= 1e9 ? number(x / 1e9, 2) + " G" : x >= 1e6 ? number(x / 1e6, 2) + " M" : x >= 1e3 ? number(x / 1e3, 1) + " k" : number(x);
const seconds = x => x >= 1 ? number(x, 3) + " s" : x >= 1e-3 ? number(1e3 * x, 3) + " ms" : number(1e6 * x, 2) + " µs";
const svg = (width, height, body) => `<svg viewBox="0 0 ${width} ${height}" role="img">${body}</svg>`;
const rect = (x, y, w, h, fill, tip, more = "") =>
  `<rect x="${x.toFixed(2)}" y="${y}" width="${Math.max(w, 0.3).toFixed(2)}" height="${h}" fill="${fill}" ${more}><title>${escape(tip)}</title></rect>`;
const text = (x, y, body, more = "") => `<text x="${x}" y="${y}" ${more}>${escape(body)}</text>`;
const legend = entries => entries.map(([name, fill]) => `<span><i style="background:${fill}"></i>${escape(name)}</span>`).join("");
