// Numbers, typed arrays, objects and closures.
const n = 120, a = new Float64Array(n * n), b = new Float64Array(n * n), c = new Float64Array(n * n);
for (let i = 0; i < n * n; i++) { a[i] = (i * 7) % 13; b[i] = (i * 5) % 11; }
for (let r = 0; r < 8; r++)
    for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++) {
            let s = 0;
            for (let k = 0; k < n; k++) s += a[i * n + k] * b[k * n + j];
            c[i * n + j] = s;
        }
console.log(c.reduce((x, y) => x + y));
const sieve = new Uint8Array(2000000);
let primes = 0;
for (let i = 2; i < sieve.length; i++) {
    if (sieve[i]) continue;
    primes++;
    for (let j = i * 2; j < sieve.length; j += i) sieve[j] = 1;
}
console.log(primes);
class Tree {
    constructor(depth) {
        this.left = depth ? new Tree(depth - 1) : null;
        this.right = depth ? new Tree(depth - 1) : null;
    }
    count() { return 1 + (this.left ? this.left.count() + this.right.count() : 0); }
}
let total = 0;
for (let i = 0; i < 12; i++) total += new Tree(14).count();
console.log(total);
