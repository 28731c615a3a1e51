// The log of an attempt: its last lines, as text, which follow the end while it grows.
import { html, useState, useEffect, useLayoutEffect, useMemo, useRef, url, bytes, count, learnFrom, failureOf, Problem } from './lib.js';

// What is kept in the document: lines, and characters, because a line may be long.
const mostLines = 5000;
const mostText = 1 << 20;
// A block is one element. Only the last one changes.
const blockLines = 100;
const blockText = 16 << 10;
// How many bytes are asked for: at first from the end, and in an answer, which may have less.
// After one of many bytes the next one is asked for at once.
const firstBytes = 512 << 10;
const mostBytes = 128 << 10;
const manyBytes = 16 << 10;

// shownAs stands for what a terminal would obey, or what turns the direction of a text
// (Unicode Technical Report 36), so that a log cannot look like another one.
const shownAs = c => (c < '\x20' ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : c === '\x7f' ? '␡' : '�');
const visible = text => text.replaceAll('\r\n', '\n').replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, shownAs);

// endOf is where the last lines of a text begin.
function endOf(text) {
  let at = text.length;
  for (let n = mostLines; n > 0 && at > 0; n--) at = at < 2 ? 0 : text.lastIndexOf('\n', at - 2) + 1;
  return at;
}

// LogText keeps the end of a log, in blocks {n, text, mark}. Offsets are of bytes.
class LogText {
  blocks = [];
  first = null; // where what is kept from the node begins
  next = null; // the offset behind the last byte
  dropped = false; // of what was kept
  #n = 0;
  #lines = 0;
  #size = 0;
  #decoder = new TextDecoder();

  // take adds bytes that begin at an offset.
  take(from, data) {
    this.first ??= from;
    if (this.next !== null && from > this.next) {
      this.#text(this.#decoder.decode());
      this.#block(`${bytes(from - this.next)} were not kept here, because the log is too long`, true);
    }
    this.next = from + data.length;
    this.#text(this.#decoder.decode(data, { stream: true }));
    while (this.#lines > mostLines || this.#size > mostText) {
      const gone = this.blocks.shift();
      this.#lines -= gone.lines;
      this.#size -= gone.text.length;
      this.dropped = true;
    }
  }

  #text(text) {
    const begin = endOf(text);
    if (begin > 0) this.dropped = true;
    for (const line of visible(text.slice(begin)).split(/(?<=\n)/)) {
      for (let i = 0; i < line.length; i += blockText) this.#piece(line.slice(i, i + blockText));
    }
  }

  // piece adds what is at most a line. A block ends at the end of a line, if it can.
  #piece(text) {
    const open = this.blocks.at(-1), whole = text.endsWith('\n') ? 1 : 0;
    const fits = open && !open.mark && open.text.length + text.length <= blockText && (open.lines < blockLines || !open.text.endsWith('\n'));
    if (!fits) return this.#block(text, false);
    this.blocks[this.blocks.length - 1] = { ...open, text: open.text + text, lines: open.lines + whole };
    this.#lines += whole;
    this.#size += text.length;
  }

  #block(text, mark) {
    const lines = mark || text.endsWith('\n') ? 1 : 0;
    this.blocks.push({ n: this.#n++, text, mark, lines });
    this.#lines += lines;
    this.#size += text.length;
  }

  // ask gets what is new, and returns whether there is more at once. It asks for the last byte
  // again: a log that has not grown is answered with it, and not with an error.
  async ask(path, signal) {
    const from = this.next === null ? null : Math.max(0, this.next - 1);
    const range = from === null ? `bytes=-${firstBytes}` : `bytes=${from}-${from + mostBytes - 1}`;
    let answer, data;
    try {
      answer = await fetch(url(path), { headers: { Accept: 'text/plain', Range: range }, signal, cache: 'no-store', credentials: 'same-origin' });
      if (answer.status === 416) return false; // it is empty
      data = new Uint8Array(await answer.arrayBuffer());
    } catch (e) {
      if (e.name === 'AbortError') throw e;
      throw failureOf(path, 0, { title: 'No answer', detail: 'the node does not answer' });
    }
    if (!answer.ok) {
      learnFrom(answer.status);
      let problem = null;
      try { problem = JSON.parse(new TextDecoder().decode(data)); } catch { /* it is no problem of ours */ }
      throw failureOf(path, answer.status, problem);
    }
    const [, begin = 0, total] = /^bytes (\d+)-\d+\/(\d+)?/.exec(answer.headers.get('Content-Range') ?? '') ?? [];
    const known = Math.max(0, (this.next ?? 0) - begin);
    if (known >= data.length) return false;
    this.take(Number(begin) + known, data.subarray(known));
    return total === undefined ? data.length >= manyBytes : this.next < total;
  }
}

// useLog keeps a log, and asks for more every so many seconds; 0: only for what is there.
function useLog(path, every) {
  const log = useMemo(() => new LogText(), [path]);
  const [, draw] = useState(0);
  const [error, setError] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const ask = async () => {
      let more = false, failure = null;
      try {
        if (!document.hidden) more = await log.ask(path, abort.signal);
      } catch (e) {
        failure = e;
      }
      if (abort.signal.aborted) return;
      setError(failure);
      draw(n => n + 1);
      const after = more ? 0 : every || (failure || document.hidden ? 5 : null);
      if (after !== null) timer = setTimeout(ask, after * 1000);
    };
    ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, every]);
  return [log, error];
}

// Log shows the log at a path. It follows the end until the reader scrolls up.
export function Log({ path, every }) {
  const [log, error] = useLog(path, every);
  const [follows, follow] = useState(true);
  const box = useRef(null);
  useLayoutEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight;
  });
  const scroll = e => {
    const { scrollTop, scrollHeight, clientHeight } = e.currentTarget;
    follow(scrollHeight - scrollTop - clientHeight < 30);
  };
  return html`<${Problem} error=${error} />
    ${log.blocks.length === 0 ? !error && html`<p class="empty">It has written nothing${every ? ' yet' : ''}.</p>` : html`
      ${(log.first > 0 || log.dropped) && html`<p class="note">Only the end is shown: at most ${count(mostLines)} lines, and ${bytes(mostText)}. The whole log has the rest.</p>`}
      <div class="log mono" ref=${box} onScroll=${scroll} tabindex="0" role="region" aria-label="Log">
        ${log.blocks.map(b => html`<div key=${b.n} class=${b.mark ? 'mark' : undefined}>${b.text}</div>`)}
      </div>
      <div class="bar"><span class="faint">${!every ? 'It does not grow any more' : follows ? 'Follows the end' : 'Scrolled up'}</span>
        ${!follows && html`<button type="button" class="small" onClick=${() => follow(true)}>To the end</button>`}</div>`}`;
}
