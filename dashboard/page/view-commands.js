// The commands that the system has heard of: a list, and one with its outcomes.
import {
  html, usePages, useApi, link, count, unknown, ms, plural,
  Empty, Facts, Loading, Page, Panel, Problem, State, Table, Time,
} from './lib.js';
import { commandText, outcomes, Sent } from './commands.js';

const columns = [
  { key: 'at', title: 'At', width: 11.5, cell: c => html`<a href=${link('commands', c.id)}><${Time} at=${c.at} /></a>`, sort: c => ms(c.at) },
  { key: 'command', title: 'Command', width: 14, cell: commandText, sort: commandText },
  { key: 'state', title: 'State', width: 7, cell: c => html`<${State} is=${c.state} />` },
  { key: 'by', title: 'By', width: 9, cell: c => c.by || unknown },
  { key: 'done', title: 'Answers', width: 8, align: 'num', cell: c => (c.shards_total ? `${count(c.shards_done)} of ${count(c.shards_total)}` : unknown), sort: c => c.shards_done, hint: 'of owners of shards, or of servers' },
  { key: 'reason', title: 'Reason', cell: c => c.reason || '' },
  { key: 'error', title: 'Error', width: 16, cell: c => c.error || '' },
];

function Commands() {
  const { rows, error, loading, more, again, head } = usePages('api/v1/commands', 'commands', 3);
  return html`<${Page} title="Commands" note="The last commands that this node has heard of, newest first. Pause, resume, resize and flush are sent from the shards; the intake from the nodes."
      tools=${html`${head?.as_of && html`<span class="faint">as of <${Time} at=${head.as_of} /></span>`}<button type="button" onClick=${again}>Ask again</button>`}>
    <${Sent} />
    <${Problem} error=${error} again=${again} />
    ${rows.length || !loading ? !error && html`<${Table} name="Commands" columns=${columns} rows=${rows} id=${c => c.id} empty="This node has heard of no command since its start." />` : html`<${Loading} what="the commands" />`}
    ${more && html`<button type="button" onClick=${more}>More</button>`}
  <//>`;
}

const outcomeColumns = [
  { key: 'where', title: 'Where', width: 10, cell: o => (typeof o.n === 'number' ? html`<a href=${link('shards', o.n)}>${o.where}</a>` : o.where), sort: o => o.n },
  { key: 'state', title: 'Outcome', width: 8, cell: o => html`<${State} is=${o.error ? 'failed' : 'done'} />`, sort: o => Number(!o.error) },
  { key: 'node', title: 'Node', width: 11, cell: o => html`<a href=${link('nodes', o.node)}>${o.node}</a>` },
  { key: 'before', title: 'Before', width: 18 },
  { key: 'after', title: 'After', width: 18 },
  { key: 'error', title: 'Error', cell: o => o.error || (o.repeated ? 'it was applied before' : '') },
];

function Command({ id }) {
  const { data: c, error, loading, again } = useApi(`api/v1/commands/${encodeURIComponent(id)}`, 2);
  if (!c) return html`<${Page} title="Command">${loading ? html`<${Loading} what="the command" />` : html`<${Problem} error=${error} again=${again} />`}<//>`;
  const of = outcomes(c);
  return html`<${Page} title=${commandText(c)}>
    <${Problem} error=${error} />
    ${c.state === 'waiting' && html`<p class="notice" role="status">Not confirmed yet: ${plural(c.waiting, 'answer is', 'answers are')} missing. It may still be applied.</p>`}
    ${c.error && html`<p class="problem">${c.error}</p>`}
    <${Panel} title=${html`State <${State} is=${c.state} />`}>
      <${Facts} of=${[
        ['At', html`<${Time} at=${c.at} />`], ['By', c.by || unknown], ['Reason', c.reason || 'none was given'],
        ['Answers', `${count(of.length)}, and ${count(c.waiting)} are missing`], ['Id', html`<code>${c.id}</code>`],
      ]} />
    <//>
    <${Panel} title="Outcomes">
      ${of.length ? html`<${Table} name="Outcomes" columns=${outcomeColumns} rows=${of} id=${o => o.where} order=${{ by: 'where' }} />` : html`<${Empty}>Nothing has answered yet.<//>`}
    <//>
  <//>`;
}

export default function View({ path }) {
  return path.length ? html`<${Command} key=${path[0]} id=${path[0]} />` : html`<${Commands} />`;
}
