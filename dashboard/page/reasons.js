// Why something does not go on, as sentences for people: on the overview, in the list of
// shards, and on the page of a shard.
import { ms, clock, duration, plural, bytes, count, link } from './lib.js';

// oldest is when the oldest message was accepted that is in no file; null if there is
// none, or if that is not known.
export function oldest(shard) {
  const age = shard.part?.oldest_unwritten_age_s;
  return age ? ms(shard.as_of) - age * 1000 : null;
}

// pauseText says why something is paused, by whom, since when and until when. The reason
// comes first, because a table may cut the rest.
export function pauseText(pause) {
  if (!pause) return 'Paused.';
  const until = ms(pause.until);
  return `${pause.why ? `Paused: “${pause.why}”` : 'Paused without a reason'}${pause.by ? `, by ${pause.by}` : ''}, `
    + `since ${clock(pause.since)}, until ${until ? clock(until) : 'it is resumed'}.`;
}

export const diskFull = d => d && d.min_free > 0 && d.free < d.min_free;
const diskText = d => `The disk of ${d.folder} is full: ${bytes(d.free)} are free, ${bytes(d.min_free)} must stay free. Nothing new is written until there is more room.`;

// nodeTroubles says by the name of a node what holds it up: {a: "The broker is away: …"}.
export function nodeTroubles(nodes = []) {
  const troubles = {};
  for (const n of nodes) {
    const texts = [];
    if (diskFull(n.disk)) texts.push(diskText(n.disk));
    for (const c of n.checks ?? []) {
      if (c.ok || (texts.length && c.name === 'output')) continue;
      texts.push(checkText(c));
    }
    if (n.state === 'unknown') texts.push('The node does not answer.');
    if (texts.length) troubles[n.node] = texts.join(' ');
  }
  return troubles;
}

// A full disk of which nothing has to stay free is told by an error alone. The cause comes
// first, because a table may cut the rest.
function checkText(c) {
  const what = c.name === 'output' && c.why?.includes('no space left on device') ? 'The disk is full' : {
    broker: 'The broker cannot be used', output: 'The output does not take everything', server: 'The node stops',
  }[c.name] ?? `The check ${c.name} fails`;
  return `${what}${c.why ? `: ${c.why}` : ''}${/[.!?]$/.test(c.why ?? '') ? '' : '.'}`;
}

const consumes = n => n.info?.roles?.includes('message-consumer');

// consumerAnswers tells whether any message-consumer tells of itself.
export const consumerAnswers = (nodes = []) => nodes.some(n => consumes(n) && n.totals);

// intakeOf is the intake of a node: {state, why}, or null if the node is no server. A
// server whose intake is open refuses what it could not publish, or not keep.
export function intakeOf(n) {
  const roles = n.info?.roles ?? [];
  if (!n.intake) return n.state === 'unknown' && roles.includes('server') ? { state: 'unknown', why: '' } : null;
  if (n.intake !== 'open') return { state: n.intake, why: pauseText(n.intake_pause) };
  const keeps = consumes(n); // what it accepts is on its own disk
  if (keeps && diskFull(n.disk)) return { state: 'refuses', why: diskText(n.disk) };
  const c = (n.checks ?? []).find(c => !c.ok && (c.name !== 'output' || (keeps && !ofShards(c.why))));
  return c ? { state: 'refuses', why: checkText(c) } : { state: 'open', why: '' };
}

// ofShards tells that a check of the output tells of some shards, which refuse nothing.
const ofShards = why => /^\d+ (shard|worker)/.test(why ?? '') && !why.includes('no space left on device');

// shardWhy says why a shard does not advance; empty if nothing keeps it.
export function shardWhy(shard, troubles = {}) {
  const p = shard.part, owner = shard.owner;
  switch (shard.state) {
    case 'paused': return pauseText(p?.pause);
    case 'unowned': {
      const waiting = shard.waiting?.length ? ` ${plural(shard.waiting.length, 'node waits', 'nodes wait')} for its folder.` : '';
      const texts = [...new Set((shard.waiting ?? []).map(n => troubles[n]).filter(Boolean))];
      return `No message-consumer has its folder.${waiting} ${texts.join(' ')}`.trim();
    }
    case 'unknown': return `Its owner ${owner} does not answer.`;
    case 'opening': return p?.why || 'Its folder is being opened.';
    case 'retrying': return p?.why || 'Its folder could not be opened. The owner tries again.';
    case 'returning': return p?.why || 'What could not be written goes back to the broker.';
  }
  const held = p?.held > 0 ? `${plural(p.held, 'worker keeps', 'workers keep')} a batch that the output does not take.` : '';
  if (troubles[owner]) return `${troubles[owner]} ${held}`.trim();
  if (held) return `${held} ${p.why ?? ''}`.trim();
  if (p?.why) return p.why;
  if (p?.oldest_unwritten_age_s > 60) return `The oldest message has waited for ${duration(p.oldest_unwritten_age_s)}.`;
  return '';
}

// tell makes one line of several shards that have the same trouble.
function tell(findings, rank, tone, shards, text) {
  const groups = Map.groupBy(shards, text);
  for (const [why, rows] of groups) {
    const some = rows.slice(0, 8).map(r => r.shard).join(', ') + (rows.length > 8 ? ', …' : '');
    findings.push({
      rank, tone, where: rows.length === 1 ? `Shard ${rows[0].shard}` : `${count(rows.length)} shards (${some})`,
      link: rows.length === 1 ? link('shards', rows[0].shard) : link('shards', { state: rows[0].state }), text: why,
    });
  }
}

