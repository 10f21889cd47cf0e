/*
 * How a benchmark is measured: rounds are doubled until a run takes `target` cycles,
 * which also warms everything up; then SAMPLES runs, of which the least, the median and
 * the most are told, in cycles an operation. Both numbers can be given on the command
 * line, and `only=NAME,NAME...` picks benchmarks.
 */
#include "frob.h"

#define SAMPLES_MAX 99
#define SAMPLES 21
#define TARGET 300000u
#define ROUNDS_MAX (1ul << 22)

/* NAME is in the comma-separated list of LEN characters. */
static bool in_list(const char *list, size_t len, const char *name) {
    size_t at = 0;

    while (at < len) {
        size_t n = 0;

        while (at + n < len && name[n] && list[at + n] == name[n])
            n++;
        if (!name[n] && (at + n == len || list[at + n] == ','))
            return true;
        while (at < len && list[at] != ',')
            at++;
        at++;
    }
    return false;
}

static bool wanted(const struct bench *b) {
    size_t len;
    const char *only = option("only", &len);

    return only ? in_list(only, len, b->name) : !b->load;
}

static void sort(uint64_t *v, unsigned n) {
    for (unsigned i = 1; i < n; i++) {
        uint64_t x = v[i];
        unsigned k = i;

        for (; k && v[k - 1] > x; k--)
            v[k] = v[k - 1];
        v[k] = x;
    }
}

/* Cycles an operation, times 100, rounded. */
static uint64_t per_op(uint64_t cycles, uint32_t ops) {
    return div_u64(cycles * 100 + ops / 2, ops);
}

static bool tell(const struct bench *b, const uint64_t *sorted, unsigned samples,
                 uint32_t ops, uint64_t total, bool ok) {
    report_text("bench name=");
    report_text(b->name);
    report_text(" ops=");
    report_uint(ops);
    report_text(" samples=");
    report_uint(samples);
    report_text(" total=");
    report_uint(total);
    report_text(" min=");
    report_hundredths(per_op(sorted[0], ops));
    report_text(" median=");
    report_hundredths(per_op(sorted[samples / 2], ops));
    report_text(" max=");
    report_hundredths(per_op(sorted[samples - 1], ops));
    report_text(ok ? " ok=1\n" : " ok=0\n");
    return ok;
}

/* Rounds that take TARGET cycles; *TOTAL is raised by what it took to find out. */
static ulong calibrate(const struct bench *b, uint32_t target, uint64_t *total) {
    ulong rounds = 1;
    unsigned enough = 0;

    for (;;) {
        uint64_t start = rdtsc(), t = b->run(rounds);

        *total += rounds;
        /* What is not timed may take much longer. The first time may be the price of
         * doing it for the first time. */
        if (t >= target || rdtsc() - start >= 4ull * target || rounds >= ROUNDS_MAX) {
            if (++enough == 2)
                return rounds;
        } else {
            rounds *= 2;
        }
    }
}

static bool measure(const struct bench *b) {
    static uint64_t sample[SAMPLES_MAX];
    uint32_t samples = option_uint("samples", SAMPLES);
    uint32_t target = option_uint("target", TARGET);
    uint64_t total = 0;
    ulong rounds;
    bool ok;

    if (!samples || samples > SAMPLES_MAX)
        samples = SAMPLES;
    if (b->prepare && !b->prepare()) {
        report_text("absent name=");
        report_text(b->name);
        report_text("\n");
        return true;
    }
    fault_count = irq_count = 0;
    rounds = calibrate(b, target, &total);
    for (unsigned n = 0; n < samples; n++) {
        sample[n] = b->run(rounds);
        total += rounds;
    }
    total *= b->per_round;
    sort(sample, samples);
    ok = b->check(total);
    if (b->finish)
        b->finish();
    return tell(b, sample, samples, (uint32_t)(rounds * b->per_round), total, ok);
}

unsigned measure_all(void) {
    static const struct bench *const lists[] = {trap_benches, cpu_benches, memory_benches,
                                                apic_benches, load_benches};
    unsigned failed = 0;

    for (unsigned n = 0; n < COUNT(lists); n++)
        for (const struct bench *b = lists[n]; b->name; b++)
            if (wanted(b))
                failed += !measure(b);
    return failed;
}
