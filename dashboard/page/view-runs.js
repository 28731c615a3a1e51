// The runs of jobs, newest first, and the page of one.
import {
  html, useMemo, useParts, usePages, link, go, count, ms,
  Field, Loading, Page, Problem, State, Table, Time,
} from './lib.js';
import { Engine, Stale, states, Took, Two, When, whyText } from './jobs.js';
import { Run } from './view-run.js';

const tools = html`<a href=${link('jobs')}>Jobs</a> <a href=${link('runners')}>Runners</a>`;

const columns = [
  { key: 'id', title: 'Run', width: 5, align: 'num', cell: r => html`<a href=${link('runs', r.id)}>${r.id}</a>` },
  { key: 'job', title: 'Job', width: 12, cell: r => html`<a href=${link('jobs', r.job)}><${Two} text=${r.job} over=${16} /></a>` },
  { key: 'state', title: 'State', width: 7.6, cell: r => html`<${State} is=${r.cancelling && r.state !== 'cancelled' ? 'cancelling' : r.state} />` },
  { key: 'why', title: 'Why', cell: r => html`<${Two} text=${whyText(r)} />`, sort: false },
  { key: 'attempt', title: 'Attempts', width: 6.5, align: 'num', cell: r => (r.attempt ? count(r.attempt) : '') },
  { key: 'runner', title: 'Runner', width: 9.5, cell: r => html`<${Two} text=${r.runner} over=${13} />` },
  { key: 'created', title: 'Created', width: 6.5, cell: r => html`<${When} at=${r.created_at} />`, sort: r => ms(r.created_at) },
  { key: 'took', title: 'Ran for', width: 7.2, align: 'num', cell: r => (r.state === 'running' || r.ended_at ? html`<${Took} from=${r.started_at} to=${r.ended_at} />` : ''), sort: false },
  { key: 'by', title: 'For', width: 12.8, cell: r => html`<${Two} text=${r.file?.name.split('/').pop() ?? r.by} over=${17} wordless=${r.file} />`, sort: r => r.file?.name ?? r.by, hint: 'the file, or who asked for it' },
];

// merged are the pages that were asked for, with what the stream tells since.
function merged(pages, live, { job, state }) {
  const all = new Map([...pages, ...(live ?? [])].map(r => [r.id, r]));
  return [...all.values()].filter(r => (!job || r.job === job) && (!state || r.state === state)).sort((a, b) => b.id - a.id);
}

function Filters({ jobs, given, children }) {
  const set = more => go(link('runs', { ...given, ...more }));
  const names = [...new Set([...jobs.map(j => j.name), given.job])].filter(Boolean).sort();
  const choice = (name, label, options) => html`<${Field} label=${label}><select value=${given[name]} onChange=${e => set({ [name]: e.currentTarget.value })}>
    <option value="">all</option>${options.map(o => html`<option key=${o} value=${o}>${o}</option>`)}</select><//>`;
  return html`<div class="filters">${choice('job', 'Job', names)}${choice('state', 'State', states)}<span class="faint">${children}</span></div>`;
}

function Runs({ jobs, given }) {
  const { job, state } = given;
  const live = useParts('runs');
  const { rows, error, loading, more, again, head } = usePages(`api/v1/runs?${new URLSearchParams({ limit: 100, ...(job && { job }), ...(state && { state }) })}`, 'runs', 5, 'before');
  const shown = useMemo(() => merged(rows, live.runs, given), [rows, live.runs, job, state]);
  return html`<${Filters} jobs=${jobs} given=${given}>${head?.as_of && html`as of <${Time} at=${head.as_of} />`} <button type="button" onClick=${again}>Ask again</button><//>
    <${Stale} of=${live} />
    <${Problem} error=${error ?? live.stream.failure} again=${again} />
    ${shown.length || !loading ? html`<${Table} name="Runs" columns=${columns} rows=${shown} id=${r => r.id} empty="There is no run like that." />` : html`<${Loading} what="the runs" />`}
    ${more && html`<button type="button" onClick=${more}>More</button>`}`;
}

export default function View({ path: [id], query }) {
  const given = { job: query.get('job') ?? '', state: query.get('state') ?? '' };
  return html`<${Page} title=${id ? `Run ${id}` : 'Runs'} tools=${html`${id && html`<a href=${link('runs')}>Runs</a> `}${tools}`}>
    <${Engine} show=${jobs => (id ? html`<${Run} key=${id} id=${id} />` : html`<${Runs} key=${JSON.stringify(given)} jobs=${jobs} given=${given} />`)} />
  <//>`;
}
