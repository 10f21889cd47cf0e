// JSON, strings and regular expressions.
let seed = 1;
const next = m => (seed = (seed * 1103515245 + 12345) % 2147483648) % m;
const rows = [];
for (let i = 0; i < 3000; i++)
    rows.push({id: i, name: 'name' + next(1000), tags: [next(10), next(10)], at: {x: next(99) / 4, y: null}});
let sum = 0, text = '';
for (let r = 0; r < 8; r++) {
    text = JSON.stringify(rows);
    sum += JSON.parse(text).reduce((s, row) => s + row.at.x + row.tags[1], 0);
}
console.log(text.length, sum);
let found = 0;
for (const re of [/"name(\d+)7"/g, /\{"x":(\d+)\.(25|5),/g, /(?<=\[)\d,(\d)(?=\])/g, /n[a-m]+e\d*?3/g])
    for (let r = 0; r < 4; r++) for (const m of text.matchAll(re)) found += m[0].length;
console.log(found);
const words = new Map();
for (const w of text.replace(/[^a-z0-9]+/g, ' ').split(' ')) words.set(w, (words.get(w) || 0) + 1);
console.log(words.size, [...words].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 3).join(' '));
