// Small parts of all views.
import { html, Component, useEffect, useRef, useState } from './lib-base.js';
import { needed } from './lib-api.js';

// Page is a view: its heading, tools beside it, and what it shows.
export function Page({ title, tools, note, children }) {
  useEffect(() => {
    document.title = `${title} · async-data-processor`;
  }, [title]);
  return html`<div class="page">
    <div class="head"><h1>${title}</h1>${tools && html`<div class="tools">${tools}</div>`}</div>
    ${note && html`<p class="note">${note}</p>`}
    ${children}
  </div>`;
}

// Panel is a part of a view with a heading of its own.
export function Panel({ title, tools, children }) {
  return html`<section class="panel">
    <div class="head"><h2>${title}</h2>${tools && html`<div class="tools">${tools}</div>`}</div>
    ${children}
  </section>`;
}

// Empty stands for a list without rows, and says why.
export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`;
}

// Loading stands for what has not come yet. It shows after a moment only, so that a fast
// answer does not flicker.
export function Loading({ what = 'data' }) {
  return html`<p class="empty later" role="status">Loading ${what} …</p>`;
}

// Wait stands for what a stream has not told yet, or says why it does not.
export function Wait({ stream, what }) {
  return stream.failure ? html`<${Problem} error=${stream.failure} />` : html`<${Loading} what=${what} />`;
}

// Problem shows a Failure, or any error, and what to do about it.
export function Problem({ error, again }) {
  if (!error) return null;
  if (error.status === 401) {
    return html`<div class="problem" role="alert"><strong>Not signed in</strong>: this needs a token. <button type="button" onClick=${() => needed.set(true)}>Sign in</button></div>`;
  }
  const p = error.problem ?? {};
  const title = p.title || (error.status ? `Status ${error.status}` : 'Error');
  // The detail may end in what the title says.
  const detail = (p.detail || (p.title ? '' : error.message)).replace(title === 'Nothing was published' ? /(^|; )nothing was published/ : /$^/, '');
  return html`<div class="problem" role="alert">
    <strong>${title}</strong>${detail && html`<span>: ${detail}</span>`}
    ${again && html` <button type="button" onClick=${again}>Try again</button>`}
  </div>`;
}

// Guard shows the error of a view instead of an empty page.
export class Guard extends Component {
  constructor() {
    super();
    this.state = { error: null };
  }

  static getDerivedStateFromError(error) {
    return { error };
  }

  render({ children }, { error }) {
    return error ? html`<${Problem} error=${error} again=${() => this.setState({ error: null })} />` : children;
  }
}

const tones = {
  running: 'ok', here: 'ok', open: 'ok', done: 'ok', written: 'ok', ok: 'ok', writing: 'ok', live: 'ok', succeeded: 'ok',
  paused: 'warn', refuses: 'warn', opening: 'warn', standby: 'idle', draining: 'warn', returning: 'warn', waiting: 'warn', queued: 'warn',
  in_hand: 'warn', cancelled: 'warn', cancelling: 'warn', leased: 'warn', 'timed-out': 'bad', 'dead-letters': 'bad', retrying: 'bad', unowned: 'bad', unknown: 'bad', failed: 'bad', dead: 'bad',
};

// State shows a state as text beside a mark of its colour. The text alone is enough.
export function State({ is, tone }) {
  const text = is ? String(is).replaceAll(/[_-]/g, ' ') : 'not known';
  return html`<span class=${'state ' + (tone ?? tones[is] ?? 'idle')}>${text}</span>`;
}

// Facts is a list of names and values: [['Owner', 'a'], …]. undefined leaves a row out.
export function Facts({ of }) {
  return html`<dl class="facts">${of.filter(f => f && f[1] !== undefined).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

// Copy copies a text.
export function Copy({ text, label = 'Copy' }) {
  const [done, set] = useState('');
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      set('Copied');
    } catch {
      set('Not allowed'); // without TLS a browser allows it on localhost only
    }
    setTimeout(() => set(''), 1500);
  };
  return html`<button type="button" class="small" onClick=${copy} aria-label=${`${label}: ${text}`}>${done || label}</button>`;
}

// Confirm is a dialog. act is called when the person agrees; while it runs the buttons
// wait, and its error is shown. close is called at the end, or if the person does not
// agree. disabled keeps the person from agreeing. no is the text of the other button.
export function Confirm({ title, action, no = 'Cancel', danger, disabled, act, close, children }) {
  const dialog = useRef(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  useEffect(() => {
    const from = document.activeElement;
    dialog.current.showModal();
    return () => from?.focus?.();
  }, []);
  const submit = async e => {
    e.preventDefault();
    if (busy || disabled) return;
    setBusy(true);
    setError(null);
    try {
      await act();
      close();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onCancel=${e => { e.preventDefault(); if (!busy) close(); }}>
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
      <${Problem} error=${error} />
      <div class="buttons">
        <button type="button" onClick=${close} disabled=${busy}>${no}</button>
        <button type="submit" class=${danger ? 'danger' : 'main'} disabled=${busy || disabled}>${busy ? 'Working …' : action}</button>
      </div>
    </form>
  </dialog>`;
}

// Field is a label with its input.
export function Field({ label, hint, children }) {
  return html`<label class="field"><span>${label}</span>${children}${hint && html`<small>${hint}</small>`}</label>`;
}
