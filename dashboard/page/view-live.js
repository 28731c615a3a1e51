// The live tail: messages as they pass.
import {
  html, useState, useEffect, useLayoutEffect, useMemo, useRef, useStream, useStore, streaming,
  link, go, count, clock, Copy, Facts, Page, Problem,
} from './lib.js';
import { Rows, Totals, noteOf } from './live-rows.js';
import { pretty } from './json.js';

// rowHeight is that of views.css, in pixels: only rows in sight are in the document.
const rowHeight = 24;
const beyond = 8;

// usual are the defaults of this page; the server's are others. A tenth of the rate may
// come at once: with fewer, whole batches would be left out.
const usual = { rate: '200', last: '50' };
const parameters = ['stage', 'shard', 'submission', 'contains', 'rate', 'last', 'payload'];

// addressOf is the stream of a query of the page.
function addressOf(query) {
  const q = new URLSearchParams(query);
  for (const [name, value] of Object.entries(usual)) if (!q.has(name)) q.set(name, value);
  return 'live?' + q;
}

// hashOf is the page's address of what the form says.
function hashOf(form) {
  const data = new FormData(form), q = new URLSearchParams();
  for (const name of parameters) {
    const value = String(data.get(name)).trim();
    if (value && value !== usual[name]) q.set(name, value);
  }
  for (const line of String(data.get('where')).split('\n')) if (line.trim()) q.append('where', line.trim());
  return link('live') + (q.size ? '?' + q : '');
}

// Filter is what to show. It is in the address of the page, so a person can keep and send it.
function Filter({ query }) {
  const submit = e => {
    e.preventDefault();
    go(hashOf(e.currentTarget));
  };
  const value = name => query.get(name) ?? usual[name] ?? '';
  const choice = (name, label, options) => html`<label class="field"><span>${label}</span>
    <select name=${name} onChange=${e => e.currentTarget.form.requestSubmit()}>
      ${options.map(([v, text]) => html`<option key=${v} value=${v} selected=${v === value(name)}>${text}</option>`)}
    </select></label>`;
  const field = (name, label, more) => html`<label class="field"><span>${label}</span>
    <input name=${name} defaultValue=${value(name)} autocomplete="off" spellcheck="false" ...${more} /></label>`;
  return html`<details class="filter panel" open=${innerWidth > 800}>
    <summary>Filter</summary>
    <form class="filters" onSubmit=${submit}>
      ${choice('stage', 'Stage', [['', 'written'], ['dead', 'dead'], ['accepted', 'accepted']])}
      ${field('shard', 'Shards', { placeholder: 'all, or 0,3', size: 8 })}
      ${field('submission', 'Submission', { placeholder: 'its id', size: 18 })}
      ${field('contains', 'Contains', { placeholder: 'a text', size: 11 })}
      <label class="field"><span>Values, one a line</span>
        <textarea name="where" rows="1" cols="18" placeholder="/user/id=42" spellcheck="false" defaultValue=${query.getAll('where').join('\n')}></textarea></label>
      ${choice('rate', 'At most', [['10', '10 a second'], ['200', '200 a second'], ['1000', '1 000 a second'], ['0', 'all']])}
      ${choice('last', 'Begin with', [['0', 'the next one'], ['50', 'the last 50'], ['1000', 'the last 1 000']])}
      ${choice('payload', 'Entries', [['', 'whole'], ['head', 'beginning'], ['none', 'hidden']])}
      <button>Show</button>
    </form></details>`;
}

// timeOf is the time of day with milliseconds.
function timeOf(at) {
  const t = new Date(at);
  return `${clock(t.getTime())}.${String(t.getMilliseconds()).padStart(3, '0')}`;
}

