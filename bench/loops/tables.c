/* Hash tables, trees, sorting, heaps, small allocations. */
#include <stdlib.h>
#include <string.h>

#include "loops.h"

/* --- open addressing, 64-bit keys, 32,768 of 65,536 places taken --- */

#define PLACES 65536u

static uint64_t hash64(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    return x ^ x >> 29;
}

static uint64_t open_hash(void) {
    static struct { uint64_t key, value; } t[PLACES];
    uint32_t r = 1;
    uint64_t sum = 0;

    memset(t, 0, sizeof(t));
    for (int i = 0; i < 32768; i++) {
        uint64_t key = (uint64_t)loop_random(&r) << 8 | 1, at = hash64(key) % PLACES;

        while (t[at].key && t[at].key != key)
            at = (at + 1) % PLACES;
        t[at].key = key;
        t[at].value += (uint64_t)i;
    }
    r = 1;
    for (int i = 0; i < 65536; i++) {
        uint64_t key = (uint64_t)loop_random(&r) << 8 | 1, at = hash64(key) % PLACES;

        while (t[at].key && t[at].key != key)
            at = (at + 1) % PLACES;
        sum += t[at].value;
    }
    return sum;
}

/* --- chains of strings, each allocated by itself --- */

struct word {
    struct word *next;
    unsigned count;
    char text[];
};

static uint64_t string_hash(void) {
    static struct word *bucket[1024];
    uint32_t r = 7;
    uint64_t sum = 0;

    for (int i = 0; i < 20000; i++) {
        char text[16];
        unsigned len = 0, h = 5381, n = loop_random(&r) % 3000;
        struct word *w;

        do
            text[len++] = (char)('a' + n % 19);
        while (n /= 7);
        text[len] = 0;
        for (unsigned k = 0; k < len; k++)
            h = h * 33 + (unsigned char)text[k];
        for (w = bucket[h % 1024]; w && strcmp(w->text, text); w = w->next)
            ;
        if (!w) {
            w = malloc(sizeof(*w) + len + 1);
            strcpy(w->text, text);
            w->count = 0;
            w->next = bucket[h % 1024];
            bucket[h % 1024] = w;
        }
        sum += ++w->count;
    }
    for (int i = 0; i < 1024; i++)
        for (struct word *w = bucket[i], *next; w; w = next) {
            next = w->next;
            free(w);
        }
    memset(bucket, 0, sizeof(bucket));
    return sum;
}

/* --- a tree that is balanced by random priorities (treap) --- */

struct node {
    struct node *left, *right;
    uint32_t key, priority;
};

static struct node *insert(struct node *t, struct node *n) {
    struct node *c;

    if (!t)
        return n;
    if (n->key < t->key) {
        t->left = c = insert(t->left, n);
        if (c->priority > t->priority) {
            t->left = c->right;
            c->right = t;
            return c;
        }
    } else {
        t->right = c = insert(t->right, n);
        if (c->priority > t->priority) {
            t->right = c->left;
            c->left = t;
            return c;
        }
    }
    return t;
}

static uint64_t treap(void) {
    static struct node n[10000];
    struct node *root = NULL, *t;
    uint32_t r = 3;
    uint64_t depth = 0;

    for (int i = 0; i < 10000; i++) {
        n[i] = (struct node){.key = loop_random(&r), .priority = loop_random(&r)};
        root = insert(root, &n[i]);
    }
    for (int i = 0; i < 20000; i++) {
        uint32_t key = loop_random(&r);

        for (t = root; t; t = key < t->key ? t->left : t->right)
            depth++;
    }
    return depth;
}

/* --- a trie over bits, by arrays --- */

static uint64_t trie(void) {
    static int32_t child[400000][2];
    int32_t used = 1;
    uint32_t r = 9;
    uint64_t sum = 0;

    memset(child[0], 0, sizeof(child[0]));
    for (int i = 0; i < 10000; i++) {
        uint32_t key = loop_random(&r);
        int32_t at = 0;

        for (int bit = 30; bit >= 0; bit--) {
            int32_t *c = &child[at][key >> bit & 1];

            if (!*c) {
                if (bit < 6)
                    break;
                *c = used++;
                child[*c][0] = child[*c][1] = 0;
            }
            at = *c;
        }
        sum += (uint64_t)at;
    }
    return sum + (uint64_t)used;
}

/* --- sorting: a list by merging, doubles by heap and by quicksort, keys by digits --- */

struct item {
    struct item *next;
    uint32_t key;
};

static struct item *merge(struct item *a, struct item *b) {
    struct item head, *end = &head;

    while (a && b) {
        struct item **from = a->key <= b->key ? &a : &b;

        end->next = *from;
        end = *from;
        *from = end->next;
    }
    end->next = a ? a : b;
    return head.next;
}

static struct item *merge_sort(struct item *l) {
    struct item *slow = l, *fast;

    if (!l || !l->next)
        return l;
    for (fast = l->next; fast && fast->next; fast = fast->next->next)
        slow = slow->next;
    fast = slow->next;
    slow->next = NULL;
    return merge(merge_sort(l), merge_sort(fast));
}

static uint64_t list_sort(void) {
    static struct item items[20000];
    uint32_t r = 5;
    uint64_t sum = 0, at = 0;
    struct item *l = NULL;

    for (int i = 0; i < 20000; i++) {
        items[i] = (struct item){.next = l, .key = loop_random(&r)};
        l = &items[i];
    }
    for (l = merge_sort(l); l; l = l->next)
        sum += l->key * ++at;
    return sum;
}

