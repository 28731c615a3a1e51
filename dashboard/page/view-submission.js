// A receipt: what became of a submission.
import {
  html, useState, useApi, useStore, useStream, streaming, link, plural, count, Copy, Facts, Loading, Page, Panel, Problem, State, Table, Time, unknown,
} from './lib.js';

// mostLinks bounds how many messages of a list have a link of their own.
const mostLinks = 50;

// indexesOf are the first indexes of ranges.
function indexesOf(ranges) {
  const list = [];
  for (const range of ranges.split(',')) {
    const [from, to = from] = range.split('-').map(Number);
    for (let i = from; i <= to; i++) {
      if (list.length === mostLinks) return { list, more: true };
      list.push(i);
    }
  }
  return { list, more: false };
}

// Messages links the messages of ranges such as "0-3,7".
function Messages({ id, ranges }) {
  const { list, more } = indexesOf(ranges);
  return html`<span class="mono">${list.map(i => html`<a key=${i} href=${link('messages', `${id}.${i}`)}>${i}</a> `)}</span>${more && html`<span class="faint">and more</span>`}`;
}

// sentence says what became of it.
function sentence(r) {
  if (r.state === 'unknown') return 'Nothing is known of it, because owners of shards do not answer.';
  if (r.state === 'written') return r.accepted === 1 ? 'The entry is in a file.' : `All ${count(r.accepted)} entries are in files.`;
  const parts = [];
  if (r.written) parts.push(`${count(r.written)} ${r.written === 1 ? 'is in a file' : 'are in files'}`);
  if (r.dead) parts.push(`${count(r.dead)} ${r.dead === 1 ? 'is a dead letter' : 'are dead letters'}`);
  if (r.pending) parts.push(`${count(r.pending)} ${r.pending === 1 ? 'waits' : 'wait'} to be written`);
  return `Of ${plural(r.accepted, 'entry', 'entries')}, ${parts.join(', ')}.`;
}

const shardColumns = [
  { key: 'shard', title: 'Shard', width: 6, align: 'num', cell: r => html`<a href=${link('shards', r.shard)}>${r.shard}</a>` },
  { key: 'written', title: 'Written', width: 8, align: 'num', cell: r => count(r.written) },
  { key: 'dead', title: 'Dead letters', width: 9, align: 'num', cell: r => count(r.dead) },
  { key: 'note', title: 'Note', sort: false },
];

function shardsOf(r) {
  const rows = Object.entries(r.shards).map(([shard, s]) => ({ shard: Number(shard), written: s.written, dead: s.dead }));
  for (const shard of r.unknown ?? []) {
    const row = rows.find(r => r.shard === shard) ?? (rows.push({ shard, written: null, dead: null }), rows.at(-1));
    row.note = 'its owner does not answer';
  }
  return rows;
}

// Paused says why messages are pending.
function Paused({ shards, reason, until }) {
  return html`<p class="notice">${shards.length === 1 ? 'Shard ' : 'Shards '}
    ${shards.map((n, i) => html`<span key=${n}>${i > 0 && ', '}<a href=${link('shards', n)}>${n}</a></span>`)}
    ${' '}${shards.length === 1 ? 'is' : 'are'} paused${reason && `: ${reason}`}${until && html` (until <${Time} at=${until} />)`}. What is pending there waits.</p>`;
}

// deadColumns are those of the reasons why messages are dead.
const deadColumns = id => [
  { key: 'indexes', title: 'Entries', width: 12, sort: false, cell: r => html`<${Messages} id=${id} ranges=${r.indexes} />` },
  { key: 'reason', title: 'Reason', sort: false },
  { key: 'mend', title: 'Action', width: 7, sort: false, cell: r => html`<a href=${link('dead', { id: indexesOf(r.indexes).list.map(i => `${id}.${i}`).join(' ') })}>Mend</a>` },
];

function Receipt({ r }) {
  // The stream tells numbers. Which messages they are is asked for until it is done.
  const { data } = useApi(r.dead + r.pending > 0 ? `submissions/${r.id}?indexes=1` : null, r.done ? 0 : 2);
  const { pending, dead } = data?.indexes ?? {};
  return html`<p class="sentence" role="status"><${State} is=${r.state} /> ${sentence(r)}</p>
    <progress max=${r.accepted} value=${r.written + r.dead} aria-label="Entries that are in files or dead letters"></progress>
    ${r.paused?.map((p, i) => html`<${Paused} key=${i} ...${p} />`)}
    <div class="long"><${Facts} of=${[
      ['Submission', html`<span class="mono">${r.id}</span> <${Copy} text=${r.id} />`],
      ['Written', `${count(r.written)} of ${count(r.accepted)}`],
      ['Dead letters', count(r.dead)],
      ['Pending', html`${count(r.pending)}${r.pending > 0 && pending && html`, ${r.pending === 1 ? 'entry' : 'entries'} <${Messages} id=${r.id} ranges=${pending} />`}`],
      ['Accepted', r.accepted_at ? html`<${Time} at=${r.accepted_at} />` : unknown],
      ['Done', r.done_at && html`<${Time} at=${r.done_at} />`],
      ['Remembered until', r.remembered_until && html`<${Time} at=${r.remembered_until} />`],
    ].filter(f => f[1])} /></div>
    ${r.dead > 0 && dead && html`<${Panel} title="Dead letters"><${Table} name="Reasons" columns=${deadColumns(r.id)} rows=${dead} id=${d => d.indexes} /><//>`}
    <${Panel} title="By shard"><${Table} name="Shards" columns=${shardColumns} rows=${shardsOf(r)} id=${s => s.shard} empty="No shard has told anything of it yet." /><//>
    <p><a href=${link('live', { submission: r.id })}>Its messages, live</a></p>`;
}

// Followed shows one submission as it changes, until it is done.
function Followed({ id, again }) {
  const [receipt, set] = useState(null);
  const { failure } = useStore(streaming);
  useStream(receipt?.done ? null : `submissions/${encodeURIComponent(id)}`, (name, data) => {
    if (name !== 'bye') set(data);
  }, { events: ['progress', 'done', 'bye'] });
  if (receipt) return html`<${Receipt} r=${receipt} />`;
  if (!failure) return html`<${Loading} what="the receipt" />`;
  return html`<${Problem} error=${failure} again=${again} />
    <p><a href=${link('messages', id)}>Look for a message with this id</a>, or <a href=${link('dead', { id })}>for dead letters</a>.</p>`;
}

export default function Submission({ path: [id = ''] }) {
  const [round, set] = useState(0);
  return html`<${Page} title="Submission"><${Followed} key=${`${id} ${round}`} id=${id} again=${() => set(round + 1)} /><//>`;
}
