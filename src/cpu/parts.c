/*
 * The named CPUs: which features each real part has, as far as bivisor implements them or
 * runs them on the host (cpuid.c's rules). Programs choose code by family and model, so a
 * part that is offered has everything that compilers take for granted of it. What needs
 * the system's leave or an intrinsic of its own (MONITOR, performance counters,
 * protection keys, transactions, AMX) is left out of all of them.
 *
 * Intel SDM volume 2, "CPUID", and volume 4, "CPUIDs and MSRs of ..."; AMD's Processor
 * Programming References and Revision Guides; GCC's manual, "x86 Options".
 * (lint: no guest runs here)
 */
#include <string.h>

#include "cpu/cpuid_int.h"

#define AVX512_SKYLAKE (BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31))

enum { SYSCALL_NX_LM = BIT(11) | BIT(20) | BIT(29), PDPE1GB = BIT(26), RDTSCP = BIT(27) };

/* --- Intel's --- */

static const struct cpuid_part nehalem = {
    "Nehalem",
    "Intel Xeon (Nehalem), virtual",
    .signature = 0x000106a5,
    /* sse3 ssse3 cx16 sse4.1 sse4.2 popcnt */
    .word = {[W_1C] = BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23),
             [W_X1C] = BIT(0), /* lahf */
             [W_X1D] = SYSCALL_NX_LM | RDTSCP},
};

static const struct cpuid_part westmere = {
    "Westmere",
    "Intel Xeon (Westmere), virtual",
    &nehalem,
    .signature = 0x000206c1,
    /* pclmul pcid aes */
    .word = {[W_1C] = BIT(1) | BIT(17) | BIT(25), [W_X1D] = PDPE1GB},
};

static const struct cpuid_part sandybridge = {
    "SandyBridge",
    "Intel Core (Sandy Bridge), virtual",
    &westmere,
    .signature = 0x000206a7,
    /* xsave avx; xsaveopt */
    .word = {[W_1C] = BIT(26) | BIT(28), [W_D1A] = BIT(0)},
};

static const struct cpuid_part ivybridge = {
    "IvyBridge",
    "Intel Core (Ivy Bridge), virtual",
    &sandybridge,
    .signature = 0x000306a9,
    /* f16c rdrand; fsgsbase smep erms */
    .word = {[W_1C] = BIT(29) | BIT(30), [W_7B] = BIT(0) | BIT(7) | BIT(9)},
};

static const struct cpuid_part haswell = {
    "Haswell",
    "Intel Core (Haswell), virtual",
    &ivybridge,
    .signature = 0x000306c3,
    /* fma movbe; bmi1 avx2 bmi2 invpcid; lzcnt */
    .word = {[W_1C] = BIT(12) | BIT(22),
             [W_7B] = BIT(3) | BIT(5) | BIT(8) | BIT(10),
             [W_X1C] = BIT(5)},
};

static const struct cpuid_part broadwell = {
    "Broadwell",
    "Intel Core (Broadwell), virtual",
    &haswell,
    .signature = 0x000306d4,
    /* rdseed adx smap; prefetchw */
    .word = {[W_7B] = BIT(18) | BIT(19) | BIT(20), [W_X1C] = BIT(8)},
};

static const struct cpuid_part skylake_client = {
    "Skylake-Client",
    "Intel Core (Skylake), virtual",
    &broadwell,
    .signature = 0x000506e3,
    /* clflushopt; xsavec xgetbv(1) */
    .word = {[W_7B] = BIT(23), [W_D1A] = BIT(1) | BIT(2)},
};

static const struct cpuid_part alderlake = {
    "Alderlake",
    "Intel Core (Alder Lake), virtual",
    &skylake_client,
    .signature = 0x00090672,
    /* clwb sha; umip gfni vaes vpclmulqdq rdpid; fsrm; avx-vnni */
    .word = {[W_7B] = BIT(24) | BIT(29),
             [W_7C] = BIT(2) | BIT(8) | BIT(9) | BIT(10) | BIT(22),
             [W_7D] = BIT(4),
             [W_71A] = BIT(4)},
};

static const struct cpuid_part skylake_server = {
    "Skylake-Server",
    "Intel Xeon (Skylake), virtual",
    &skylake_client,
    .signature = 0x00050654,
    /* clwb, avx-512 f dq cd bw vl */
    .word = {[W_7B] = BIT(24) | AVX512_SKYLAKE},
};

