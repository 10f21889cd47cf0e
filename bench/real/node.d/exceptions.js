// Errors that are thrown and caught: the engine's own, a new one each time, those of built-in
// functions, and through frames, finally and a promise.
let sum = 0;
for (let i = 0; i < 30000; i++) {
    try {
        if (i % 3 == 0) null.x;
        else if (i % 3 == 1) throw new Error('q' + i);
        else BigInt(1.5);
    } catch (e) {
        sum += e.message.length;
    }
}
console.log(sum);
class Deep extends Error {
    constructor(depth) {
        super(`at ${depth}`);
        this.depth = depth;
    }
}
let unwound = 0;
function down(depth) {
    if (depth == 0) throw new Deep(sum % 7);
    try {
        return down(depth - 1) + 1;
    } finally {
        unwound++;
    }
}
for (let i = 0; i < 3000; i++) {
    try {
        down(i % 12);
    } catch (e) {
        if (!(e instanceof Deep)) throw e;
        sum += e.depth;
    }
}
console.log(sum, unwound);
(async () => {
    let rejected = 0;
    for (let i = 0; i < 4000; i++) await Promise.reject(new RangeError(i)).catch(e => rejected += +e.message % 5);
    console.log(rejected);
})();
