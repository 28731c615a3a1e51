// The runners that are connected to the engine of jobs.
import { html, useParts, link, count, unknown, ms, Age, Page, State, Table, Wait } from './lib.js';
import { Engine, Stale } from './jobs.js';

const columns = [
  { key: 'id', title: 'Runner', width: 13 },
  { key: 'working', title: 'State', width: 7, cell: r => html`<${State} is=${r.working ? 'working' : 'idle'} tone=${r.working ? 'ok' : 'idle'} />` },
  { key: 'busy', title: 'Busy', width: 5.5, align: 'num', cell: r => `${count(r.busy)} of ${count(r.slots)}`, hint: 'of its slots' },
  { key: 'runs', title: 'Runs', width: 10, sort: false, cell: r => (r.runs ?? []).map(id => html`<a key=${id} href=${link('runs', id)}>${id}</a> `) },
  { key: 'labels', title: 'Labels', width: 10, cell: r => r.labels?.join(', ') || '', sort: r => String(r.labels ?? '') },
  { key: 'connected', title: 'Connected for', width: 9.5, align: 'num', cell: r => html`<${Age} at=${r.connected_at} />`, sort: r => ms(r.connected_at) },
  { key: 'version', title: 'Version', width: 9, cell: r => (r.seed ? 'old protocol' : r.version || unknown) },
  { key: 'engine', title: 'Engine', cell: r => (r.engine ? html`<a href=${link('nodes', r.engine)} title=${r.engine}>${r.engine}</a>` : unknown) },
];

function Runners() {
  const live = useParts('runners');
  return html`<${Stale} of=${live} />
    ${live.runners ? html`<${Table} name="Runners" columns=${columns} rows=${live.runners} id=${r => r.id} order=${{ by: 'id' }}
        empty=${html`No runner is connected, so runs wait. Start one: <code>async-data-processor runner ${document.baseURI}</code>`} />`
      : html`<${Wait} stream=${live.stream} what="the runners" />`}`;
}

export default function View() {
  return html`<${Page} title="Runners" tools=${html`<a href=${link('jobs')}>Jobs</a> <a href=${link('runs')}>Runs</a>`}><${Engine} show=${() => html`<${Runners} />`} /><//>`;
}
