'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const at = id => document.getElementById(id);
const role = {}; data.points.forEach(p => { role[p.name] = p.role; });
const names = data.points.map(p => p.name);
const colour = name => role[name] === 'baseline' ? '#000' : role[name] === 'null' ? '#777'
  : data.palette[names.filter(n => !['baseline', 'null'].includes(role[n])).indexOf(name) % data.palette.length];
const dash = name => ['', '6 3', '2 3', '8 3 2 3'][Math.floor(Math.max(0, names.indexOf(name) - 1) / data.palette.length) % 4];
const tell = x => x === null ? '' : Math.abs(x) >= 1e4 ? (p => +(x / 10 ** (3 * p)).toPrecision(3) + ['', 'k', 'M', 'G', 'T', 'P'][p])(
  Math.min(5, Math.floor(Math.log10(Math.abs(x)) / 3))) : String(+x.toPrecision(4)).replace('-', '\u2212');

function el(parent, tag, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough * 0.999), list = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) list.push(i * step);
  return list;
}
function scale(values, from, to, {log = false, pad = 0.06} = {}) {
  const known = values.filter(v => v !== null && isFinite(v)), forth = log ? Math.log10 : v => v;
  let low = forth(Math.min(...known)), high = forth(Math.max(...known));
  if (!(high > low)) { const widen = log ? 0.3 : Math.abs(low) * 0.1 || 1; low -= widen; high += widen; }
  const extra = (high - low) * pad; low -= extra; high += extra;
  const map = v => from + (forth(v) - low) / (high - low) * (to - from), count = Math.max(2, Math.abs(to - from) / 75);
  map.ticks = log ? ticks(low, high, count).map(t => 10 ** t) : ticks(low, high, count);
  return map;
}
function frame(id, height) {
  const box = at(id), width = Math.max(260, box.clientWidth);
  box.textContent = '';
  return [el(box, 'svg', {viewBox: `0 0 ${width} ${height}`, height, role: 'img'}), width];
}
function axes(svg, area, x, y, xlabel, ylabel) {
  for (const t of x.ticks) {
    el(svg, 'line', {x1: x(t), x2: x(t), y1: area.top, y2: area.bottom, stroke: '#e6e9ec'});
    el(svg, 'text', {x: x(t), y: area.bottom + 16, 'text-anchor': 'middle', fill: '#57606a'}, tell(t));
  }
  for (const t of y ? y.ticks : []) {
    el(svg, 'line', {x1: area.left, x2: area.right, y1: y(t), y2: y(t), stroke: '#e6e9ec'});
    el(svg, 'text', {x: area.left - 6, y: y(t) + 4, 'text-anchor': 'end', fill: '#57606a'}, tell(t));
  }
  el(svg, 'text', {x: (area.left + area.right) / 2, y: area.bottom + 34, 'text-anchor': 'middle', fill: '#1b1f24'}, xlabel);
  if (ylabel) el(svg, 'text', {x: 4, y: 12, fill: '#1b1f24'}, ylabel);
}
const empty = (svg, text) => el(svg, 'text', {x: 8, y: 24, fill: '#57606a'}, text);
const short = (text, width) => text.length > width ? text.slice(0, width - 1) + '\u2026' : text;

