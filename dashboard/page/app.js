// The frame of the page: which view is shown, the navigation, the search, the sign-in,
// and whether the stream of this tab is alive.
import {
  html, render, useEffect, useRef, useState, useStore, place, go, link,
  streaming, session, needed, entered, engine, learnEngine, learnSession, metTokens, signIn, signOut,
  Age, Confirm, Field, Guard, Loading, Page, Problem, clock,
} from './lib.js';

// The views. A view is the default export of its module, and gets path (what follows its
// name in the address) and query.
const views = {
  '': { title: 'Overview', load: () => import('./view-overview.js') },
  shards: { title: 'Shards', load: () => import('./view-shards.js') },
  workers: { title: 'Workers', load: () => import('./view-workers.js') },
  nodes: { title: 'Nodes', load: () => import('./view-nodes.js') },
  live: { title: 'Live', load: () => import('./view-live.js') },
  submit: { title: 'Submit', load: () => import('./view-submit.js') },
  submissions: { load: () => import('./view-submission.js') },
  dead: { title: 'Dead letters', load: () => import('./view-dead.js') },
  messages: { load: () => import('./view-message.js') },
  jobs: { title: 'Jobs', load: () => import('./view-jobs.js') },
  runs: { load: () => import('./view-runs.js') },
  runners: { load: () => import('./view-runners.js') },
  commands: { title: 'Commands', load: () => import('./view-commands.js') },
  settings: { title: 'Settings', load: () => import('./view-settings.js') },
};

function usePlace() {
  const [at, set] = useState(place);
  useEffect(() => {
    const changed = () => set(place());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return at;
}

// Nowhere stands for an address without a view.
function Nowhere({ name }) {
  return html`<${Page} title="No such page"><p>There is no page at <code>${`#/${name.slice(0, 100)}`}</code>. Go to the <a href=${link()}>overview</a>, or choose a page above.</p><//>`;
}

// View loads the module of a view and shows it.
function View({ name, path, query }) {
  const [loaded, set] = useState({ name: null });
  useEffect(() => {
    let wanted = true;
    const view = Object.hasOwn(views, name) && views[name];
    if (!view) return set({ name, show: Nowhere });
    view.load().then(m => wanted && set({ name, show: m.default, all: m }), error => wanted && set({ name, error }));
    return () => { wanted = false; };
  }, [name]);
  if (loaded.name !== name) return html`<${Loading} what="the page" />`;
  if (loaded.error) return html`<${Problem} error=${loaded.error} />`;
  const Show = loaded.show;
  return html`<${Guard} key=${name}><${Show} name=${name} path=${path} query=${query} /><//>`;
}

// Stream says whether what is shown is alive.
function Stream() {
  const { state, since, failure } = useStore(streaming);
  // What is shown is not true any more when it is not told any more.
  useEffect(() => {
    document.body.classList.toggle('lost', state === 'lost' || failure !== null);
  }, [state, failure]);
  const text = {
    none: '', opening: 'Connecting …', live: 'Connected', ended: failure ? 'Not connected' : '',
    lost: html`No connection since ${clock(since)} (<${Age} at=${since} />)`,
  }[state];
  return html`<span class=${'stream ' + state} role="status">${text}</span>`;
}

function Search() {
  const input = useRef(null);
  const search = async e => {
    e.preventDefault();
    const text = input.current.value.trim();
    if (!text) return;
    const { find } = await import('./search.js');
    go(find(text));
    input.current.value = '';
  };
  return html`<form class="search" role="search" onSubmit=${search}>
    <input ref=${input} type="search" aria-label="Find a message, a submission or a dead letter by its id" placeholder="Find an id" maxlength="300" spellcheck="false" autocomplete="off" />
  </form>`;
}

function SignIn({ close }) {
  const [token, set] = useState('');
  const act = async () => {
    try {
      await signIn(token.trim());
    } catch (error) {
      throw error.status === 401 ? Error('this node does not know the token') : error;
    }
  };
  return html`<${Confirm} title="Sign in" action="Sign in" disabled=${!token} act=${act} close=${close}>
    <p>This node asks for a token of <code>VIEW_TOKENS</code> or <code>ADMIN_TOKENS</code>. The browser keeps a cookie for 12 hours, not the token.</p>
    <${Field} label="Token"><input type="password" name="token" autocomplete="current-password" value=${token} onInput=${e => set(e.target.value)} autofocus /><//>
  <//>`;
}

// Who shows who is signed in.
function Who({ ask }) {
  const s = useStore(session);
  if (!s.tokens) return null;
  if (s.may.size === 0) return html`<button type="button" onClick=${ask}>Sign in</button>`;
  return html`<span class="who">${s.name && html`<span>${s.name}</span>`}<button type="button" onClick=${signOut}>Sign out</button></span>`;
}

// Navigation leads to the jobs only where an engine runs some.
function Navigation({ shown, round }) {
  const jobs = useStore(engine);
  useEffect(() => {
    if (jobs) return;
    learnEngine();
    const timer = setInterval(() => document.hidden || learnEngine(), 60_000);
    return () => clearInterval(timer);
  }, [jobs, round]);
  return html`<nav aria-label="Pages"><ul>
    ${Object.entries(views).filter(([name, v]) => v.title && (name !== 'jobs' || jobs || shown === 'jobs')).map(([name, v]) => html`<li key=${name}>
      <a href=${link(...(name ? [name] : []))} aria-current=${name === shown ? 'page' : undefined}>${v.title}</a></li>`)}
  </ul></nav>`;
}

function App() {
  const { path: [name = '', ...path], query } = usePlace();
  const asks = useStore(needed);
  const round = useStore(entered);
  const main = useRef(null);
  const first = useRef(true);
  useEffect(() => { if (metTokens()) learnSession(); }, []);
  // Who uses a keyboard or hears the page begins at the top of a new view.
  useEffect(() => {
    if (!first.current) {
      main.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [name, path.join('/')]);
  const top = { submissions: 'submit', messages: 'live', runs: 'jobs', runners: 'jobs' }[name] ?? name;
  const skip = e => {
    e.preventDefault();
    main.current.focus();
  };
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header>
      <a class="brand" href="#/">async-data-processor</a>
      <${Stream} />
      <${Search} />
      <${Who} ask=${() => needed.set(true)} />
    </header>
    <${Navigation} shown=${top} round=${round} />
    <main ref=${main} id="main" tabindex="-1"><${View} key=${round} name=${name} path=${path} query=${query} /></main>
    ${asks && html`<${SignIn} close=${() => needed.set(false)} />`}`;
}

const root = document.getElementById('app');
root.replaceChildren();
render(html`<${App} />`, root);
