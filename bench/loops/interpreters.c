/* Machines for bytecode: a stack machine with threaded code, a register machine with
 * tagged values, one that walks a tree, and a computer of the eighties. */
#include <string.h>

#include "loops.h"

/* --- a stack machine; each operation jumps to the next (computed goto) --- */

enum {
    S_PUSH,
    S_ADD,
    S_SUB,
    S_MUL,
    S_DUP,
    S_SWAP,
    S_LOAD,
    S_STORE,
    S_JNZ,
    S_XOR,
    S_HALT
};

static uint64_t run_stack(const int32_t *code) {
    static const void *const op[] = {&&push, &&add,   &&sub, &&mul,  &&dup, &&swap,
                                     &&load, &&store, &&jnz, &&exor, &&halt};
    uint64_t stack[32], var[8] = {0}, t;
    uint64_t *sp = stack;
    const int32_t *pc = code;

#define NEXT goto *op[*pc++]
    NEXT;
push:
    *sp++ = (uint64_t)*pc++;
    NEXT;
add:
    sp--;
    sp[-1] += *sp;
    NEXT;
sub:
    sp--;
    sp[-1] -= *sp;
    NEXT;
mul:
    sp--;
    sp[-1] *= *sp;
    NEXT;
dup:
    *sp = sp[-1];
    sp++;
    NEXT;
swap:
    t = sp[-1];
    sp[-1] = sp[-2];
    sp[-2] = t;
    NEXT;
load:
    *sp++ = var[*pc++];
    NEXT;
store:
    var[*pc++] = *--sp;
    NEXT;
jnz:
    sp--;
    pc = *sp ? code + *pc : pc + 1;
    NEXT;
exor:
    sp--;
    sp[-1] ^= *sp;
    NEXT;
halt:
    return var[1];
#undef NEXT
}

static uint64_t stack_machine(void) {
    static const int32_t code[] = {
        S_PUSH, 20000, S_STORE, 0,                                      /* n = 20000 */
        S_LOAD, 1,     S_LOAD,  0, S_DUP,  S_MUL, S_ADD,                /* a += n * n */
        S_LOAD, 0,     S_PUSH,  7, S_MUL,  S_XOR, S_STORE, 1,           /* a ^= n * 7 */
        S_LOAD, 2,     S_LOAD,  1, S_SWAP, S_SUB, S_STORE, 2,           /* b = a - b */
        S_LOAD, 0,     S_PUSH,  1, S_SUB,  S_DUP, S_STORE, 0, S_JNZ, 4, /* while (--n) */
        S_HALT,
    };

    return run_stack(code);
}

/* --- a register machine whose values carry their type, as in Lua --- */

struct value {
    union {
        int64_t i;
        double d;
        struct value *table;
    };
    uint32_t type; /* 0: integer, 1: floating point, 2: table */
};

enum { R_ADD, R_MUL, R_LT, R_JMP, R_GET, R_SET, R_MOVE, R_AND, R_RET };

static struct value add(const struct value *a, const struct value *b) {
    if (!a->type && !b->type)
        return (struct value){.i = (int64_t)((uint64_t)a->i + (uint64_t)b->i)};
    return (struct value){.d = (a->type ? a->d : (double)a->i) +
                               (b->type ? b->d : (double)b->i),
                          .type = 1};
}

static struct value mul(const struct value *a, const struct value *b) {
    if (!a->type && !b->type)
        return (struct value){.i = (int64_t)((uint64_t)a->i * (uint64_t)b->i)};
    return (struct value){.d = (a->type ? a->d : (double)a->i) *
                               (b->type ? b->d : (double)b->i),
                          .type = 1};
}

/* An operation is 8 bits each of: what, A, B, C. */
static int64_t run_registers(const uint32_t *code, struct value *r) {
    for (const uint32_t *pc = code;;) {
        uint32_t op = *pc++;
        struct value *a = &r[op >> 8 & 255], *b = &r[op >> 16 & 255], *c = &r[op >> 24];

        switch (op & 255) {
        case R_ADD:
            *a = add(b, c);
            break;
        case R_MUL:
            *a = mul(b, c);
            break;
        case R_AND:
            a->i = b->i & c->i;
            a->type = 0;
            break;
        case R_LT:
            if (b->i < c->i)
                pc++;
            break;
        case R_JMP:
            pc += (int32_t)op >> 8;
            break;
        case R_GET:
            *a = b->type == 2 ? b->table[c->i] : (struct value){0};
            break;
        case R_SET:
            if (a->type == 2)
                a->table[b->i] = *c;
            break;
        case R_MOVE:
            *a = *b;
            break;
        default:
            return a->i;
        }
    }
}

#define R(op, a, b, c) ((uint32_t)(op) | (a) << 8 | (b) << 16 | (uint32_t)(c) << 24)

static uint64_t register_machine(void) {
    static struct value table[64];
    struct value r[16] = {[1] = {.i = 1},
                          [2] = {.i = 20000},
                          [3] = {.table = table, .type = 2},
                          [4] = {.i = 63},
                          [5] = {.i = 3}};
    static const uint32_t code[] = {
        R(R_LT, 0, 0, 2), /* while (i < n) */
        R_JMP | 8u << 8,
        R(R_AND, 6, 0, 4), /* k = i & 63 */
        R(R_GET, 7, 3, 6), /* x = t[k] */
        R(R_MUL, 7, 7, 5), /* x = x * 3 + i */
        R(R_ADD, 7, 7, 0),
        R(R_SET, 3, 6, 7), /* t[k] = x */
        R(R_ADD, 8, 8, 7), /* sum += x */
        R(R_ADD, 0, 0, 1), /* i++ */
        R_JMP | (uint32_t)-10 << 8,
        R(R_RET, 8, 0, 0),
    };

    memset(table, 0, sizeof(table));
    return (uint64_t)run_registers(code, r);
}