// brief leaves out the id, which has a column of its own.
const brief = text => text.replace(/^\{"message_id":"[^"]*",?/, '{');

// Row is a message, or a note, in the list.
function Row({ row, chosen, choose }) {
  const m = row.message;
  if (!m) return html`<tr class="note"><td colspan="6">${row.note}</td></tr>`;
  return html`<tr class=${chosen ? 'chosen' : ''} onClick=${e => e.target.closest('a, button') || choose(row)}>
    <td title=${m.at}>${timeOf(m.at)}</td>
    <td class="num wide"><a href=${link('shards', m.shard)}>${m.shard}</a></td>
    <td class="wide">${m.worker ?? '–'}</td>
    <td class="wide">${m.id ? html`<a href=${link('messages', m.id)} title=${m.id}>${m.id}</a>` : '–'}</td>
    <td class="wide" title=${m.file}>${m.file ? m.file.split('/').pop() : '–'}</td>
    <td><button type="button" class="plain" aria-expanded=${chosen} onClick=${() => choose(row)}>
      ${m.reason && html`<b class="text-bad">${m.reason}</b> `}${row.text ? brief(row.text) : 'not shown'}</button></td></tr>`;
}

// Detail shows one message whole.
function Detail({ row, close }) {
  const { message: m, text } = row;
  return html`<section class="panel detail" aria-label="The chosen message">
    <div class="head"><h2>Message</h2><div class="tools"><button type="button" onClick=${close}>Close</button></div></div>
    <div class="long"><${Facts} of=${[
      m.id && ['Id', html`<a class="mono" href=${link('messages', m.id)}>${m.id}</a> <${Copy} text=${m.id} />`],
      ['Time', html`<span class="mono">${m.at}</span>`],
      ['Shard', html`<a href=${link('shards', m.shard)}>${m.shard}</a>`],
      m.worker && ['Worker', html`<a href=${link('workers', { shard: m.shard })}>${m.worker}</a>`],
      m.file && ['File', html`<span class="mono">${m.file}</span> <${Copy} text=${m.file} />`],
      m.reason && ['Reason', html`<span class="text-bad">${m.reason}</span> <a href=${link('dead', m.id ? { id: m.id } : { reason: m.reason, shard: m.shard })}>mend</a>`],
    ]} /></div>
    ${m.truncated && html`<p class="faint">The beginning of a longer entry:</p>`}
    ${text ? html`<pre tabindex="0" aria-label="Entry">${m.truncated ? text : pretty(text)}</pre>`
      : html`<p class="faint">The entry is not shown: this filter, or LIVE_PAYLOAD of the process, hides it.</p>`}
  </section>`;
}

// List shows the rows that are in sight. It follows the end until the reader scrolls up.
function List({ rows, held, dead, scrolledUp, chosen, choose }) {
  const box = useRef(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  useLayoutEffect(() => {
    if (!held) box.current.scrollTop = box.current.scrollHeight;
  });
  useEffect(() => {
    const sized = new ResizeObserver(() => box.current && setHeight(box.current.clientHeight));
    sized.observe(box.current);
    return () => sized.disconnect();
  }, []);
  // The chosen row stays in sight, also when its details make the list shorter.
  useLayoutEffect(() => {
    const at = rows.findIndex(r => r.n === chosen?.n) * rowHeight, { scrollTop } = box.current;
    if (chosen && (at < scrollTop || at > scrollTop + height - 3 * rowHeight)) box.current.scrollTop = at - height / 2;
  }, [chosen, height]);
  const scroll = e => {
    const { scrollTop, scrollHeight, clientHeight } = e.currentTarget;
    setTop(scrollTop);
    scrolledUp(scrollHeight - scrollTop - clientHeight > 2 * rowHeight);
  };
  const keys = e => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (e.key === 'Escape') choose(null);
    if (!step || !chosen) return;
    e.preventDefault();
    let i = rows.findIndex(r => r.n === chosen.n) + step;
    while (rows[i]?.note) i += step;
    if (rows[i]) choose(rows[i]);
  };
  const inSight = Math.ceil(height / rowHeight) + 2 * beyond;
  const from = Math.max(0, Math.min(held ? Math.floor(top / rowHeight) - beyond : rows.length, rows.length - inSight));
  const to = Math.min(rows.length, from + inSight);
  const gap = n => html`<tr aria-hidden="true"><td class="gap" style=${{ height: n * rowHeight + 'px' }}></td></tr>`;
  return html`<div class=${`table tail mono ${chosen ? 'short' : ''}`} ref=${box} onScroll=${scroll} onKeyDown=${keys} tabindex="0" role="region" aria-label="Messages">
    <table aria-label="Messages">
      <thead><tr><th scope="col" class="c-time">Time</th><th scope="col" class="c-shard num wide">Shard</th><th scope="col" class="c-worker wide">Worker</th>
        <th scope="col" class="c-id wide">Message</th><th scope="col" class="c-file wide">File</th><th scope="col">Entry</th></tr></thead>
      <tbody>
        ${gap(from)}
        ${rows.slice(from, to).map(row => html`<${Row} key=${row.n} row=${row} chosen=${row.n === chosen?.n} choose=${choose} />`)}
        ${gap(rows.length - to)}
      </tbody></table>
    ${rows.length === 0 && html`<p class="empty">No message yet.${dead && html` What is dead already is among the <a href=${link('dead')}>dead letters</a>.`}</p>`}
  </div>`;
}

// Tail shows one stream. While the reader holds the list, what comes is kept beside it.
function Tail({ address, dead }) {
  const rows = useMemo(() => new Rows(), []);
  const [, draw] = useState(0);
  const [counts, setCounts] = useState(null);
  const [held, setHeld] = useState(null); // {list, total, paused}
  const [chosen, setChosen] = useState(null);
  const frame = useRef(0);
  const { failure } = useStore(streaming);
  useEffect(() => () => cancelAnimationFrame(frame.current), []);
  useStream(address, (name, data, event) => {
    if (name === 'stats' || name === 'sample') return setCounts(data);
    if (name === 'message') rows.message(data, event.data);
    else rows.note(noteOf(name, data));
    frame.current ||= requestAnimationFrame(() => {
      frame.current = 0;
      draw(rows.total);
    });
  }, { events: ['hello', 'message', 'gap', 'sample', 'stats', 'reset', 'bye'], resume: true });
  const hold = paused => setHeld(h => (h ? { ...h, paused } : { list: rows.newest(), total: rows.total, paused }));
  const scrolledUp = up => {
    if (up && !held) hold(false);
    if (!up && held && !held.paused) setHeld(null);
  };
  const choose = row => {
    if (row && !held) hold(true);
    setChosen(row);
  };
  return html`<div class="bar">
      <button type="button" class="main" onClick=${() => (held ? setHeld(null) : hold(true))}>${held ? 'Go on' : 'Pause'}</button>
      <span>${held ? `${held.paused ? 'Paused' : 'Scrolled up'}: ${count(rows.total - held.total)} more have come` : 'Follows the end'}</span>
      ${counts && html`<${Totals} of=${counts} />`}
    </div>
    <${Problem} error=${failure} />
    <${List} rows=${held ? held.list : rows.newest()} held=${Boolean(held)} dead=${dead} scrolledUp=${scrolledUp} chosen=${chosen} choose=${choose} />
    ${chosen && html`<${Detail} row=${chosen} close=${() => setChosen(null)} />`}`;
}

export default function Live({ query }) {
  const address = addressOf(query);
  return html`<${Page} title="Live"><${Filter} key=${'filter ' + address} query=${query} /><${Tail} key=${address} address=${address} dead=${query.get('stage') === 'dead'} /><//>`;
}
