// The layers of a network beside a plan. Every choice is a select of the browser's own, so that keys
// work; it is reported as the trigger "edit": [field, position, value]. Rows stay as they are while
// the network does, so that neither the place in the table nor the focus is lost.
const HEAD = [
  ['name', 'Layer'], ['weights', 'Weights'], ['trace', 'Trace'],
  ['bits', 'Bits'], ['lock', 'Lock'], ['tie', 'Tie'], ['input_bits', 'Input'], ['input_lock', 'Lock'],
];
const WORDS = {
  bits: 'bits of the weights of', lock: 'lock the weights of', tie: 'tie',
  input_bits: 'bits of the input of', input_lock: 'lock the input of',
};

const make = (tag, parent, more = {}) => parent.appendChild(Object.assign(document.createElement(tag), more));

function build(table, data) {
  table.replaceChildren();
  const head = make('tr', make('thead', table)), body = make('tbody', table);
  const shown = HEAD.filter(([field]) => data.inputs || !field.startsWith('input'));
  for (const [field, title] of shown)
    make('th', head, { scope: 'col', textContent: title, title: data.helps[field] ?? '' });
  for (const row of data.rows) {
    const line = make('tr', body);
    for (const [field] of shown) {
      const cell = make(field === 'name' ? 'th' : 'td', line, { className: field });
      if (field === 'name') make('bdi', Object.assign(cell, { scope: 'row', title: `${row.name}: ${row.about}` }), { textContent: row.name });
      else if (row[field] !== undefined && !(field in WORDS)) cell.textContent = row[field];
    }
  }
}

// A select in a cell, made where there is none yet; null where nothing can be chosen.
function choose(cell, label, options, value, send) {
  let select = cell.querySelector('select');
  if (!select) {
    cell.replaceChildren();
    select = make('select', cell);
    select.setAttribute('aria-label', label);
  }
  const wanted = JSON.stringify(options);
  if (select.dataset.options !== wanted) {
    select.replaceChildren();
    for (const [text, own] of options) make('option', select, { textContent: text, value: own ?? '' });
    select.dataset.options = wanted;
  }
  select.value = value ?? '';
  select.onchange = () => send(select.value === '' ? null : Number(select.value));
  return select;
}

function say(cell, text, title = '') {
  if (cell.textContent !== text || cell.querySelector('select')) cell.replaceChildren(text);
  cell.title = title;
}

function paint(cell, data, bits, best) {
  cell.style.setProperty('--swatch', bits ? data.colours[bits] : 'transparent');
  cell.classList.toggle('differs', best !== null && best !== bits);
  cell.dataset.best = best !== null && best !== bits ? best : '';
}

function fill(table, data, send) {
  const bits = data.widths.map(own => [String(own), own]);
  const locks = [['–', null], ...bits];
  const ties = [['–', null], ...data.groups.map((name, number) => [name, number])];
  data.rows.forEach((row, place) => {
    const line = table.tBodies[0].rows[place], cell = name => line.querySelector(`.${name}`);
    const pick = (field, at, options, value) =>
      choose(cell(field), `${WORDS[field]} ${row.name}`, options, value, chosen => send(field, at, chosen));
    const show = (field, at, side, editable) => {
      if (side.bits === null) say(cell(field), '32', 'stays float');
      else if (editable) pick(field, at, bits, side.bits);
      else say(cell(field), String(side.bits));
      paint(cell(field), data, side.bits, side.best ?? null);
    };
    show('bits', place, row, data.weights);
    if (data.weights) {
      pick('lock', place, locks, row.lock).parentElement.classList.toggle('held', row.lock !== null);
      pick('tie', place, ties, row.tie).parentElement.classList.toggle('held', row.tie !== null);
    } else for (const field of ['lock', 'tie']) say(cell(field), '');
    if (!data.inputs) return;
    if (row.input) {
      show('input_bits', row.input.place, row.input, true);
      pick('input_lock', row.input.place, locks, row.input.lock)
        .parentElement.classList.toggle('held', row.input.lock !== null);
    } else {
      const text = row.shared ? `(${row.shared.bits ?? 32})` : '32';
      say(cell('input_bits'), text, row.shared ? `the same tensor as the input of ${row.shared.with}` : 'stays float');
      paint(cell('input_bits'), data, row.shared?.bits ?? null, null);
      say(cell('input_lock'), '');
    }
  });
}

export default function ({ data, parentElement, setTriggerValue }) {
  const frame = parentElement.querySelector('.layers'), table = frame.querySelector('table');
  const names = JSON.stringify([data.inputs, data.weights, data.rows.map(row => [row.name, row.about, Boolean(row.input)])]);
  if (table.dataset.names !== names) build(table, data);
  table.dataset.names = names;
  fill(table, data, (field, place, value) => setTriggerValue('edit', [field, place, value]));
}
