// Draws a Plotly figure in the page's own colours and font; reports clicks as the trigger "pick", and
// the part of the x axis that is looked at as "zoom".
// Charts of one group point at the same position together. A figure that is the same stays as drawn;
// of one that has other values in traces over the same ground, no more than these are drawn anew.
let plotly;
const bus = new EventTarget();

// Reading the script stops a page for a second: what is there before shall be seen.
function load(source) {
  const address = new URL(source, document.baseURI);
  plotly ??= Promise.all([unpacked(address), seen()]).then(([url]) => new Promise((loaded, failed) => {
    const script = document.createElement('script');
    script.src = url;
    script.onload = () => { URL.revokeObjectURL(url); loaded(window.Plotly); };
    script.onerror = () => failed(new Error('its script does not run'));
    document.head.append(script);
  })).catch(error => { plotly = undefined; throw error; });
  return plotly;
}

// Settles once the page as it stands has been painted, or at once where nobody looks at it.
const seen = () => document.hidden ? undefined
  : new Promise(painted => requestAnimationFrame(() => setTimeout(painted)));

// An address of the script in a packed file.
async function unpacked(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`cannot load ${address}`);
  const script = answer.body.pipeThrough(new DecompressionStream('gzip'));
  return URL.createObjectURL(await new Response(script, { headers: { 'Content-Type': 'text/javascript' } }).blob());
}

// The ground of a figure and the traces over it as text, in the page's own colours; and HTML to see
// until they are drawn.
function themed(data, element) {
  const style = getComputedStyle(element);
  return [data.figure, data.over, data.until_drawn].map(part => Object.entries(data.stand_ins).reduce(
    (text, [colour, variable]) => text.replaceAll(colour, style.getPropertyValue(variable).trim()), part));
}

// The figure of both.
function whole([ground, over]) {
  const figure = JSON.parse(ground);
  return { ...figure, data: [...figure.data, ...JSON.parse(over)] };
}

// The figure as it is looked at, zoom and all, on the page's own ground.
function pictured(element) {
  const { data, layout } = element;
  return { data, layout: { ...layout, paper_bgcolor: ground(element) } };
}

// The figure as it came from Python, for `plotly.io.from_json`.
function told(element) {
  const { data, layout } = whole(element.parts);
  return JSON.stringify({ data, layout: { ...layout, paper_bgcolor: ground(element) } });
}

const ground = element => getComputedStyle(element).getPropertyValue('--st-background-color').trim();

function save(url, name) {
  Object.assign(document.createElement('a'), { href: url, download: name }).click();
}

const takes = {
  png: (element, Plotly, name) => Plotly.toImage(pictured(element), {
    format: 'png', scale: 2, width: element.clientWidth, height: element.clientHeight,
  }).then(url => save(url, `${name}.png`)),
  json: (element, Plotly, name) => {
    const url = URL.createObjectURL(new Blob([told(element)], { type: 'application/json' }));
    save(url, `${name}.json`);
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  },
};

function listen(element, Plotly) {
  // Plotly looks for what is under the mouse 20 times a second at most, and takes a click for what it
  // has found last, or for nothing. To forget that has it look once more as the button goes up.
  element.addEventListener('mousedown', () => document.addEventListener(
    'mouseup', () => element.isConnected && Plotly.Fx.unhover(element), { capture: true, once: true }), true);
  element.on('plotly_click', event => {
    const cost = event.points[0].customdata;
    if (element.clickable && cost !== undefined) element.pick('pick', cost);
  });
  element.on('plotly_relayout', change => {
    if (!element.zoomable) return;
    if ('xaxis.range[0]' in change) element.pick('zoom', [change['xaxis.range[0]'], change['xaxis.range[1]']]);
    else if (change['xaxis.autorange']) element.pick('zoom', []);
  });
  const tell = (element, at) => bus.dispatchEvent(new CustomEvent('hover', { detail: { element, at } }));
  element.on('plotly_hover', event => element.group && event.event && tell(element, event.points[0].x));
  element.on('plotly_unhover', () => element.group && tell(element, null));
  element.follow = ({ detail }) => {
    if (detail.element === element || detail.element.group !== element.group) return;
    const shapes = detail.at === null ? [] : [{
      type: 'rect', yref: 'paper', x0: detail.at - 0.5, x1: detail.at + 0.5, y0: 0, y1: 1,
      line: { width: 0 }, fillcolor: 'rgba(128,128,128,0.3)' }];
    Plotly.relayout(element, { shapes });
  };
  bus.addEventListener('hover', element.follow);
}

