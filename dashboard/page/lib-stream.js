// Streams of server-sent events. A tab has one at a time: that of the view it shows.
import { store, useState, useEffect, useRef, useStore } from './lib-base.js';
import { collate, heardAt, ms } from './lib-format.js';
import { url, learnFrom, failureOf } from './lib-api.js';

// streaming tells about the stream of this tab: state is none, opening, live, lost or
// ended; since is when it was heard last, if it is lost; failure is why it ended.
const none = { state: 'none', since: null, failure: null };
export const streaming = store(none);

let current = null;

// A hidden tab gives its stream back after this time, because a browser has few
// connections to a host. It opens it again when the tab is shown.
const hiddenAfter = 15_000;
const longestWait = 10_000;

// openStream opens a stream and closes the one that was open. hear(name, data, event) is
// told of each event; "end" as its result ends the stream.
function openStream(path, names, hear, { silence, resume, hides }) {
  current?.close();
  const abort = new AbortController();
  let source = null, retry = 0, hiding = 0, heard = Date.now(), wait = 1000, lastId = '', over = false;
  const tell = s => { if (current === me) streaming.set({ ...none, ...s }); };
  const lost = () => {
    if (streaming.get().state !== 'lost') tell({ state: 'lost', since: heard });
  };
  const end = failure => {
    over = true;
    source?.close();
    clearTimeout(retry);
    tell({ state: 'ended', failure });
  };
  const again = after => {
    source?.close();
    clearTimeout(retry);
    if (!over) retry = setTimeout(connect, after);
  };

  // A browser does not tell why a stream was refused, so this asks.
  async function refused() {
    source.close();
    const asked = new AbortController();
    const signal = AbortSignal.any([abort.signal, asked.signal, AbortSignal.timeout(5000)]);
    let answer = null, problem = null;
    try {
      answer = await fetch(address(), { headers: { Accept: 'text/event-stream' }, signal, cache: 'no-store' });
      if (!answer.ok) problem = await answer.json().catch(() => null);
      asked.abort();
    } catch { /* no answer: try again */ }
    if (over) return;
    if (answer?.status === 204) return end(null);
    if (answer) learnFrom(answer.status);
    if (answer && answer.status >= 400 && answer.status < 500 && answer.status !== 429) {
      return end(failureOf(path, answer.status, problem));
    }
    again(Math.max(wait, 1000 * (Number(answer?.headers.get('Retry-After')) || 0)));
    wait = Math.min(2 * wait, longestWait);
  }

  function address() {
    const u = new URL(url(path));
    if (resume && lastId) u.searchParams.set('last_event_id', lastId);
    return u.href;
  }

  function connect() {
    const s = new EventSource(address());
    source = s;
    s.onerror = () => {
      if (s !== source || over) return;
      lost();
      if (s.readyState === EventSource.CLOSED) refused();
    };
    for (const name of names) {
      s.addEventListener(name, e => {
        if (s !== source || over || e.data === undefined) return;
        let data;
        try { data = JSON.parse(e.data); } catch { return; }
        heard = Date.now();
        wait = 1000;
        if (e.lastEventId) lastId = e.lastEventId;
        if (streaming.get().state !== 'live') tell({ state: 'live' });
        if (hear(name, data, e) === 'end') end(null);
      });
    }
  }

  // A connection can break without an error: then nothing comes.
  const watch = silence && setInterval(() => {
    const quiet = Date.now() - heard;
    if (over || !source || quiet < silence * 1000) return;
    lost();
    if (quiet > 3 * silence * 1000 && source.readyState === EventSource.OPEN) again(0);
  }, 1000);
  const seen = () => {
    clearTimeout(hiding);
    if (over) return;
    if (document.hidden) {
      hiding = setTimeout(() => { source?.close(); clearTimeout(retry); source = null; }, hiddenAfter);
    } else if (!source) {
      heard = Date.now();
      connect();
    }
  };
  if (hides) document.addEventListener('visibilitychange', seen);

  const me = {
    close() {
      over = true;
      abort.abort();
      clearInterval(watch);
      clearTimeout(retry);
      clearTimeout(hiding);
      document.removeEventListener('visibilitychange', seen);
      source?.close();
      if (current !== me) return;
      current = null;
      streaming.set(none);
    },
  };
  current = me;
  tell({ state: 'opening' });
  connect();
  return me;
}