static void sift(double *v, int at, int n) {
    double x = v[at];

    for (int c; (c = 2 * at + 1) < n; at = c) {
        if (c + 1 < n && v[c + 1] > v[c])
            c++;
        if (v[c] <= x)
            break;
        v[at] = v[c];
    }
    v[at] = x;
}

static uint64_t heap_sort(void) {
    static double v[10000];
    uint32_t r = 11;
    uint64_t sum = 0;

    for (int i = 0; i < 10000; i++)
        v[i] = (double)loop_random(&r) / 7;
    for (int i = 5000; i-- > 0;)
        sift(v, i, 10000);
    for (int n = 10000; n-- > 1;) {
        double t = v[0];

        v[0] = v[n];
        v[n] = t;
        sift(v, 0, n);
    }
    for (int i = 0; i < 10000; i++)
        sum += (uint64_t)v[i] * (uint64_t)i;
    return sum;
}

static void quick_sort(double *v, int lo, int hi) {
    while (lo < hi) {
        double pivot = v[(lo + hi) / 2];
        int i = lo, j = hi;

        while (i <= j) {
            while (v[i] < pivot)
                i++;
            while (v[j] > pivot)
                j--;
            if (i <= j) {
                double t = v[i];

                v[i++] = v[j];
                v[j--] = t;
            }
        }
        quick_sort(v, lo, j);
        lo = i;
    }
}

static uint64_t quicksort_doubles(void) {
    static double v[20000];
    uint32_t r = 13;

    for (int i = 0; i < 20000; i++)
        v[i] = (double)loop_random(&r) / 3;
    quick_sort(v, 0, 19999);
    return (uint64_t)(v[100] + v[10000] + v[19000]);
}

static uint64_t radix_sort(void) {
    static uint32_t a[50000], b[50000];
    uint32_t *from = a, *to = b, r = 17;
    uint64_t sum = 0;

    for (int i = 0; i < 50000; i++)
        a[i] = loop_random(&r);
    for (int shift = 0; shift < 32; shift += 8) {
        uint32_t count[257] = {0}, *t;

        for (int i = 0; i < 50000; i++)
            count[(from[i] >> shift & 255) + 1]++;
        for (int i = 0; i < 256; i++)
            count[i + 1] += count[i];
        for (int i = 0; i < 50000; i++)
            to[count[from[i] >> shift & 255]++] = from[i];
        t = from;
        from = to;
        to = t;
    }
    for (int i = 0; i < 50000; i += 100)
        sum += (uint64_t)from[i] * (uint64_t)i;
    return sum;
}

/* --- a priority queue of who comes next, as simulations and shortest paths have it ---
 */

static uint64_t shortest_paths(void) {
    enum { SIDE = 64, CELLS = SIDE * SIDE };
    static uint32_t cost[CELLS], dist[CELLS];
    static struct { uint32_t d, at; } heap[CELLS * 4];
    uint32_t r = 19, n = 0;

    for (int i = 0; i < CELLS; i++) {
        cost[i] = 1 + loop_random(&r) % 9;
        dist[i] = UINT32_MAX;
    }
    heap[n].d = dist[0] = 0;
    heap[n++].at = 0;
    while (n) {
        uint32_t d = heap[0].d, at = heap[0].at, i = 0, c;
        const int step[] = {-1, 1, -SIDE, SIDE};

        n--;
        for (; (c = 2 * i + 1) < n; i = c) {
            c += c + 1 < n && heap[c + 1].d < heap[c].d;
            if (heap[n].d <= heap[c].d)
                break;
            heap[i] = heap[c];
        }
        heap[i] = heap[n];
        if (d > dist[at])
            continue;
        for (int k = 0; k < 4; k++) {
            uint32_t to = at + (uint32_t)step[k], nd;

            if (to >= CELLS || (k < 2 && to / SIDE != at / SIDE))
                continue;
            nd = d + cost[to];
            if (nd >= dist[to])
                continue;
            dist[to] = nd;
            for (i = n++; i && heap[(i - 1) / 2].d > nd; i = (i - 1) / 2)
                heap[i] = heap[(i - 1) / 2];
            heap[i].d = nd;
            heap[i].at = to;
        }
    }
    return dist[CELLS - 1];
}

/* --- small allocations of mixed sizes, freed in another order --- */

static uint64_t allocations(void) {
    static unsigned char *live[512];
    uint32_t r = 23;
    uint64_t sum = 0;

    for (int i = 0; i < 20000; i++) {
        uint32_t k = loop_random(&r) % 512, size = 8 + loop_random(&r) % 200;

        if (live[k])
            sum += live[k][0];
        free(live[k]);
        live[k] = malloc(size);
        live[k][0] = (unsigned char)i;
        live[k][size - 1] = (unsigned char)k;
    }
    for (int k = 0; k < 512; k++) {
        free(live[k]);
        live[k] = NULL;
    }
    return sum;
}

const struct loop loops_tables[] = {{"openhash", open_hash},
                                    {"strhash", string_hash},
                                    {"treap", treap},
                                    {"trie", trie},
                                    {"listsort", list_sort},
                                    {"heapsort", heap_sort},
                                    {"quicksort", quicksort_doubles},
                                    {"radixsort", radix_sort},
                                    {"paths", shortest_paths},
                                    {"malloc", allocations},
                                    {NULL, NULL}};
