# The board's ROM: 4 KiB of 16-bit code for the end of the F segment.
BIOS_OUT = $(BUILD)/bios

$(BIOS_OUT)/bios.S.o: guest/bios/bios.S
	@mkdir -p $(@D)
	$(Q)echo "  BIOS  $<"
	$(Q)$(CC) -m32 -nostdlib -MMD -MP -Isrc -c -o $@ $<

# Linked to a flat file, which is then data: _binary_bios_start and so on.
$(BIOS_OUT)/image.o: $(BIOS_OUT)/bios.S.o
	$(Q)ld -m elf_i386 --oformat binary -z noexecstack -Ttext=0xf000 -e enter -o $(BIOS_OUT)/bios $<
	$(Q)cd $(BIOS_OUT) && ld -r -b binary -z noexecstack -o image.o bios

-include $(BIOS_OUT)/bios.S.d
