'use strict';
{
const data = JSON.parse(document.getElementById('data').textContent);
const at = id => document.getElementById(id);
const MINUS = '\u2212', SOFT = 'var(--soft)', INK = 'var(--ink)', LINE = 'var(--line)';
const SIZES = {
  s: [[1e-6, '\u00b5s'], [1e-3, 'ms'], [1, 's'], [60, 'min'], [3600, 'h']],
  '': [[1, ''], [1e3, 'k'], [1e6, 'M'], [1e9, 'G'], [1e12, 'T'], [1e15, 'P']],
};
SIZES.B = SIZES[''].map(([size, name]) => [size, name + 'B']);
const sizeOf = (value, unit) => SIZES[unit].filter(([size]) => size <= Math.abs(value)).pop() || SIZES[unit][0];
const number = (value, unit, sign) =>
  (sign && value > 0 ? '+' : '') + String(+value.toPrecision(4)).replace('-', MINUS) + (unit ? ' ' + unit : '');
const quantity = (value, unit) => { const [size, name] = sizeOf(value, unit); return number(+(value / size).toPrecision(3), name); };
const pen = document.createElement('canvas').getContext('2d'), FONT = 12;
pen.font = `${FONT}px ${getComputedStyle(document.body).fontFamily}`;
const long = text => pen.measureText(text).width;
function short(text, room) {
  if (long(text) <= room) return text;
  let end = text.length;
  while (end > 1 && long(text.slice(0, end) + '\u2026') > room) end--;
  return text.slice(0, end) + '\u2026';
}
const clamp = (value, [low, high]) => Math.min(Math.max(value, low), high);
const known = values => values.filter(v => v !== null && v !== undefined && isFinite(v));

function el(parent, tag, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}
const write = (parent, x, y, text, more) => el(parent, 'text', {x, y, fill: INK, ...more}, text);
const line = (parent, x1, y1, x2, y2, stroke, more) => el(parent, 'line', {x1, y1, x2, y2, stroke, ...more});
function frame(id, height, title, description) {
  const box = at(id), width = Math.max(260, box.clientWidth), label = {'aria-labelledby': `${id}-title ${id}-desc`};
  box.textContent = '';
  const svg = el(box, 'svg', {viewBox: `0 0 ${width} ${height}`, height, role: 'img', 'font-size': FONT, ...label});
  el(svg, 'title', {id: `${id}-title`}, title);
  el(svg, 'desc', {id: `${id}-desc`}, description);
  return [svg, width];
}
function scale({range: [low, high], log}, from, to) {
  const forth = log ? Math.log10 : v => v;
  return v => from + (forth(v) - forth(low)) / (forth(high) - forth(low)) * (to - from);
}
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough * 0.999), list = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) list.push(+(i * step).toPrecision(10));
  return list;
}
function axes(svg, area, x, xticks, xlabel, y, yticks, ylabel) {
  let end = -Infinity;
  for (const [value, text] of xticks) {
    line(svg, x(value), area.top, x(value), area.bottom, LINE);
    const half = long(text) / 2;
    if (x(value) - half < end + 8) continue;
    write(svg, x(value), area.bottom + 16, text, {'text-anchor': 'middle', fill: SOFT});
    end = x(value) + half;
  }
  for (const [value, text] of yticks) {
    line(svg, area.left, y(value), area.right, y(value), LINE);
    write(svg, area.left - 6, y(value) + 4, text, {'text-anchor': 'end', fill: SOFT});
  }
  write(svg, (area.left + area.right) / 2, area.bottom + 34, xlabel, {'text-anchor': 'middle'});
  if (ylabel) write(svg, 4, 12, ylabel);
}
const empty = (id, text) => { at(id).textContent = text; };
const arrow = (parent, x, y, dx, dy) => el(parent, 'path', {
  d: dx ? `M${x} ${y}l${-8 * dx} -5v10z` : `M${x} ${y}l-5 ${-8 * dy}h10z`, fill: 'var(--tone, var(--plain))'});

