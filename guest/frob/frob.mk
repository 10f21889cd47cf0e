# frob, the benchmark guest: one source, a 32-bit and a 64-bit image. Both are 32-bit
# multiboot ELF files, which is what bivisor, QEMU's -kernel and GRUB load; the 64-bit one
# enters long mode itself. bivisor carries both within it, for `bivisor compare`.
FROB_OUT = $(BUILD)/frob
FROB_SRCS = $(sort $(wildcard guest/frob/*.c guest/frob/*.S))
FROB_BINS = $(FROB_OUT)/frob32 $(FROB_OUT)/frob64
FROB_CFLAGS = $(CSTD) -Wall -Wextra -Wshadow -Werror -O2 -g0 -ffreestanding -nostdlib \
    -Wno-unused-parameter -fno-pic -fno-pie -fno-stack-protector -fno-tree-loop-distribute-patterns \
    -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing -fwrapv \
    -mgeneral-regs-only -mno-red-zone -MMD -MP -Isrc -Iguest/frob
FROB_LD = ld --no-warn-rwx-segments -z noexecstack -z max-page-size=4096 -n \
    -T guest/frob/frob.ld

$(FROB_OUT)/32/%.o: guest/frob/%
	@mkdir -p $(@D)
	$(Q)echo "  FROB  $< (32)"
	$(Q)$(CC) -m32 -march=i686 $(FROB_CFLAGS) -c -o $@ $<

$(FROB_OUT)/64/%.o: guest/frob/%
	@mkdir -p $(@D)
	$(Q)echo "  FROB  $< (64)"
	$(Q)$(CC) -m64 -mcmodel=small $(FROB_CFLAGS) -c -o $@ $<

$(FROB_OUT)/frob32: $(FROB_SRCS:guest/frob/%=$(FROB_OUT)/32/%.o) guest/frob/frob.ld
	$(Q)$(FROB_LD) -m elf_i386 -o $@ $(filter %.o,$^)

$(FROB_OUT)/frob64: $(FROB_SRCS:guest/frob/%=$(FROB_OUT)/64/%.o) guest/frob/frob.ld
	$(Q)$(FROB_LD) -m elf_x86_64 -o $@.elf64 $(filter %.o,$^)
	$(Q)objcopy -I elf64-x86-64 -O elf32-i386 $@.elf64 $@
	@rm -f $@.elf64

# The images as data: _binary_frob32_start and so on.
$(FROB_OUT)/images.o: $(FROB_BINS)
	$(Q)cd $(FROB_OUT) && ld -r -b binary -z noexecstack -o images.o frob32 frob64

frob: $(FROB_BINS)

# A CD image that GRUB boots, for a real machine; and a try of it in QEMU.
frob-iso check-grub:
	@tools/deps grub
	@$(MAKE) --no-print-directory frob
	$(if $(filter check-grub,$@),@BUILD=$(BUILD) tests/frob/grub,BUILD=$(BUILD) guest/frob/iso $(FROB_OUT)/frob.iso screen)

-include $(wildcard $(FROB_OUT)/32/*.d $(FROB_OUT)/64/*.d)

.PHONY: frob frob-iso check-grub
