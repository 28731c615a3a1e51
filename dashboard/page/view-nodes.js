// The nodes: a list, and the page of one.
import {
  html, useMemo, useParts, link, bytes, count, unknown, ms,
  Age, Empty, Facts, Page, Panel, State, Table, Time, Wait,
} from './lib.js';
import { useCommand, Sent } from './commands.js';
import { diskFull, intakeOf, nodeTroubles, pauseText } from './reasons.js';

// Address is a link only if it is one of the web: a node tells it about itself.
function Address({ of }) {
  const known = /^https?:\/\/[^/\s]/.test(of ?? '');
  return known ? html`<a href=${of.replace(/\/*$/, '/')} rel="noreferrer" title=${of}>${of}</a>` : of || unknown;
}

const failing = n => (n.checks ?? []).filter(c => !c.ok);

function Checks({ of: n }) {
  if (!n.checks) return unknown;
  const bad = failing(n);
  return bad.length ? html`<${State} is=${bad.map(c => c.name).join(', ')} tone="bad" />` : html`<${State} is="ok" />`;
}

function DiskText({ of: d }) {
  if (!d) return unknown;
  const full = diskFull(d);
  return html`<span class=${full && 'text-bad'} title=${d.folder}>${bytes(d.free)}${full && ' (full)'}</span>`;
}

const roles = n => n.info?.roles ?? [];
const intakeState = n => intakeOf(n)?.state ?? null;
const intake = n => {
  const is = intakeOf(n);
  return is ? html`<span title=${is.why}><${State} is=${is.state} /></span>` : unknown;
};

const columns = [
  { key: 'node', title: 'Node', cell: n => html`<a href=${link('nodes', n.node)} title=${n.node}>${n.node}</a>` },
  { key: 'state', title: 'State', width: 6.5, cell: n => html`<${State} is=${n.state} />` },
  { key: 'roles', title: 'Roles', width: 11, cell: n => roles(n).map(r => r.replace('message-', '')).join(', '), sort: n => String(roles(n)) },
  { key: 'address', title: 'Address', width: 13, cell: n => html`<${Address} of=${n.info?.address} />`, sort: n => n.info?.address },
  { key: 'version', title: 'Version', width: 6.5, cell: n => n.info?.version ?? unknown, sort: n => n.info?.version },
  { key: 'started', title: 'Runs for', width: 7.5, align: 'num', cell: n => (n.state === 'gone' ? unknown : html`<${Age} at=${n.info?.started} />`), sort: n => ms(n.info?.started) },
  { key: 'checks', title: 'Checks', width: 7, cell: n => html`<${Checks} of=${n} />`, sort: n => failing(n).length, hint: 'the conditions of being ready' },
  { key: 'intake', title: 'Intake', width: 7, cell: intake, sort: intakeState },
  { key: 'mine', title: 'Shards', width: 6, align: 'num', cell: n => count(n.mine), hint: 'that are meant for it' },
  { key: 'written', title: 'Written', width: 7, align: 'num', cell: n => count(n.totals?.written), sort: n => n.totals?.written, hint: 'messages since its start' },
  { key: 'free', title: 'Disk free', width: 7, align: 'num', cell: n => html`<${DiskText} of=${n.disk} />`, sort: n => n.disk?.free },
];

// Intake has the buttons that pause and resume all servers. states are those of their
// intakes.
export function Intake({ ask, may, states }) {
  const why = may ? undefined : 'Sign in with a token of ADMIN_TOKENS';
  const button = (verb, text) => html`<button type="button" disabled=${!may} title=${why} onClick=${() => ask(verb, ['intake'])}>${text} the intake</button>`;
  return html`${states.some(s => s !== 'paused') && button('pause', 'Pause')}${states.some(s => s !== 'open' && s !== 'refuses') && button('resume', 'Resume')}`;
}

function Nodes() {
  const live = useParts('nodes');
  const [dialog, ask, may] = useCommand();
  const troubles = nodeTroubles(live.nodes);
  return html`<${Page} title="Nodes" tools=${live.nodes && html`<${Intake} ask=${ask} may=${may} states=${live.nodes.map(intakeState).filter(Boolean)} />`}>
    <${Sent} />
    ${Object.entries(troubles).slice(0, 10).map(([node, text]) => html`<p key=${node} class="problem"><a href=${link('nodes', node)}>${node}</a>: ${text}</p>`)}
    ${live.nodes ? html`<${Table} name="Nodes" least=${9} columns=${columns} rows=${live.nodes} id=${n => n.node} order=${{ by: 'node' }} tone=${n => n.state === 'gone' && 'faded'} />`
      : html`<${Wait} stream=${live.stream} what="the nodes" />`}
    ${dialog}
  <//>`;
}