// How far above its point a label may stand, and on which side; side 0 is over or under it. Corners leave bars free.
const PLACES = [[0, 1], [0, -1], [13, 0], [-13, 0]], CORNERS = [[13, 1], [13, -1], [-13, 1], [-13, -1]];
for (const up of [13, -13, 26, -26, 39, -39, 52, -52, 65, -65]) for (const side of [1, -1]) PLACES.push([up, side]);
function label(svg, area, labels, taken) {
  for (const [x, y, text, crossed] of labels) {
    const wide = long(text);
    (crossed ? [...CORNERS, ...PLACES] : PLACES).some(([up, side]) => {
      const left = x + side * (9 + Math.abs(up) / 4) - wide * (1 - side) / 2, base = y - up + 4;
      const box = [left, base - 11, left + wide, base + 3];
      if (box[0] < area.left || box[2] > area.right + 10 || box[1] < area.top - 12 || box[3] > area.bottom
          || taken.some(t => t[0] < box[2] && box[0] < t[2] && t[1] < box[3] && box[1] < t[3])) return false;
      taken.push(box);
      if (up && side) line(svg, x, y, left + wide * (1 - side) / 2, base - 4, SOFT, {opacity: 0.7});
      write(svg, left, base, text, {stroke: 'var(--paper)', 'stroke-width': 3, 'paint-order': 'stroke'});
      return true;
    });
  }
}
function pareto() {
  const cost = data.costs.find(c => c.key === at('cost').value), key = cost && cost.key;
  const points = data.points.filter(p => p.mean !== null && p.costs[key] !== null && p.costs[key] !== undefined);
  if (!points.length) return empty('pareto', 'No finished variant has this cost.');
  const layout = data.pareto[key], shown = data.scores.range, unit = data.scores.unit;
  const [svg, width] = frame('pareto', 400, `${data.metric} against ${cost.label}`,
    `${points.length} variants. The Pareto front, from the cheapest: ${layout.front.join(', ')}. The tables have the numbers.`);
  const area = {left: 62, right: width - 24, top: 26, bottom: 356};
  const x = scale(layout, area.left, area.right), y = scale(data.scores, area.bottom, area.top);
  axes(svg, area, x, layout.ticks, cost.label + (layout.log ? ', log scale' : ''), y, data.scores.ticks, data.metric);
  const place = p => [x(p.costs[key]), y(clamp(p.mean, shown))];
  const front = layout.front.map(name => place(points.find(p => p.name === name)));
  el(svg, 'polyline', {points: front.flatMap(([cx, cy], i) => i ? [[cx, front[i - 1][1]], [cx, cy]] : [[cx, cy]]).join(' '),
    fill: 'none', stroke: SOFT, 'stroke-width': 1.5, opacity: 0.6});
  for (const p of [...points].sort((a, b) => (a.role === 'baseline') - (b.role === 'baseline'))) {
    const group = el(svg, 'g', {class: p.kind}), [cx, cy] = place(p), bar = p.intervals[key], away = clamp(p.mean, shown) - p.mean;
    const tone = p.role === 'variant' ? 'var(--tone, var(--plain))' : INK, thin = {'stroke-width': 1.5, opacity: 0.5};
    const span = bar ? ` (${bar.map(v => quantity(v, cost.unit)).join(' to ')})` : '';
    el(group, 'title', {}, `${p.name}: ${number(p.mean, unit)}, ${cost.label} ${quantity(p.costs[key], cost.unit)}${span}`);
    if (bar) line(group, ...[bar[0], cy, bar[1], cy].map((v, i) => i % 2 ? v : x(clamp(v, layout.range))), tone, thin);
    if (away) { arrow(group, cx, cy, 0, away > 0 ? 1 : -1); continue; }
    if (p.low !== null) line(group, cx, y(clamp(p.low, shown)), cx, y(clamp(p.high, shown)), tone, thin);
    if (p.role === 'baseline') el(group, 'rect', {x: cx - 5.5, y: cy - 5.5, width: 11, height: 11, fill: tone, stroke: 'var(--paper)'});
    else el(group, 'circle', {cx, cy, r: 4.5, stroke: tone, 'stroke-width': 1.5, fill: p.role === 'null' ? 'var(--paper)' : tone});
  }
  const texts = layout.named.map(name => points.find(p => p.name === name)).map(p =>
    [...place(p), short(p.name, 170) + (clamp(p.mean, shown) === p.mean ? '' : ' ' + number(p.mean, unit)), key in p.intervals]);
  label(svg, area, texts, points.map(place).map(([cx, cy]) => [cx - 5, cy - 5, cx + 5, cy + 5]));
}

