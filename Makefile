# bivisor. `make` builds, `make check` tests, `make run` boots Linux; see README.md.
MAKEFLAGS += --no-builtin-rules
# `make V=1` shows the commands.
Q = $(if $(V),,@)
BUILD ?= build
CC = gcc
SAN ?=
CSTD = -std=gnu11
WARN = -Wall -Wextra -Wno-unused-parameter -Wstrict-prototypes -Wmissing-prototypes \
       -Wshadow -Wundef -Werror
CFLAGS ?= -O2 -g
CPPFLAGS += -Isrc -D_GNU_SOURCE
ALL_CFLAGS = $(CSTD) $(WARN) $(CFLAGS) -fno-strict-aliasing -fwrapv -pthread -MMD -MP $(SAN)
# These rooms run while the guest's vector state is in the host's registers
# (src/cpu/vec.h): no vector code, no libc behind the compiler's back.
CORE_ROOMS = snapshot cpu mem mmu sem interp tr tc list verify bt soft bus dev
CORE_FILES = src/direct/space.c src/direct/codes.c src/direct/policy.c src/machine/board.c src/machine/pci.c src/decode/encoding.c src/base/os_word.c src/base/os_seal.c
CORE_CFLAGS = -mgeneral-regs-only -mmemcpy-strategy=rep_8byte:-1:noalign \
              -mmemset-strategy=rep_8byte:-1:noalign -fno-stack-protector \
              -fno-tree-loop-distribute-patterns
# What the loader has filled in is not written afterwards.
HARDENED = -Wl,-z,relro,-z,now,-z,noexecstack
LDLIBS = -lZydis -lcjson -lseccomp $(HAVE_LIBSLIRP:1=-lslirp) -lz -llzma -lzstd -llz4 -lpthread -lm

# The network block device is left out where libnbd's header is missing; the library is
# loaded when it is wanted.
HAVE_LIBNBD := $(shell echo '\#include <libnbd.h>' | $(CC) -E - >/dev/null 2>&1 && echo 1)
CPPFLAGS += $(HAVE_LIBNBD:1=-DHAVE_LIBNBD)
# The user network is left out where libslirp's is.
HAVE_LIBSLIRP := $(shell echo '\#include <slirp/libslirp.h>' | $(CC) -E - >/dev/null 2>&1 && echo 1)
CPPFLAGS += $(HAVE_LIBSLIRP:1=-DHAVE_LIBSLIRP)

# The display's VNC server is left out where libvncserver's header is missing; the library is
# loaded when it is wanted.
HAVE_LIBVNCSERVER := $(shell echo '\#include <rfb/rfb.h>' | $(CC) -E - >/dev/null 2>&1 && echo 1)
CPPFLAGS += $(HAVE_LIBVNCSERVER:1=-DHAVE_LIBVNCSERVER)

