// A small chart of the last 15 minutes.
import { html, useEffect, useRef, useState, ms, now, clock, unknown } from './lib.js';
import uPlot from './vendor/uplot.js';

const minutes = 15;
const dark = matchMedia('(prefers-color-scheme: dark)');

function useScheme() {
  const [scheme, set] = useState(dark.matches);
  useEffect(() => {
    const changed = () => set(dark.matches);
    dark.addEventListener('change', changed);
    return () => dark.removeEventListener('change', changed);
  }, []);
  return scheme;
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const hour = t => {
  const d = new Date(t * 1000);
  return `${String(d.getHours()).padStart(2, '0')}:${String(d.getMinutes()).padStart(2, '0')}`;
};

function options(width, height, axisFormat, steps, hover) {
  const line = colour('--line'), text = colour('--faint'), font = '12px system-ui, sans-serif';
  const axis = { stroke: text, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  return {
    width, height, legend: { show: false }, padding: [8, 8, 0, 0],
    cursor: { drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: true, range: () => [now() / 1000 - 60 * minutes, now() / 1000] },
      y: { range: (_, _min, most) => [0, Math.max(most * 1.1, 1)] },
    },
    axes: [
      { ...axis, size: 24, space: 70, values: (_, at) => at.map(hour) },
      { ...axis, size: 64, space: 30, values: (_, at) => at.map(axisFormat), ...(steps && { incrs: steps }) },
    ],
    series: [{}, { stroke: colour('--link'), width: 1.5, points: { show: false }, spanGaps: false }],
    hooks: { setCursor: [u => hover(u.cursor.idx ?? null)] },
  };
}

// Chart draws the member of the points. format writes a value with its unit, and axis
// one beside the axis, whose steps may be given.
export function Chart({ title, points, member, format, axis = format, steps }) {
  const box = useRef(null), plot = useRef(null);
  const [at, hover] = useState(null);
  const scheme = useScheme();
  useEffect(() => {
    const element = box.current;
    const u = new uPlot(options(element.clientWidth, element.clientHeight, axis, steps, hover), [[], []], element);
    plot.current = u;
    const sized = new ResizeObserver(() => u.setSize({ width: element.clientWidth, height: element.clientHeight }));
    sized.observe(element);
    return () => {
      sized.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [scheme, member]);
  useEffect(() => {
    const all = points ?? [];
    plot.current?.setData([all.map(p => ms(p.at) / 1000), all.map(p => p[member] ?? null)]);
  }, [points, member, scheme]);
  const point = points?.[at] ?? points?.at(-1);
  const value = point ? format(point[member]) : unknown;
  return html`<section class="panel">
    <div class="head"><h2>${title}</h2><span><span class="faint">${at !== null && point ? `${clock(point.at)} ` : ''}</span><span class="value">${value}</span></span></div>
    <div class="chart" ref=${box} role="img" aria-label=${`${title} over ${minutes} minutes, now ${value}`}></div>
  </section>`;
}