static const struct cpuid_part cascadelake = {
    "Cascadelake-Server",
    "Intel Xeon (Cascade Lake), virtual",
    &skylake_server,
    .signature = 0x00050657,
    /* avx-512 vnni */
    .word = {[W_7C] = BIT(11)},
};

static const struct cpuid_part icelake_server = {
    "Icelake-Server",
    "Intel Xeon (Ice Lake), virtual",
    &cascadelake,
    .signature = 0x000606a6,
    /* avx-512 ifma, sha; avx-512 vbmi, umip, avx-512 vbmi2, gfni vaes vpclmulqdq, avx-512
     * bitalg vpopcntdq, rdpid; fsrm */
    .word = {[W_7B] = BIT(21) | BIT(29),
             [W_7C] = BIT(1) | BIT(2) | BIT(6) | BIT(8) | BIT(9) | BIT(10) | BIT(12) |
                      BIT(14) | BIT(22),
             [W_7D] = BIT(4)},
};

static const struct cpuid_part sapphirerapids = {
    "SapphireRapids",
    "Intel Xeon (Sapphire Rapids), virtual",
    &icelake_server,
    .signature = 0x000806f8,
    /* avx-512 fp16; avx-vnni, avx-512 bf16 */
    .word = {[W_7D] = BIT(23), [W_71A] = BIT(4) | BIT(5)},
};

/* --- AMD's --- */

/* AMD made no part with x86-64-v2 and without AVX: a Bobcat, with SSE4.1 and SSE4.2. */
static const struct cpuid_part bobcat = {
    "Bobcat-SSE4",
    "AMD Bobcat with SSE4.1 and 4.2, virtual",
    .signature = 0x00500f20,
    .amd = true,
    /* sse3 ssse3 cx16 sse4.1 sse4.2 popcnt; lahf lzcnt sse4a prefetchw */
    .word = {[W_1C] = BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23),
             [W_X1C] = BIT(0) | BIT(5) | BIT(6) | BIT(8),
             [W_X1D] = SYSCALL_NX_LM | RDTSCP | PDPE1GB},
};

static const struct cpuid_part epyc = {
    "EPYC",
    "AMD EPYC (Naples), virtual",
    &bobcat,
    .signature = 0x00800f12,
    .amd = true,
    /* pclmul fma movbe aes xsave avx f16c rdrand; fsgsbase bmi1 avx2 smep bmi2 rdseed adx
     * smap clflushopt sha; xsaveopt xsavec xgetbv(1); clzero xsaveerptr */
    .word = {[W_1C] = BIT(1) | BIT(12) | BIT(22) | BIT(25) | BIT(26) | BIT(28) | BIT(29) |
                      BIT(30),
             [W_7B] = BIT(0) | BIT(3) | BIT(5) | BIT(7) | BIT(8) | BIT(18) | BIT(19) |
                      BIT(20) | BIT(23) | BIT(29),
             [W_D1A] = BIT(0) | BIT(1) | BIT(2),
             [W_X8B] = BIT(0) | BIT(2)},
};

static const struct cpuid_part epyc_rome = {
    "EPYC-Rome",
    "AMD EPYC (Rome), virtual",
    &epyc,
    .signature = 0x00830f10,
    .amd = true,
    /* clwb; umip rdpid */
    .word = {[W_7B] = BIT(24), [W_7C] = BIT(2) | BIT(22)},
};

static const struct cpuid_part epyc_milan = {
    "EPYC-Milan",
    "AMD EPYC (Milan), virtual",
    &epyc_rome,
    .signature = 0x00a00f11,
    .amd = true,
    /* pcid; erms invpcid; vaes vpclmulqdq; fsrm */
    .word = {[W_1C] = BIT(17),
             [W_7B] = BIT(9) | BIT(10),
             [W_7C] = BIT(9) | BIT(10),
             [W_7D] = BIT(4)},
};

static const struct cpuid_part epyc_genoa = {
    "EPYC-Genoa",
    "AMD EPYC (Genoa), virtual",
    &epyc_milan,
    .signature = 0x00a10f11,
    .amd = true,
    /* avx-512 f dq cd bw vl ifma; vbmi vbmi2 gfni vnni bitalg vpopcntdq; bf16 */
    .word = {[W_7B] = AVX512_SKYLAKE | BIT(21),
             [W_7C] = BIT(1) | BIT(6) | BIT(8) | BIT(11) | BIT(12) | BIT(14),
             [W_71A] = BIT(5)},
};

