// Commands: the dialog that sends one, and what became of those that this tab has sent.
import { html, store, useState, useStore, api, newId, useMay, link, plural, Confirm, Field, State } from './lib.js';

// sent are the commands of this tab, newest first: {id, verb, target, state, view,
// error}. state is sending, waiting, done or failed.
const sent = store([]);
const mostSent = 20;
const put = entry => sent.set([entry, ...sent.get().filter(e => e.id !== entry.id)].slice(0, mostSent));
const change = (id, news) => sent.set(sent.get().map(e => (e.id === id ? { ...e, ...news } : e)));

const sleep = s => new Promise(done => setTimeout(done, s * 1000));

const known = view => ({ view, state: view.state, error: null });

// follow asks what became of a command that is not confirmed yet. A process tells a
// command for a minute.
async function follow(id) {
  for (let i = 0; i < 70; i++) {
    await sleep(1);
    try {
      const view = await api(`api/v1/commands/${id}`);
      change(id, known(view));
      if (view.state !== 'waiting') return;
    } catch (error) {
      if (error.status === 404) return change(id, { state: 'failed', error });
    }
  }
  change(id, { late: true });
}

async function sendOne(command) {
  const { id, verb, target } = command;
  put({ id, verb, target, state: 'sending' });
  for (let tries = 0; ; tries++) {
    try {
      const view = await api('api/v1/commands', { method: 'POST', body: command });
      change(id, known(view));
      if (view.state === 'waiting') follow(id);
      return;
    } catch (error) {
      if (error.status === 429 && tries < 10) {
        await sleep(1);
      } else if (error.problem?.state) { // the answer of a command that failed
        return change(id, known(error.problem));
      } else if (error.status === 0) {
        change(id, { state: 'waiting', error });
        return follow(id);
      } else {
        return change(id, { state: 'failed', error });
      }
    }
  }
}

// send sends a command to each target, one after another: a node takes ten a second.
async function send(verb, targets, more) {
  for (const target of targets) {
    await sendOne({ id: newId(), verb, target, ...more });
    if (targets.length > 1) await sleep(0.1);
  }
}

const targetText = t => (t === 'intake' ? 'the intake' : t === 'shard:*' ? 'all shards' : String(t).replace(':', ' '));
const verbs = { pause: 'Pause', resume: 'Resume', resize: 'Resize', flush: 'Flush' };
export const commandText = c => `${verbs[c.verb] ?? c.verb} ${targetText(c.target)}`;

const explain = {
  pause: 'What is received is written first. Then nothing more is written, and entries wait at the broker.',
  resume: 'The messages that wait are received and written again.',
  resize: 'How many workers the shard has at rest, and at most while batches wait.',
  flush: 'Incomplete batches and open files become visible now.',
  intake: 'Every server answers submissions with 503. What was accepted is still written.',
};

function untilTime(choice) {
  return choice ? new Date(Date.now() + 1000 * choice).toISOString() : undefined;
}

