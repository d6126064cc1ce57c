// Draws a Plotly figure in the page's own colours and font; reports clicks as the trigger "pick".
// Charts of one group point at the same position together.
let plotly;
const bus = new EventTarget();

function load(source) {
  plotly ??= new Promise((loaded, failed) => {
    const script = document.createElement('script');
    script.src = new URL(source, document.baseURI);
    script.onload = () => loaded(window.Plotly);
    script.onerror = () => { plotly = undefined; failed(new Error(`cannot load ${script.src}`)); };
    document.head.append(script);
  });
  return plotly;
}

function themed(data, element) {
  const style = getComputedStyle(element);
  const text = Object.entries(data.stand_ins).reduce(
    (text, [colour, variable]) => text.replaceAll(colour, style.getPropertyValue(variable).trim()),
    data.figure);
  const figure = JSON.parse(text);
  for (const part of [figure.layout, figure.layout.hoverlabel])
    part.font.family = style.getPropertyValue('--st-font');
  return figure;
}

function listen(element, Plotly) {
  element.on('plotly_click', event => {
    const cost = event.points[0].customdata;
    if (element.clickable && cost !== undefined) element.pick('pick', cost);
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
  const figure = themed(data, element);
  Object.assign(element, { pick: setTriggerValue, clickable: data.clickable, group: data.group });
  element.style.height = `${figure.layout.height}px`;
  element.setAttribute('aria-label', data.alt);
  element.latest = figure;
  load(data.source).then(Plotly => {
    if (element.latest !== figure) return undefined;  // a newer one came while Plotly loaded
    const options = { responsive: true, displaylogo: false, displayModeBar: data.tools ? undefined : false,
      modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d', 'sendChartToCloud'] };
    return Plotly.react(element, figure.data, figure.layout, options)
      .then(() => { if (!element.follow) listen(element, Plotly); element.dataset.drawn = 'yes'; });
  }).catch(error => { element.textContent = `The chart cannot be drawn: ${error.message}.`; });
  return () => {
    if (element.isConnected) return;  // a newer figure overtook this one: the chart stays as it is
    bus.removeEventListener('hover', element.follow);
    window.Plotly?.purge(element);
  };
}