/* Newest first, so that the first that a host can serve is the default. */
static const struct cpuid_part *const parts[] = {
    &sapphirerapids, &alderlake, &icelake_server, &cascadelake, &skylake_server,
    &skylake_client, &broadwell, &haswell,        &ivybridge,   &sandybridge,
    &westmere,       &nehalem,   &epyc_genoa,     &epyc_milan,  &epyc_rome,
    &epyc,           &bobcat,
};

/* The x86-64 psABI's levels: the oldest part that has them. */
static const struct {
    const char *name;
    const struct cpuid_part *intel, *amd;
} levels[] = {
    {"v2", &nehalem, &bobcat},
    {"v3", &haswell, &epyc},
    {"v4", &skylake_server, &epyc_genoa},
};

void cpuid_part_words(const struct cpuid_part *p, uint32_t *word) {
    for (unsigned w = 0; w < WORD_COUNT; w++)
        word[w] = 0;
    for (; p; p = p->base)
        for (unsigned w = 0; w < WORD_COUNT; w++)
            word[w] |= p->word[w];
}

const struct cpuid_part *cpuid_part_find(const char *name, bool amd) {
    for (size_t n = 0; n < ARRAY_SIZE(levels); n++)
        if (!strcmp(levels[n].name, name))
            return amd ? levels[n].amd : levels[n].intel;
    for (size_t n = 0; n < ARRAY_SIZE(parts); n++)
        if (!strcmp(parts[n]->name, name))
            return parts[n];
    return NULL;
}

const struct cpuid_part *cpuid_part_at(bool amd, size_t n) {
    for (size_t k = 0; k < ARRAY_SIZE(parts); k++)
        if (parts[k]->amd == amd && !n--)
            return parts[k];
    return NULL;
}

const char *cpuid_level_at(size_t n) {
    return n < ARRAY_SIZE(levels) ? levels[n].name : NULL;
}

/* What the host may lack, by the names of /proc/cpuinfo. */
static const struct {
    uint8_t word, bit;
    const char *name;
} names[] = {
    {W_1C, 0, "pni"},
    {W_1C, 1, "pclmulqdq"},
    {W_1C, 9, "ssse3"},
    {W_1C, 12, "fma"},
    {W_1C, 13, "cx16"},
    {W_1C, 19, "sse4_1"},
    {W_1C, 20, "sse4_2"},
    {W_1C, 22, "movbe"},
    {W_1C, 23, "popcnt"},
    {W_1C, 25, "aes"},
    {W_1C, 26, "xsave"},
    {W_1C, 28, "avx"},
    {W_1C, 29, "f16c"},
    {W_1C, 30, "rdrand"},
    {W_7B, 3, "bmi1"},
    {W_7B, 5, "avx2"},
    {W_7B, 8, "bmi2"},
    {W_7B, 18, "rdseed"},
    {W_7B, 19, "adx"},
    {W_7B, 29, "sha_ni"},
    {W_7C, 8, "gfni"},
    {W_7C, 9, "vaes"},
    {W_7C, 10, "vpclmulqdq"},
    {W_71A, 4, "avx_vnni"},
    {W_7B, 16, "avx512f"},
    {W_7B, 17, "avx512dq"},
    {W_7B, 21, "avx512ifma"},
    {W_7B, 28, "avx512cd"},
    {W_7B, 30, "avx512bw"},
    {W_7B, 31, "avx512vl"},
    {W_7C, 1, "avx512_vbmi"},
    {W_7C, 6, "avx512_vbmi2"},
    {W_7C, 11, "avx512_vnni"},
    {W_7C, 12, "avx512_bitalg"},
    {W_7C, 14, "avx512_vpopcntdq"},
    {W_7D, 23, "avx512_fp16"},
    {W_71A, 5, "avx512_bf16"},
    {W_D1A, 0, "xsaveopt"},
    {W_D1A, 1, "xsavec"},
    {W_D1A, 2, "xgetbv1"},
    {W_X1C, 5, "lzcnt"},
    {W_X1C, 6, "sse4a"},
};

const char *cpuid_feature_name(unsigned word, unsigned bit) {
    for (size_t n = 0; n < ARRAY_SIZE(names); n++)
        if (names[n].word == word && names[n].bit == bit)
            return names[n].name;
    return "a feature of it";
}
