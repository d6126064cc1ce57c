// Draws every figure of the file in the page's own colours, again when these change or it is printed.
const PAPER_WIDTH = 690;  // pixels that a printed page has room for
const root = document.documentElement;

function draw(element) {
  const style = getComputedStyle(root);
  const text = Object.entries(root.dataset).reduce(
    (text, [name, colour]) => text.replaceAll(colour, style.getPropertyValue(`--${name}`).trim()),
    element.nextElementSibling.textContent);
  const figure = JSON.parse(text);
  const printing = root.classList.contains('printing');
  figure.layout.width = printing ? PAPER_WIDTH : element.clientWidth;
  figure.layout.font.family = getComputedStyle(document.body).fontFamily;
  const options = { displaylogo: false, displayModeBar: printing ? false : undefined,
    modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d', 'sendChartToCloud'] };
  return Plotly.react(element, figure.data, figure.layout, options)
    .then(() => { element.dataset.drawn = 'yes'; });
}

const drawAll = () => document.querySelectorAll('.chart').forEach(draw);
drawAll();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
addEventListener('resize', () => root.classList.contains('printing') || drawAll());
addEventListener('beforeprint', () => { root.classList.add('printing'); drawAll(); });
addEventListener('afterprint', () => { root.classList.remove('printing'); drawAll(); });
