// Requests to the node that served the page. All addresses are relative, so the page
// works below any path.
import { store, useState, useEffect, useStore } from './lib-base.js';
import { heardAt } from './lib-format.js';

// url is an address of the API, below the path of the page.
export const url = path => new URL(String(path).replace(/^\/+/, ''), document.baseURI).href;

// Failure is an answer that is no success: {status, problem}. status is 0 without an answer.
export class Failure extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

// fixed are addresses that every node has, so that a 404 says that it does not show them here.
const fixed = /^(live|api\/v1\/(overview|nodes|shards|workers|commands|settings|series|events|jobs|runs|runners|dead-letters(\/groups|\/tasks)?))(\?|$)/;

// failureOf is the Failure of an answer that is no success.
export function failureOf(path, status, problem) {
  if (status === 404 && fixed.test(path)) {
    problem = {
      title: 'This node does not show it',
      detail: (path.startsWith('live') ? 'LIVE=off turns it off, or ' : '') +
        'it shows the system to tokens of VIEW_TOKENS only, and there are none. Set VIEW_TOKENS, then sign in with one of them.',
    };
  }
  return new Failure(status, problem && typeof problem === 'object' ? problem : { title: `status ${status}` });
}

// api asks, and returns the JSON of the answer; null of an empty one. options are method,
// body (an object is sent as JSON, a string as it is), type, headers, signal. With
// whole, it returns {status, body, headers, text}.
export async function api(path, { method = 'GET', body, type, headers = {}, signal, whole = false } = {}) {
  if (body !== undefined && typeof body !== 'string') body = JSON.stringify(body);
  const sent = { Accept: 'application/json', ...headers };
  if (body !== undefined) sent['Content-Type'] = type || 'application/json';
  let answer, text;
  try {
    answer = await fetch(url(path), { method, body, headers: sent, signal, cache: 'no-store', credentials: 'same-origin' });
    text = await answer.text();
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new Failure(0, { title: 'No answer', detail: 'the node does not answer' });
  }
  let json = null;
  try { json = text ? JSON.parse(text) : null; } catch { json = { title: text.slice(0, 500) }; }
  if (!answer.ok) {
    if (path !== 'session') learnFrom(answer.status);
    throw failureOf(path, answer.status, json);
  }
  if (json?.as_of) heardAt(json.as_of);
  return whole ? { status: answer.status, body: json, headers: answer.headers, text } : json;
}

// session is what this browser may: {may: Set of submit, view, admin; name; tokens}.
// Without tokens in the settings, all may be tried, and the node decides.
const all = new Set(['submit', 'view', 'admin']);
export const session = store({ may: all, name: '', tokens: false });
// needed tells that an answer was 401: the page asks for a token.
export const needed = store(false);
// entered counts the times that somebody signed in or out, so that views begin anew.
export const entered = store(0);

// A node without tokens has no sessions, so a page that opens asks for its session only
// where this browser has met tokens. Where it may keep nothing, an answer tells anew.
const met = `tokens of ${document.baseURI}`;
function remember(tokens) {
  try {
    if (tokens) localStorage.setItem(met, 'true');
    else localStorage.removeItem(met);
  } catch { /* the browser keeps nothing */ }
}
export function metTokens() {
  try { return localStorage.getItem(met) !== null; } catch { return false; }
}

function learnt(s) {
  session.set(s);
  remember(s.tokens);
}
const take = s => learnt({ may: new Set(s.may ?? []), name: s.name ?? '', tokens: true });

// learnSession asks what the cookie of this browser is good for.
export async function learnSession() {
  try {
    take(await api('session'));
  } catch (e) {
    if (e.status === 401) learnt({ may: new Set(), name: '', tokens: true });
    else if (e.status === 404) learnt({ may: all, name: '', tokens: false });
  }
}

// learnFrom learns from the status of an answer that there are tokens.
export function learnFrom(status) {
  if (status === 401) needed.set(true);
  if ((status === 401 || status === 403) && !session.get().tokens) learnSession();
}

export async function signIn(token) {
  take(await api('session', { method: 'POST', body: { token } }));
  needed.set(false);
  entered.set(entered.get() + 1);
}

export async function signOut() {
  await api('session', { method: 'DELETE' });
  await learnSession();
  entered.set(entered.get() + 1);
}

// engine is whether an engine of jobs has answered; the navigation asks until one has.
export const engine = store(false);
export async function learnEngine() {
  try {
    const answer = await fetch(url('api/v1/jobs?limit=1'), { cache: 'no-store', credentials: 'same-origin' });
    answer.body?.cancel();
    if (answer.ok) engine.set(true);
  } catch { /* no answer: it is asked again */ }
}

// newId is an id that makes a request safe to send again.
export const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, '0')).join('');

// useMay tells whether this browser may "submit", "view" or "admin".
export const useMay = role => useStore(session).may.has(role);

// useApi asks when the path changes, and every so many seconds if every is not 0. every may
// be a function that says so for each answer, (data, error) => seconds; it is the same at
// each call. path null asks nothing. It returns {data, error, loading, again}. An error keeps the data.
export function useApi(path, every = 0) {
  const [state, set] = useState({ data: null, error: null, loading: true });
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (path === null || path === undefined) return set({ data: null, error: null, loading: false });
    const abort = new AbortController();
    let timer = 0;
    set(s => (s.path === path ? s : { path, data: null, error: null, loading: true }));
    const ask = async () => {
      let data = null, error = null;
      try {
        data = await api(path, { signal: abort.signal });
        set({ path, data, error, loading: false });
      } catch (e) {
        if (abort.signal.aborted) return;
        error = e;
        set(s => ({ path, data: s.path === path ? s.data : null, error, loading: false }));
      }
      const after = typeof every === 'function' ? every(data, error) : every;
      if (after && !abort.signal.aborted) timer = setTimeout(ask, after * 1000);
    };
    ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, every, round]);
  return { ...state, again: () => setRound(round + 1) };
}

// usePages reads a list page by page: {rows, error, loading, more, again}. member is the
// name of the list in the answer. more asks for the next page; it is null at the end.
// every asks anew after so many seconds, as long as there is one page. after is the name of
// the parameter that has the answer's next.
export function usePages(path, member, every = 0, after = 'after') {
  const [state, set] = useState({ rows: [], next: null, error: null, loading: true });
  const ask = async (rows, next, signal) => {
    set(s => ({ ...s, loading: true }));
    try {
      const sep = path.includes('?') ? '&' : '?';
      const page = await api(next === null ? path : `${path}${sep}${after}=${encodeURIComponent(next)}`, { signal });
      set({ rows: [...rows, ...(page[member] ?? [])], next: page.next ?? null, error: null, loading: false, head: page });
    } catch (error) {
      if (!signal?.aborted) set(s => ({ ...s, error, loading: false }));
    }
  };
  useEffect(() => {
    const abort = new AbortController();
    set({ rows: [], next: null, error: null, loading: true });
    ask([], null, abort.signal);
    return () => abort.abort();
  }, [path, member]);
  const one = state.rows.length <= (state.head?.[member]?.length ?? 0);
  useEffect(() => {
    if (!every || !one) return;
    const abort = new AbortController();
    const timer = setInterval(() => document.hidden || ask([], null, abort.signal), every * 1000);
    return () => {
      clearInterval(timer);
      abort.abort();
    };
  }, [path, member, every, one]);
  const more = state.next === null || state.loading ? null : () => ask(state.rows, state.next);
  return { ...state, more, again: () => ask([], null) };
}