// useStream keeps a stream open while the view is shown. A path that is null closes it.
// events are the names to hear, silence is after how many seconds without an event it
// counts as lost (0: never), resume sends the last event's id after a failure, hides
// closes the stream of a tab that nobody sees. It returns streaming.
export function useStream(path, onEvent, { events = ['message'], silence = 0, resume = false, hides = false } = {}) {
  const hear = useRef(onEvent);
  hear.current = onEvent;
  const names = events.join();
  useEffect(() => {
    if (!path) return;
    const s = openStream(path, names.split(','), (...told) => hear.current(...told), { silence, resume, hides });
    return () => s.close();
  }, [path, names, silence, resume, hides]);
  return useStore(streaming);
}

// How the rows of each part are named and ordered.
const parts = {
  shards: { key: r => r.shard, order: (a, b) => a.shard - b.shard },
  nodes: { key: r => r.node, order: (a, b) => (a.node < b.node ? -1 : 1) },
  workers: {
    key: r => r.key ?? `${r.node}/${r.worker}`,
    order: (a, b) => a.shard - b.shard || collate(a.worker, b.worker) || (a.node < b.node ? -1 : 1),
  },
  commands: { key: r => r.id, order: (a, b) => ms(b.at) - ms(a.at) },
  jobs: { key: r => r.name, order: (a, b) => collate(a.name, b.name) },
  runs: { key: r => r.id, order: (a, b) => b.id - a.id },
  runners: { key: r => r.id, order: (a, b) => collate(a.id, b.id) },
};

// How long the series is, in milliseconds.
const seriesLength = 15 * 60_000;

// An event of this length may be one of several that tell the whole part.
const longEvent = 65536;

// takeRows applies an event to the rows of a part. A whole part comes in several events:
// rows of before stay until the last one, so that a table does not shrink meanwhile.
function takeRows(rows, stale, key, data, long) {
  if (data.whole) for (const k of rows.keys()) stale.add(k);
  for (const g of data.gone ?? []) rows.delete(g);
  for (const r of data.rows ?? []) {
    rows.set(key(r), r);
    stale.delete(key(r));
  }
  if (long) return;
  for (const k of stale) rows.delete(k);
  stale.clear();
}

// take applies an event to what is known.
function take(known, data, long) {
  const { part } = data;
  known.head = { asOf: data.as_of, node: data.node, complete: data.complete };
  heardAt(data.as_of);
  if (part === 'overview') {
    known.view.overview = data.value;
  } else if (part === 'series') {
    const last = data.whole ? [] : known.view.series ?? [];
    const seen = last.length ? ms(last.at(-1).at) : 0;
    const all = [...last, ...(data.points ?? []).filter(p => ms(p.at) > seen)];
    const from = all.length ? ms(all.at(-1).at) - seriesLength : 0;
    known.view.series = all.filter(p => ms(p.at) >= from);
  } else if (parts[part]) {
    if (!known.rows.has(part)) known.rows.set(part, { rows: new Map(), stale: new Set() });
    const { rows, stale } = known.rows.get(part);
    takeRows(rows, stale, parts[part].key, data, long);
    known.changed.add(part);
    known.view.more = { ...known.view.more, [part]: data.more === true };
  }
}

// useParts keeps what /api/v1/events tells: useParts('shards,overview') returns {shards:
// [rows in order], overview, more: {workers: true}, asOf, node, complete, stream}. A part
// is undefined until it is told; more tells that it has other rows, too. A row that has not changed is the same object as before. Several events
// render once a frame.
export function useParts(names) {
  const known = useRef(null);
  const [view, setView] = useState({});
  useEffect(() => {
    known.current = null;
    setView({});
  }, [names]);
  const stream = useStream(`api/v1/events?parts=${names}`, (name, data, e) => {
    known.current ??= { rows: new Map(), changed: new Set(), view: {}, head: {}, frame: 0 };
    const k = known.current;
    if (name === 'beat') return heardAt(data.as_of);
    if (name !== 'state') return;
    take(k, data, e.data.length >= longEvent);
    k.frame ||= requestAnimationFrame(() => {
      k.frame = 0;
      if (known.current !== k) return;
      for (const part of k.changed) k.view[part] = [...k.rows.get(part).rows.values()].sort(parts[part].order);
      k.changed.clear();
      setView({ ...k.view, ...k.head });
    });
  }, { events: ['state', 'beat', 'bye'], silence: 6, hides: true });
  return { ...view, stream };
}