# ROOMS narrows a build to some rooms (for work on one of them).
ROOMS ?= *
# What is for the bare machine alone (src/bare/bare.mk).
BARE_ONLY = src/bare/% src/hv/%
SRCS = $(filter-out $(BARE_ONLY),$(sort $(wildcard $(ROOMS:%=src/%/*.c) $(ROOMS:%=src/%/*/*.c))))
OBJS = $(SRCS:%.c=$(BUILD)/%.o)
LIB = $(BUILD)/libbivisor.a
UNIT_SRCS = $(sort $(wildcard tests/unit/*.c))
UNITS = $(UNIT_SRCS:tests/unit/%.c=$(BUILD)/unit/%)

all: $(BUILD)/bivisor

$(BUILD)/bivisor: $(BUILD)/src/main.o $(LIB)
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(HARDENED) -o $@ $^ $(LDLIBS)

# The commands carry the benchmark guest, the loaders the board's ROM.
IMAGES = $(if $(wildcard $(ROOMS:%=src/%/frob_image.h)),$(BUILD)/frob/images.o) \
    $(if $(wildcard $(ROOMS:%=src/%/bios.h)),$(BUILD)/bios/image.o) \
    $(if $(wildcard $(ROOMS:%=src/%/exec.h)),$(BUILD)/exec/image.o) \
    $(if $(wildcard $(ROOMS:%=src/%/spawner.h)),$(BUILD)/cell/image.o)
$(LIB): $(OBJS) $(IMAGES)
	@rm -f $@
	$(Q)ar rcs $@ $^

# EDGE_CFLAGS is for the others.
core = $(if $(filter $(CORE_ROOMS),$(word 2,$(subst /, ,$1)))$(filter $(CORE_FILES),$1),$(CORE_CFLAGS),$(EDGE_CFLAGS))

$(BUILD)/src/%.o: src/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(call core,src/$*.c) -c -o $@ $<

# What several tests share (tests/lib): each takes what it calls.
TESTLIB_OBJS = $(patsubst tests/lib/%.c,$(BUILD)/testlib/%.o,$(wildcard tests/lib/*.c))
TESTLIB = $(BUILD)/libtest.a
$(TESTLIB): $(TESTLIB_OBJS)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/testlib/%.o: tests/lib/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/unit/%.o: tests/unit/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -c -o $@ $<

# Compiled and linked apart: a change in src/ links the tests again and compiles none.
$(UNITS): %: %.o $(TESTLIB) $(LIB)
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o,$^) $(TESTLIB) $(LIB) -lcmocka $(LDLIBS)

# These let each allocation fail in turn.
$(BUILD)/unit/nomem $(BUILD)/unit/nomem_ctl $(BUILD)/unit/nomem_net $(BUILD)/unit/nomem_block $(BUILD)/unit/share_process $(BUILD)/unit/exec: LDLIBS += $(patsubst %,-Wl$(comma)--wrap=%,malloc calloc realloc \
    aligned_alloc free fopen mmap munmap mremap mprotect memfd_create ftruncate eventfd \
    timerfd_create pthread_create sigaltstack)
comma = ,
# This has a clock, a file system and a disk of its own.
$(BUILD)/unit/block_brief: LDLIBS += -Wl,--wrap=pwritev -Wl,--wrap=pwritev2 -Wl,--wrap=preadv2 -Wl,--wrap=fstatfs -Wl,--wrap=os_monotonic_ns
# This logs what is done to an image.
$(BUILD)/unit/block_durable: LDLIBS += -Wl,--wrap=pwritev -Wl,--wrap=fallocate -Wl,--wrap=fdatasync

units: $(UNITS)

# Small benchmarks of single rooms.
$(BUILD)/bench/%: bench/%.c $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -o $@ $< $(LIB) $(LDLIBS)

# --- what the README promises ---
ASSETS = $(BUILD)/assets
deps:
	@tools/deps
deps-check:
	@tools/deps check

# Boots Debian's kernel with busybox to a shell.
run: deps
	@$(MAKE) --no-print-directory all
	@tools/fetch-assets linux-amd64 busybox-amd64 $(ASSETS)
	@tools/make-initrd $(ASSETS)/busybox-amd64 $(ASSETS)/initrd-amd64
	$(BUILD)/bivisor run --kernel $(ASSETS)/linux-amd64/vmlinuz \
	    --initrd $(ASSETS)/initrd-amd64 --append "console=ttyS0 quiet"

# A command in a machine of its own, whose kernel comes from a Debian package.
exec-demo: deps
	@$(MAKE) --no-print-directory all
	@tools/fetch-assets linux-amd64-tree $(ASSETS)
	$(BUILD)/bivisor exec --kernel $(ASSETS)/linux-amd64-tree -- uname -a

check: deps-check
	@$(MAKE) --no-print-directory all units guests frob boot-driver replays fidelity-bin bare-links
	@$(MAKE) --no-print-directory $(BUILD)/bivisor.elf || echo "check: goes on without bivisor.elf"
	@BUILD=$(BUILD) tools/check

guests:

include src/bare/bare.mk
include tools/package.mk
include guest/bios/bios.mk
include guest/exec/exec.mk
include guest/cell/cell.mk
include guest/frob/frob.mk
include tests/guest/guests.mk
include tests/cli/cli.mk
include tests/boot/boot.mk
include tests/fidelity/fidelity.mk
include tests/fuzz/fuzz.mk
include tests/verify/verify.mk
include tests/programs/programs.mk
include tests/debian/debian.mk

# Times Debian guests, amd64 and i386, against native code and QEMU's TCG: six minutes or so.
# BENCH="--help" tells what can be asked for.
BENCH ?=
bench:
	@tools/deps bench
	@$(MAKE) --no-print-directory all
	@BUILD=$(abspath $(BUILD)) bench/run $(BENCH)

# What more CPUs bring, beside QEMU's multi-threaded TCG. SMP="compute --rounds 1".
SMP ?=
bench-smp: deps
	@tools/deps bench
	@$(MAKE) --no-print-directory all
	@BUILD=$(abspath $(BUILD)) bench/smp $(SMP)

# Disk, network and boot of a Debian on a disk, beside QEMU's TCG. BOARD="--rounds 1".
BOARD ?=
bench-board: deps
	@tools/deps disk && tools/deps board
	@$(MAKE) --no-print-directory all
	@BUILD=$(abspath $(BUILD)) bench/board $(BOARD)

# Times programs of Debian's in roots made of packages: twenty minutes or so, and some minutes and
# 5 GiB for the roots. REAL="forks gcc --engines native,bt" narrows it; REAL="--help".
REAL ?=
bench-real: deps
	@tools/deps real
	@$(MAKE) --no-print-directory all
	@BUILD=$(abspath $(BUILD)) bench/real/run $(REAL)

# Every engine, QEMU's TCG, and bivisor.elf with both kinds of paging at the same work, frob and
# programs under Linux: tables here, charts in build/compare.html. Half an hour.
compare: deps
	@$(MAKE) --no-print-directory all
	@tools/deps compare || echo "compare: goes on without what is missing"
	@BUILD=$(BUILD) bench/macro/make $(BUILD)/macro
	@$(MAKE) --no-print-directory svm || echo "compare: goes on without bivisor.elf"
	$(BUILD)/bivisor compare --linux $(BUILD)/macro --html $(BUILD)/compare.html \
	    $$([ ! -s $(BUILD)/bivisor.elf ] || echo --svm $(BUILD)/bivisor.elf)
	$(BUILD)/bivisor compare --shadow --html $(BUILD)/compare-shadow.html

# Boots Linux ROUNDS times under the translator, each time with a program that generates
# code, faults, forks and takes signals, and compares with the host.
ROUNDS ?= 60
stress: deps
	@$(MAKE) --no-print-directory all
	@tools/fetch-assets linux-amd64 linux-cloud612 linux-686-pae linux-686 \
	    busybox-amd64 busybox-i386 $(ASSETS)
	@BUILD=$(BUILD) tests/stress/run $(ROUNDS)

# The hardware engine inside QEMU's TCG, which emulates AMD's SVM; a few minutes.
check-nested: deps
	@tools/deps check && tools/deps nested
	@$(MAKE) --no-print-directory all guests
	@tools/fetch-assets linux-amd64 linux-amd64-kvm linux-686 busybox-amd64 busybox-i386 \
	    $(ASSETS)
	@BUILD=$(BUILD) tests/nested/run

# bivisor.elf, the hypervisor of type 1, on the bare machine that QEMU's TCG emulates; a few minutes.
check-svm: deps
	@tools/deps check && tools/deps svm
	@$(MAKE) --no-print-directory svm svm-iso guests
	@tools/fetch-assets linux-amd64 linux-686-pae linux-cloud612 busybox-amd64 busybox-i386 $(ASSETS)
	@BUILD=$(BUILD) tests/svm/run

# Boots Debian's kernels on the interpreter and on the translator at once, and compares
# them to the instruction; takes some minutes.
lockstep: deps
	@$(MAKE) --no-print-directory all
	@tools/fetch-assets linux-amd64 linux-686-pae busybox-amd64 busybox-i386 $(ASSETS)
	@tools/make-initrd $(ASSETS)/busybox-amd64 $(ASSETS)/initrd-amd64
	@tools/make-initrd $(ASSETS)/busybox-i386 $(ASSETS)/initrd-i386
	@BUILD=$(BUILD) tests/lockstep/run --boot

lint: all bare-links
	@BUILD=$(BUILD) tools/lint

clean:
	rm -rf $(BUILD)

-include $(OBJS:.o=.d) $(BUILD)/src/main.d $(TESTLIB_OBJS:.o=.d) $(UNITS:=.d)

.PHONY: lockstep check-nested check-svm bench bench-board bench-smp bench-real compare stress all units guests clean deps deps-check run exec-demo check lint
.SECONDARY:
