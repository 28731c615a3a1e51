// A table that stays calm: columns have fixed widths, a row is rendered again only if it
// changed, and of many rows only those in sight are rendered.
import { html, Component, useLayoutEffect, useMemo, useRef, useState } from './lib-base.js';
import { collate } from './lib-format.js';
import { Empty } from './lib-ui.js';

const rowHeight = 32; // px, as in style.css
const manyRows = 150; // from here on, only those in sight
const beyond = 12; // rows rendered above and below those in sight

class Row extends Component {
  shouldComponentUpdate(next) {
    const p = this.props;
    return next.row !== p.row || next.columns !== p.columns || next.chosen !== p.chosen || next.tone !== p.tone || next.at !== p.at;
  }

  render({ row, columns, chosen, choose, tone, name, at }) {
    return html`<tr class=${tone} aria-rowindex=${at} aria-selected=${choose ? chosen : undefined}>
      ${choose && html`<td class="choose"><input type="checkbox" checked=${chosen} onChange=${() => choose(row)} aria-label=${`Choose ${name}`} /></td>`}
      ${columns.map((c, i) => {
        const value = c.cell ? c.cell(row) : row[c.key];
        const text = typeof value === 'string' && c.align !== 'num' ? value : undefined; // it may be cut
        return i === 0
          ? html`<th scope="row" class=${c.align} title=${text}>${value}</th>`
          : html`<td class=${c.align} title=${text}>${value}</td>`;
      })}
    </tr>`;
  }
}

function compare(a, b) {
  const unknownA = a === null || a === undefined, unknownB = b === null || b === undefined;
  if (unknownA || unknownB) return unknownA - unknownB; // unknown ones last
  return typeof a === 'string' ? collate(a, b) : a - b;
}

// The part of the rows that is in sight, as they are scrolled.
function useSight(box, many) {
  const [sight, set] = useState({ from: 0, to: manyRows });
  useLayoutEffect(() => {
    if (!many) return;
    const element = box.current;
    let frame = 0;
    const look = () => {
      frame = 0;
      const from = Math.max(0, Math.floor(element.scrollTop / rowHeight) - beyond);
      const to = Math.ceil((element.scrollTop + element.clientHeight) / rowHeight) + beyond;
      set(s => (s.from === from && s.to === to ? s : { from, to }));
    };
    const later = () => { frame ||= requestAnimationFrame(look); };
    element.addEventListener('scroll', later, { passive: true });
    const sized = new ResizeObserver(later);
    sized.observe(element);
    look();
    return () => {
      element.removeEventListener('scroll', later);
      sized.disconnect();
      cancelAnimationFrame(frame);
    };
  }, [many]);
  return sight;
}

// Table shows rows. columns is an array that stays the same object, of {key, title,
// width (rem; the last one without a width takes the rest), align: 'num' or nothing,
// cell: row => content, sort: row => value or false, hint}. id: row => its key. order is
// the first order: {by: column's key, down}. chosen is a Set of keys and onChoose takes
// the next one, if rows can be chosen. tone: row => class. name names the table for
// people who hear it.
export function Table({ columns, rows, id, order, chosen, onChoose, tone, name, empty = 'Nothing here.', least = 14 }) {
  const [sorted, sortBy] = useState(order ?? { by: null, down: false });
  const box = useRef(null);
  const shown = useMemo(() => {
    const column = columns.find(c => c.key === sorted.by);
    if (!column) return rows;
    const value = column.sort || (r => r[column.key]);
    const turn = sorted.down ? -1 : 1;
    return rows.map(r => [value(r), r]).sort((a, b) => turn * compare(a[0], b[0])).map(p => p[1]);
  }, [rows, columns, sorted]);
  const many = shown.length > manyRows;
  const sight = useSight(box, many);
  const choice = useRef(null);
  choice.current = row => {
    const next = new Set(chosen), key = id(row);
    if (!next.delete(key)) next.add(key);
    onChoose(next);
  };
  const choose = useMemo(() => (onChoose ? row => choice.current(row) : null), [!onChoose]);

  const to = many ? Math.min(sight.to, shown.length) : shown.length;
  const from = many ? Math.min(sight.from, Math.max(0, to - 1)) : 0;
  const everything = chosen && shown.length > 0 && shown.every(r => chosen.has(id(r)));
  const width = columns.reduce((sum, c) => sum + (c.width ?? least), onChoose ? 2.5 : 0);
  const span = columns.length + (onChoose ? 1 : 0);
  const turn = c => sortBy(s => ({ by: c.key, down: s.by === c.key ? !s.down : false }));
  const gap = (key, height) => height > 0 && html`<tr key=${key} aria-hidden="true" class="gap"><td colspan=${span} style=${{ height: `${height}px` }}></td></tr>`;
  return html`<div class="table" ref=${box} role="region" aria-label=${name} tabindex="0">
    <table aria-label=${name} aria-rowcount=${shown.length + 1} style=${{ minWidth: `${width}rem` }}>
      <colgroup>
        ${onChoose && html`<col style=${{ width: '2.5rem' }} />`}
        ${columns.map(c => html`<col key=${c.key} style=${{ width: c.width ? `${c.width}rem` : 'auto' }} />`)}
      </colgroup>
      <thead><tr aria-rowindex="1">
        ${onChoose && html`<td class="choose"><input type="checkbox" checked=${everything} aria-label="Choose all rows"
          onChange=${() => onChoose(everything ? new Set() : new Set(shown.map(id)))} /></td>`}
        ${columns.map(c => !c.title ? html`<td key=${c.key}></td>` : html`<th key=${c.key} scope="col" class=${c.align} title=${c.hint}
          aria-sort=${c.sort === false ? undefined : sorted.by === c.key ? (sorted.down ? 'descending' : 'ascending') : 'none'}>
          ${c.sort === false ? c.title : html`<button type="button" onClick=${() => turn(c)}>${c.title}</button>`}
        </th>`)}
      </tr></thead>
      <tbody>
        ${gap('above', from * rowHeight)}
        ${shown.slice(from, to).map((row, i) => html`<${Row} key=${id(row)} row=${row} columns=${columns} at=${from + i + 2} name=${id(row)}
          chosen=${chosen?.has(id(row))} choose=${choose} tone=${tone?.(row)} />`)}
        ${gap('below', (shown.length - to) * rowHeight)}
      </tbody>
    </table>
    ${shown.length === 0 && html`<${Empty}>${empty}<//>`}
  </div>`;
}
