/*
 * Page-table entry bits, common to all paging modes where the name is the same.
 * AMD64 APM volume 2, "Page-Translation-Table Entry Fields". Freestanding.
 */
#ifndef X86_PTE_H
#define X86_PTE_H

#define X86_PTE_P (1ull << 0)
#define X86_PTE_W (1ull << 1)
#define X86_PTE_U (1ull << 2)
#define X86_PTE_PWT (1ull << 3)
#define X86_PTE_PCD (1ull << 4)
#define X86_PTE_A (1ull << 5)
#define X86_PTE_D (1ull << 6)
#define X86_PTE_PS (1ull << 7)
#define X86_PTE_G (1ull << 8)
#define X86_PTE_NX (1ull << 63)

#define X86_PAGE_SHIFT 12
#define X86_PAGE_SIZE 4096ull
#define X86_PAGE_MASK (~0xfffull)

#endif
