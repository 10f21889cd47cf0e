# bivisor.elf: the rooms on the bare machine (docs/svm.md). Everything is compiled anew, without
# vector registers, for an address space of its own; nothing of the host's C library is linked.
BARE = $(BUILD)/bare
BARE_ROOMS = base cpu mem bus decode mmu sem interp engine tr tc list verify bt soft dev boot machine svm bare hv
BARE_NOT = $(filter-out src/base/log.c src/base/bug.c src/base/counters.c,$(wildcard src/base/*.c)) \
    $(filter-out src/machine/board.c src/machine/pci.c src/machine/startup.c,$(wildcard src/machine/*.c))
BARE_SRCS = $(filter-out $(BARE_NOT),$(sort $(wildcard $(BARE_ROOMS:%=src/%/*.c) $(BARE_ROOMS:%=src/%/*/*.c))))
BARE_OBJS = $(BARE_SRCS:%.c=$(BARE)/%.o)
BARE_START = $(patsubst %.S,$(BARE)/%.o,$(wildcard src/bare/*.S))
BARE_CFLAGS = $(CSTD) $(WARN) -O2 -g -fno-strict-aliasing -fwrapv -MMD -MP $(CORE_CFLAGS) \
    -fno-pic -fno-pie -mno-red-zone -fno-asynchronous-unwind-tables -fcf-protection=none \
    -ffunction-sections -fdata-sections -ftls-model=local-exec

$(BARE)/src/%.o: src/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $< (bare)"
	$(Q)$(CC) -Isrc -D_GNU_SOURCE -DBIVISOR_BARE $(BARE_CFLAGS) -c -o $@ $<

$(BARE)/src/%.o: src/%.S
	@mkdir -p $(@D)
	$(Q)$(CC) -Isrc -MMD -MP -c -o $@ $<

$(BARE)/libbare.a: $(BARE_OBJS) $(BUILD)/bios/image.o
	@rm -f $@
	$(Q)ar rcs $@ $^

# A multiboot loader wants an ELF file of 32 bits.
$(BUILD)/bivisor.elf: $(BARE_START) $(BARE)/libbare.a src/bare/bare.ld $(BUILD)/static-libs/lib/libZydisBare.a
	$(Q)echo "  LD    $@"
	$(Q)$(CC) -nostdlib -static -no-pie -Wl,--gc-sections -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments \
	    -Wl,--build-id=none -Wl,-z,max-page-size=4096 -Wl,-T,src/bare/bare.ld -o $(BARE)/bivisor.elf64 \
	    $(BARE_START) $(BARE)/libbare.a $(BUILD)/static-libs/lib/libZydisBare.a -lz -llzma -lzstd -llz4 -lgcc
	$(Q)objcopy -g -I elf64-x86-64 -O elf32-i386 $(BARE)/bivisor.elf64 $@

# Nothing is missing, but for Zydis, which takes a source package to have.
bare-links: $(BARE_START) $(BARE)/libbare.a
	@! $(CC) -nostdlib -static -no-pie -Wl,--gc-sections -Wl,-T,src/bare/bare.ld -Wl,--warn-unresolved-symbols \
	    -o $(BARE)/links.elf64 $^ -lz -llzma -lzstd -llz4 -lgcc 2>&1 | grep 'undefined reference' | grep -v Zydis

$(BUILD)/static-libs/lib/libZydisBare.a:
	@tools/make-static-libs $(BUILD)/static-libs

svm: deps
	@tools/deps svm
	@$(MAKE) --no-print-directory $(BUILD)/bivisor.elf

# The same on a CD with GRUB, for a BIOS, with Debian's kernel and busybox as the guest. SVM: words for
# bivisor, and the guest's command line.
SVM ?= stats -- console=ttyS0 quiet
svm-iso: svm
	@tools/deps grub
	@tools/fetch-assets linux-amd64 busybox-amd64 $(ASSETS)
	@mkdir -p $(BARE)/iso/boot/grub
	@tools/make-initrd $(ASSETS)/busybox-amd64 $(BARE)/iso/initrd
	@cp $(BUILD)/bivisor.elf $(ASSETS)/linux-amd64/vmlinuz $(BARE)/iso/
	@printf '%s\n' 'set timeout=0' 'serial' 'terminal_output console serial' 'menuentry bivisor {' '  multiboot /bivisor.elf $(SVM)' \
	    '  module /vmlinuz vmlinuz' '  module /initrd initrd' '}' >$(BARE)/iso/boot/grub/grub.cfg
	@grub-mkrescue -d /usr/lib/grub/i386-pc -o $(BUILD)/svm.iso $(BARE)/iso 2>$(BARE)/iso.log || { cat $(BARE)/iso.log; false; }
	@echo "$(BUILD)/svm.iso"

.PHONY: svm svm-iso bare-links
-include $(BARE_OBJS:.o=.d) $(BARE_START:.o=.d)

# tests/unit/bare has what stands for the C library, under other names.
BARE_UNIT = $(patsubst %,$(BARE)/unit/%.o,print string calendar heap madt)
$(BARE)/unit/%.o: $(BARE)/src/bare/%.o
	@mkdir -p $(@D)
	$(Q)objcopy --prefix-symbols=b_ $< $@
$(BUILD)/unit/bare: $(BARE_UNIT)
$(BUILD)/unit/bare: LDLIBS += -no-pie