function pareto() {
  const [svg, width] = frame('pareto', 380), key = at('cost').value, label = (data.costs.find(c => c.key === key) || {}).label;
  const points = data.points.filter(p => p.mean !== null && p.costs[key] !== null && p.costs[key] !== undefined);
  if (!points.length) return empty(svg, 'No finished variant has this cost.');
  const area = {left: 52, right: width - 14, top: 24, bottom: 336}, costs = points.map(p => p.costs[key]);
  const log = Math.min(...costs) > 0 && Math.max(...costs) > 20 * Math.min(...costs);
  const x = scale(costs, area.left, area.right, {log, pad: 0.14});
  const y = scale(points.flatMap(p => [p.mean, p.low === null ? p.mean : p.low, p.high === null ? p.mean : p.high]), area.bottom, area.top);
  axes(svg, area, x, y, label + (log ? ', log scale' : ''), data.metric);
  const sign = data.higher ? 1 : -1, front = [];
  [...points].sort((a, b) => a.costs[key] - b.costs[key] || sign * (b.mean - a.mean)).forEach(p => {
    if (!front.length || sign * (p.mean - front[front.length - 1].mean) > 0) front.push(p);
  });
  el(svg, 'polyline', {points: front.map(p => `${x(p.costs[key])},${y(p.mean)}`).join(' '), fill: 'none', stroke: '#b0b7be'});
  const taken = points.map(p => [x(p.costs[key]) - 5, y(p.mean) - 5, x(p.costs[key]) + 5, y(p.mean) + 5]);
  const first = p => p.role === 'baseline' ? 0 : front.includes(p) ? 1 : 2;
  for (const p of [...points].sort((a, b) => first(b) - first(a))) {
    const group = el(svg, 'g', {}), cx = x(p.costs[key]), cy = y(p.mean), fill = colour(p.name);
    el(group, 'title', {}, `${p.name}: ${tell(p.mean)}, ${label} ${tell(p.costs[key])}`);
    if (p.low !== null && p.high !== null)
      el(group, 'line', {x1: cx, x2: cx, y1: y(p.low), y2: y(p.high), stroke: fill, 'stroke-width': 2, opacity: 0.45});
    if (p.role === 'baseline') el(group, 'rect', {x: cx - 5, y: cy - 5, width: 10, height: 10, fill});
    else el(group, 'circle', {cx, cy, r: 5, fill});
  }
  for (const p of [...points].sort((a, b) => first(a) - first(b))) {
    const text = short(p.name, 22), wide = text.length * 6.8, cx = x(p.costs[key]), cy = y(p.mean);
    for (const [dx, dy] of [[9, 4], [-9 - wide, 4], [9, -9], [9, 17], [-9 - wide, -9], [-9 - wide, 17], [-wide / 2, -12], [-wide / 2, 22]]) {
      const box = [cx + dx, cy + dy - 11, cx + dx + wide, cy + dy + 3];
      if (box[0] < area.left || box[2] > width || box[1] < 14 || box[3] > area.bottom
          || taken.some(t => t[0] < box[2] && box[0] < t[2] && t[1] < box[3] && box[1] < t[3])) continue;
      taken.push(box);
      el(svg, 'text', {x: cx + dx, y: cy + dy, fill: '#1b1f24', stroke: '#fff', 'stroke-width': 3, 'paint-order': 'stroke'}, text);
      break;
    }
  }
}
function dots() {
  const rows = data.differences, step = 28, height = rows.length * step + 70, [svg, width] = frame('dots', height);
  const values = rows.flatMap(r => [...r.values, ...(r.interval || [])]).filter(v => v !== null);
  if (!values.length) return empty(svg, 'No seed has a result in every variant yet.');
  const letters = Math.min(width > 600 ? 26 : 13, Math.max(...rows.map(r => r.name.length)));
  const area = {left: 14 + letters * 7, right: width - 12, top: 22, bottom: height - 42};
  const x = scale([...values, 0], area.left, area.right);
  axes(svg, area, x, null, `difference of ${data.metric}`);
  el(svg, 'line', {x1: x(0), x2: x(0), y1: area.top - 6, y2: area.bottom, stroke: '#57606a'});
  [['\u2190 ' + (data.higher ? 'worse' : 'better'), -6, 'end'], [(data.higher ? 'better' : 'worse') + ' \u2192', 6, 'start']].forEach(([text, dx, anchor]) => {
    const edge = x(0) + dx, room = anchor === 'end' ? edge - area.left : area.right - edge;
    if (room > 55) el(svg, 'text', {x: edge, y: 12, 'text-anchor': anchor, fill: '#57606a'}, text);
  });
  rows.forEach((r, i) => {
    const y = area.top + (i + 0.5) * step, fill = role[r.name] ? colour(r.name) : '#444';
    el(svg, 'text', {x: area.left - 8, y: y + 4, 'text-anchor': 'end', fill: '#1b1f24'}, short(r.name, letters));
    if (r.interval) el(svg, 'line', {x1: x(r.interval[0]), x2: x(r.interval[1]), y1: y, y2: y, stroke: fill, 'stroke-width': 7, opacity: 0.28});
    r.values.forEach((v, s) => { if (v !== null) el(el(svg, 'circle', {cx: x(v), cy: y, r: 3.5, fill, opacity: 0.75}), 'title', {}, `${r.name}, seed ${data.seeds[s]}: ${tell(v)}`); });
    if (r.mean !== null) el(svg, 'line', {x1: x(r.mean), x2: x(r.mean), y1: y - 8, y2: y + 8, stroke: fill, 'stroke-width': 3});
    else el(svg, 'text', {x: x(0) + 8, y: y + 4, fill: '#57606a'}, 'no mean: not every seed finished');
  });
}
const chosen = new Set(names.slice(0, 6));
function lines(id, curves, xlabel, ylabel) {
  const [svg, width] = frame(id, 320), shown = names.filter(n => chosen.has(n) && curves[n] && curves[n].x.length);
  if (!shown.length) return empty(svg, 'Nothing recorded for these variants.');
  const area = {left: 56, right: width - 14, top: 24, bottom: 276};
  const low = c => c.y || c.mean.map((m, i) => m === null ? null : m - c.spread[i]), high = c => c.y || c.mean.map((m, i) => m === null ? null : m + c.spread[i]);
  const x = scale([0, ...shown.flatMap(n => curves[n].x)], area.left, area.right, {pad: 0});
  const y = scale([...(id === 'rates' ? [0] : []), ...shown.flatMap(n => [...low(curves[n]), ...high(curves[n])])], area.bottom, area.top);
  axes(svg, area, x, y, xlabel, ylabel);
  const path = (c, values) => c.x.map((v, i) => [v, values[i]]).filter(p => p[1] !== null).map(p => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`);
  for (const n of shown) if (!curves[n].y)
    el(svg, 'polygon', {points: [...path(curves[n], high(curves[n])), ...path(curves[n], low(curves[n])).reverse()].join(' '), fill: colour(n), opacity: 0.13});
  for (const n of shown)
    el(el(svg, 'polyline', {points: path(curves[n], curves[n].y || curves[n].mean).join(' '), fill: 'none', stroke: colour(n), 'stroke-width': 2, 'stroke-dasharray': dash(n)}), 'title', {}, n);
}
function curves() {
  lines('curves', data.curves[at('curve').value] || {}, 'training examples', at('curve').value);
  lines('rates', data.rates, 'training examples', 'learning rate');
}
function option(select, value, text) { const o = document.createElement('option'); o.value = value; o.textContent = text; select.append(o); }
data.costs.forEach(c => option(at('cost'), c.key, c.label));
Object.keys(data.curves).sort().forEach(m => option(at('curve'), m, m));
if (data.curves[data.validation]) at('curve').value = data.validation;
names.forEach(n => {
  const pill = document.createElement('button');
  const show = () => { pill.setAttribute('aria-pressed', chosen.has(n)); pill.style.borderColor = chosen.has(n) ? colour(n) : ''; };
  pill.type = 'button'; pill.textContent = short(n, 30);
  pill.addEventListener('click', () => { chosen.has(n) ? chosen.delete(n) : chosen.add(n); show(); curves(); });
  show(); at('pills').append(pill);
});
at('cost').addEventListener('change', pareto);
at('curve').addEventListener('change', curves);
let wide = 0;
const draw = () => { if (at('pareto').clientWidth !== wide) { wide = at('pareto').clientWidth; pareto(); dots(); curves(); } };
addEventListener('resize', draw); draw();
