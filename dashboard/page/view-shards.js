// The shards: a list, and the page of one.
import {
  html, useMemo, useState, useParts, go, link, duration, count, unknown, plural,
  Age, Empty, Facts, Field, Page, Panel, State, Table, Time, Wait,
} from './lib.js';
import { useCommand, Sent } from './commands.js';
import { nodeTroubles, oldest, shardWhy } from './reasons.js';
import { workerColumns, workerKey } from './view-workers.js';

// An age that is short changes all the time; a long one only grows.
function Oldest({ shard }) {
  const age = shard.part?.oldest_unwritten_age_s;
  if (age === undefined || age === null) return unknown;
  return age < 10 ? (age ? duration(age) : '0') : html`<${Age} at=${oldest(shard)} />`;
}

const of = name => s => s.part?.[name];
const number = name => ({ key: name, align: 'num', cell: s => count(s.part?.[name]), sort: of(name) });

const shardColumns = troubles => [
  { key: 'shard', title: 'Shard', width: 5.5, align: 'num', cell: s => html`<a href=${link('shards', s.shard)}>${s.shard}</a>` },
  { key: 'state', title: 'State', width: 7, cell: s => html`<${State} is=${s.state} />` },
  { key: 'why', title: 'Why it does not go on', cell: s => shardWhy(s, troubles), sort: s => shardWhy(s, troubles) || null },
  { key: 'owner', title: 'Owner', width: 9, cell: s => (s.owner ? html`<a href=${link('nodes', s.owner)} title=${s.owner}>${s.owner}</a>` : unknown), sort: s => s.owner },
  { key: 'queued', title: 'Queued', width: 5.5, align: 'num', cell: s => count(s.queued), hint: 'envelopes at the broker' },
  { ...number('in_hand'), title: 'In hand', width: 5.5, hint: 'envelopes received and not settled' },
  { ...number('held'), title: 'Held', width: 4, hint: 'workers that keep a batch the output does not take' },
  { key: 'age', title: 'Oldest', width: 7, align: 'num', cell: s => html`<${Oldest} shard=${s} />`, sort: of('oldest_unwritten_age_s'), hint: 'age of the oldest message that is in no file' },
  { key: 'workers', title: 'Workers', width: 6, align: 'num', cell: s => (s.part ? `${s.part.workers} (${s.part.workers_min}–${s.part.workers_max})` : unknown), sort: of('workers'), hint: 'now (at rest – at most)' },
  { ...number('written'), title: 'Written', width: 6.5, hint: 'messages since the owner took the shard' },
  { ...number('ids_remembered'), title: 'Ids', width: 5.5, hint: 'ids of written messages that are remembered' },
];

// useTroubles keeps the same object as long as nothing changes, so that rows are not
// rendered again.
function useTroubles(nodes) {
  const troubles = nodeTroubles(nodes);
  const key = JSON.stringify(troubles);
  return useMemo(() => troubles, [key]);
}

function Buttons({ ask, may, targets, limits, paused }) {
  const none = targets.length === 0 || !may;
  const why = may ? undefined : 'Sign in with a token of ADMIN_TOKENS';
  const button = (verb, text) => html`<button type="button" disabled=${none} title=${why} onClick=${() => ask(verb, targets, limits)}>${text}</button>`;
  return html`${paused !== true && button('pause', 'Pause')}${paused !== false && button('resume', 'Resume')}${button('resize', 'Resize')}${button('flush', 'Flush')}`;
}