/* --- a tree of functions, as simple interpreters walk it --- */

struct expr {
    int64_t (*eval)(const struct expr *e, const int64_t *env);
    const struct expr *a, *b;
    int64_t n;
};

static int64_t eval_num(const struct expr *e, const int64_t *env) {
    (void)env;
    return e->n;
}
static int64_t eval_var(const struct expr *e, const int64_t *env) {
    return env[e->n];
}
static int64_t eval_add(const struct expr *e, const int64_t *env) {
    return e->a->eval(e->a, env) + e->b->eval(e->b, env);
}
static int64_t eval_mul(const struct expr *e, const int64_t *env) {
    return (e->a->eval(e->a, env) * e->b->eval(e->b, env)) & 0xffffff;
}
static int64_t eval_if(const struct expr *e, const int64_t *env) {
    return env[e->n] & 1 ? e->a->eval(e->a, env) : e->b->eval(e->b, env);
}

static uint64_t tree_walker(void) {
    static const struct expr two = {eval_num, 0, 0, 2}, x = {eval_var, 0, 0, 0},
                             y = {eval_var, 0, 0, 1}, xy = {eval_mul, &x, &y, 0},
                             x2 = {eval_add, &x, &two, 0}, c = {eval_if, &xy, &x2, 0},
                             d = {eval_mul, &c, &x2, 0}, e = {eval_add, &d, &y, 0},
                             f = {eval_if, &e, &d, 1}, g = {eval_add, &f, &c, 0};
    int64_t env[2] = {0, 0};

    for (int i = 0; i < 10000; i++) {
        env[0] = i;
        env[1] = g.eval(&g, env) & 0xffff;
    }
    return (uint64_t)env[1];
}

/* --- an 8-bit computer: a big switch over what the memory says, with flags --- */

struct computer {
    uint8_t a, x, y, z, n, c;
    uint16_t pc;
    uint8_t mem[65536];
};

static void set_zn(struct computer *m, uint8_t v) {
    m->z = !v;
    m->n = v >> 7;
}

static void compute(struct computer *m) {
    for (;;) {
        uint8_t op = m->mem[m->pc++], v;
        unsigned sum;

        switch (op) {
        case 0xa9:
            set_zn(m, m->a = m->mem[m->pc++]);
            break;
        case 0xa2:
            set_zn(m, m->x = m->mem[m->pc++]);
            break;
        case 0xa0:
            set_zn(m, m->y = m->mem[m->pc++]);
            break;
        case 0xa5:
            set_zn(m, m->a = m->mem[m->mem[m->pc++]]);
            break;
        case 0x85:
            m->mem[m->mem[m->pc++]] = m->a;
            break;
        case 0x86:
            m->mem[m->mem[m->pc++]] = m->x;
            break;
        case 0x65:
            v = m->mem[m->mem[m->pc++]];
            sum = (unsigned)m->a + v + m->c;
            m->c = (uint8_t)(sum >> 8);
            set_zn(m, m->a = (uint8_t)sum);
            break;
        case 0x45:
            set_zn(m, m->a ^= m->mem[m->mem[m->pc++]]);
            break;
        case 0x0a:
            m->c = m->a >> 7;
            set_zn(m, m->a = (uint8_t)(m->a << 1));
            break;
        case 0xbd:
            v = m->mem[m->pc++];
            set_zn(m, m->a = m->mem[(v | m->mem[m->pc++] << 8) + m->x]);
            break;
        case 0x9d:
            v = m->mem[m->pc++];
            m->mem[(uint16_t)((v | m->mem[m->pc++] << 8) + m->x)] = m->a;
            break;
        case 0xca:
            set_zn(m, --m->x);
            break;
        case 0x88:
            set_zn(m, --m->y);
            break;
        case 0xe8:
            set_zn(m, ++m->x);
            break;
        case 0x18:
            m->c = 0;
            break;
        case 0xd0:
            m->pc = (uint16_t)(m->pc + 1 + (m->z ? 0 : (int8_t)m->mem[m->pc]));
            break;
        case 0x00:
            return;
        default:
            m->a = op;
            break;
        }
    }
}

static uint64_t computer_8bit(void) {
    static struct computer m;
    static const uint8_t program[] = {
        0xa0, 40,                     /* ldy #40 */
        0xa2, 0,                      /* ldx #0 */
        0xbd, 0x00, 0x10,             /* lda $1000,x */
        0x18, 0x65, 0x80, 0x85, 0x80, /* clc; adc $80; sta $80 */
        0x0a, 0x45, 0x80,             /* asl; eor $80 */
        0x9d, 0x00, 0x10,             /* sta $1000,x */
        0xca, 0xd0, 0xef,             /* dex; bne */
        0x88, 0xd0, 0xea,             /* dey; bne */
        0x00,
    };
    uint64_t sum = 0;

    memset(&m, 0, sizeof(m));
    for (int i = 0; i < 256; i++)
        m.mem[0x1000 + i] = (uint8_t)(i * 29 + 5);
    memcpy(m.mem + 0x400, program, sizeof(program));
    m.pc = 0x400;
    compute(&m);
    for (int i = 0; i < 256; i++)
        sum = sum * 31 + m.mem[0x1000 + i];
    return sum;
}

const struct loop loops_interpreters[] = {{"stackvm", stack_machine},
                                          {"regvm", register_machine},
                                          {"treewalk", tree_walker},
                                          {"computer", computer_8bit},
                                          {NULL, NULL}};
