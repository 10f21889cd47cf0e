/* decode_insn(): a table of encodings with what they must become. */
#include "decode/decode.h"

#include <stdio.h>

#include "cpu/cpuid.h"
#include "decode/memo.h"
#include "lib/hex.h"
#include "lib/unit.h"

static int put(char *buf, int at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf + at, (size_t)(512 - at), fmt, ap);
    va_end(ap);
    return at + n;
}

/*
 * One line for an instruction:
 *   op OPSIZE/ADDRSIZE operands {mem} =imm @far cc rep flags
 * Operands: r<reg>.<size>, h<reg> (AH..BH), m.<size>, i.<size>, s c d (segment, control,
 * debug), v (vector), each followed by its access (r, w, rw). Memory:
 * {seg:base+index*scale+disp size}, registers by number (16: none, 17: rip).
 */
static int describe_operand(char *buf, int at, const struct operand *o) {
    static const char letter[] = {
        [OPND_REG] = 'r', [OPND_MEM] = 'm', [OPND_IMM] = 'i', [OPND_SEG] = 's',
        [OPND_CR] = 'c',  [OPND_DR] = 'd',  [OPND_VEC] = 'v'};
    bool high = o->kind == OPND_REG && o->off != o->reg * 8;
    at = put(buf, at, " %c", high ? 'h' : letter[o->kind]);
    if (o->kind != OPND_MEM && o->kind != OPND_IMM)
        at = put(buf, at, "%d", o->reg);
    return put(buf, at, ".%d%s%s", o->size, o->access & OPND_READ ? "r" : "",
               o->access & OPND_WRITE ? "w" : "");
}

static void describe(const struct insn *i, char *buf) {
    static const char seg[] = "ecsdfg";
    static const struct {
        unsigned flag;
        char c;
    } flags[] = {{INSN_LOCK, 'L'},    {INSN_ENDS_BLOCK, 'E'}, {INSN_PRIVILEGED, 'P'},
                 {INSN_ALIGNED, 'A'}, {INSN_X87, 'X'},        {INSN_MMX, 'M'},
                 {INSN_GPR, 'G'},     {INSN_FLAGS, 'F'},      {INSN_VEX, 'V'}};
    int at = put(buf, 0, "%s %d/%d", decode_op_name(i->op), i->opsize, i->addrsize);
    for (int n = 0; n < i->nops; n++)
        at = describe_operand(buf, at, &i->opnd[n]);
    const struct mem_operand *m = &i->mem;
    if (m->base != REG_ZERO || m->index != REG_ZERO || m->disp || m->size)
        at = put(buf, at, " {%c:%d+%d*%d%+lld %d}", seg[m->seg], m->base, m->index,
                 1 << m->scale, (long long)m->disp, m->size);
    if (i->imm)
        at = put(buf, at, " =%lld", (long long)i->imm);
    if (i->far_sel)
        at = put(buf, at, " @%x", i->far_sel);
    if (i->op == OP_jcc || i->op == OP_setcc || i->op == OP_cmovcc)
        at = put(buf, at, " cc%d", i->cond);
    if (i->rep)
        at = put(buf, at, i->rep == REP_REPE ? " repe" : " repne");
    at = put(buf, at, " ");
    for (size_t n = 0; n < ARRAY_SIZE(flags); n++) {
        if (i->flags & flags[n].flag)
            at = put(buf, at, "%c", flags[n].c);
    }
    while (at && buf[at - 1] == ' ')
        buf[--at] = 0;
}

struct golden {
    uint8_t mode;
    const char *hex, *text;
};

static void check_golden(const struct golden *g, size_t count) {
    size_t bad = 0;
    for (size_t n = 0; n < count; n++) {
        struct insn i = hex_decode(g[n].mode, g[n].hex);
        char buf[512];
        describe(&i, buf);
        bool ok = !strcmp(buf, g[n].text) &&
                  (i.op == OP_invalid || i.len == strlen(g[n].hex) / 2);
        if (!ok)
            print_error("    {MODE_%d, \"%s\", \"%s\"}, /* len %d */\n", 16 << g[n].mode,
                        g[n].hex, buf, i.len);
        bad += !ok;
    }
    assert_int_equal(bad, 0);
}

