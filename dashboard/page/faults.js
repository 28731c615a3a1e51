// What is wrong with a body, at its place in the text.
import { html, plural } from './lib.js';

// select marks a place of a text field and brings it into sight.
function select(area, [from, to]) {
  area.focus();
  area.setSelectionRange(from, to);
  const line = area.value.slice(0, from).split('\n').length;
  area.scrollTop = (line - 2) * parseFloat(getComputedStyle(area).lineHeight);
}

// Faults lists faults, which are as in the errors of a problem. spans has the places of
// the entries in the text of the field area. refused tells that a process has found them.
export function Faults({ faults, spans, area, id, refused }) {
  if (!faults.length) return null;
  return html`<div class="problem" id=${id} role="status"><strong>${plural(faults.length, 'thing')} to correct</strong>${refused && '; nothing was published'}
    <ul>${faults.map((f, i) => html`<li key=${i}>
      ${spans[f.index] && html`<button type="button" class="small" onClick=${() => select(area.current, spans[f.index])}>entry ${f.index + 1}</button> `}
      ${f.pointer && html`<code>${f.pointer}</code> `}${f.detail}</li>`)}</ul></div>`;
}