// CommandDialog asks for what a command needs, and sends it. targets are as the API
// names them.
function CommandDialog({ verb, targets, limits, close }) {
  const [reason, setReason] = useState('');
  const [until, setUntil] = useState('');
  const [settings, setSettings] = useState(false);
  const [min, setMin] = useState(limits?.min ?? 3);
  const [max, setMax] = useState(limits?.max ?? 4);
  const intake = targets[0] === 'intake';
  const what = targets.length > 1 ? plural(targets.length, 'shard') : targetText(targets[0]);
  const wrong = verb === 'resize' && !settings && !(min >= 1 && min <= max && max <= 32);
  const act = async () => {
    const more = { reason: reason.trim() || undefined };
    if (verb === 'pause' && until) more.until = untilTime(Number(until));
    if (verb === 'resize' && !settings) more.args = { min, max };
    send(verb, targets, more);
  };
  return html`<${Confirm} title=${`${verbs[verb]} ${what}`} action=${verbs[verb]} danger=${verb === 'pause' && (intake || targets[0] === 'shard:*')} disabled=${wrong} act=${act} close=${close}>
    <p>${explain[intake && verb === 'pause' ? 'intake' : verb]}</p>
    ${targets.length > 1 && html`<p class="faint">${targets.map(targetText).join(', ')}</p>`}
    ${verb === 'resize' && html`
      <label><input type="checkbox" checked=${settings} onChange=${e => setSettings(e.target.checked)} /> As the settings say</label>
      <div class="pair">
        <${Field} label="At rest"><input type="number" min="1" max="32" value=${min} disabled=${settings} onInput=${e => setMin(e.target.valueAsNumber)} /><//>
        <${Field} label="At most"><input type="number" min="1" max="32" value=${max} disabled=${settings} onInput=${e => setMax(e.target.valueAsNumber)} /><//>
      </div>
      ${wrong && html`<p class="text-bad" role="alert">At rest is 1 or more, and at most 32 is not less than that.</p>`}`}
    ${verb === 'pause' && html`<${Field} label="Until"><select value=${until} onChange=${e => setUntil(e.target.value)}>
      <option value="">it is resumed</option><option value="900">in 15 minutes</option><option value="3600">in 1 hour</option>
      <option value="14400">in 4 hours</option><option value="86400">in 1 day</option></select><//>`}
    ${verb !== 'flush' && html`<${Field} label="Reason" hint=${verb === 'pause' ? 'It is shown where the pause is, and kept in the log.' : 'It is kept in the log.'}><input value=${reason} maxlength="160" onInput=${e => setReason(e.target.value)} /><//>`}
  <//>`;
}

// Outcome shows the outcomes of a command: of shards, or of servers.
export function outcomes(view) {
  const of = [
    ...Object.entries(view.shards ?? {}).map(([n, o]) => ({ where: `Shard ${n}`, n: Number(n), ...o })),
    ...Object.entries(view.servers ?? {}).map(([n, o]) => ({ where: `Node ${n}`, n, ...o, node: n })),
  ];
  return of.sort((a, b) => (a.n < b.n ? -1 : 1));
}

function outcomeText({ state, view, error, late }) {
  if (state === 'sending') return 'Sent. The owner has not answered yet.';
  if (error) return state === 'waiting' ? 'The node did not answer. The command may have been applied.' : `Not done: ${error.message}`;
  const of = outcomes(view);
  if (state === 'waiting') {
    return `Not confirmed yet: ${plural(view.waiting, 'answer is', 'answers are')} missing.`
      + (late ? ' The command is not told any more: look at the state, and send it again.' : ' It may still be applied.');
  }
  const bad = of.filter(o => o.error);
  if (state === 'failed') {
    const first = bad[0] ? `${bad[0].where}: ${bad[0].error}` : view.error || 'the owner refused it';
    return `Not done: ${first}${bad.length > 1 ? ` (and ${bad.length - 1} more)` : ''}`;
  }
  if (of.length === 1) return `Done: ${of[0].after}${of[0].before ? ` (was: ${of[0].before})` : ''}${of[0].repeated ? '. It was applied before' : ''}.`;
  return `Done: ${plural(of.length, of[0]?.where.startsWith('Node') ? 'server' : 'shard')}.`;
}

const tone = { sending: 'idle', waiting: 'warn', done: 'ok', failed: 'bad' };

// Sent shows what became of the commands of this tab.
export function Sent() {
  const all = useStore(sent);
  return html`<div role="status">${all.length > 0 && html`<section class="panel" aria-label="Commands of this tab">
    <div class="head"><h2>Commands of this tab</h2><button type="button" class="small" onClick=${() => sent.set([])}>Hide</button></div>
    <ul class="sent">${all.map(c => html`<li key=${c.id}>
      <a href=${link('commands', c.id)}>${commandText(c)}</a> <${State} is=${c.state} tone=${tone[c.state]} /> <span>${outcomeText(c)}</span>
    </li>`)}</ul>
  </section>`}</div>`;
}

// useCommand returns [dialog, ask, may]: ask(verb, targets, limits) opens the dialog.
export function useCommand() {
  const [asked, set] = useState(null);
  const may = useMay('admin');
  const dialog = asked && html`<${CommandDialog} ...${asked} close=${() => set(null)} />`;
  return [dialog, (verb, targets, limits) => set({ verb, targets, limits }), may];
}