static void test_integer(void **state) {
    static const struct golden table[] = {
        {MODE_64, "00d8", "add 1/8 r0.1rw r3.1r"},
        {MODE_64, "4801c3", "add 8/8 r3.8rw r0.8r"},
        {MODE_64, "66050180", "add 2/8 r0.2rw i.2r =-32767"},
        {MODE_64, "4881c0ffffffff", "add 8/8 r0.8rw i.4r =-1"},
        {MODE_64, "83c0ff", "add 4/8 r0.4rw i.1r =-1"},
        {MODE_64, "88e0", "mov 1/8 r0.1w h0.1r"},
        {MODE_64, "4088e0", "mov 1/8 r0.1w r4.1r"},
        {MODE_64, "8a4424f8", "mov 1/8 r0.1w m.1r {s:4+16*1-8 1}"},
        /* No base, whatever REX.B says. */
        {MODE_64, "67438b048d44332211", "mov 4/4 r0.4w m.4r {d:16+9*4+287454020 4}"},
        {MODE_64, "438b048d44332211", "mov 4/8 r0.4w m.4r {d:16+9*4+287454020 4}"},
        {MODE_64, "67438b448d44", "mov 4/4 r0.4w m.4r {d:13+9*4+68 4}"},
        {MODE_64, "8b0540000000", "mov 4/8 r0.4w m.4r {d:17+16*1+70 4}"},
        {MODE_64, "67668b4c9103", "mov 2/4 r1.2w m.2r {d:1+2*4+3 2}"},
        {MODE_64, "8b4c6d00", "mov 4/8 r1.4w m.4r {s:5+5*2+0 4}"},
        {MODE_64, "418b4500", "mov 4/8 r0.4w m.4r {d:13+16*1+0 4}"},
        {MODE_64, "658b042528000000", "mov 4/8 r0.4w m.4r {g:16+16*1+40 4}"},
        {MODE_64, "368b4500", "mov 4/8 r0.4w m.4r {s:5+16*1+0 4}"},
        {MODE_64, "2e648b00", "mov 4/8 r0.4w m.4r {f:0+16*1+0 4}"},
        {MODE_64, "642e8b00", "mov 4/8 r0.4w m.4r {f:0+16*1+0 4}"},
        {MODE_32, "2e8b00", "mov 4/4 r0.4w m.4r {c:0+16*1+0 4}"},
        {MODE_32, "8b4500", "mov 4/4 r0.4w m.4r {s:5+16*1+0 4}"},
        {MODE_32, "8b044d78563412", "mov 4/4 r0.4w m.4r {d:16+1*2+305419896 4}"},
        {MODE_16, "8b4202", "mov 2/2 r0.2w m.2r {s:5+6*1+2 2}"},
        {MODE_16, "8b07", "mov 2/2 r0.2w m.2r {d:3+16*1+0 2}"},
        {MODE_16, "8b4600", "mov 2/2 r0.2w m.2r {s:5+16*1+0 2}"},
        {MODE_16, "8b0e3412", "mov 2/2 r1.2w m.2r {d:16+16*1+4660 2}"},
        {MODE_16, "67668b0424", "mov 4/4 r0.4w m.4r {s:4+16*1+0 4}"},
        {MODE_16, "668bc3", "mov 4/2 r0.4w r3.4r"},
        {MODE_64, "f048ff00", "inc 8/8 m.8rw {d:0+16*1+0 8} L"},
        {MODE_64, "f00fc70e", "cmpxchg8b 4/8 m.8rw {d:6+16*1+0 8} L"},
        {MODE_64, "f0480fc70e", "cmpxchg16b 8/8 m.16rw {d:6+16*1+0 16} LA"},
        {MODE_64, "480fb10e", "cmpxchg 8/8 m.8rw r1.8r {d:6+16*1+0 8}"},
        {MODE_64, "86c4", "xchg 1/8 h0.1rw r0.1rw"},
        {MODE_64, "f7e3", "mul 4/8 r3.4r"},
        {MODE_64, "48f7f9", "idiv 8/8 r1.8r"},
        {MODE_64, "0fafc3", "imul 4/8 r0.4rw r3.4r"},
        {MODE_64, "6bc3fe", "imul 4/8 r0.4w r3.4r i.1r =-2"},
        {MODE_64, "69c3ffffff7f", "imul 4/8 r0.4w r3.4r i.4r =2147483647"},
        {MODE_64, "d1e0", "shl 4/8 r0.4rw i.1r =1"},
        {MODE_64, "d3e8", "shr 4/8 r0.4rw r1.1r"},
        {MODE_64, "c1f805", "sar 4/8 r0.4rw i.1r =5"},
        {MODE_64, "d0f1", "shl 1/8 r1.1rw i.1r =1"},
        {MODE_64, "0fa4d804", "shld 4/8 r0.4rw r3.4r i.1r =4"},
        {MODE_64, "0fa5d8", "shld 4/8 r0.4rw r3.4r r1.1r"},
        {MODE_64, "480fbae03f", "bt 8/8 r0.8r i.1r =63"},
        {MODE_64, "f30fbcc3", "tzcnt 4/8 r0.4w r3.4r"},
        {MODE_64, "f30fbdc3", "lzcnt 4/8 r0.4w r3.4r"},
        {MODE_64, "f30fb8c3", "popcnt 4/8 r0.4w r3.4r"},
        {MODE_64, "0fbcc3", "bsf 4/8 r0.4w r3.4r"},
        {MODE_64, "c4e270f2c3", "andn 4/8 r0.4w r1.4r r3.4r V"},
        {MODE_64, "c4e2fbf6c3", "mulx 8/8 r0.8w r0.8w r3.8r V"},
        {MODE_64, "c4e3fbf0c307", "rorx 8/8 r0.8w r3.8r i.1r =7 V"},
        {MODE_64, "f20f38f0c1", "crc32 1/8 r0.4rw r1.1r"},
        {MODE_64, "f2480f38f1c1", "crc32 8/8 r0.8rw r1.8r"},
        {MODE_64, "0f38f001", "movbe 4/8 r0.4w m.4r {d:1+16*1+0 4}"},
        {MODE_64, "0fc303", "movnti 4/8 m.4w r0.4r {d:3+16*1+0 4}"},
        {MODE_64, "48c7c0ffffffff", "mov 8/8 r0.8w i.4r =-1"},
        {MODE_64, "48b88877665544332211", "mov 8/8 r0.8w i.8r =1234605616436508552"},
        {MODE_64, "48a18877665544332280",
         "mov 8/8 r0.8w m.8r {d:16+16*1-9213745519063042168 8}"},
        {MODE_64, "67a0f0ffffff", "mov 1/4 r0.1w m.1r {d:16+16*1+4294967280 1}"},
        {MODE_32, "a1f0ffffff", "mov 4/4 r0.4w m.4r {d:16+16*1+4294967280 4}"},
        {MODE_16, "a1f0ff", "mov 2/2 r0.2w m.2r {d:16+16*1+65520 2}"},
        {MODE_64, "0fb6c4", "movzx 4/8 r0.4w h0.1r"},
        {MODE_64, "480fbec4", "movsx 8/8 r0.8w r4.1r"},
        {MODE_64, "4863c8", "movsxd 8/8 r1.8w r0.4r"},
        {MODE_64, "8d4498f0", "lea 4/8 r0.4w m.0 {d:0+3*4-16 0}"},
        {MODE_64, "93", "xchg 4/8 r3.4rw r0.4rw"},
        {MODE_64, "90", "nop 4/8"},
        {MODE_64, "f390", "nop 4/8"},
        {MODE_64, "4190", "xchg 4/8 r8.4rw r0.4rw"},
        {MODE_64, "480fc9", "bswap 8/8 r1.8rw"},
        {MODE_64, "65d7", "xlat 1/8 {g:3+16*1+0 1}"},
        {MODE_32, "d6", "salc 4/4"},
        {MODE_64, "0f44c3", "cmovcc 4/8 r0.4w r3.4r cc4"},
        {MODE_64, "0f9f00", "setcc 1/8 m.1w {d:0+16*1+0 1} cc15"},
        {MODE_64, "6698", "cbw 2/8"},
        {MODE_64, "98", "cwde 4/8"},
        {MODE_64, "4898", "cdqe 8/8"},
        {MODE_64, "6699", "cwd 2/8"},
        {MODE_64, "99", "cdq 4/8"},
        {MODE_64, "4899", "cqo 8/8"},
        {MODE_64, "82c001", "invalid 8/8 E"},
        {MODE_32, "82c001", "add 1/4 r0.1rw i.1r =1"},
        {MODE_64, "f6c801", "test 1/8 r0.1r i.1r =1"},
        {MODE_64, "c0f001", "shl 1/8 r0.1rw i.1r =1"},
        {MODE_64, "0f1f440000", "nop 4/8 m.0 r0.4r {d:0+0*1+0 0}"},
        {MODE_64, "0f0d08", "nop 4/8 m.0 {d:0+16*1+0 0}"},
        {MODE_64, "0f1809", "nop 4/8 m.0 {d:1+16*1+0 0}"},
        {MODE_64, "f30f1efa", "nop 4/8 r2.4r r7.4r"},
        {MODE_64, "f30f1ec8", "nop 4/8 r0.4r r1.4r"},
        {MODE_64, "0f1a00", "nop 4/8 m.0 {d:0+16*1+0 0}"},
        {MODE_64, "0faee8", "nop 4/8"},
        {MODE_64, "0fae38", "clflush 4/8 m.64r {d:0+16*1+0 64}"},
        {MODE_64, "660fae38", "clflush 4/8 m.64r {d:0+16*1+0 64}"},
        {MODE_64, "660fae30", "clflush 4/8 m.64r {d:0+16*1+0 64}"},
        {MODE_64, "0f01fc", "clzero 4/8 {d:0+16*1+0 64}"},
        {MODE_64, "0fc7f0", "rdrand 4/8 r0.4w"},
        {MODE_64, "f30fc7f8", "rdpid 4/8 r0.8w"},
    };
    check_golden(table, ARRAY_SIZE(table));
}

