// The jobs as they are defined: a list, and the page of one.
import {
  html, useMemo, useParts, link, count, duration, unknown,
  Age, Empty, Facts, Page, Panel, State, Table, Wait,
} from './lib.js';
import { Engine, Stale, Two, useSteps, whatText } from './jobs.js';

const tools = html`<a href=${link('runs')}>Runs</a> <a href=${link('runners')}>Runners</a>`;

const sumOf = (job, states) => states.reduce((sum, state) => sum + (job.counts?.[state] ?? 0), 0);

// Counted is how many runs are in some states; the number leads to those of the last one.
function Counted({ job, of }) {
  const n = sumOf(job, of);
  return n ? html`<a href=${link('runs', { job: job.name, state: of.at(-1) })}>${count(n)}</a>` : count(0);
}

const counted = (title, hint, ...of) => ({
  key: title, title, hint, width: Math.max(5.5, 2 + title.length * 0.6), align: 'num', cell: job => html`<${Counted} job=${job} of=${of} />`, sort: job => sumOf(job, of),
});

function Last({ run }) {
  if (!run) return 'none yet';
  return html`<a class="run-id" href=${link('runs', run.id)}>${run.id}</a> <${State} is=${run.state} /> <span class="faint"><${Age} at=${run.ended_at ?? run.started_at ?? run.created_at} /></span>`;
}

const cancelled = counted('Cancelled', 'of those that are kept', 'cancelled');
const counters = [
  counted('Queued', 'they wait for a runner, or for their next attempt', 'queued'),
  counted('Running', 'a runner has them', 'leased', 'running'),
  counted('Succeeded', 'of those that are kept', 'succeeded'),
  counted('Timed out', 'of those that are kept', 'timed-out'),
  counted('Dead', 'they failed for good', 'dead'),
];

const columns = ask => [
  { key: 'name', title: 'Job', width: 13, cell: j => html`<a href=${link('jobs', j.name)}><${Two} text=${j.name} over=${18} /></a>` },
  { key: 'on', title: 'Begins', width: 6, cell: j => (j.on === 'file' ? 'for a file' : 'by hand'), hint: 'for each published file, or when a person or program asks' },
  ...counters,
  { key: 'last', title: 'Last run', width: 16.5, cell: j => html`<${Last} run=${j.last} />`, sort: j => j.last?.id },
  ...(ask ? [{ key: 'run', title: 'Action', width: 5.5, sort: false, cell: j => html`<button type="button" class="small" aria-label=${`Run … ${j.name}`} onClick=${() => ask({ job: j.name })}>Run …</button>` }] : []),
  { key: 'what', title: 'What it runs', cell: j => html`<${Two} text=${whatText(j)} />`, sort: whatText },
];

function Jobs() {
  const live = useParts('jobs');
  const [dialog, ask] = useSteps();
  const shown = useMemo(() => columns(ask), [ask]);
  return html`<${Stale} of=${live} />
    ${live.jobs ? html`<${Table} name="Jobs" columns=${shown} rows=${live.jobs} id=${j => j.name} order=${{ by: 'name' }} empty="The file of jobs defines none." />`
      : html`<${Wait} stream=${live.stream} what="the jobs" />`}
    ${dialog}`;
}

const seconds = s => (typeof s === 'number' ? duration(s) : unknown);

function Job({ name }) {
  const live = useParts('jobs');
  const [dialog, ask] = useSteps();
  if (!live.jobs) return html`<${Wait} stream=${live.stream} what="the job" />`;
  const j = live.jobs.find(one => one.name === name);
  if (!j) return html`<${Empty}>The file of jobs defines none of this name. <a href=${link('jobs')}>All jobs</a><//>`;
  return html`<${Stale} of=${live} />
    <${Panel} title="Definition" tools=${ask && html`<button type="button" onClick=${() => ask({ job: name })}>Run …</button>`}>
      <div class="long"><${Facts} of=${[
        ['Begins', j.on === 'file' ? 'for each published file' : 'when it is asked for'],
        ['Image', j.image || 'none: a process of the runner'],
        ['Command', html`<code>${whatText({ command: j.command }) || 'that of the image'}</code>`],
        ['Runners', j.labels?.length ? `with the labels ${j.labels.join(', ')}` : 'any'],
        ['At a time', `${count(j.concurrency)} of its runs`],
        ['Attempts', `${count(j.attempts)}${j.attempts > 1 ? `, the second after ${seconds(j.backoff_s)}` : ''}`],
        ['Timeout', `${seconds(j.timeout_s)}, then SIGTERM, and SIGKILL after ${seconds(j.grace_s)}`],
        ['Environment', j.env?.join(', ') || 'nothing more'],
        ['Secrets', j.secrets?.join(', ') || 'none'],
        ['Kept', `the last ${count(j.keep)} that ended`],
      ]} /></div>
    <//>
    <${Panel} title="Runs" tools=${html`<a href=${link('runs', { job: name })}>All runs</a>`}>
      <${Facts} of=${[
        ...[...counters, cancelled].map(c => [c.title, c.cell(j)]),
        ['Last run', html`<${Last} run=${j.last} />`],
      ]} />
    <//>
    ${dialog}`;
}

export default function View({ path: [name] }) {
  return html`<${Page} title=${name ? `Job ${name}` : 'Jobs'} tools=${tools}>
    <${Engine} show=${() => (name ? html`<${Job} key=${name} name=${name} />` : html`<${Jobs} />`)} />
  <//>`;
}
