// The overview: whether all is well, and if not, what is wrong, where and since when.
import {
  html, useApi, useMemo, useParts, link, bytes, count, rate, duration, plural, unknown, clock,
  Page, Panel, State, Table, Time, Wait,
} from './lib.js';
import { useCommand, Sent } from './commands.js';
import { Chart } from './chart.js';
import { Intake } from './view-nodes.js';
import { consumerAnswers, findings, intakeOf } from './reasons.js';

const most = 12;
const lettersEvery = 60; // seconds; a look reads the letters at the broker

function Health({ found, ready, overview }) {
  if (!ready) return null;
  if (!found.length) {
    return html`<div class="panel health" role="status"><strong>All is well.</strong> ${plural(overview.nodes?.here ?? 0, 'node')} ${overview.nodes?.here === 1 ? 'answers' : 'answer'}, ${runs(overview.shards)}.</div>`;
  }
  const bad = found.some(f => f.tone === 'bad');
  const since = f => (f.since ? ` (since ${clock(f.since)})` : '');
  return html`<div class=${'panel health ' + (bad ? 'bad' : 'warn')} role="status">
    <strong>${bad ? `${plural(found.length, 'thing is', 'things are')} wrong.` : 'Nothing is broken.'}</strong>${!bad && ` ${plural(found.length, 'thing')} to know:`}
    <ul>${found.slice(0, most).map(f => html`<li key=${f.where + f.text}><span class=${'text-' + f.tone} aria-hidden="true">● </span><a href=${f.link}>${f.where}</a>: ${f.text}${since(f)}</li>`)}
      ${found.length > most && html`<li>… and ${count(found.length - most)} more.</li>`}</ul>
  </div>`;
}

const runs = (shards = {}) => {
  const all = Object.values(shards).reduce((a, b) => a + b, 0);
  return shards.running === all ? `all ${plural(all, 'shard')} ${all === 1 ? 'runs' : 'run'}` : `${count(shards.running ?? 0)} of ${plural(all, 'shard')} run`;
};

// Flow is where the messages are: what was accepted is queued, in hand, written, or dead.
// Sums over consumers are not known as long as none answers.
function Flow({ of: sums, nodes = [] }) {
  const o = consumerAnswers(nodes) ? sums : { accepted: sums.accepted, queued: sums.queued };
  const item = (value, name, hint, to) => html`<li title=${hint}><b>${value}</b><span>${to ? html`<a href=${to}>${name}</a>` : name}</span></li>`;
  return html`<ul class="flow">
    ${item(count(o.accepted), 'accepted', 'messages since the servers started')}
    ${item(count(o.queued), 'queued', 'envelopes at the broker', link('shards'))}
    ${item(count(o.in_hand), 'in hand', 'envelopes that consumers have received and not settled', link('workers'))}
    ${item(count(o.held), 'held', 'workers that keep a batch that the output does not take')}
    ${item(count(o.written), 'written', 'messages since the consumers started')}
    ${item(count(o.duplicates), 'duplicates', 'messages that were written before, and not again')}
    ${item(count(o.dead), 'dead', 'messages that could not be written, since the consumers started', link('dead'))}
  </ul>`;
}

// The axis of an age has round steps, in seconds, and one unit.
const ageSteps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400, 432000, 2592000];
const ageStep = (v, _, all) => {
  const [unit, name] = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']].find(u => (all?.[1] ?? v) >= u[0]) ?? [1, 's'];
  return `${Math.round(v / unit * 10) / 10} ${name}`;
};
// The axis of what is counted has whole numbers only.
const whole = v => (Number.isInteger(v) ? count(v) : '');
const perSecond = v => (v === null || v === undefined ? unknown : `${rate(v)}/s`);

const diskColumns = [
  { key: 'node', title: 'Node', width: 11, cell: d => html`<a href=${link('nodes', d.node)}>${d.node}</a>` },
  { key: 'folder', title: 'Folder' },
  { key: 'free', title: 'Free', width: 8, align: 'num', cell: d => html`<span class=${d.free < d.min_free && 'text-bad'}>${bytes(d.free)}</span>` },
  { key: 'min_free', title: 'Stays free', width: 8, align: 'num', cell: d => bytes(d.min_free) },
];

const states = (counts = {}) => Object.entries(counts).sort().map(([state, n]) => html`<span key=${state}><${State} is=${state} /> ${count(n)} </span>`);

// Intakes counts the servers by the states of their intakes, and says why some refuse.
function Intakes({ nodes }) {
  const all = nodes.map(intakeOf).filter(Boolean);
  if (!all.length) return 'no server';
  const why = [...new Set(all.filter(i => i.state === 'refuses').map(i => i.why))].slice(0, 3);
  const counts = {};
  for (const i of all) counts[i.state] = (counts[i.state] ?? 0) + 1;
  return html`${states(counts)}${why.length > 0 && html`<small>${why.join(' ')}</small>`}`;
}

export default function Overview() {
  const live = useParts('overview,shards,nodes,series');
  const [dialog, ask, may] = useCommand();
  const o = live.overview, ready = o && live.shards && live.nodes;
  // The counters begin anew with the processes, but the letters of before still wait.
  const { data } = useApi(o ? 'api/v1/dead-letters/groups' : null, lettersEvery);
  const letters = useMemo(() => data && { ...data, counted: o?.dead ?? 0 }, [data]);
  const found = useMemo(() => findings({ ...live, letters }), [live.overview, live.shards, live.nodes, live.complete, letters]);
  return html`<${Page} title="Overview" tools=${o && html`<${Intake} ask=${ask} may=${may} states=${Object.keys(o.intake ?? {})} />`}>
    <${Health} found=${found} ready=${ready} overview=${o} />
    <${Sent} />
    ${!o ? html`<${Wait} stream=${live.stream} what="the overview" />` : html`
      <div class="panel"><${Flow} of=${o} nodes=${live.nodes} /></div>
      <div class="grid charts">
        <${Chart} title="Accepted" points=${live.series} member="accepted_per_s" format=${perSecond} axis=${count} />
        <${Chart} title="Written" points=${live.series} member="written_per_s" format=${perSecond} axis=${count} />
        <${Chart} title="Queued" points=${live.series} member="queued" format=${count} axis=${whole} />
        <${Chart} title="Oldest age" points=${live.series} member="oldest_unwritten_age_s" format=${duration} axis=${ageStep} steps=${ageSteps} />
      </div>
      <div class="grid">
        <${Panel} title="States">
          <dl class="facts one">
            <div><dt><a href=${link('nodes')}>Nodes</a></dt><dd>${states(o.nodes)}</dd></div>
            <div><dt><a href=${link('shards')}>Shards</a></dt><dd>${states(o.shards)}</dd></div>
            <div><dt><a href=${link('nodes')}>Intake</a></dt><dd>${live.nodes && html`<${Intakes} nodes=${live.nodes} />`}</dd></div>
            <div><dt><a href=${link('workers')}>Workers</a></dt><dd>${count(consumerAnswers(live.nodes) ? o.workers : null)}</dd></div>
          </dl>
        <//>
        <${Panel} title="Disks"><${Table} name="Disks" columns=${diskColumns} rows=${o.disks ?? []} id=${d => d.node} least=${8} empty="No node has told of a disk." /><//>
      </div>
      <p class="faint">${live.node} has answered, as of <${Time} at=${live.asOf} />${live.complete === false && '. Not all nodes have answered, so the sums are too low'}.</p>`}
    ${dialog}
  <//>`;
}
