// What all views of jobs use: whether there is an engine, what a run's state means, and the
// dialogs that begin, cancel and retry one.
import { fault as faultOf } from './json.js';
import {
  html, useState, useEffect, useApi, useMay, api, engine, newId, link, go, clock, duration, ms, now,
  Age, Confirm, Field, Left, Loading, Problem, Time,
} from './lib.js';

const noEngine = error => String(error?.problem?.type ?? '').endsWith('no-engine');

// Until there are jobs, the page asks again.
const untilThere = data => (data ? 0 : 5);

// Engine shows what show(jobs) returns, if an engine of jobs answers. Else it says how to
// start one. jobs are the definitions as they were when the view opened.
export function Engine({ show }) {
  const { data, error, again } = useApi('api/v1/jobs?limit=1000', untilThere);
  useEffect(() => { if (data) engine.set(true); }, [data]);
  if (data) return show(data.jobs ?? []);
  if (noEngine(error)) {
    return html`<p class="notice" role="status">No process of this system runs jobs. Start one with <code>async-data-processor server --jobs jobs.yaml</code>,
      or <code>standalone --jobs jobs.yaml</code>, and a runner with <code>async-data-processor runner</code>.</p>`;
  }
  return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} what="the jobs" />`;
}

// Stale says that an engine does not answer any more.
export function Stale({ of }) {
  return of.complete === false && html`<p class="notice" role="status">Not every engine of jobs answers. What is shown may be old.</p>`;
}

// states are all states of a run, and ended those where nothing more happens by itself.
export const states = ['queued', 'leased', 'running', 'succeeded', 'cancelled', 'timed-out', 'dead'];
export const ended = r => ['succeeded', 'cancelled', 'timed-out', 'dead'].includes(r.state);

// whatText is what a job runs, as a person would type it.
export const whatText = job => [job.image, ...(job.command ?? [])].filter(Boolean).map(a => (/^[\w@%+=:,./-]+$/.test(a) ? a : JSON.stringify(a))).join(' ');

// Took is how long something ran, or runs.
export function Took({ from, to }) {
  if (ms(from) === null) return '';
  return ms(to) === null ? html`<${Age} at=${from} />` : duration((ms(to) - ms(from)) / 1000);
}

// Two shows a text in a row. One that is longer than so many letters takes two small lines,
// which for one without words may break anywhere.
export function Two({ text = '', over = 0, wordless }) {
  return html`<span class=${text.length > over ? `two${wordless ? ' wordless' : ''}` : ''} title=${text}>${text}</span>`;
}

// When is a time in a row. That of another day takes two lines.
export function When({ at }) {
  return html`<span class=${clock(at).length > 8 ? 'two' : ''}><${Time} at=${at} /></span>`;
}

// reason is why a run is where it is, without the time when it is due: the page says that
// itself, by the clock of the reader.
function reason(r) {
  const due = ms(r.due_at), text = r.why ?? '';
  const told = due === null ? '' : `it is due at ${new Date(due).toISOString().slice(0, 19)}Z`;
  return told && text.startsWith(told) ? text.slice(told.length).replace(/^; /, '') : text;
}

const waits = r => r.state === 'queued' && ms(r.due_at) > now();

// whyText is the reason, with the time when the run is due.
export const whyText = r => [waits(r) && `due at ${clock(r.due_at)}`, reason(r)].filter(Boolean).join('; ');

function sentence(r) {
  const runner = html`<a href=${link('runners')}>${r.runner || 'a runner'}</a>`;
  if (r.cancelling && !ended(r)) return html`Its end was asked for. ${runner} ends it, at the latest after the job's grace.`;
  switch (r.state) {
    case 'queued': return waits(r) ? html`It is tried again in <${Left} until=${r.due_at} />.` : r.why ? 'It waits.' : 'It waits for a runner.';
    case 'leased': return html`${runner} has taken it, and is about to start it.`;
    case 'running': return html`${runner} has been running it for <${Age} at=${r.started_at} />.`;
    case 'succeeded': return ms(r.started_at) === null ? 'It succeeded.' : html`It succeeded, after <${Took} from=${r.started_at} to=${r.ended_at} />.`;
    case 'cancelled': return r.why?.startsWith('cancelled') ? 'It was' : 'It was cancelled.';
    case 'timed-out': return r.why ? 'It was ended.' : 'It ran longer than the job allows, and was ended.';
    case 'dead': return 'It failed for good.';
  }
  return 'Its state is not known to this page.';
}

// Sentence says where a run is, and why.
export function Sentence({ run: r }) {
  const why = reason(r), begun = r.state === 'cancelled' && why.startsWith('cancelled'); // the text goes on with it
  return html`<p class="sentence">${sentence(r)}${why && html` <span>${begun ? why : why[0].toUpperCase() + why.slice(1)}${/[.!?]$/.test(why) ? '' : '.'}</span>`}${
    r.state === 'dead' && ' A retry begins with fresh attempts.'}</p>`;
}

// RunDialog begins a run. Its key makes it safe to send it again when the node did not answer.
function RunDialog({ job, close }) {
  const [args, setArgs] = useState('');
  const [key] = useState(newId);
  const fault = args.trim() && faultOf(args);
  const act = async () => {
    const run = await api(`api/jobs/${encodeURIComponent(job)}`, { method: 'POST', body: args.trim() || undefined, headers: { 'Idempotency-Key': key } });
    go(link('runs', run.id));
  };
  return html`<${Confirm} title=${`Run ${job}`} action="Run" disabled=${Boolean(fault)} act=${act} close=${close}>
    <${Field} label="Arguments" hint=${fault || 'JSON, which the job finds in ADP_ARGS. Empty for none.'}>
      <textarea rows="4" maxlength="61440" spellcheck="false" aria-invalid=${Boolean(fault)} value=${args} onInput=${e => setArgs(e.currentTarget.value)}></textarea><//>
  <//>`;
}

// StepDialog cancels or retries a run.
function StepDialog({ run, step, done, close }) {
  const [reason, setReason] = useState('');
  const cancel = step === 'cancel';
  const act = async () => {
    await api(`api/jobs/${run.id}/${step}`, { method: 'POST', body: reason.trim() ? { reason: reason.trim() } : undefined });
    done();
  };
  return html`<${Confirm} title=${`${cancel ? 'Cancel' : 'Retry'} run ${run.id} of ${run.job}`} action=${cancel ? 'Cancel the run' : 'Retry the run'} no="Back" danger=${cancel} act=${act} close=${close}>
    <p>${!cancel ? 'It is queued again, with fresh attempts. What its job did before is not undone.'
      : run.state === 'queued' ? 'No runner has it. It is not started any more.' : 'Its process gets SIGTERM, and after the job\'s grace SIGKILL. What it did is not undone.'}</p>
    <${Field} label="Why, for the log"><input maxlength="500" value=${reason} onInput=${e => setReason(e.currentTarget.value)} /><//>
  <//>`;
}

// useSteps returns [dialog, ask]: ask({job}) begins a run, ask({run, step, done}) cancels or
// retries one. ask is null for those who may not.
export function useSteps() {
  const [asked, set] = useState(null);
  const close = () => set(null);
  const dialog = asked && (asked.run ? html`<${StepDialog} ...${asked} close=${close} />` : html`<${RunDialog} ...${asked} close=${close} />`);
  return [dialog, useMay('admin') ? set : null];
}
