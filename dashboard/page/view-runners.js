// The runners that are connected to the engine of jobs.
import { html, useParts, link, count, unknown, ms, Age, Page, State, Table, Wait } from './lib.js';
import { Engine, Stale, Two } from './jobs.js';

const columns = [
  { key: 'id', title: 'Runner', width: 12, cell: r => html`<${Two} text=${r.id} over=${17} />` },
  { key: 'working', title: 'State', width: 7, cell: r => html`<${State} is=${r.draining ? 'draining' : r.working ? 'working' : 'idle'} tone=${r.draining ? 'warn' : r.working ? 'ok' : 'idle'} />` },
  { key: 'busy', title: 'Busy', width: 6, align: 'num', cell: r => `${count(r.busy)} of ${count(r.slots)}`, hint: 'of its slots' },
  { key: 'runs', title: 'Runs', width: 10, sort: false, cell: r => (r.runs ?? []).map(id => html`<a key=${id} href=${link('runs', id)}>${id}</a> `) },
  { key: 'labels', title: 'Labels', cell: r => html`<${Two} text=${r.labels?.join(', ')} over=${30} />`, sort: r => String(r.labels ?? '') },
  { key: 'connected', title: 'Connected for', width: 9.5, align: 'num', cell: r => html`<${Age} at=${r.connected_at} />`, sort: r => ms(r.connected_at) },
  { key: 'version', title: 'Version', width: 9, cell: r => html`<${Two} text=${r.seed ? 'old protocol' : r.version || unknown} over=${12} />` },
  { key: 'engine', title: 'Engine', width: 11, cell: r => (r.engine ? html`<a href=${link('nodes', r.engine)}><${Two} text=${r.engine} over=${15} /></a>` : unknown) },
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
