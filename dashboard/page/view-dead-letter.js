// One dead letter: why it is dead, what it holds, and how it is mended.
import { html, useState, useRef, useApi, useMay, api, link, bytes, plural, Copy, Facts, Field, Loading, Page, Panel, Problem, Time, unknown } from './lib.js';
import { body, pretty, prettyLines } from './json.js';
import { Faults } from './faults.js';
import { Bulk } from './view-dead-tasks.js';
import { submissionOf } from './search.js';

// Replayed says where a letter has gone.
function Replayed({ answer, foreign }) {
  const submission = foreign ? '' : submissionOf(answer.id);
  return html`<p class="sentence" role="status">Replayed: it waits to be written by shard ${(answer.shards ?? [answer.shard]).join(', ')}, under the same id.
    ${' '}${submission ? html`<a href=${link('submissions', submission)}>Its receipt</a>` : html`<a href=${link('messages', answer.id)}>Where it is</a>`}</p>`;
}

// Edit lets a person mend the body, or write another for one that is no text. An envelope
// has a message a line, and keeps its lines.
function Edit({ letter, replay, error, busy, close }) {
  const [text, setText] = useState(() => (letter.foreign ? pretty(letter.body ?? '') : letter.body ?? ''));
  const [changed, setChanged] = useState(false);
  const area = useRef(null);
  const read = body(text);
  const faults = !changed && error?.problem?.errors || read.faults;
  const submit = e => {
    e.preventDefault();
    setChanged(false);
    replay({ body: text });
  };
  return html`<form class="compose" onSubmit=${submit}>
    <${Field} label="Body" hint=${letter.foreign ? 'One entry. It keeps its id.' : 'A message a line. Each keeps its message_id.'}>
      <textarea class="mono" ref=${area} rows=${Math.min(24, text.split('\n').length + 2)} spellcheck="false" value=${text} aria-invalid=${faults.length > 0} aria-describedby="faults"
        onInput=${e => { setText(e.currentTarget.value); setChanged(true); }}></textarea><//>
    <${Faults} id="faults" faults=${faults} spans=${read.spans} area=${area} refused=${faults !== read.faults} />
    <div class="bar"><button class="main" disabled=${busy || read.spans.length === 0 || read.faults.length > 0}>Replay as edited</button><button type="button" onClick=${close}>Do not edit</button></div>
  </form>`;
}

function Body({ letter }) {
  if (letter.body_base64 !== undefined && letter.body_base64 !== null) {
    return html`<p class="faint">The body is not UTF-8. In base64:</p><pre tabindex="0" aria-label="Body">${letter.body_base64}</pre>`;
  }
  if (letter.body === undefined || letter.body === null) return html`<p class="faint">The body is not shown: LIVE_PAYLOAD of the process hides it.</p>`;
  return html`<pre tabindex="0" aria-label="Body">${prettyLines(letter.body)}</pre>`;
}

// Mend has the ways to deal with a letter, for those who may.
function Mend({ letter, asOf }) {
  const [editing, setEditing] = useState(false);
  const [purging, setPurging] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const [answer, setAnswer] = useState(null);
  const replay = async what => {
    setBusy(true);
    setError(null);
    try {
      setAnswer(await api(`api/v1/dead-letters/${encodeURIComponent(letter.key)}/replay`, { method: 'POST', body: what }));
    } catch (e) {
      setError(e);
    }
    setBusy(false);
  };
  if (answer) return html`<${Replayed} answer=${answer} foreign=${letter.foreign} />`;
  return html`${!error?.problem?.errors && html`<${Problem} error=${error} />`}
    ${editing ? html`<${Edit} letter=${letter} replay=${replay} error=${error} busy=${busy} close=${() => { setEditing(false); setError(null); }} />`
      : html`<${Body} letter=${letter} /><div class="bar">
        <button type="button" disabled=${busy} onClick=${() => replay({})}>Replay as it is</button>
        <button type="button" class="main" disabled=${!letter.editable} onClick=${() => setEditing(true)}>Edit and replay</button>
        <button type="button" onClick=${() => setPurging(true)}>Purge …</button>
        ${!letter.editable && html`<span class="faint">${letter.why || 'It cannot be edited.'}</span>`}</div>`}
    ${purging && html`<${Bulk} what="purge" given=${{ id: [letter.id] }} asOf=${asOf} close=${() => setPurging(false)} />`}`;
}

export function Letter({ id: key }) {
  const { data: letter, error, again } = useApi(`api/v1/dead-letters/${encodeURIComponent(key)}`);
  const may = useMay('admin');
  if (!letter) return html`<${Page} title="Dead letter">${error ? html`<${Problem} error=${error} again=${again} /><p><a href=${link('dead')}>All dead letters</a>, or <a href=${link('messages', key)}>look for a message with this id</a>.</p>` : html`<${Loading} what="the letter" />`}<//>`;
  const submission = letter.foreign ? '' : submissionOf(letter.id);
  return html`<${Page} title="Dead letter">
    <p class="sentence text-bad">${letter.reason}</p>
    <div class="long"><${Facts} of=${[
      ['Id', html`<span class="mono">${letter.id}</span> <${Copy} text=${letter.id} />`],
      ['Dead since', html`<${Time} at=${letter.time} />`],
      ['Shard', letter.shard === null ? unknown : html`<a href=${link('shards', letter.shard)}>${letter.shard}</a>`],
      ['Published to', letter.origin || unknown],
      ['Published by', letter.foreign ? 'another program' : 'this program'],
      ['Holds', `${plural(letter.count, 'message')}, ${bytes(letter.bytes)}`],
      submission && ['Submission', html`<a class="mono" href=${link('submissions', submission)}>${submission}</a>`],
      ['Others', html`<a href=${link('dead', { reason: letter.reason })}>of the same reason</a>`],
    ]} /></div>
    <${Panel} title="Body">${may ? html`<${Mend} letter=${letter} asOf=${letter.as_of} />` : html`<${Body} letter=${letter} />`}<//>
  <//>`;
}
