// The rows of the live tail, and what its frames mean for a reader.
import { html, count, plural } from './lib.js';
import { entryOf } from './json.js';

// most is how many rows are kept.
const most = 1000;

// Rows keeps the newest rows: messages, and notes of what is not shown.
export class Rows {
  constructor() {
    this.list = [];
    this.total = 0;
  }

  // message adds the message of a frame; frame is its text.
  message(message, frame) {
    this.add({ message, text: message.truncated ? message.entry : entryOf(frame) });
  }

  note(note) {
    if (note) this.add({ note });
  }

  add(row) {
    row.n = ++this.total;
    this.list.push(row);
    if (this.list.length >= 2 * most) this.list = this.list.slice(-most);
  }

  // newest returns the rows that are kept.
  newest() {
    return this.list.slice(-most);
  }
}

const causes = {
  slow: 'this page took them too slowly',
  ring: 'the connection was away for too long',
  node: 'the process that has them could not send all',
};

// noteOf is what to tell of a frame that is no message; empty for nothing.
export function noteOf(name, frame) {
  switch (name) {
    case 'gap':
      return `${frame.at_least ? 'At least ' : ''}${plural(frame.missed, 'message')} not shown: ${causes[frame.why] ?? frame.why}.`;
    case 'reset':
      return 'The tail begins anew: messages since the connection was lost may be missing.';
    case 'bye':
      if (frame.why === 'drain') return 'The process stops. The page connects again.';
      if (frame.why === 'share') return `Another client needs the place. The page comes again in ${Math.round(frame.retry_ms / 1000)} s.`;
      return `The stream has ended: ${frame.why}.`;
  }
  return '';
}

// Totals says what the tail has counted since it began.
export function Totals({ of: { seen, matched, sent, missed, sampled } }) {
  return html`<span class="totals">${count(seen)} seen, ${count(matched)} match, ${count(sent)} sent${
    sampled > 0 && html`, <b title="Choose a higher rate to see them">${count(sampled)} left out by the rate</b>`}${
    missed > 0 && html`, <b class="text-bad">${count(missed)} not shown</b>`}</span>`;
}
