// The workers: those that live, and the whole history.
import {
  html, useMemo, useParts, usePages, go, link, count, unknown, plural,
  Age, Field, Loading, Page, Problem, State, Table, Time, Wait,
} from './lib.js';

export const workerKey = w => `${w.key ?? w.worker}/${w.started}`;

const links = {
  worker: { key: 'worker', title: 'Worker', width: 6.5 },
  shard: { key: 'shard', title: 'Shard', width: 5.5, align: 'num', cell: w => html`<a href=${link('shards', w.shard)}>${w.shard}</a>` },
  node: { key: 'node', title: 'Node', width: 10, cell: w => html`<a href=${link('nodes', w.node)} title=${w.node}>${w.node}</a>` },
};
const number = (key, title, hint) => ({ key, title, hint, width: 7, align: 'num', cell: w => count(w[key]) });

// workerColumns are those of living workers.
export const workerColumns = withShard => [
  links.worker,
  ...(withShard ? [links.shard] : []),
  { key: 'state', title: 'State', width: 7.5, cell: w => html`<${State} is=${w.state} tone=${{ writing: 'ok', retrying: 'bad', held: 'bad' }[w.state]} />` },
  links.node,
  { key: 'started', title: 'Lives for', width: 8, align: 'num', cell: w => html`<${Age} at=${w.started} />` },
  number('messages', 'Messages', 'written'),
  number('batches', 'Batches', 'written'),
  { key: 'last_file', title: 'Last file', cell: w => w.last_file || 'none yet' },
];

const historyColumns = [
  links.worker, links.shard,
  { key: 'state', title: 'State', width: 7.5, cell: w => html`<${State} is=${w.state} />` },
  links.node,
  { key: 'started', title: 'Started', width: 11.5, cell: w => html`<${Time} at=${w.started} />` },
  { key: 'why_started', title: 'Why started', width: 10, cell: w => w.why_started || unknown },
  { key: 'stopped', title: 'Stopped', width: 11.5, cell: w => (w.stopped ? html`<${Time} at=${w.stopped} />` : 'lives') },
  { key: 'why_stopped', title: 'Why stopped', width: 10, cell: w => w.why_stopped || '' },
  number('messages', 'Messages', 'written'), number('batches', 'Batches', 'written'),
  number('duplicates', 'Duplicates'), number('dead', 'Dead'),
  { key: 'last_file', title: 'Last file', cell: w => w.last_file || 'none' },
];

function Filters({ shard, history, children }) {
  const set = more => go(link('workers', { shard, history: history ? 1 : '', ...more }));
  return html`<div class="filters">
    <${Field} label="Show"><select value=${history ? '1' : ''} onChange=${e => set({ history: e.target.value })}>
      <option value="">workers that live</option><option value="1">the whole history</option></select><//>
    <${Field} label="Shard"><input type="number" min="0" max="1023" placeholder="all" value=${shard} onChange=${e => set({ shard: e.target.value })} /><//>
    <span class="faint">${children}</span>
  </div>`;
}

const living = workerColumns(true);

function Living({ shard }) {
  const live = useParts('workers');
  const rows = useMemo(() => (live.workers ?? []).filter(w => shard === '' || w.shard === Number(shard)), [live.workers, shard]);
  return html`<${Filters} shard=${shard}>${live.workers && plural(rows.length, 'worker')}<//>
    ${live.workers ? html`<${Table} name="Workers that live" columns=${living} rows=${rows} id=${workerKey} empty="No worker lives: a shard that is paused or without an owner has none." />`
      : html`<${Wait} stream=${live.stream} what="the workers" />`}
    ${live.more?.workers && html`<p class="notice">There are more workers. Choose a shard in the whole history.</p>`}`;
}

function History({ shard }) {
  const { rows, error, loading, more, again, head } = usePages(`api/v1/workers?history=1${shard === '' ? '' : `&shard=${shard}`}`, 'workers');
  return html`<${Filters} shard=${shard} history>${head && html`${plural(rows.length, 'worker')}, as of <${Time} at=${head.as_of} />`} <button type="button" onClick=${again}>Ask again</button><//>
    <${Problem} error=${error} again=${again} />
    ${rows.length || !loading ? html`<${Table} name="History of the workers" columns=${historyColumns} rows=${rows} id=${workerKey} empty="There is no worker." />` : html`<${Loading} what="the history" />`}
    ${more && html`<button type="button" onClick=${more}>More</button>`}`;
}

export default function View({ query }) {
  const shard = query.get('shard') ?? '', history = query.get('history') === '1';
  return html`<${Page} title="Workers">${history ? html`<${History} shard=${shard} />` : html`<${Living} shard=${shard} />`}<//>`;
}
