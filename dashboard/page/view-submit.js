// Submitting entries by hand.
import { html, useState, useEffect, useRef, useApi, useMay, api, link, go, plural, Field, Page, Panel, Problem, Time } from './lib.js';
import { body } from './json.js';
import { Faults } from './faults.js';
import { intakeOf } from './reasons.js';

// moment in a text becomes the time of sending.
const moment = '"NOW"';
const sample = `[
  {"timestamp": "NOW", "value": "F<3"},
  {"timestamp": "NOW", "celsius": 21.50, "tags": ["any", "other", "member"]}
]`;

// written is what a person wrote here, so that coming back finds it.
let written = sample;

const mostTimes = 1000;
const kept = 20; // answers in the list
const worthAgain = new Set([0, 429, 503]); // statuses after which to go on sending

// Sent lists the answers to the last submissions, newest first.
function Sent({ list }) {
  return html`<${Panel} title="Sent"><ul class="sent">${list.map(s => html`<li key=${s.n}><${Time} at=${s.at} /> ${s.id
    ? html`<a class="mono" href=${link('submissions', s.id)}>${s.id}</a> ${plural(s.accepted, 'entry', 'entries')} accepted`
    : html`<span class="text-bad">${s.error}</span>`}</li>`)}</ul><//>`;
}

// Causes says why servers refuse, if their nodes tell.
function Causes() {
  const { data } = useApi(useMay('view') ? 'api/v1/nodes' : null);
  const causes = (data?.nodes ?? []).map(n => ({ node: n.node, ...intakeOf(n) })).filter(c => c.state === 'refuses' || c.state === 'paused');
  return html`${causes.slice(0, 5).map(c => html`<p key=${c.node} class="notice"><a href=${link('nodes', c.node)}>${c.node}</a>: ${c.why}</p>`)}`;
}

// kindOf says what the page takes a text for.
function kindOf(text, { type, spans }) {
  if (spans.length === 0) return 'No entries yet';
  const form = type !== 'application/json' ? 'an entry a line (NDJSON)' : text.trimStart()[0] === '[' ? 'a JSON array' : 'a JSON object';
  return `${plural(spans.length, 'entry', 'entries')}, ${form}`;
}

export default function Submit() {
  const [text, setText] = useState(written);
  const [key, setKey] = useState('');
  const [times, setTimes] = useState(1);
  const [every, setEvery] = useState(1);
  const [left, setLeft] = useState(0);
  const [error, setError] = useState(null);
  const [sent, setSent] = useState([]);
  const area = useRef(null);
  const may = useMay('submit');
  const run = useRef({ on: false, timer: 0, n: 0 }).current;
  const stop = () => {
    run.on = false;
    clearTimeout(run.timer);
    setLeft(0);
  };
  useEffect(() => stop, []);

  const read = body(text);
  const faults = error?.problem?.errors ?? read.faults;
  const change = value => {
    setText(written = value);
    setError(null);
  };
  // post sends once, and then what is left of the times.
  const post = async n => {
    setLeft(n);
    const row = { n: run.n++, at: Date.now() };
    try {
      const now = JSON.stringify(new Date().toISOString());
      const answer = await api('message', { method: 'POST', body: text.replaceAll(moment, now), type: read.type, headers: key ? { 'Idempotency-Key': key } : {} });
      Object.assign(row, answer);
      setError(null);
      if (times === 1 && run.on) return go(link('submissions', answer.id));
    } catch (e) {
      row.error = e.message;
      setError(e);
      if (!worthAgain.has(e.status)) n = 1;
    }
    if (times > 1) setSent(list => [row, ...list].slice(0, kept));
    if (!run.on || n === 1) return stop();
    setLeft(n - 1);
    run.timer = setTimeout(post, every * 1000, n - 1);
  };
  const submit = e => {
    e.preventDefault();
    run.on = true;
    post(times);
  };
  const number = set => e => set(e.currentTarget.valueAsNumber || 1);
  return html`<${Page} title="Submit">
    <form class="compose" onSubmit=${submit}>
      <${Field} label="Entries" hint=${html`${kindOf(text, read)}. An array, one object, or an entry a line. <code>${moment}</code> becomes the time of sending.`}>
        <textarea class="mono" ref=${area} rows="10" spellcheck="false" value=${text} onInput=${e => change(e.currentTarget.value)}
          aria-invalid=${faults.length > 0} aria-describedby="faults"></textarea>
      <//>
      <${Faults} id="faults" faults=${faults} spans=${read.spans} area=${area} refused=${faults !== read.faults} />
      <div class="bar">
        <${Field} label="Times"><input type="number" min="1" max=${mostTimes} required value=${times} onInput=${number(setTimes)} /><//>
        ${times > 1 && html`<${Field} label="Seconds between"><input type="number" min="0.1" max="3600" step="0.1" required value=${every} onInput=${number(setEvery)} /><//>`}
        <${Field} label="Idempotency key"><input value=${key} maxlength="255" autocomplete="off" placeholder="optional" onInput=${e => setKey(e.currentTarget.value)} /><//>
        ${left > 0 ? html`<button type="button" onClick=${stop}>Stop, ${left} to go</button>`
          : html`<button class="main" disabled=${!may || read.spans.length === 0 || read.faults.length > 0}>Send</button>`}
        ${text !== sample && html`<button type="button" onClick=${() => change(sample)}>Put the sample back</button>`}
      </div>
      ${!may && html`<p class="note">Submitting needs a token of AUTH_TOKENS or ADMIN_TOKENS: sign in with one.</p>`}
      ${key && times > 1 && !text.includes(moment) && html`<p class="note">The same entries with the same key are one submission, which is written once.</p>`}
    </form>
    ${!error?.problem?.errors && html`<${Problem} error=${error} />`}
    ${error?.status === 503 && html`<${Causes} />`}
    ${sent.length > 0 && html`<${Sent} list=${sent} />`}
  <//>`;
}