// Dots that would hide one another move up or down by whole steps: a list of [x, step].
function swarm(xs, radius) {
  const placed = [], steps = Array.from({length: 13}, (_, i) => (i % 2 ? 1 : -1) * Math.ceil(i / 2));
  for (const x of [...xs].sort((a, b) => a[0] - b[0])) {
    const free = steps.find(s => placed.every(p => (p[0] - x[0]) ** 2 + ((p[1] - s) * 2 * radius) ** 2 >= (2 * radius) ** 2 - 0.1));
    placed.push([x[0], free === undefined ? 0 : free, x[1]]);
  }
  return placed;
}
function dots() {
  const order = data.forest.rows.map(row => row.name), {unit} = data, shown = data.spread.range;
  const rows = [...data.differences].sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
  if (!rows.some(r => known(r.values).length)) return empty('dots', 'No seed has a result in every variant yet.');
  const wide = Math.max(260, at('dots').clientWidth), room = Math.min(wide > 600 ? 190 : 95, Math.max(...rows.map(r => long(r.name))));
  const area = {left: 16 + room, right: wide - 24, top: 26}, x = scale(data.spread, area.left, area.right), radius = 3.2;
  const inside = v => v >= shown[0] && v <= shown[1];
  const swarms = rows.map(r => swarm(r.values.map((v, s) => [x(v), s]).filter((p, s) => r.values[s] !== null && inside(r.values[s])), radius));
  const halves = swarms.map(dots => Math.max(10, ...dots.map(d => (Math.abs(d[1]) * 2 + 1) * radius + 2)));
  area.bottom = area.top + halves.reduce((sum, half) => sum + 2 * half, 0);
  const [svg] = frame('dots', area.bottom + 44, `Differences of ${data.metric} from the baseline, seed by seed`,
    rows.map(r => r.mean === null ? `${r.name}: not every seed finished` : `${r.name}: mean ${number(r.mean, unit, true)}`).join('; '));
  const band = data.forest.null;
  if (band) el(svg, 'rect', {x: x(clamp(band[0], shown)), width: x(clamp(band[1], shown)) - x(clamp(band[0], shown)), y: area.top, height: area.bottom - area.top, fill: 'var(--band)'});
  axes(svg, area, x, data.spread.ticks, `difference of ${data.metric}${unit ? ', in ' + unit : ''}`, null, []);
  line(svg, x(0), area.top - 6, x(0), area.bottom, SOFT);
  for (const [text, dx, anchor] of [['\u2190 ' + (data.higher ? 'worse' : 'better'), -6, 'end'], [(data.higher ? 'better' : 'worse') + ' \u2192', 6, 'start']])
    if ((dx < 0 ? x(0) - area.left : area.right - x(0)) > 60) write(svg, x(0) + dx, 14, text, {'text-anchor': anchor, fill: SOFT});
  let y = area.top;
  rows.forEach((r, i) => {
    y += halves[i];
    const group = el(svg, 'g', {class: r.kind}), tone = 'var(--tone, var(--plain))';
    write(svg, area.left - 8, y + 4, short(r.name, room), {'text-anchor': 'end'});
    if (r.interval) line(group, x(clamp(r.interval[0], shown)), y, x(clamp(r.interval[1], shown)), y, tone, {'stroke-width': 7, opacity: 0.3});
    for (const [cx, step, s] of swarms[i])
      el(el(group, 'circle', {cx, cy: y + step * 2 * radius, r: radius, fill: tone, opacity: 0.85}), 'title', {}, `${r.name}, seed ${data.seeds[s]}: ${number(r.values[s], unit, true)}`);
    for (const [side, edge] of [[-1, area.left], [1, area.right]]) {
      const away = known(r.values).filter(v => side < 0 ? v < shown[0] : v > shown[1]).sort((a, b) => a - b);
      if (!away.length) continue;
      arrow(group, edge, y, side, 0);
      const span = [...new Set([away[0], away[away.length - 1]].map(v => number(+v.toPrecision(3), '', true)))].join(' to ');
      write(svg, edge - side * 12, y + 4, swarms[i].length ? String(away.length) : `${away.length} seeds, ${span}`, {'text-anchor': side < 0 ? 'start' : 'end', fill: SOFT});
    }
    if (r.mean === null) {
      const text = 'not every seed finished', ends = [x(0), ...swarms[i].map(d => d[0])], left = Math.min(...ends) - 12;
      if (left - long(text) > area.left) write(svg, left, y + 4, text, {'text-anchor': 'end', fill: SOFT});
      else if (Math.max(...ends) + 12 + long(text) < wide) write(svg, Math.max(...ends) + 12, y + 4, text, {fill: SOFT});
    } else if (inside(r.mean)) line(group, x(r.mean), y - 9, x(r.mean), y + 9, tone, {'stroke-width': 3});
    y += halves[i];
  });
}