static void test_stack(void **state) {
    static const struct golden table[] = {
        {MODE_64, "50", "push 8/8 r0.8r"},
        {MODE_64, "6650", "push 2/8 r0.2r"},
        {MODE_32, "50", "push 4/4 r0.4r"},
        {MODE_16, "50", "push 2/2 r0.2r"},
        {MODE_16, "6650", "push 4/2 r0.4r"},
        {MODE_64, "6aff", "push 8/8 i.1r =-1"},
        {MODE_64, "68ffffffff", "push 8/8 i.4r =-1"},
        {MODE_64, "ff30", "push 8/8 m.8r {d:0+16*1+0 8}"},
        {MODE_64, "8f00", "pop 8/8 m.8w {d:0+16*1+0 8}"},
        {MODE_64, "0fa0", "push_seg 8/8 s4.2r"},
        {MODE_32, "06", "push_seg 4/4 s0.2r"},
        {MODE_32, "17", "pop_seg 4/4 s2.2w E"},
        {MODE_64, "9c", "pushf 8/8"},
        {MODE_64, "669d", "popf 2/8 E"},
        {MODE_16, "9d", "popf 2/2 E"},
        {MODE_16, "669d", "popf 4/2 E"},
        {MODE_64, "c8100002", "enter 8/8 =16 @2"},
        {MODE_32, "c9", "leave 4/4"},
        {MODE_16, "c9", "leave 2/2"},
        {MODE_32, "60", "pusha 4/4"},
        {MODE_32, "6661", "popa 2/4"},
    };
    check_golden(table, ARRAY_SIZE(table));
}

