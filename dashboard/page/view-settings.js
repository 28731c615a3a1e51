// The settings of the process that answers.
import { html, useApi, useMemo, useState, plural, Field, Loading, Page, Problem, Table, State } from './lib.js';

const columns = [
  { key: 'name', title: 'Setting', width: 18, cell: s => html`<code>${s.name}</code>` },
  { key: 'value', title: 'Value', cell: s => (s.value === '' ? html`<span class="faint">empty</span>` : s.value) },
  { key: 'default', title: '', width: 7, cell: s => (s.default ? html`<span class="faint">default</span>` : html`<${State} is="set" tone="ok" />`), sort: false },
  { key: 'variable', title: 'Variable', width: 19, cell: s => html`<code>${s.variable}</code>` },
];

export default function Settings() {
  const { data, error, again } = useApi('api/v1/settings');
  const [text, set] = useState('');
  const [changed, only] = useState(false);
  const rows = useMemo(() => (data?.settings ?? []).filter(s => (!changed || !s.default) && (s.name + ' ' + s.variable).toLowerCase().includes(text.toLowerCase())), [data, text, changed]);
  return html`<${Page} title="Settings" note=${data && `Of the process ${data.node}. Each node has its own. Secrets are not shown.`}>
    <${Problem} error=${error} again=${again} />
    ${data ? html`
      <div class="filters">
        <${Field} label="Name"><input type="search" value=${text} onInput=${e => set(e.target.value)} /><//>
        <label><input type="checkbox" checked=${changed} onChange=${e => only(e.target.checked)} /> Only those that are set</label>
        <span class="faint">${plural(rows.length, 'setting')}</span>
      </div>
      <${Table} name="Settings" columns=${columns} rows=${rows} id=${s => s.name} empty="No setting is like that." />` : !error && html`<${Loading} what="the settings" />`}
  <//>`;
}