// The places of those traces of a figure that have other values than before; undefined where more
// than values differs.
function moved([ground, over], [groundBefore, overBefore] = []) {
  if (ground !== groundBefore) return undefined;
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const fixed = trace => ({ ...trace, x: 0, y: 0, text: 0, hovertext: 0, customdata: 0,
    marker: { ...trace.marker, color: 0, opacity: 0 } });
  const [after, before] = [over, overBefore].map(part => JSON.parse(part));
  if (!same(after.map(fixed), before.map(fixed))) return undefined;
  return [...after.keys()].filter(i => !same(after[i], before[i])).map(i => i - after.length);
}

// Draws the values of traces, whose places count from the last, in less than half the time that
// Plotly takes for a figure.
async function move(element, Plotly, over, places) {
  const traces = JSON.parse(over);
  await Plotly.animate(element,
    { data: places.map(i => traces.at(i)), traces: places.map(i => i + element.data.length) },
    { transition: { duration: 0 }, frame: { duration: 0, redraw: false } });
  // It leaves bars in their colours.
  const bars = traces.filter(trace => trace.type === 'bar');
  const drawn = [...element.querySelectorAll('.barlayer .trace')].slice(-bars.length);
  bars.forEach(({ marker }, i) =>
    drawn[i].querySelectorAll('.point path').forEach((bar, layer) => {
      bar.style.fill = marker.color[layer];
      bar.style.opacity = marker.opacity[layer];
    }));
}

export default function ({ data, parentElement, setTriggerValue }) {
  const element = parentElement.querySelector('.chart');
  const [figure, over, sketch] = themed(data, element), parts = [figure, over];
  Object.assign(element, { pick: setTriggerValue, clickable: data.clickable, zoomable: data.zoomable, group: data.group });
  element.setAttribute('aria-label', data.alt);
  for (const button of parentElement.querySelectorAll('.takes button'))
    button.onclick = () => takes[button.name](element, window.Plotly, data.name);
  if (parts.some((part, i) => part !== element.parts?.[i])) {
    element.parts = parts;
    if (parts[0] !== element.shown?.[0]) element.style.height = `${JSON.parse(parts[0]).layout.height}px`;
    if (!element.shown) element.innerHTML = sketch;
    load(data.source).then(Plotly => {
      if (element.parts !== parts) return undefined;  // a newer one came while Plotly loaded
      const places = moved(parts, element.shown);
      if (!element.shown) element.replaceChildren();  // the sketch
      element.shown = parts;
      if (places) return move(element, Plotly, parts[1], places);
      const figure = whole(parts);
      for (const part of [figure.layout, figure.layout.hoverlabel])
        part.font.family = getComputedStyle(element).getPropertyValue('--st-font');
      const options = { responsive: true, displaylogo: false, showTips: false,
        doubleClick: data.zoomable ? 'autosize' : 'reset+autosize', modeBarButtonsToRemove:
        ['toImage', 'select2d', 'lasso2d', 'autoScale2d', 'sendChartToCloud'] };
      return Plotly.react(element, figure.data, figure.layout, options).then(() => drawn(element, Plotly));
    }).catch(error => {
      element.parts = element.shown = undefined;
      element.textContent = `The chart cannot be drawn: ${error.message}.`;
    });
  }
  return () => {
    if (element.isConnected) return;  // a newer figure overtook this one: the chart stays as it is
    bus.removeEventListener('hover', element.follow);
    window.Plotly?.purge(element);
  };
}

function drawn(element, Plotly) {
  if (!element.follow) listen(element, Plotly);
  // The label says it in words, and the table in numbers: its letters one by one would say nothing.
  for (const svg of element.querySelectorAll('.main-svg')) svg.setAttribute('aria-hidden', 'true');
  for (const button of element.parentElement.querySelectorAll('.takes button')) button.disabled = false;
  element.dataset.drawn = 'yes';
}
