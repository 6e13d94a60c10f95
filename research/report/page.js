// The picker of the forest plot, and tables that sort and filter.
const picker = document.getElementById('forest-cost');
if (picker) {
  document.getElementById('shown-cost').hidden = true;
  picker.hidden = false;
  const show = () => document.querySelectorAll('[data-cost]').forEach(part => { part.hidden = part.dataset.cost !== picker.value; });
  picker.addEventListener('change', show); show();
}

const SIZES = {'\u00b5s': 1e-6, ms: 1e-3, min: 60, h: 3600, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18};
function worth(text) {
  const [, number, unit] = /^[\u00d7+]?([\u2212-]?[\d.]+(?:e[+-]?\d+)?)\s*(\u00b5s|ms|min|h|[kMGTPE](?=B?\b))?/.exec(text) || [];
  return number === undefined ? (text.startsWith('\u221e') ? Infinity : text) : parseFloat(number.replace('\u2212', '-')) * (SIZES[unit] || 1);
}
const missing = value => value === '\u2013' || value === '';
function compare(a, b) {  // numbers before words
  if (typeof a === typeof b) return typeof a === 'number' ? (a < b ? -1 : a > b ? 1 : 0) : a.localeCompare(b);
  return typeof a === 'number' ? -1 : 1;
}
document.querySelectorAll('table.cards').forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const order = head.getAttribute('aria-sort') === 'ascending' ? 'descending' : 'ascending', sign = order === 'ascending' ? 1 : -1;
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', order);
      const keyed = [...body.rows].map(row => [row.cells[column].textContent.trim(), row]);
      keyed.sort(([a], [b]) => missing(a) - missing(b) || sign * compare(worth(a), worth(b)));
      body.append(...keyed.map(([, row]) => row));
    });
  });
});

const filter = document.getElementById('filter');
filter.parentElement.hidden = false;
filter.addEventListener('input', () => {
  const wanted = filter.value.trim().toLowerCase();
  document.querySelectorAll('table.cards tbody tr').forEach(row => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
});
