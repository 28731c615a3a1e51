// Preact with htm, so that a view needs no build step; and small stores that many
// components listen to.
import { h, render, Component } from './vendor/preact.js';
import { useState, useEffect, useLayoutEffect, useMemo, useRef } from './vendor/hooks.js';
import htm from './vendor/htm.js';

export const html = htm.bind(h);
export { render, Component, useState, useEffect, useLayoutEffect, useMemo, useRef };

// store holds a value; set tells the listeners.
export function store(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const l of [...listeners]) l(value);
    },
    listen(l) {
      listeners.add(l);
      return () => listeners.delete(l);
    },
  };
}

// useStore re-renders the component when the store changes.
export function useStore(s) {
  const [value, set] = useState(s.get());
  useEffect(() => {
    set(() => s.get());
    return s.listen(v => set(() => v));
  }, [s]);
  return value;
}

// link makes the address of a view: link('shards', 3) is "#/shards/3". An object at the
// end becomes the query; its empty values are left out.
export function link(...parts) {
  const last = parts.at(-1);
  let query = '';
  if (last && typeof last === 'object') {
    parts.pop();
    const q = new URLSearchParams();
    for (const [k, v] of Object.entries(last)) if (v !== '' && v !== null && v !== undefined) q.set(k, v);
    query = q.size ? '?' + q : '';
  }
  return '#/' + parts.map(p => encodeURIComponent(String(p))).join('/') + query;
}

// go shows the view at an address that link has made.
export function go(hash) {
  location.hash = hash;
}

// place reads the address: {path: ['shards', '3'], query: URLSearchParams}.
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const decode = s => {
    try { return decodeURIComponent(s); } catch { return s; }
  };
  return { path: path.split('/').filter(Boolean).map(decode), query: new URLSearchParams(query ?? '') };
}