// deadText says what is dead: letters are the dead letters by reason, as they were when
// the processes had counted letters.counted of them; null if they are not known.
function deadText(counted, letters) {
  if (letters?.total > 0) {
    const n = letters.total, least = letters.cut || letters.complete === false ? 'At least ' : '';
    const reason = letters.groups?.[0]?.reason ?? '', short = reason.length > 120 ? `${reason.slice(0, 120)}…` : reason;
    return `${least}${plural(n, 'dead letter')} ${n === 1 ? 'waits' : 'wait'}, ${letters.groups?.length > 1 ? 'most ' : ''}because of “${short}”.`;
  }
  // Who has none left has counted those that were replayed or purged, too.
  const fresh = letters && !letters.cut && letters.complete !== false ? counted - letters.counted : counted;
  return fresh > 0 ? `${plural(fresh, 'message')} could not be written${letters ? '' : ' since the processes started'}.` : '';
}

// leftText says which message-consumers have left, if none is there any more.
function leftText(nodes) {
  const consumers = nodes.filter(consumes), last = n => ms(n.as_of) ?? 0;
  if (!consumers.length || consumers.some(n => n.state !== 'gone')) return '';
  const left = consumers.sort((a, b) => last(b) - last(a)).slice(0, 8).map(n => `${n.node} was heard last at ${clock(n.as_of)}`);
  return `None is there any more: ${left.join(', ')}${consumers.length > left.length ? ', …' : ''}. Nothing is written until one starts.`;
}

// findings lists what is wrong, most important first: {rank, tone, where, link, text,
// since}. It is empty if all is well. letters is as for deadText.
export function findings({ overview, shards = [], nodes = [], complete, letters = null }) {
  const found = [], troubles = nodeTroubles(nodes);
  // Nodes hear of each other through the broker.
  const cut = nodes.some(n => n.checks?.some(c => c.name === 'broker' && !c.ok));
  const silent = cut ? 'It is not heard while the broker is away. ' : 'It does not answer. ';
  for (const n of nodes) {
    const to = link('nodes', n.node);
    if (diskFull(n.disk)) found.push({ rank: 1, tone: 'bad', where: `Node ${n.node}`, link: to, text: diskText(n.disk) });
    for (const c of n.checks ?? []) {
      if (c.ok || (c.name === 'output' && diskFull(n.disk))) continue;
      found.push({ rank: c.name === 'broker' ? 0 : 2, tone: c.name === 'server' ? 'warn' : 'bad', where: `Node ${n.node}`, link: to, text: checkText(c), since: c.since });
    }
    if (n.state === 'unknown') found.push({ rank: 4, tone: 'bad', where: `Node ${n.node}`, link: to, text: `${silent}What it owns is not known.`, since: n.as_of });
    if (n.state === 'draining') found.push({ rank: 8, tone: 'warn', where: `Node ${n.node}`, link: to, text: 'It stops.' });
    if (n.intake === 'paused') {
      found.push({ rank: 6, tone: 'warn', where: `Intake of node ${n.node}`, link: to, text: pauseText(n.intake_pause) });
    }
  }
  const left = leftText(nodes);
  if (left) found.push({ rank: 3, tone: 'bad', where: 'Message-consumers', link: link('nodes'), text: left });
  const of = state => shards.filter(s => s.state === state);
  const why = s => shardWhy(s, troubles);
  tell(found, 3, 'bad', of('unowned'), why);
  tell(found, 3, 'bad', of('retrying'), why);
  tell(found, 3, 'bad', of('returning'), why);
  tell(found, 5, 'bad', of('unknown'), why);
  tell(found, 6, 'warn', of('paused'), s => pauseText(s.part?.pause));
  tell(found, 8, 'warn', of('opening'), why);
  const slow = shards.filter(s => s.state === 'running' && s.part && (s.part.held > 0 || s.part.oldest_unwritten_age_s > 60));
  tell(found, 4, 'bad', slow.filter(s => s.part.held > 0), s => troubles[s.owner] || 'Workers keep batches that the output does not take.');
  const late = slow.filter(s => s.part.held === 0);
  if (late.length) {
    const most = late.reduce((a, b) => (a.part.oldest_unwritten_age_s > b.part.oldest_unwritten_age_s ? a : b));
    found.push({
      rank: 7, tone: 'warn', where: late.length === 1 ? `Shard ${most.shard}` : `${count(late.length)} shards`, link: link('shards', most.shard),
      text: `The oldest message of shard ${most.shard} is in no file since ${clock(oldest(most))}.`,
    });
  }
  if (complete === false && !found.some(f => f.rank === 4 || f.rank === 0)) {
    found.push({ rank: 5, tone: 'warn', where: 'Nodes', link: link('nodes'), text: 'Not all nodes have answered, so the sums are too low.' });
  }
  if (overview?.queued === null && !found.some(f => f.rank === 0)) {
    found.push({ rank: 5, tone: 'warn', where: 'Broker', link: link('nodes'), text: 'It does not tell how many envelopes are queued.' });
  }
  const dead = deadText(overview?.dead, letters);
  if (dead) found.push({ rank: 9, tone: 'warn', where: 'Dead letters', link: link('dead'), text: dead });
  return found.sort((a, b) => a.rank - b.rank);
}