static void test_branch(void **state) {
    static const struct golden table[] = {
        {MODE_64, "7410", "jcc 8/8 =16 cc4 E"},
        {MODE_64, "0f85fcffffff", "jcc 8/8 =-4 cc5 E"},
        {MODE_64, "e80000ff7f", "call 8/8 =2147418112 E"},
        {MODE_32, "66e80080", "call 2/4 =-32768 E"},
        {MODE_16, "e80080", "call 2/2 =-32768 E"},
        {MODE_64, "ebfe", "jmp 8/8 =-2 E"},
        {MODE_64, "ffe0", "jmp 8/8 r0.8r E"},
        {MODE_64, "ff2500000000", "jmp 8/8 m.8r {d:17+16*1+6 8} E"},
        {MODE_64, "41ffd3", "call 8/8 r11.8r E"},
        {MODE_64, "c3", "ret 8/8 E"},
        {MODE_64, "c20800", "ret 8/8 i.2r =8 E"},
        {MODE_32, "66c3", "ret 2/4 E"},
        {MODE_16, "c3", "ret 2/2 E"},
        {MODE_64, "e300", "jcxz 8/8 E"},
        {MODE_64, "67e300", "jcxz 8/4 E"},
        {MODE_16, "e3fe", "jcxz 2/2 =-2 E"},
        {MODE_64, "e2fe", "loop 8/8 =-2 E"},
        {MODE_32, "e1fe", "loope 4/4 =-2 E"},
        {MODE_32, "e0fe", "loopne 4/4 =-2 E"},
        {MODE_32, "ea785634120800", "jmp_far 4/4 =305419896 @8 E"},
        {MODE_32, "669a34120800", "call_far 2/4 =4660 @8 E"},
        {MODE_16, "ea3412ffff", "jmp_far 2/2 =4660 @ffff E"},
        {MODE_16, "66ea78563412ffff", "jmp_far 4/2 =305419896 @ffff E"},
        {MODE_64, "ff28", "jmp_far 4/8 m.6r {d:0+16*1+0 6} E"},
        {MODE_64, "66ff18", "call_far 2/8 m.4r {d:0+16*1+0 4} E"},
        {MODE_64, "cb", "ret_far 4/8 E"},
        {MODE_64, "48cb", "ret_far 8/8 E"},
        {MODE_64, "66cb", "ret_far 2/8 E"},
        {MODE_64, "ca0400", "ret_far 4/8 i.2r =4 E"},
        {MODE_64, "cf", "iret 4/8 E"},
        {MODE_64, "48cf", "iret 8/8 E"},
        {MODE_32, "66cf", "iret 2/4 E"},
        {MODE_16, "cf", "iret 2/2 E"},
        {MODE_64, "cd80", "int 4/8 i.1r =128 E"},
        {MODE_64, "cc", "int3 4/8 E"},
        {MODE_64, "f1", "int1 4/8 E"},
        {MODE_32, "ce", "into 4/4 E"},
        {MODE_64, "0f05", "syscall 8/8 E"},
        {MODE_64, "480f07", "sysret 8/8 EP"},
        {MODE_64, "0f34", "sysenter 4/8 E"},
        {MODE_64, "0f35", "sysexit 4/8 EP"},
        {MODE_64, "0f0b", "ud 4/8 E"},
        {MODE_64, "0fb9c0", "ud 4/8 E"},
        {MODE_64, "0fffc0", "ud 4/8 E"},
        {MODE_32, "6200", "bound 4/4 r0.4r m.8r {d:0+16*1+0 8}"},
    };
    check_golden(table, ARRAY_SIZE(table));
}

static void test_string(void **state) {
    static const struct golden table[] = {
        {MODE_64, "a4", "movs 1/8 {d:6+16*1+0 1}"},
        {MODE_64, "f348a5", "movs 8/8 {d:6+16*1+0 8} repe"},
        {MODE_64, "64a5", "movs 4/8 {f:6+16*1+0 4}"},
        {MODE_64, "66ab", "stos 2/8 {e:7+16*1+0 2}"},
        {MODE_64, "f3aa", "stos 1/8 {e:7+16*1+0 1} repe"},
        {MODE_64, "f2ab", "stos 4/8 {e:7+16*1+0 4} repe"},
        {MODE_64, "67ac", "lods 1/4 {d:6+16*1+0 1}"},
        {MODE_64, "f2ae", "scas 1/8 {e:7+16*1+0 1} repne"},
        {MODE_64, "f3a6", "cmps 1/8 {d:6+16*1+0 1} repe"},
        {MODE_64, "f3a7", "cmps 4/8 {d:6+16*1+0 4} repe"},
        {MODE_64, "f36c", "ins 1/8 {e:7+16*1+0 1} repe E"},
        {MODE_64, "f36f", "outs 4/8 {d:6+16*1+0 4} repe E"},
        {MODE_16, "26a4", "movs 1/2 {e:6+16*1+0 1}"},
        {MODE_16, "66a5", "movs 4/2 {d:6+16*1+0 4}"},
        {MODE_64, "f20f1000", "native 4/8 v0.16w m.8r {d:0+16*1+0 8}"},
        {MODE_64, "f20fc2c100", "native 4/8 v0.8rw v1.8r i.1r"},
    };
    check_golden(table, ARRAY_SIZE(table));
}

