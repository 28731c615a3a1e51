// JSON as text. JSON.parse and JSON.stringify would change numbers such as 21.50, so what
// was sent is shown and sent again by its text.

const token = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

// fault is why a text is no JSON, in the browser's words; '' if it is JSON.
export function fault(text) {
  try {
    JSON.parse(text);
    return '';
  } catch (e) {
    return e.message;
  }
}

// pretty is a JSON text with a member a line; another text stays as it is.
export function pretty(text) {
  if (fault(text)) return text;
  let out = '', depth = 0, last = '';
  const line = () => '\n' + '  '.repeat(depth);
  for (const [t] of text.matchAll(token)) {
    const opened = last === '{' || last === '[';
    if (t === '}' || t === ']') {
      depth--;
      if (!opened) out += line();
    } else if (opened || last === ',') {
      out += line();
    }
    out += t === ':' ? ': ' : t;
    if (t === '{' || t === '[') depth++;
    last = t;
  }
  return out;
}

// prettyLines is pretty for a body: one JSON text, or one a line.
export const prettyLines = text =>
  fault(text) ? text.split('\n').filter(l => l.trim()).map(pretty).join('\n') : pretty(text);

// entryOf is the text of the entry in a frame of the tail; '' if it has none. The entry is
// the last member, or the last but one before replayed.
export function entryOf(frame) {
  const at = frame.indexOf('"entry":');
  if (at < 0) return '';
  const end = frame.endsWith(',"replayed":true}') ? frame.length - ',"replayed":true}'.length : frame.length - 1;
  return frame.slice(at + '"entry":'.length, end);
}

// memberOf is the text of a member of an object's text; '' if it has none of that name.
export function memberOf(text, name) {
  let depth = 0, last = '', begin = -1;
  for (const m of text.matchAll(token)) {
    const t = m[0], close = t === '}' || t === ']';
    if (close) depth--;
    if (begin >= 0 && (depth === 1 && t === ',' || depth === 0)) return text.slice(begin, m.index).trim();
    if (begin < 0 && depth === 1 && t === ':' && last === JSON.stringify(name)) begin = m.index + 1;
    if (t === '{' || t === '[') depth++;
    last = t;
  }
  return '';
}

// body reads what a person wrote: an array of entries, one entry, or an entry a line.
// faults are in the form of the errors of a problem.
export function body(text) {
  const one = fault(text), begin = text.trimStart()[0];
  if (!one || begin === '[') {
    const list = begin === '[';
    const faults = one ? [{ index: -1, detail: one }] : begin !== '{' && !list ? [{ index: 0, detail: 'want an object' }] : [];
    return { type: 'application/json', spans: list ? elements(text) : [[0, text.length]], faults }
  }
  const spans = [], faults = [];
  for (const m of text.matchAll(/[^\n]+/g)) {
    if (!m[0].trim()) continue;
    const why = fault(m[0]);
    if (why) faults.push({ index: spans.length, detail: why });
    spans.push([m.index, m.index + m[0].length]);
  }
  return { type: 'application/x-ndjson', spans, faults }
}

// elements are the places of an array's elements in its text.
function elements(text) {
  const spans = [];
  let depth = 0, begin = -1, end = 0;
  for (const m of text.matchAll(token)) {
    const t = m[0], close = t === '}' || t === ']';
    if (close) depth--;
    if (depth === 1 && t === ',' || depth === 0 && close) {
      if (begin >= 0) spans.push([begin, end]);
      begin = -1;
    } else if (depth >= 1) {
      if (begin < 0) begin = m.index;
      end = m.index + t.length;
    }
    if (t === '{' || t === '[') depth++;
  }
  return spans;
}