const shardColumns = [
  { key: 'shard', title: 'Shard', width: 6, align: 'num', cell: s => html`<a href=${link('shards', s.shard)}>${s.shard}</a>` },
  { key: 'state', title: 'State', width: 8, cell: s => html`<${State} is=${s.state} />` },
  { key: 'queued', title: 'Queued', width: 8, align: 'num', cell: s => count(s.queued) },
  { key: 'written', title: 'Written', width: 9, align: 'num', cell: s => count(s.part?.written), sort: s => s.part?.written },
  { key: 'rest', title: '', width: undefined, sort: false, cell: () => '' },
];

function Node({ name }) {
  const live = useParts('nodes,shards');
  const [dialog, ask, may] = useCommand();
  const owned = useMemo(() => (live.shards ?? []).filter(s => s.owner === name), [live.shards, name]);
  if (!live.nodes) return html`<${Page} title=${`Node ${name}`}><${Wait} stream=${live.stream} what="the node" /><//>`;
  const n = live.nodes.find(r => r.node === name);
  if (!n) return html`<${Page} title=${`Node ${name}`}><${Empty}>No node of this name is known. One that is gone is shown for ten minutes. <a href=${link('nodes')}>All nodes</a><//><//>`;
  const i = n.info ?? {}, t = n.totals, server = roles(n).includes('server');
  return html`<${Page} title=${`Node ${name}`} tools=${server && html`<${Intake} ask=${ask} may=${may} states=${[intakeState(n)]} />`}>
    <${Sent} />
    ${n.intake === 'paused' && html`<p class="notice" role="status">The intake takes no submissions. ${pauseText(n.intake_pause)}</p>`}
    ${intakeState(n) === 'refuses' && html`<p class="notice" role="status">The intake refuses submissions with 503. ${intakeOf(n).why}</p>`}
    <${Panel} title=${html`State <${State} is=${n.state} />`}>
      <${Facts} of=${[
        ['As of', html`<${Time} at=${n.as_of} /> (by its clock)`],
        ['Roles', roles(n).join(', ') || unknown],
        ['Address', html`<${Address} of=${i.address} />`],
        ['Version', i.version || unknown],
        ['Host, process', `${i.host ?? unknown}, ${i.pid ?? unknown}`],
        ['Broker', i.broker || unknown],
        ['Started', html`<${Time} at=${i.started} /> (<${Age} at=${i.started} />)`],
        ['Intake', server ? intake(n) : undefined],
        ['Shards', n.mine === null || n.mine === undefined ? unknown : `${count(owned.length)} owned, ${count(n.mine)} meant for it`],
        ['Written', t ? `${count(t.written)} messages` : unknown],
        ['Duplicates', t ? `${count(t.duplicates)} messages` : unknown],
        ['Dead', t ? `${count(t.dead)} messages` : unknown],
        ['Output', n.disk ? n.disk.folder : undefined],
        ['Disk', n.disk ? html`<${DiskText} of=${n.disk} /> free; ${bytes(n.disk.min_free)} stay free` : undefined],
        ['Skipped on the bus', n.skipped ? `${count(n.skipped.version)} of another version, ${count(n.skipped.broken)} broken, ${count(n.skipped.refused)} refused` : unknown],
      ]} />
    <//>
    <${Panel} title="Checks">
      ${n.checks ? html`<${Facts} of=${n.checks.map(c => [c.name, html`<${State} is=${c.ok ? 'ok' : 'failed'} /> ${c.why}`])} />` : html`<${Empty}>It does not answer.<//>`}
    <//>
    <${Panel} title="Its shards">
      <${Table} name=${`Shards of node ${name}`} columns=${shardColumns} rows=${owned} id=${s => s.shard} empty="It owns no shard." />
    <//>
    ${dialog}
  <//>`;
}

export default function View({ path }) {
  return path.length ? html`<${Node} key=${path[0]} name=${path[0]} />` : html`<${Nodes} />`;
}