// Variants in the order of their effects, which gives the first of them the colours without dashes.
const names = ['baseline', ...data.forest.rows.map(row => row.name), 'null'].filter(n => data.points.some(p => p.name === n));
data.points.forEach(p => { if (!names.includes(p.name)) names.push(p.name); });
const tinted = names.filter(n => n !== 'baseline' && n !== 'null');
const colour = name => name === 'baseline' ? INK : name === 'null' ? SOFT : data.palette[tinted.indexOf(name) % data.palette.length];
const dash = name => ['', '7 3', '2 3', '9 3 2 3'][Math.floor(Math.max(0, tinted.indexOf(name)) / data.palette.length) % 4];
const acted = name => name === 'baseline' || ['better', 'worse'].includes(data.points.find(p => p.name === name).kind);
const first = names.length > 6 && names.filter(acted).length > 1 ? names.filter(acted) : names;
const chosen = new Set(first.slice(0, 6));

// The range of the later part of most curves: an outlier, and how training began, do not flatten the rest.
function robust(lines) {
  const spans = lines.map(c => { const from = Math.floor(c.x.length / 4); return known([...c.low.slice(from), ...c.high.slice(from)]); }).filter(s => s.length);
  const middle = values => [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];
  const centre = middle(lines.map(c => known(c.y).pop()).filter(v => v !== undefined));
  const reach = spans.map(s => Math.max(...s.map(v => Math.abs(v - centre)))), limit = 6 * middle(reach);
  const inside = spans.flat().filter(v => Math.abs(v - centre) <= limit), low = Math.min(...inside), high = Math.max(...inside);
  const extra = 0.06 * (high - low) || 0.1 * Math.abs(low) || 1;
  return {range: [low - extra, high + extra]};
}
// Learning rates: from 0, or on a logarithmic axis where the highest of one is ten times that of another.
function rates(lines) {
  const peaks = lines.map(c => Math.max(...known(c.y))), high = Math.max(...peaks), low = Math.min(...peaks);
  if (!(low > 0 && high > 10 * low)) return {range: [0, high * 1.06 || 1]};
  const range = [low / 20, high * 1.5], decades = [];
  for (let d = Math.ceil(Math.log10(range[0])); 10 ** d <= range[1]; d++) decades.push(+(10 ** d).toPrecision(1));
  return {range, log: true, ticks: decades};
}
function lines(id, curves, ylabel, unit, layout) {
  const groups = new Map();  // curves that are equal are one line
  for (const name of names.filter(n => chosen.has(n) && curves[n] && known(curves[n].mean || curves[n].y).length)) {
    const c = curves[name], text = JSON.stringify(c);
    if (groups.has(text)) { groups.get(text).names.push(name); continue; }
    const y = c.y || c.mean, shift = sign => c.spread ? y.map((v, i) => v === null ? null : v + sign * (c.spread[i] || 0)) : y;
    groups.set(text, {names: [name], x: c.x, y, low: shift(-1), high: shift(1)});
  }
  const shown = [...groups.values()];
  if (!shown.length) return empty(id, 'Nothing recorded for these variants.');
  const height = Math.max(320, 15 * shown.length + 80);
  const [svg, width] = frame(id, height, `${ylabel} over training`, shown.map(c => `${c.names.join(', ')}: ${number(known(c.y).pop(), unit)} at the end`).join('; '));
  const texts = shown.map(c => short(c.names[0], width > 600 ? 170 : 80) + (c.names.length > 1 ? ` +${c.names.length - 1}` : ''));
  const area = {left: 62, right: width - 46 - Math.max(...texts.map(long)), top: 26, bottom: height - 44};
  const vertical = layout(shown), {range} = vertical, furthest = Math.max(...shown.flatMap(c => c.x)), [size, name] = sizeOf(furthest, '');
  const x = scale({range: [0, furthest]}, area.left, area.right), y = scale(vertical, area.bottom, area.top);
  axes(svg, area, x, ticks(0, furthest / size, Math.max(2, (area.right - area.left) / 90)).map(t => [t * size, number(t, t ? name : '')]), 'training examples',
    y, (vertical.ticks || ticks(...range, 5)).map(t => [t, number(t, unit)]), ylabel + (vertical.log ? ', log scale' : ''));
  el(el(el(svg, 'defs', {}), 'clipPath', {id: id + '-clip'}), 'rect', {x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top});
  const path = (c, values) => c.x.map((v, i) => [v, values[i]]).filter(p => p[1] !== null).map(p => `${x(p[0]).toFixed(1)},${clamp(y(p[1]), [-1e4, 1e4]).toFixed(1)}`);
  const ends = shown.map((c, i) => ({c, text: texts[i], value: known(c.y).pop()})).map(e => ({...e, end: y(clamp(e.value, range))})).sort((a, b) => a.end - b.end);
  ends.forEach((e, i) => { e.y = Math.max(e.end, area.top + 4, i ? ends[i - 1].y + 14 : 0); });
  [...ends].reverse().forEach((e, i, all) => { e.y = Math.min(e.y, area.bottom, i ? all[i - 1].y - 14 : Infinity); });
  for (const {c, text, value, end, y: labelled} of ends) {
    const stroke = colour(c.names[0]), group = el(svg, 'g', {class: 'series', 'data-names': JSON.stringify(c.names)}), clip = {'clip-path': `url(#${id}-clip)`};
    el(group, 'title', {}, `${c.names.join(', ')}: ${number(value, unit)} at the end`);
    if (c.low !== c.y) el(group, 'polygon', {...clip, points: [...path(c, c.high), ...path(c, c.low).reverse()].join(' '), fill: stroke, opacity: 0.1});
    el(group, 'polyline', {...clip, points: path(c, c.y).join(' '), fill: 'none', stroke, 'stroke-width': 2, 'stroke-dasharray': dash(c.names[0])});
    const last = x(c.x[c.y.findLastIndex(v => v !== null)]), away = value < range[0] ? '\u2193 ' : value > range[1] ? '\u2191 ' : '';
    line(group, last, end, area.right, end, stroke, {opacity: 0.5, 'stroke-dasharray': '1 4'});
    el(group, 'polyline', {points: `${area.right},${end} ${area.right + 2},${end} ${area.right + 8},${labelled} ${area.right + 22},${labelled}`, fill: 'none', stroke, 'stroke-width': 2, 'stroke-dasharray': dash(c.names[0])});
    write(group, area.right + 25, labelled + 4, away + text);
    group.addEventListener('pointerenter', () => highlight(c.names));
    group.addEventListener('pointerleave', () => highlight([]));
  }
}
function highlight(wanted) {
  document.querySelectorAll('.series').forEach(group => {
    group.style.opacity = wanted.length && !JSON.parse(group.dataset.names).some(n => wanted.includes(n)) ? 0.15 : '';
  });
}
function curves() {
  const metric = at('curve').value, found = data.curves[metric] || {lines: {}, unit: ''};
  lines('curves', found.lines, metric, found.unit, robust);
  lines('rates', data.rates, 'learning rate', '', rates);
}
function option(select, value, text) { const o = document.createElement('option'); o.value = value; o.textContent = text; select.append(o); }
data.costs.forEach(c => option(at('cost'), c.key, c.label));
Object.keys(data.curves).sort().forEach(m => option(at('curve'), m, m));
if (data.curves[data.validation]) at('curve').value = data.validation;
at('pills').setAttribute('role', 'group');
at('pills').setAttribute('aria-label', 'Variants shown');
names.forEach(name => {
  const pill = document.createElement('button');
  const show = () => { pill.setAttribute('aria-pressed', chosen.has(name)); pill.style.borderColor = chosen.has(name) ? colour(name) : ''; };
  pill.type = 'button'; pill.textContent = short(name, 220); pill.title = name;
  pill.addEventListener('click', () => { chosen.has(name) ? chosen.delete(name) : chosen.add(name); show(); curves(); });
  for (const event of ['pointerenter', 'focus']) pill.addEventListener(event, () => highlight(chosen.has(name) ? [name] : []));
  for (const event of ['pointerleave', 'blur']) pill.addEventListener(event, () => highlight([]));
  show(); at('pills').append(pill);
});
at('cost').addEventListener('change', pareto);
at('curve').addEventListener('change', curves);
let wide = 0;
const draw = () => { const now = document.body.clientWidth; if (now !== wide) { wide = now; pareto(); dots(); curves(); } };
addEventListener('resize', draw); draw();
}
