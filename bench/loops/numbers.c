/* Dynamic programming, search, numerics. */
#include <math.h>
#include <string.h>

#include "loops.h"

static uint64_t edit_distance(void) {
    static char a[300], b[300];
    static uint16_t row[2][301];
    uint32_t r = 41;

    for (int i = 0; i < 300; i++) {
        a[i] = (char)('a' + loop_random(&r) % 4);
        b[i] = (char)('a' + loop_random(&r) % 4);
    }
    for (int j = 0; j <= 300; j++)
        row[0][j] = (uint16_t)j;
    for (int i = 1; i <= 300; i++) {
        uint16_t *cur = row[i & 1], *old = row[!(i & 1)];

        cur[0] = (uint16_t)i;
        for (int j = 1; j <= 300; j++) {
            uint16_t best = (uint16_t)(old[j - 1] + (a[i - 1] != b[j - 1]));

            if (old[j] + 1 < best)
                best = (uint16_t)(old[j] + 1);
            if (cur[j - 1] + 1 < best)
                best = (uint16_t)(cur[j - 1] + 1);
            cur[j] = best;
        }
    }
    return row[0][300];
}

static unsigned place(unsigned all, unsigned cols, unsigned left, unsigned right) {
    unsigned count = 0, free = all & ~(cols | left | right);

    if (cols == all)
        return 1;
    while (free) {
        unsigned bit = free & -free;

        free ^= bit;
        count += place(all, cols | bit, (left | bit) << 1, (right | bit) >> 1);
    }
    return count;
}

static uint64_t queens(void) {
    return place(255, 0, 0, 0);
}

static uint64_t life(void) {
    enum { SIDE = 96 };
    static uint8_t cell[2][SIDE + 2][SIDE + 2];
    uint32_t r = 43;
    uint64_t sum = 0;

    memset(cell, 0, sizeof(cell));
    for (int y = 1; y <= SIDE; y++)
        for (int x = 1; x <= SIDE; x++)
            cell[0][y][x] = loop_random(&r) % 3 == 0;
    for (int t = 0; t < 8; t++)
        for (int y = 1; y <= SIDE; y++)
            for (int x = 1; x <= SIDE; x++) {
                const uint8_t *up = &cell[t & 1][y - 1][x], *at = &cell[t & 1][y][x],
                              *down = &cell[t & 1][y + 1][x];
                int n = up[-1] + up[0] + up[1] + at[-1] + at[1] + down[-1] + down[0] +
                        down[1];

                cell[!(t & 1)][y][x] = n == 3 || (n == 2 && *at);
            }
    for (int y = 1; y <= SIDE; y++)
        for (int x = 1; x <= SIDE; x++)
            sum = sum * 3 + cell[0][y][x];
    return sum;
}

static uint64_t sieve(void) {
    static uint8_t composite[100000];
    uint64_t sum = 0;

    memset(composite, 0, sizeof(composite));
    for (uint32_t i = 2; i < sizeof(composite); i++) {
        if (composite[i])
            continue;
        sum += i;
        for (uint32_t j = i * 2; j < sizeof(composite); j += i)
            composite[j] = 1;
    }
    return sum;
}

static uint64_t mandelbrot(void) {
    uint64_t sum = 0;

    for (int py = 0; py < 40; py++)
        for (int px = 0; px < 40; px++) {
            double x0 = px / 16.0 - 2, y0 = py / 16.0 - 1.25, x = 0, y = 0;
            int n = 0;

            while (n < 100 && x * x + y * y < 4) {
                double t = x * x - y * y + x0;

                y = 2 * x * y + y0;
                x = t;
                n++;
            }
            sum += (uint64_t)n;
        }
    return sum;
}

static uint64_t fourier(void) {
    enum { N = 1024 };
    static double re[N], im[N], c[N / 2], s[N / 2];

    for (int i = 0; i < N / 2 && c[0] == 0; i++) {
        for (int k = 0; k < N / 2; k++) {
            c[k] = cos(2 * 3.14159265358979 * k / N);
            s[k] = sin(2 * 3.14159265358979 * k / N);
        }
    }
    for (int i = 0; i < N; i++) {
        re[i] = i % 17;
        im[i] = i % 5;
    }
    for (int len = N; len > 1; len /= 2)
        for (int i = 0; i < N; i += len)
            for (int k = 0; k < len / 2; k++) {
                int a = i + k, b = a + len / 2, w = k * (N / len);
                double dr = re[a] - re[b], di = im[a] - im[b];

                re[a] += re[b];
                im[a] += im[b];
                re[b] = dr * c[w] - di * s[w];
                im[b] = dr * s[w] + di * c[w];
            }
    return (uint64_t)(re[1] * 1000 + im[N / 2]);
}

static uint64_t lu(void) {
    enum { N = 48 };
    static double a[N][N];
    double det = 1;

    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            a[i][j] = 1.0 / (i + j + 1) + (i == j);
    for (int k = 0; k < N; k++) {
        det *= a[k][k] * 0.9;
        for (int i = k + 1; i < N; i++) {
            double f = a[i][k] / a[k][k];

            for (int j = k; j < N; j++)
                a[i][j] -= f * a[k][j];
        }
    }
    return (uint64_t)(det * 1e9);
}

/* Small integer matrices through pointers to rows. */
static uint64_t int_matrix(void) {
    enum { N = 40 };
    static int32_t cells[3][N][N], *row[3][N];
    uint64_t sum = 0;

    for (int m = 0; m < 3; m++)
        for (int i = 0; i < N; i++) {
            row[m][i] = cells[m][i];
            for (int j = 0; j < N; j++)
                cells[m][i][j] = (i * 7 + j * (m + 3)) % 23;
        }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            int32_t v = 0;

            for (int k = 0; k < N; k++)
                v += row[0][i][k] * row[1][k][j];
            row[2][i][j] = v;
        }
    for (int i = 0; i < N; i++)
        sum = sum * 31 + (uint64_t)row[2][i][i];
    return sum;
}

/* Long numbers: 64-bit limbs with a carry. */
static uint64_t factorial(void) {
    static uint64_t limb[64];
    uint64_t n = 1;

    memset(limb, 0, sizeof(limb));
    limb[0] = 1;
    for (uint64_t f = 2; f < 300; f++) {
        unsigned __int128 carry = 0;

        for (uint64_t i = 0; i < n; i++) {
            carry += (unsigned __int128)limb[i] * f;
            limb[i] = (uint64_t)carry;
            carry >>= 64;
        }
        if (carry)
            limb[n++] = (uint64_t)carry;
    }
    return limb[10] ^ limb[20] ^ n;
}

const struct loop loops_numbers[] = {{"editdist", edit_distance},
                                     {"queens", queens},
                                     {"life", life},
                                     {"sieve", sieve},
                                     {"mandelbrot", mandelbrot},
                                     {"fourier", fourier},
                                     {"lu", lu},
                                     {"intmatrix", int_matrix},
                                     {"bignum", factorial},
                                     {NULL, NULL}};
