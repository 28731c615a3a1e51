// A run: where it is and why, its attempts, and the log of one of them.
import {
  html, useState, useEffect, useParts, useApi, api, link, url, bytes, count, unknown,
  Copy, Facts, Loading, Panel, Problem, State, Table, Time,
} from './lib.js';
import { ended, Sentence, Stale, Took, Two, useSteps, When } from './jobs.js';
import { Log } from './job-log.js';
import { memberOf, pretty } from './json.js';

// A run that has ended may be retried elsewhere.
const oftenWhile = r => (r && ended(r) ? 10 : 2);

const tone = a => ({ exited: a.exit === 0 ? 'ok' : 'bad', cancelled: 'warn', returned: 'idle' }[a.outcome] ?? 'bad');

const columns = (shown, show) => [
  { key: 'attempt', title: 'Attempt', width: 5.7, align: 'num' },
  { key: 'outcome', title: 'Outcome', width: 8, cell: a => (a.outcome ? html`<${State} is=${a.outcome} tone=${tone(a)} />` : html`<${State} is="running" />`) },
  { key: 'why', title: 'Why', sort: false, cell: a => html`<${Two} text=${a.why} />` },
  { key: 'exit', title: 'Exit', width: 4, align: 'num', cell: a => a.exit ?? '' },
  { key: 'spent', title: 'Counts', width: 5.5, cell: a => (a.outcome ? (a.spent ? 'yes' : 'no') : ''), hint: 'whether it is one of the attempts that the job has' },
  { key: 'runner', title: 'Runner', width: 9.5, cell: a => html`<${Two} text=${a.runner} over=${13} />` },
  { key: 'started_at', title: 'Started', width: 6.5, cell: a => html`<${When} at=${a.started_at ?? a.leased_at} />` },
  { key: 'took', title: 'Ran for', width: 7.2, align: 'num', sort: false, cell: a => html`<${Took} from=${a.started_at} to=${a.ended_at} />` },
  { key: 'log', title: 'Log', width: 6, align: 'num', cell: a => bytes(a.log) },
  { key: 'show', title: '', width: 5.5, sort: false, cell: a => (a.attempt === shown ? 'below'
    : html`<button type="button" class="small" aria-label=${`Show that of attempt ${a.attempt}`} onClick=${() => show(a.attempt)}>Show</button>`) },
];

function LogPanel({ run, attempt }) {
  const path = `api/jobs/${run.id}/log?attempt=${attempt.attempt}`;
  const runs = !attempt.outcome && !attempt.ended_at;
  return html`<${Panel} title=${`Log of attempt ${attempt.attempt}`} tools=${html`<a href=${url(path)} target="_blank" rel="noopener">The whole log</a>`}>
    <${Log} key=${path} path=${path} every=${runs ? 1 : attempt.whole ? 0 : 5} />
    ${!runs && attempt.whole === false && html`<p class="note">The end of this log may be missing: its runner has not sent all.</p>`}
  <//>`;
}

const rest = r => [
  ['Job', html`<a href=${link('jobs', r.job)}>${r.job}</a>`],
  ['Attempts', count(r.attempt)],
  ['That count', `${count(r.spent)} of ${count(r.attempts)}`],
  ['Runner', r.runner || unknown],
  ['Engine', r.engine ? html`<a href=${link('nodes', r.engine)}>${r.engine}</a>` : unknown],
  ['Created', html`<${Time} at=${r.created_at} />`],
  ['Started', html`<${Time} at=${r.started_at} />`],
  ['Ended', html`<${Time} at=${r.ended_at} />`],
  ['Exit', r.exit ?? unknown],
  ['By', r.by || unknown],
  ['Key', r.key && !r.file ? html`<code>${r.key}</code>` : undefined],
];

// Args shows the arguments by their text, because reading them would change numbers.
function Args({ path }) {
  const [text, set] = useState('');
  useEffect(() => { api(path, { whole: true }).then(a => set(pretty(memberOf(a.text, 'args'))), () => {}); }, [path]);
  return html`<${Panel} title="Arguments"><pre tabindex="0" aria-label="Arguments">${text}</pre><//>`;
}

// Run is the page of a run.
export function Run({ id }) {
  const path = `api/jobs/${encodeURIComponent(id)}`;
  const { data: r, error, again } = useApi(path, oftenWhile);
  const live = useParts('runs');
  const [chosen, choose] = useState(null);
  const [dialog, ask] = useSteps();
  const row = live.runs?.find(one => String(one.id) === id);
  useEffect(() => { if (r && row) again(); }, [row]);
  if (!r) return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} what="the run" />`;
  const attempts = [...(r.history ?? [])].sort((a, b) => b.attempt - a.attempt);
  const shown = attempts.find(a => a.attempt === chosen) ?? attempts[0];
  const step = name => html`<button type="button" onClick=${() => ask({ run: r, step: name, done: () => { choose(null); again(); } })}>${name === 'cancel' ? 'Cancel' : 'Retry'} …</button>`;
  return html`<${Stale} of=${live} />
    <${Problem} error=${error} again=${again} />
    <${Panel} title=${html`State <${State} is=${r.cancelling && !ended(r) ? 'cancelling' : r.state} />`}
        tools=${ask && html`${!ended(r) && !r.cancelling && step('cancel')}${ended(r) && r.state !== 'succeeded' && step('retry')}`}>
      <${Sentence} run=${r} />
      <${Facts} of=${rest(r)} />
    <//>
    ${r.file && html`<${Panel} title="File"><div class="long"><${Facts} of=${[
      ['Name', html`<span class="mono">${r.file.name}</span> <${Copy} text=${r.file.name} />`],
      ['Shard', html`<a href=${link('shards', r.file.shard)}>${r.file.shard}</a>`],
      ['Lines', count(r.file.lines)], ['Size', bytes(r.file.bytes)],
    ]} /></div><//>`}
    ${r.args !== undefined && r.args !== null && html`<${Args} path=${path} />`}
    <${Panel} title="Attempts">
      <${Table} name="Attempts" columns=${columns(shown?.attempt, choose)} rows=${attempts} id=${a => a.attempt} empty="No runner has taken it yet." />
    <//>
    ${shown && html`<${LogPanel} run=${r} attempt=${shown} />`}
    ${dialog}`;
}