static void test_system(void **state) {
    static const struct golden table[] = {
        {MODE_64, "0f22c0", "mov_to_cr 8/8 c0.8w r0.8r EP"},
        {MODE_64, "440f20c0", "mov_from_cr 8/8 r0.8w c8.8r P"},
        {MODE_32, "0f2000", "mov_from_cr 4/4 r0.4w c0.4r P"},
        {MODE_32, "0f23f8", "mov_to_dr 4/4 d7.4w r0.4r EP"},
        {MODE_64, "0f21f0", "mov_from_dr 8/8 r0.8w d6.8r P"},
        {MODE_64, "8ed0", "mov_to_seg 4/8 s2.2w r0.2r E"},
        {MODE_64, "8ed8", "mov_to_seg 4/8 s3.2w r0.2r"},
        {MODE_64, "8e20", "mov_to_seg 4/8 s4.2w m.2r {d:0+16*1+0 2}"},
        {MODE_64, "488cd8", "mov_from_seg 8/8 r0.8w s3.2r"},
        {MODE_64, "8c18", "mov_from_seg 4/8 m.2w s3.2r {d:0+16*1+0 2}"},
        {MODE_32, "8cd8", "mov_from_seg 4/4 r0.4w s3.2r"},
        {MODE_64, "0fb200", "load_far 4/8 r0.4w m.6r s2.2w {d:0+16*1+0 6} E"},
        {MODE_32, "c500", "load_far 4/4 r0.4w m.6r s3.2w {d:0+16*1+0 6}"},
        {MODE_16, "c407", "load_far 2/2 r0.2w m.4r s0.2w {d:3+16*1+0 4}"},
        {MODE_64, "0f0110", "lgdt 8/8 m.10r {d:0+16*1+0 10} P"},
        {MODE_16, "0f0117", "lgdt 2/2 m.6r {d:3+16*1+0 6} P"},
        {MODE_64, "0f0100", "sgdt 8/8 m.10w {d:0+16*1+0 10}"},
        {MODE_64, "0f00d8", "ltr 4/8 r0.2r P"},
        {MODE_64, "0f00d0", "lldt 4/8 r0.2r P"},
        {MODE_64, "0f00c0", "sldt 4/8 r0.4w"},
        {MODE_64, "0f01e0", "smsw 4/8 r0.4w"},
        {MODE_64, "0f01f0", "lmsw 4/8 r0.2r EP"},
        {MODE_64, "0f02c1", "lar 4/8 r0.4w r1.4r"},
        {MODE_64, "0f03c1", "lsl 4/8 r0.4rw r1.4r"},
        {MODE_64, "0f00e0", "verr 4/8 r0.2r"},
        {MODE_64, "0f00e8", "verw 4/8 r0.2r"},
        {MODE_32, "63c8", "arpl 4/4 r0.2rw r1.2r"},
        {MODE_64, "f3480faec0", "rdfsbase 8/8 r0.8w"},
        {MODE_64, "f3480faed8", "wrgsbase 8/8 r0.8r"},
        {MODE_64, "0f01f8", "swapgs 4/8 P"},
        {MODE_64, "ec", "in 1/8 r0.1w r2.2r E"},
        {MODE_64, "66e580", "in 2/8 r0.2w i.1r =128 E"},
        {MODE_64, "ef", "out 4/8 r2.2r r0.4r E"},
        {MODE_64, "e680", "out 1/8 i.1r r0.1r =128 E"},
        {MODE_64, "fa", "cli 4/8 E"},
        {MODE_64, "fb", "sti 4/8 E"},
        {MODE_64, "0f01ca", "clac 4/8"},
        {MODE_64, "0f01cb", "stac 4/8"},
        {MODE_64, "f4", "hlt 4/8 EP"},
        {MODE_64, "0f06", "clts 4/8 EP"},
        {MODE_64, "0f08", "invd 4/8 P"},
        {MODE_64, "0f09", "wbinvd 4/8 P"},
        {MODE_64, "f30f09", "wbinvd 4/8 P"},
        {MODE_64, "0f0138", "invlpg 1/8 m.0 {d:0+16*1+0 0} EP"},
        {MODE_64, "660f388200", "invpcid 8/8 r0.8r m.16r {d:0+16*1+0 16} EP"},
        {MODE_64, "0f32", "rdmsr 4/8 P"},
        {MODE_64, "0f30", "wrmsr 4/8 EP"},
        {MODE_64, "0f31", "rdtsc 4/8"},
        {MODE_64, "0f01f9", "rdtscp 4/8"},
        {MODE_64, "0f33", "rdpmc 4/8"},
        {MODE_64, "0fa2", "cpuid 4/8"},
        {MODE_64, "0f01d0", "xgetbv 4/8"},
        {MODE_64, "0f01d1", "xsetbv 4/8 EP"},
        {MODE_64, "0f01c8", "monitor 4/8 {d:0+16*1+0 1}"},
        {MODE_64, "0f01c9", "mwait 4/8 E"},
        {MODE_64, "0f01c1", "hypercall 4/8 E"},
        {MODE_64, "0f01d9", "hypercall 4/8 E"},
        {MODE_64, "0faa", "rsm 4/8 E"},
        {MODE_32, "37", "aaa 4/4"},
        {MODE_32, "27", "daa 4/4"},
        {MODE_32, "d40a", "aam 4/4 i.1r =10"},
        {MODE_32, "d50a", "aad 4/4 i.1r =10"},
    };
    check_golden(table, ARRAY_SIZE(table));
}

