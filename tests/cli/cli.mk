# The command-line tests: one guest, and the programs that play the user and whoever steers
# a run from outside.
CLI_OUT = $(BUILD)/cli
CLI_BINS = $(CLI_OUT)/guest $(CLI_OUT)/user $(CLI_OUT)/steer

$(CLI_OUT)/guest: tests/cli/guest.c tests/guest/lib/guest.ld
	@mkdir -p $(@D)
	$(Q)echo "  GUEST $<"
	$(Q)$(CC) -m32 -march=i686 $(GUEST_CFLAGS) -c -o $@.o $<
	$(Q)ld -m elf_i386 --no-warn-rwx-segments -z noexecstack -z max-page-size=4096 -n \
	    -T tests/guest/lib/guest.ld -o $@ $@.o

$(CLI_OUT)/user $(CLI_OUT)/steer: $(CLI_OUT)/%: tests/cli/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -o $@ $< -lutil -lcjson -lseccomp

guests: $(CLI_BINS)

-include $(CLI_BINS:=.d)
