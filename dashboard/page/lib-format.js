// Numbers and times for people. What is not known is a dash, never 0.
import { html, useEffect, useRef } from './lib-base.js';

export const unknown = '–';
const thin = '\u202f'; // narrow, and no line breaks there

// collate orders texts, and numbers in them by their value. One collator is much faster
// than localeCompare.
export const collate = new Intl.Collator('en', { numeric: true }).compare;

const two = n => String(n).padStart(2, '0');
const missing = v => v === null || v === undefined || Number.isNaN(v);

// count groups the digits: 1234567 is "1 234 567", with thin spaces.
export function count(n) {
  if (missing(n)) return unknown;
  const [whole, part] = String(n).split('.');
  return whole.replace(/\B(?=(\d{3})+$)/g, thin) + (part ? '.' + part : '');
}

// rate is a count a second: "12.5", or "1 250".
export function rate(n) {
  if (missing(n)) return unknown;
  return count(n >= 100 ? Math.round(n) : n.toFixed(1));
}

// bytes is a size in binary units: "1.5 GiB".
export function bytes(n) {
  if (missing(n)) return unknown;
  let unit = 0;
  while (n >= 1024 && unit < 5) { n /= 1024; unit++; }
  return (unit && n < 100 ? n.toFixed(1) : Math.round(n)) + thin + ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'][unit];
}

// duration is a time in seconds, in its two largest units: "3 h 05 min".
export function duration(s) {
  if (missing(s)) return unknown;
  if (s < 0) s = 0;
  if (s < 10) return (Math.round(s * 10) / 10).toFixed(1) + thin + 's';
  s = Math.round(s);
  if (s < 60) return s + thin + 's';
  if (s < 3600) return `${Math.floor(s / 60)}${thin}min ${two(s % 60)}${thin}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}${thin}h ${two(Math.floor(s % 3600 / 60))}${thin}min`;
  return `${Math.floor(s / 86400)}${thin}d ${two(Math.floor(s % 86400 / 3600))}${thin}h`;
}

// plural is "1 shard", "2 shards".
export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;

// ms reads a time: RFC 3339, or milliseconds since 1970. Go's zero time is no time.
export function ms(at) {
  if (missing(at) || at === '') return null;
  const t = typeof at === 'number' ? at : Date.parse(at);
  return Number.isNaN(t) || t < 0 ? null : t;
}

const date = d => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;

// clock is the time of day here: "12:07:20"; of another day with the date.
export function clock(at) {
  const t = ms(at);
  if (t === null) return unknown;
  const d = new Date(t), time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return date(d) === date(new Date()) ? time : `${date(d)} ${time}`;
}

// The clock of the node that answers may differ from that of this machine, so ages are
// taken against the node's.
let skew = 0;
export const heardAt = asOf => {
  const t = ms(asOf);
  if (t !== null) skew = Math.abs(Date.now() - t) < 2000 ? 0 : Date.now() - t;
};
export const now = () => Date.now() - skew;

// Time shows a time of day, with the whole time as its title.
export function Time({ at }) {
  const t = ms(at);
  if (t === null) return html`<span class="faint">${unknown}</span>`;
  const iso = new Date(t).toISOString();
  return html`<time datetime=${iso} title=${iso}>${clock(t)}</time>`;
}

// The elements that show an age. One timer writes all their texts, so an age that grows
// renders no component.
const ages = new Map();
let timer = 0;

function tick() {
  for (const [element, show] of ages) {
    const text = show();
    if (element.textContent !== text) element.textContent = text;
  }
}

// ticking shows how long it is from or to a time, which length tells in milliseconds.
function ticking(at, length) {
  const t = ms(at);
  const show = () => (t === null ? unknown : duration(length(t) / 1000));
  const ref = useRef(null);
  useEffect(() => {
    const element = ref.current;
    ages.set(element, show);
    element.textContent = show();
    timer ||= setInterval(tick, 1000);
    return () => {
      ages.delete(element);
      if (ages.size === 0) timer = clearInterval(timer) ?? 0;
    };
  });
  return html`<span ref=${ref} class="age" title=${t === null ? null : new Date(t).toISOString()}></span>`;
}

// Age shows how long ago a time was, and goes on by itself.
export const Age = ({ at }) => ticking(at, t => now() - t);

// Left shows how long it is until a time.
export const Left = ({ until }) => ticking(until, t => t - now());