static void test_vector(void **state) {
    static const struct golden table[] = {
        {MODE_64, "0f5801", "native 4/8 v0.16rw m.16r {d:1+16*1+0 16} A"},
        {MODE_64, "0f58c1", "native 4/8 v0.16rw v1.16r"},
        {MODE_64, "f30f5801", "native 4/8 v0.4rw m.4r {d:1+16*1+0 4}"},
        {MODE_64, "660f6f01", "native 4/8 v0.16w m.16r {d:1+16*1+0 16} A"},
        {MODE_64, "660fef01", "native 4/8 v0.16rw m.16r {d:1+16*1+0 16} A"},
        {MODE_64, "f30f6f01", "native 4/8 v0.16w m.16r {d:1+16*1+0 16}"},
        {MODE_64, "0f1001", "native 4/8 v0.16w m.16r {d:1+16*1+0 16}"},
        {MODE_64, "660f3a630100", "native 4/8 v0.16r m.16r i.1r {d:1+16*1+0 16} GF"},
        {MODE_64, "c5f96f01", "native 4/8 v0.16w m.16r {d:1+16*1+0 16} AV"},
        {MODE_64, "c5f82801", "native 4/8 v0.16w m.16r {d:1+16*1+0 16} AV"},
        {MODE_64, "c5fc5801", "native 4/8 v0.32w v0.32r m.32r {d:1+16*1+0 32} V"},
        {MODE_64, "c5fd6f01", "native 4/8 v0.32w m.32r {d:1+16*1+0 32} AV"},
        {MODE_64, "c5f877", "native 4/8 V"},
        {MODE_64, "c5fc77", "native 4/8 V"},
        {MODE_64, "c4e27190d9", "invalid 8/8 E"},
        {MODE_64, "c4e2f19004d9", "gather 8/8 v0.16rw m.8r v1.16rw {d:1+3*8+0 8} V"},
        {MODE_64, "c4e2712c01", "vmaskmov 4/8 v0.16w v1.16r m.16r {d:1+16*1+0 16} V"},
        {MODE_64, "660ff7c8", "maskmov 4/8 v1.16r v0.16r {d:7+16*1+0 16}"},
        {MODE_64, "0ff7c8", "maskmov 4/8 v1.8r v0.8r {d:7+16*1+0 8}"},
        {MODE_64, "0f6fc1", "native 4/8 v0.8w v1.8r M"},
        {MODE_64, "0f77", "native 4/8 M"},
        {MODE_64, "0f2ac1", "native 4/8 v0.8w v1.8r M"},
        {MODE_64, "0f2a01", "native 4/8 v0.8w m.8r {d:1+16*1+0 8} M"},
        {MODE_64, "f3480f2ac0", "native 8/8 v0.4rw r0.8r G"},
        {MODE_64, "f20f2dc1", "native 4/8 r0.4w v1.8r G"},
        {MODE_64, "660fd7c1", "native 4/8 r0.4w v1.16r G"},
        {MODE_64, "0f2ec1", "native 4/8 v0.4r v1.4r F"},
        {MODE_64, "660f3a63c100", "native 4/8 v0.16r v1.16r i.1r GF"},
        {MODE_64, "d801", "native 4/8 m.4r {d:1+16*1+0 4} X"},
        {MODE_64, "db29", "native 4/8 m.10r {d:1+16*1+0 10} X"},
        {MODE_64, "d9c9", "native 4/8 v1.10rw X"},
        {MODE_64, "dfe0", "native 4/8 r0.2w XG"},
        {MODE_64, "dbf1", "native 4/8 v0.10r v1.10r XF"},
        {MODE_64, "dbe3", "native 4/8 X"},
        {MODE_64, "dac1", "native 4/8 v0.10w v1.10r XF"},
        {MODE_64, "9b", "fwait 4/8 X"},
        {MODE_64, "dd30", "fnsave 4/8 m.108w {d:0+16*1+0 108} X"},
        {MODE_64, "d930", "fnstenv 4/8 m.28w {d:0+16*1+0 28} X"},
        {MODE_64, "d920", "fldenv 4/8 m.28r {d:0+16*1+0 28} X"},
        {MODE_64, "dd20", "frstor 4/8 m.108r {d:0+16*1+0 108} X"},
        {MODE_64, "df08", "native 4/8 m.2w {d:0+16*1+0 2} X"},
        {MODE_64, "0fae00", "fxsave 4/8 m.0w {d:0+16*1+0 0}"},
        {MODE_64, "480fae08", "fxrstor 8/8 m.0r {d:0+16*1+0 0}"},
        {MODE_64, "0fae20", "xsave 4/8 m.0rw {d:0+16*1+0 0}"},
        {MODE_64, "0fae28", "xrstor 4/8 m.0r {d:0+16*1+0 0}"},
        {MODE_64, "480fae30", "xsaveopt 8/8 m.0rw {d:0+16*1+0 0}"},
        {MODE_64, "0fc721", "xsavec 4/8 m.0w {d:1+16*1+0 0}"},
        {MODE_64, "0fc729", "xsaves 4/8 m.0w {d:1+16*1+0 0} P"},
        {MODE_64, "0fc719", "xrstors 4/8 m.0r {d:1+16*1+0 0} P"},
        {MODE_64, "0fae10", "native 4/8 m.4r {d:0+16*1+0 4}"},
        {MODE_64, "c5f8ae18", "native 4/8 m.4w {d:0+16*1+0 4} V"},
        {MODE_64, "660fc6c000", "native 4/8 v0.16rw v0.16r i.1r"},
        {MODE_64, "660f38dc01", "native 4/8 v0.16rw m.16r {d:1+16*1+0 16} A"},
        {MODE_64, "660f3a440100", "native 4/8 v0.16rw m.16r i.1r {d:1+16*1+0 16} A"},
        {MODE_64, "0f38c801", "native 4/8 v0.16rw m.16r {d:1+16*1+0 16} A"},
        {MODE_64, "f20f38f6c0", "invalid 8/8 E"},
        {MODE_64, "66480f38f6c3", "adcx 8/8 r0.8rw r3.8r"},
        {MODE_64, "660f38f6c3", "adcx 4/8 r0.4rw r3.4r"},
        {MODE_64, "660f38f001", "movbe 2/8 r0.2w m.2r {d:1+16*1+0 2}"},
        {MODE_64, "66f20f38f1c1", "crc32 2/8 r0.4rw r1.2r"},
        {MODE_64, "f20f78c10102", "native 4/8 v0.8w v1.8r i.1r i.1r =1"},
        {MODE_64, "660f78c00102", "native 4/8 v0.8w i.1r i.1r =1"},
        {MODE_64, "c4e37d190001", "native 4/8 m.16w v0.16r i.1r {d:0+16*1+0 16} =1 V"},
        {MODE_64, "c4e3714bc120", "native 4/8 v0.16w v1.16r v1.16r v2.16r V"},
    };
    check_golden(table, ARRAY_SIZE(table));
}

static void test_invalid(void **state) {
    static const struct golden table[] = {
        {MODE_64, "06", "invalid 8/8 E"},
        {MODE_64, "60", "invalid 8/8 E"},
        {MODE_64, "ea", "invalid 8/8 E"},
        {MODE_64, "8200", "invalid 8/8 E"},
        {MODE_64, "0f04", "invalid 8/8 E"},
        {MODE_64, "f04889c0", "invalid 8/8 E"},
        {MODE_64, "f0488b00", "invalid 8/8 E"},
        {MODE_64, "0f01d8", "invalid 4/8 E"},
        {MODE_64, "0f78c1", "invalid 8/8 E"},
        {MODE_64, "0f0f00b4", "invalid 4/8 E"},
        {MODE_64, "0f0e", "invalid 4/8 E"},
        {MODE_64, "8fe97801c0", "invalid 8/8 E"},
        {MODE_64, "c5f841c1", "invalid 4/8 EV"},
        {MODE_64, "0f37", "invalid 4/8 E"},
        {MODE_64, "c7f800000000", "invalid 4/8 E"},
        {MODE_64, "c6f800", "invalid 4/8 E"},
        {MODE_64, "0f01d5", "invalid 4/8 E"},
        {MODE_64, "f30fc7f0", "invalid 4/8 E"},
        {MODE_64, "0f38f900", "invalid 4/8 E"},
        {MODE_64, "f0c5f858c0", "invalid 8/8 E"},
        {MODE_64, "660f0e", "invalid 2/8 E"},
        {MODE_64, "8ec8", "invalid 8/8 E"},
        {MODE_64, "0f22c8", "invalid 8/8 E"},
        {MODE_64, "0fa600", "invalid 8/8 E"},
        {MODE_64, "660f388000", "invalid 8/8 E"},
        {MODE_64, "c4e37169c120", "invalid 4/8 EV"},
        {MODE_32, "c4e80000", "invalid 4/4 E"},
        {MODE_32, "0f24c0", "invalid 4/4 E"},
        {MODE_16, "c4c00000", "invalid 2/2 E"},
    };
    check_golden(table, ARRAY_SIZE(table));
}

/* What AMD's and Intel's CPUs do differently; the guest's is the host's. */
static void test_vendor(void **state) {
    bool amd = __builtin_cpu_is("amd");
    static const char *const near16[] = {"66ebfe", "66c3",     "66ffe0",
                                         "66ff10", "660f8000", "66e2fe"};
    for (size_t n = 0; n < ARRAY_SIZE(near16); n++) {
        char hex[32];
        /* Room for either length of a displacement. */
        snprintf(hex, sizeof(hex), "%s0000000000", near16[n]);
        struct insn i = hex_decode(MODE_64, hex);
        assert_int_equal(i.opsize, amd ? 2 : 8);
    }
    if (amd)
        assert_int_equal(hex_decode(MODE_64, "66e80000").len, 4);
    assert_int_equal(hex_decode(MODE_64, "48ff28").mem.size, amd ? 6 : 10);
    assert_int_equal(hex_decode(MODE_64, "48ff18").opsize, 8);
    assert_int_equal(hex_decode(MODE_64, "480fb200").mem.size, amd ? 6 : 10);
    assert_int_equal(hex_decode(MODE_64, "666300").mem.size, amd ? 4 : 2); /* movsxd */
    struct insn cr = hex_decode(MODE_32, "f00f22c3");
    assert_int_equal(cr.op, amd ? OP_mov_to_cr : OP_invalid);
    if (amd) {
        assert_int_equal(cr.opnd[0].reg, 8);
        assert_int_equal(cr.opnd[1].reg, REG_RBX);
        assert_int_equal(cr.len, 4);
        assert_false(cr.flags & INSN_LOCK);
    }
    assert_int_equal(hex_decode(MODE_32, "f00f22db").op, OP_invalid);
    assert_int_equal(hex_decode(MODE_64, "0f0dc8").op, amd ? OP_invalid : OP_nop);
    assert_int_equal(hex_decode(MODE_64, "f2e1fe").op, amd ? OP_loopne : OP_loope);
    assert_int_equal(hex_decode(MODE_64, "f3e0fe").op, amd ? OP_loope : OP_loopne);
    assert_int_equal(hex_decode(MODE_32, "f2f3e0fe").op, amd ? OP_loope : OP_loopne);
    assert_int_equal(hex_decode(MODE_32, "f3f2e0fe").op, OP_loopne);
    assert_int_equal(hex_decode(MODE_32, "f2e2fe").op, OP_loop);
    assert_int_equal(hex_decode(MODE_32, "c4e3f922d19f").op,
                     amd ? OP_invalid : OP_native);
    assert_int_equal(hex_decode(MODE_32, "c4e3f916d19f").op,
                     amd ? OP_invalid : OP_native);
    assert_int_equal(hex_decode(MODE_64, "c4e3f922d19f").op, OP_native);
    assert_int_equal(hex_decode(MODE_64, "f390").op, OP_nop);
    assert_int_equal(hex_decode(MODE_64, "f34190").op, amd ? OP_xchg : OP_nop);
    assert_int_equal(hex_decode(MODE_64, "f34e90").op, OP_nop);
    struct insn xchg = hex_decode(MODE_64, "66f34990");
    assert_int_equal(xchg.len, 4);
    if (amd) {
        assert_int_equal(xchg.opsize, 8);
        assert_int_equal(xchg.opnd[0].off / 8 + xchg.opnd[1].off / 8, REG_R8 + REG_RAX);
    }
}

/* A memory of what was decoded changes nothing: real code, this program's own, from each
 * of its bytes on, and random bytes that begin alike, with displacements of either sign;
 * in turns for each mode. */
static void test_memo(void **state) {
    static const uint8_t starts[][3] = {
        {0x48, 0x8b, 0x44}, {0x48, 0x8b, 0x04}, {0x0f, 0x84, 0x00}, {0xf3, 0x0f, 0x1e},
        {0x66, 0x0f, 0x6f}, {0xc4, 0xe2, 0x7d}, {0x40, 0x40, 0x40}, {0x8b, 0x05, 0x00},
        {0xe8, 0x00, 0x80}, {0x75, 0x80, 0x00}, {0x48, 0x8d, 0x0d}, {0x48, 0x8b, 0x84},
        {0x8b, 0x45, 0xff}, {0x83, 0x7d, 0x80}, {0xff, 0x25, 0xff}, {0x62, 0xf1, 0x7c}};
    static const enum cpu_mode modes[] = {MODE_64, MODE_32, MODE_64, MODE_16};
    struct decode_memo *memo = decode_memo_new();
    const uint8_t *own = (const uint8_t *)(uintptr_t)test_memo;
    uint64_t random = 88172645463325252ull;
    struct insn is, want;
    uint8_t bytes[16];

    assert_non_null(memo);
    for (unsigned n = 0; n < 60000; n++) {
        enum cpu_mode mode = modes[n / 100 % 4];
        size_t len = n % 7 ? 15 : 1 + n % 15;
        enum decode_result r;

        if (n & 1) {
            memcpy(bytes, own - (n / 2 % 5000), 15);
        } else {
            for (unsigned k = 0; k < 15; k++) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                bytes[k] = k < 3 ? starts[n / 2 % ARRAY_SIZE(starts)][k]
                                 : random & (n % 3 ? 3 : 0xff);
            }
        }
        memset(&is, 0xa5, sizeof(is));
        memset(&want, 0xa5, sizeof(want));
        r = decode_insn(mode, bytes, len, &want);
        assert_int_equal(decode_memo_insn(memo, mode, bytes, len, &is), r);
        if (r == DECODE_OK)
            assert_memory_equal(&is, &want, sizeof(is));
    }
    decode_memo_free(memo);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integer), cmocka_unit_test(test_stack),
        cmocka_unit_test(test_branch),  cmocka_unit_test(test_string),
        cmocka_unit_test(test_system),  cmocka_unit_test(test_vector),
        cmocka_unit_test(test_invalid), cmocka_unit_test(test_vendor),
        cmocka_unit_test(test_memo),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
