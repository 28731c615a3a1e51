// What the search of the header finds.
import { link } from './lib.js';

// An id of a submission, of one of its messages, and the key of a dead letter.
const submission = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;
const message = /^([0-7][0-9A-HJKMNP-TV-Z]{25})\.\d+$/;
const letter = /^[0-9a-f]{32}$/;

// messageId is what any id of a message is like.
export const messageId = /^[!#-[\]-~]{1,255}$/;

// submissionOf is the submission of a message's or an envelope's id; '' if it has none.
export const submissionOf = id => id.match(message)?.[1] ?? (submission.test(id) ? id : '');

// find returns the address of the view for an id. An id that another program has given may
// look like one of ours: where there is nothing, the view leads on to the message.
export function find(text) {
  const id = text.toUpperCase();
  if (submission.test(id)) return link('submissions', id);
  if (message.test(id)) return link('messages', id);
  return letter.test(text) ? link('dead', text) : link('messages', text);
}
