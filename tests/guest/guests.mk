# The self-checking guests of tests/guest. Each is one source; GUESTS32 and GUESTS64 name
# those built for 32-bit and for long mode (most are built for both). All are 32-bit
# multiboot ELF images: the 64-bit ones enter long mode themselves.
GUESTS32 = excp paging smc strings timer debug vector triple segs gates real precise ticks mmio pci pciint calls iretmatrix patch privs privinsn taskmatrix pagematrix a20 descload realmatrix nested triplepf shadow stepforms gatematrix dbgmatrix ssmatrix apicmsr segreach resetvec firmware models smp smporder smpipi smpsteal smpdebug
GUESTS64 = excp paging smc strings timer debug vector triple long precise ticks mmio pci pciint calls iretmatrix patch privs privinsn pagematrix a20 descload nested triplepf shadow stepforms gatematrix dbgmatrix ssmatrix apicmsr segreach scatter firmware models smp smporder smpsteal smpdebug trusted scribble
GUEST_LIB = boot.S trap.S guest.c digest.c page.c forms.c rings.c realmode.c tasks.c smp.S smp.c
GUEST_OUT = $(BUILD)/guest
GUEST_BINS = $(GUESTS32:%=$(GUEST_OUT)/%32) $(GUESTS64:%=$(GUEST_OUT)/%64) \
    $(GUEST_OUT)/smpdebug64.elf $(GUEST_OUT)/bios16 $(GUEST_OUT)/oldlinux32
GUEST_CFLAGS = $(CSTD) -Wall -Wextra -Wshadow -Werror -O1 -g0 -ffreestanding -nostdlib -Wno-unused-parameter \
    -fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
    -fcf-protection=none -fno-strict-aliasing -fwrapv -mgeneral-regs-only -mno-red-zone \
    -MMD -MP -Isrc -Itests/guest -Itests/guest/lib
GUEST_LD = ld --no-warn-rwx-segments -z noexecstack -z max-page-size=4096 -n \
    -T tests/guest/lib/guest.ld

$(GUEST_OUT)/32/%.o: tests/guest/%
	@mkdir -p $(@D)
	$(CC) -m32 -march=i686 $(GUEST_CFLAGS) -DGUEST_NAME='"$(basename $(notdir $*))32"' -c -o $@ $<

$(GUEST_OUT)/64/%.o: tests/guest/%
	@mkdir -p $(@D)
	$(CC) -m64 -mcmodel=small $(GUEST_CFLAGS) -DGUEST_NAME='"$(basename $(notdir $*))64"' -c -o $@ $<

$(GUEST_OUT)/%32: $(GUEST_OUT)/32/%.c.o $(GUEST_LIB:%=$(GUEST_OUT)/32/lib/%.o) tests/guest/lib/guest.ld
	$(GUEST_LD) -m elf_i386 -o $@ $(filter %.o,$^)

$(GUEST_OUT)/%64: $(GUEST_OUT)/64/%.c.o $(GUEST_LIB:%=$(GUEST_OUT)/64/lib/%.o) tests/guest/lib/guest.ld
	$(GUEST_LD) -m elf_x86_64 -o $@.elf64 $(filter %.o,$^)
	objcopy -I elf64-x86-64 -O elf32-i386 $@.elf64 $@
	@rm -f $@.elf64

# As a debugger reads it, with lines and types.
$(GUEST_OUT)/32/smpdebug.c.o $(GUEST_OUT)/64/smpdebug.c.o: GUEST_CFLAGS += -g -fno-inline
$(GUEST_OUT)/smpdebug64.elf: $(GUEST_OUT)/64/smpdebug.c.o $(GUEST_LIB:%=$(GUEST_OUT)/64/lib/%.o) tests/guest/lib/guest.ld
	$(GUEST_LD) -m elf_x86_64 -o $@ $(filter %.o,$^)

# Not multiboot: flat files with a Linux kernel's header.
$(GUEST_OUT)/bios16: tests/guest/bios.S
	@mkdir -p $(@D)
	$(CC) -m32 -nostdlib -c -o $@.o $<
	ld -m elf_i386 --oformat binary -z noexecstack -Ttext=0 -o $@ $@.o
	truncate -s 8704 $@

$(GUEST_OUT)/oldlinux32: tests/guest/oldlinux.S
	@mkdir -p $(@D)
	$(CC) -m32 -nostdlib -c -o $@.o $<
	ld -m elf_i386 --oformat binary -z noexecstack -Ttext=0xffc00 -o $@ $@.o

guests: $(GUEST_BINS)

-include $(wildcard $(GUEST_OUT)/32/*.d $(GUEST_OUT)/64/*.d $(GUEST_OUT)/32/lib/*.d $(GUEST_OUT)/64/lib/*.d)
