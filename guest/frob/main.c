/* frob: the order of things. See frob.h. */
#include "frob.h"

#define MULTIBOOT_MAGIC 0x2badb002u
#define INFO_MEMORY 1u
#define INFO_CMDLINE 4u

/* Multiboot specification 0.6.96, "Boot information format". */
struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline;
};

extern uint32_t boot_magic, boot_info;
void frob_main(void);

_Noreturn void frob_unexpected(ulong vector, ulong error, ulong ip) {
    report_text("fatal vector=");
    report_uint(vector);
    report_text(" error=");
    report_hex(error);
    report_text(" ip=");
    report_hex(ip);
    report_text(" cr2=");
    report_hex(read_cr2());
    report_text("\n");
    report_end(2);
}

static void tell_cpu(void) {
    uint32_t r[4];
    char vendor[13];

    cpuid(0, 0, r);
    for (unsigned n = 0; n < 4; n++) {
        vendor[n] = (char)(r[REG_EBX] >> 8 * n);
        vendor[4 + n] = (char)(r[REG_EDX] >> 8 * n);
        vendor[8 + n] = (char)(r[REG_ECX] >> 8 * n);
    }
    vendor[12] = 0;
    report_text("frob version=1 bits=");
    report_uint(FROB_BITS);
    report_text(" vendor=");
    report_text(vendor);
    report_text("\n");
}

/* As many characters as asked for: what printing a result costs, for who compares
 * counters of a run with a result with those of a run without. */
static void pad(uint32_t n) {
    while (n--)
        report_text(n ? "." : "\n");
}

void frob_main(void) {
    const struct multiboot_info *info = (const void *)(ulong)boot_info;
    ulong memory = 32ul << 20;
    unsigned failed;
    size_t len;

    if (boot_magic == MULTIBOOT_MAGIC && (info->flags & INFO_CMDLINE))
        option_init((const char *)(ulong)info->cmdline);
    if (boot_magic == MULTIBOOT_MAGIC && (info->flags & INFO_MEMORY))
        memory = 0x100000 + ((ulong)info->mem_upper << 10);
    if (memory > 0x3f000000ul) /* below the window of 32 bits */
        memory = 0x3f000000ul;
    report_open(option("screen", &len) != NULL);
    tables_init();
    space_init(memory);
    tell_cpu();
    apic_init();
    failed = self_view();
    failed += measure_all();
    pad(option_uint("pad", 0));
    report_text("done failed=");
    report_uint(failed);
    report_text("\n");
    report_end(failed ? 1 : 0);
}
