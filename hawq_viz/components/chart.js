// Draws a Plotly figure in the page's own colours and font; reports clicks as the trigger "pick", and
// the part of the x axis that is looked at as "zoom".
// Charts of one group point at the same position together. A figure that is the same stays as drawn.
let plotly;
const bus = new EventTarget();

function load(source) {
  plotly ??= unpacked(new URL(source, document.baseURI)).then(url => new Promise((loaded, failed) => {
    const script = document.createElement('script');
    script.src = url;
    script.onload = () => { URL.revokeObjectURL(url); loaded(window.Plotly); };
    script.onerror = () => failed(new Error('its script does not run'));
    document.head.append(script);
  })).catch(error => { plotly = undefined; throw error; });
  return plotly;
}

// An address of the script in a packed file.
async function unpacked(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`cannot load ${address}`);
  const script = answer.body.pipeThrough(new DecompressionStream('gzip'));
  return URL.createObjectURL(await new Response(script, { headers: { 'Content-Type': 'text/javascript' } }).blob());
}

// The figure as text, in the page's own colours.
function themed(data, element) {
  const style = getComputedStyle(element);
  return Object.entries(data.stand_ins).reduce(
    (text, [colour, variable]) => text.replaceAll(colour, style.getPropertyValue(variable).trim()),
    data.figure);
}

// The figure as it is looked at, zoom and all, on the page's own ground.
function pictured(element) {
  const { data, layout } = element;
  return { data, layout: { ...layout, paper_bgcolor: ground(element) } };
}

// The figure as it came from Python, for `plotly.io.from_json`.
function told(element) {
  const { data, layout } = JSON.parse(element.text);
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
    'mouseup', () => Plotly.Fx.unhover(element), { capture: true, once: true }), true);
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

export default function ({ data, parentElement, setTriggerValue }) {
  const element = parentElement.querySelector('.chart');
  const text = themed(data, element);
  Object.assign(element, { pick: setTriggerValue, clickable: data.clickable, zoomable: data.zoomable, group: data.group });
  element.setAttribute('aria-label', data.alt);
  for (const button of parentElement.querySelectorAll('.takes button'))
    button.onclick = () => takes[button.name](element, window.Plotly, data.name);
  if (element.text !== text) {
    element.text = text;
    const figure = JSON.parse(text);
    for (const part of [figure.layout, figure.layout.hoverlabel])
      part.font.family = getComputedStyle(element).getPropertyValue('--st-font');
    element.style.height = `${figure.layout.height}px`;
    load(data.source).then(Plotly => {
      if (element.text !== text) return undefined;  // a newer one came while Plotly loaded
      const options = { responsive: true, displaylogo: false, showTips: false,
        doubleClick: data.zoomable ? 'autosize' : 'reset+autosize', modeBarButtonsToRemove:
        ['toImage', 'select2d', 'lasso2d', 'autoScale2d', 'sendChartToCloud'] };
      return Plotly.react(element, figure.data, figure.layout, options).then(() => drawn(element, Plotly));
    }).catch(error => {
      element.text = undefined;
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
