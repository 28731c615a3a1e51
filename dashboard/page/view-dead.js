// Dead letters: by reason, then those of a reason, then one; and the tasks over many.
import { html, useState, useEffect, useApi, useMay, api, link, go, plural, bytes, count, Field, Loading, Page, Problem, Table, Time, unknown } from './lib.js';
import { Letter } from './view-dead-letter.js';
import { Bulk, Tasks } from './view-dead-tasks.js';

const root = 'api/v1/dead-letters';
const filters = ['reason', 'shard', 'foreign', 'contains'];

// givenBy is the filter in the query of the page; ids is a list.
function givenBy(query) {
  const given = Object.fromEntries(filters.filter(f => query.get(f)).map(f => [f, query.get(f)]));
  const ids = query.getAll('id').flatMap(text => text.split(/\s+/)).filter(Boolean);
  return ids.length ? { ...given, id: ids } : given;
}

// searchOf is the query of the API for a filter.
function searchOf({ id = [], ...given }) {
  const search = new URLSearchParams(given);
  for (const one of id) search.append('id', one);
  return String(search);
}

// Filter is which letters to see. It is in the address of the page.
function Filter({ query }) {
  const submit = e => {
    e.preventDefault();
    go(link('dead', Object.fromEntries(new FormData(e.currentTarget))));
  };
  const field = (name, label, more) => html`<${Field} label=${label}><input name=${name} defaultValue=${query.getAll(name).join(' ')} maxlength="4000" autocomplete="off" spellcheck="false" ...${more} /><//>`;
  return html`<details class="filter panel" open=${innerWidth > 800}>
    <summary>Filter</summary>
    <form class="filters" onSubmit=${submit}>
      ${field('reason', 'Reason', { placeholder: 'the whole text', size: 30 })}
      ${field('id', 'Messages', { placeholder: 'their ids', size: 28 })}
      ${field('shard', 'Shard', { placeholder: 'all', inputmode: 'numeric', size: 5 })}
      ${field('contains', 'Contains', { placeholder: 'a text', size: 14 })}
      <${Field} label="Published by"><select name="foreign">
        ${[['', 'all'], ['true', 'other programs'], ['false', 'this program']].map(([v, text]) =>
          html`<option key=${v} value=${v} selected=${v === (query.get('foreign') ?? '')}>${text}</option>`)}</select><//>
      <button>Show</button>
    </form></details>`;
}

const shardsText = shards => (shards?.length ? shards.join(', ') : unknown);

// groupColumns lead from a reason to its letters.
const groupColumns = given => [
  { key: 'reason', title: 'Reason', cell: g => html`<a href=${link('dead', { ...given, reason: g.reason })} title=${g.reason}>${g.reason}</a>` },
  { key: 'letters', title: 'Letters', width: 6, align: 'num', cell: g => count(g.letters) },
  { key: 'messages', title: 'Messages', width: 7, align: 'num', cell: g => count(g.messages) },
  { key: 'oldest', title: 'Oldest', width: 12, align: 'num', cell: g => html`<${Time} at=${g.oldest} />` },
  { key: 'newest', title: 'Newest', width: 12, align: 'num', cell: g => html`<${Time} at=${g.newest} />` },
  { key: 'shards', title: 'Shards', width: 8, sort: false, cell: g => shardsText(g.shards) },
];

function Groups({ data, given }) {
  return html`<p>${plural(data.total, 'dead letter')}${data.cut ? ', and more that were not looked at' : ''}.</p>
    <${Table} name="Dead letters by reason" columns=${groupColumns(given)} rows=${data.groups} id=${g => g.reason} empty="There are no dead letters." />`;
}

const letterColumns = [
  { key: 'id', title: 'Message', width: 17.5, cell: l => html`<a class="mono" href=${link('dead', l.key)} title=${l.id}>${l.id || l.key.slice(0, 12)}</a>` },
  { key: 'time', title: 'Dead since', width: 12, align: 'num', cell: l => html`<${Time} at=${l.time} />` },
  { key: 'shard', title: 'Shard', width: 5, align: 'num', cell: l => l.shard ?? unknown },
  { key: 'count', title: 'Messages', width: 7, align: 'num', cell: l => count(l.count) },
  { key: 'bytes', title: 'Size', width: 6, align: 'num', cell: l => bytes(l.bytes) },
  { key: 'foreign', title: 'Published by', width: 9, cell: l => (l.foreign ? 'other program' : 'this program') },
  { key: 'reason', title: 'Reason' },
];

// Letters shows pages of letters, one under the other.
function Letters({ first, search }) {
  const [more, setMore] = useState({ letters: [], next: first.next });
  const [error, setError] = useState(null);
  useEffect(() => setMore({ letters: [], next: first.next }), [first]);
  const ask = async () => {
    try {
      const page = await api(`${root}?${search}${search && '&'}after=${encodeURIComponent(more.next)}`);
      setMore({ letters: [...more.letters, ...page.letters], next: page.next });
      setError(null);
    } catch (e) {
      setError(e);
    }
  };
  return html`<${Table} name="Letters" columns=${letterColumns} rows=${[...first.letters, ...more.letters]} id=${l => l.key} empty="No dead letter is like that." />
    <${Problem} error=${error} />
    ${more.next && html`<p><button type="button" onClick=${ask}>More</button></p>`}`;
}

function List({ query }) {
  const given = givenBy(query);
  const single = 'reason' in given || 'id' in given;
  const search = searchOf(given);
  const { data, error, again } = useApi(`${root}${single ? '' : '/groups'}?${search}`);
  const [bulk, setBulk] = useState('');
  const may = useMay('admin');
  const tools = html`${data && html`<span class="faint">as of <${Time} at=${data.as_of} /></span>`}
    <button type="button" onClick=${again}>Look again</button>
    ${may && data && ['replay', 'purge'].map(what => html`<button key=${what} type="button" onClick=${() => setBulk(what)}>${what === 'replay' ? 'Replay' : 'Purge'} ${search ? 'these' : 'all'} …</button>`)}
    <a href=${link('dead', 'tasks')}>Tasks</a>`;
  return html`<${Page} title="Dead letters" tools=${tools}>
    <${Filter} key=${search} query=${query} />
    ${single && html`<p><a href=${link('dead')}>All reasons</a></p>`}
    <${Problem} error=${error} again=${again} />
    ${data?.complete === false && html`<p class="note">Not every process answers: there may be more.</p>`}
    ${!data ? !error && html`<${Loading} what="dead letters" />`
      : data.groups ? html`<${Groups} data=${data} given=${given} />` : html`<${Letters} first=${data} search=${search} />`}
    ${bulk && html`<${Bulk} what=${bulk} given=${given} asOf=${data.as_of} close=${() => setBulk('')} />`}
  <//>`;
}

export default function Dead({ path: [key], query }) {
  if (key === 'tasks') return html`<${Tasks} />`;
  return key ? html`<${Letter} key=${key} id=${key} />` : html`<${List} query=${query} />`;
}