function Shards({ query }) {
  const live = useParts('shards,nodes');
  const [dialog, ask, may] = useCommand();
  const [chosen, choose] = useState(new Set());
  const troubles = useTroubles(live.nodes);
  const columns = useMemo(() => shardColumns(troubles), [troubles]);
  const state = query.get('state') ?? '', text = query.get('q') ?? '';
  const all = live.shards;
  const rows = useMemo(() => (all ?? []).filter(s => (!state || s.state === state || (state === 'stuck' && shardWhy(s, troubles)))
    && (!text || String(s.shard) === text || s.owner?.includes(text) || shardWhy(s, troubles).includes(text))), [all, state, text, troubles]);
  const set = more => go(link('shards', { state, q: text, ...more }));
  const states = [...new Set([...(all ?? []).map(s => s.state), state].filter(s => s && s !== 'stuck'))].sort();
  const targets = chosen.size > 0 && chosen.size === all?.length ? ['shard:*'] : [...chosen].sort((a, b) => a - b).map(n => `shard:${n}`);
  const tools = html`<span class="faint">${chosen.size ? `${plural(chosen.size, 'shard')} chosen` : 'Choose shards'}</span>
    <${Buttons} ask=${ask} may=${may} targets=${targets} />`;
  return html`<${Page} title="Shards" tools=${tools}>
    <${Sent} />
    <div class="filters">
      <${Field} label="State"><select value=${state} onChange=${e => set({ state: e.target.value })}>
        <option value="">all</option><option value="stuck">that do not go on</option>${states.map(s => html`<option value=${s}>${s}</option>`)}</select><//>
      <${Field} label="Number, owner or reason"><input type="search" value=${text} onInput=${e => set({ q: e.target.value })} /><//>
      <span class="faint">${all && `${count(rows.length)} of ${plural(all.length, 'shard')}`}</span>
    </div>
    ${all ? html`<${Table} name="Shards" columns=${columns} rows=${rows} id=${s => s.shard} chosen=${chosen} onChoose=${choose} order=${{ by: 'shard' }} empty="No shard is like that." />`
      : html`<${Wait} stream=${live.stream} what="the shards" />`}
    ${dialog}
  <//>`;
}

function Shard({ number: n }) {
  const live = useParts('shards,nodes,workers');
  const [dialog, ask, may] = useCommand();
  const troubles = useTroubles(live.nodes);
  const columns = useMemo(() => workerColumns(false), []);
  const workers = useMemo(() => (live.workers ?? []).filter(w => w.shard === n), [live.workers, n]);
  if (!live.shards) return html`<${Page} title=${`Shard ${n}`}><${Wait} stream=${live.stream} what="the shard" /><//>`;
  const s = live.shards.find(r => r.shard === n);
  if (!s) return html`<${Page} title=${`Shard ${n}`}><${Empty}>There is no such shard. <a href=${link('shards')}>All shards</a><//><//>`;
  const p = s.part, why = shardWhy(s, troubles);
  const limits = p && { min: p.workers_min, max: p.workers_max };
  return html`<${Page} title=${`Shard ${n}`} tools=${html`<${Buttons} ask=${ask} may=${may} targets=${[`shard:${n}`]} limits=${limits} paused=${s.state === 'paused'} />`}>
    <${Sent} />
    ${why && html`<p class=${s.state === 'paused' ? 'notice' : 'problem'} role="status">${why}</p>`}
    <${Panel} title=${html`State <${State} is=${s.state} />`}>
      <${Facts} of=${[
        ['Since', p ? html`<${Time} at=${p.since} /> (<${Age} at=${p.since} />)` : unknown],
        ['Owner', s.owner ? html`<a href=${link('nodes', s.owner)}>${s.owner}</a>` : 'none'],
        ['Waiting nodes', s.waiting?.length ? s.waiting.map((w, i) => html`${i > 0 && ', '}<a href=${link('nodes', w)}>${w}</a>`) : 'none'],
        ['Queued', `${count(s.queued)} envelopes`],
        ['In hand', p ? `${count(p.in_hand)} envelopes` : unknown],
        ['Held', p ? plural(p.held, 'worker') : unknown],
        ['Oldest message', p && p.oldest_unwritten_age_s === 0 ? 'none waits' : html`<${Oldest} shard=${s} />`],
        ['Workers', p ? `${p.workers}, of ${p.workers_min} to ${p.workers_max}` : unknown],
        ['Written', p ? `${count(p.written)} messages` : unknown],
        ['Duplicates', p ? `${count(p.duplicates)} messages` : unknown],
        ['Dead', p ? html`${count(p.dead)} messages${p.dead > 0 && html` <a href=${link('dead', { shard: n })}>Dead letters</a>`}` : unknown],
        ['Ids remembered', p ? `${count(p.ids_remembered)}, since ${duration(p.ids_remembered_s)}` : unknown],
      ]} />
    <//>
    <${Panel} title="Workers" tools=${html`<a href=${link('workers', { shard: n, history: 1 })}>Whole history</a> <a href=${link('live', { shard: n })}>Live tail</a>`}>
      <${Table} name=${`Workers of shard ${n}`} columns=${columns} rows=${workers} id=${workerKey} empty="No worker lives." />
    <//>
    ${dialog}
  <//>`;
}

export default function View({ path, query }) {
  return path.length ? html`<${Shard} key=${path[0]} number=${Number(path[0])} />` : html`<${Shards} query=${query} />`;
}
