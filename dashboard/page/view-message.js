// Where a message is.
import { html, useApi, link, Age, Copy, Facts, Loading, Page, Problem, Time, unknown } from './lib.js';
import { messageId } from './search.js';

// stages are the way of a message. The last is a file, or the dead letters.
const stages = ['accepted', 'queued', 'in_hand', 'written'];
const names = { accepted: 'Accepted', queued: 'Queued', in_hand: 'With a worker', written: 'In a file', dead: 'Dead letter' };

const shard = m => (m.shard === null ? 'a shard' : html`<a href=${link('shards', m.shard)}>shard ${m.shard}</a>`);

// sentence says where it is.
function sentence(m) {
  switch (m.state) {
    case 'queued': return html`It waits in the queue of ${shard(m)}.`;
    case 'in_hand': return m.worker
      ? html`<a href=${link('workers', { shard: m.shard })}>Worker ${m.worker}</a> of ${shard(m)} writes it${m.since && html`, for <${Age} at=${m.since} /> now`}.`
      : html`It waits for a batch of ${shard(m)} to be full${m.since && html`, for <${Age} at=${m.since} /> now`}.`;
    case 'written': return m.file ? html`It is in a file${m.line ? `, in line ${m.line}` : ''}.` : 'It is in a file.';
    case 'dead': return html`It is a dead letter: <span class="text-bad">${m.reason || 'no reason is told'}</span>`;
    case 'unknown': return 'It is not known where it is.';
    default: return 'It was not found.';
  }
}

// Way shows how far it is.
function Way({ state }) {
  const way = state === 'dead' ? ['accepted', 'queued', 'dead'] : stages;
  const at = way.indexOf(state);
  if (at < 0) return null;
  return html`<ol class="way" aria-label="Its way">${way.map((s, i) => html`<li key=${s} class=${i < at ? 'past' : i === at ? 'here' + (s === 'dead' ? ' bad' : '') : ''}
    aria-current=${i === at ? 'step' : undefined}>${names[s]}</li>`)}</ol>`;
}

function Where({ m }) {
  return html`<p class="sentence" role="status">${sentence(m)}</p>
    ${m.why && html`<p class="notice">${m.why[0].toUpperCase() + m.why.slice(1)}.</p>`}
    <${Way} state=${m.state} />
    <div class="long"><${Facts} of=${[
      ['Message', html`<span class="mono">${m.id}</span> <${Copy} text=${m.id} />`],
      m.file && ['File', html`<span class="mono">${m.file}</span> <${Copy} text=${m.file} />`],
      m.line && ['Line', m.line],
      m.shard !== null && ['Shard', html`<a href=${link('shards', m.shard)}>${m.shard}</a>`],
      m.owner && ['Owner', html`<a href=${link('nodes')}>${m.owner}</a>`],
      m.worker && ['Worker', html`<a href=${link('workers', { shard: m.shard })}>${m.worker}</a>`],
      m.since && ['Since', html`<${Time} at=${m.since} />`],
      m.state === 'dead' && ['Dead letter', html`<a href=${link('dead', { id: m.id })}>look at it, and mend it</a>`],
      m.submission && ['Submission', html`<a class="mono" href=${link('submissions', m.submission)}>${m.submission}</a>`],
      m.state !== 'dead' && m.state !== 'written' && ['Dead letters', html`<a href=${link('dead', { id: m.id })}>of this id</a>`],
    ]} /></div>`;
}

// untilItStays asks each second until the message is where it stays.
const untilItStays = (m, error) => (error || ['written', 'dead', 'not_known'].includes(m.state) ? 0 : 1);

const searches = 'The search finds the id of a message, the id of a submission, and the key of a dead letter.';

export default function Message({ path: [id = ''] }) {
  const possible = messageId.test(id);
  const { data, error, again } = useApi(possible ? `api/v1/messages/${encodeURIComponent(id)}` : null, untilItStays);
  if (!possible) return html`<${Page} title="Message"><p class="sentence" role="status">This is no id: an id has 1 to 255 visible ASCII characters, without space, quote and backslash.</p><p>${searches}</p><//>`;
  return html`<${Page} title="Message">
    <${Problem} error=${error} again=${error?.status === 400 ? null : again} />
    ${error && html`<p><a href=${link('dead', { id })}>Dead letters of this id</a></p>`}
    ${data ? html`<${Where} m=${data} />` : !error && html`<${Loading} what="where it is" />`}
    ${data?.state === 'not_known' && html`<p>${searches}</p>`}
  <//>`;
}
