// Replay and purge of many dead letters: what it would touch, and how far it is.
import { html, useState, useEffect, useApi, useMay, api, link, go, plural, count, Confirm, Field, Loading, Page, Problem, State, Table, Time } from './lib.js';

const root = 'api/v1/dead-letters/tasks';

// filterOf is the filter of a task for what the page's address has.
function filterOf({ reason, id, shard, foreign, contains }) {
  const filter = {};
  if (reason) filter.reason = reason;
  if (contains) filter.contains = contains;
  if (shard) filter.shard = Number(shard);
  if (foreign) filter.foreign = foreign === 'true';
  if (id) filter.ids = id;
  return filter;
}

// Bulk asks what a task would touch, and begins it when the person agrees. It touches only
// what was dead at asOf, when the person looked.
export function Bulk({ what, given, asOf, close }) {
  const [preview, setPreview] = useState(null);
  const [error, setError] = useState(null);
  const [rate, setRate] = useState(100);
  const [reason, setReason] = useState('');
  const [typed, setTyped] = useState('');
  const task = { do: what, filter: filterOf(given), as_of: asOf };
  useEffect(() => {
    api(root, { method: 'POST', body: { ...task, preview: true } }).then(setPreview, setError);
  }, []);
  const purge = what === 'purge';
  const act = async () => {
    await api(root, { method: 'POST', body: { ...task, as_of: preview.as_of, rate, reason } });
    go(link('dead', 'tasks'));
  };
  const wrong = !preview || preview.letters === 0 || !(rate >= 1) || (purge && typed.trim() !== String(preview.letters));
  return html`<${Confirm} title=${purge ? 'Purge dead letters' : 'Replay dead letters'} action=${purge ? 'Purge' : 'Replay'} danger=${purge} disabled=${wrong} act=${act} close=${close}>
    <${Problem} error=${error} />
    ${!preview && !error && html`<${Loading} what="what it would touch" />`}
    ${preview && html`
      <p><b>${preview.cut ? 'At least ' : ''}${plural(preview.letters, 'letter')}</b> with ${plural(preview.messages, 'message')}, dead before <${Time} at=${preview.as_of} />.
        ${purge ? ' They are deleted, and cannot be had back.' : ' They go back to the queues of their shards, under the same ids.'}</p>
      ${preview.examples?.length > 0 && html`<p>Some of them: ${preview.examples.map(key => html`<a key=${key} class="mono" href=${link('dead', key)} target="_blank" rel="noopener" title="In another tab">${key.slice(0, 8)}</a> `)}</p>`}
      <${Field} label="Letters a second, at most"><input type="number" min="1" max="10000" required value=${rate} onInput=${e => setRate(e.currentTarget.valueAsNumber)} /><//>
      <${Field} label="Why, for the log"><input maxlength="500" value=${reason} onInput=${e => setReason(e.currentTarget.value)} /><//>
      ${purge && preview.letters > 0 && html`<${Field} label=${`Type ${preview.letters} to agree`}><input inputmode="numeric" autocomplete="off" value=${typed} onInput=${e => setTyped(e.currentTarget.value)} /><//>`}`}
  <//>`;
}

function Progress({ task }) {
  return html`<progress max=${task.total || 1} value=${task.total === null ? undefined : task.done} aria-label="Letters that are done"></progress> ${count(task.done)} of ${count(task.total)}`;
}

const columns = cancel => [
  { key: 'do', title: 'Task', width: 5 },
  { key: 'state', title: 'State', width: 7, cell: t => html`<${State} is=${t.state} />` },
  { key: 'done', title: 'Letters', width: 19, cell: t => html`<${Progress} task=${t} />` },
  { key: 'failed', title: 'Failed', width: 5, align: 'num', cell: t => count(t.failed) },
  { key: 'started', title: 'Started', width: 10, align: 'num', cell: t => html`<${Time} at=${t.started} />` },
  { key: 'ended', title: 'Ended', width: 10, align: 'num', cell: t => html`<${Time} at=${t.ended} />` },
  { key: 'by', title: 'By', width: 6, cell: t => t.by },
  { key: 'why', title: 'Why', sort: false, cell: t => html`${t.error && html`<b class="text-bad">${t.error}</b> `}${t.reason}` },
  { key: 'node', title: 'Process', width: 9 },
  { key: 'cancel', title: 'Action', width: 6, sort: false, cell: t => cancel && t.state === 'running' && html`<button type="button" class="small" onClick=${() => cancel(t)}>Cancel</button>` },
];

export function Tasks() {
  const { data, error, again } = useApi(root, 1);
  const [failure, setFailure] = useState(null);
  const may = useMay('admin');
  const cancel = task => api(`${root}/${encodeURIComponent(task.id)}`, { method: 'DELETE' }).then(again, setFailure);
  return html`<${Page} title="Tasks over dead letters" tools=${html`<a href=${link('dead')}>Dead letters</a>`}>
    <${Problem} error=${failure ?? error} />
    ${data?.complete === false && html`<p class="note">Not every process answers: there may be more.</p>`}
    ${data?.tasks?.some(t => t.do === 'replay' && t.done > 0) && html`<p class="note">Done means that a letter is back in its queue. What is dead again is listed as new, under <a href=${link('dead')}>dead letters</a>.</p>`}
    ${data ? html`<${Table} name="Tasks" columns=${columns(may && cancel)} rows=${data.tasks} id=${t => t.id} order=${{ by: 'started', down: true }} empty="No task has run since the processes started." />`
      : !error && html`<${Loading} what="tasks" />`}
  <//>`;
}
