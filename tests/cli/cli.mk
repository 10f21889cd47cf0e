# The command-line tests: one guest, and the programs that play the user, whoever steers a
# run from outside, and a guest that has broken out.
CLI_OUT = $(BUILD)/cli
CLI_BINS = $(CLI_OUT)/guest $(CLI_OUT)/user $(CLI_OUT)/steer $(CLI_OUT)/breakout

$(CLI_OUT)/guest: tests/cli/guest.c tests/guest/lib/guest.ld
	@mkdir -p $(@D)
	$(Q)echo "  GUEST $<"
	$(Q)$(CC) -m32 -march=i686 $(GUEST_CFLAGS) -c -o $@.o $<
	$(Q)ld -m elf_i386 --no-warn-rwx-segments -z noexecstack -z max-page-size=4096 -n \
	    -T tests/guest/lib/guest.ld -o $@ $@.o

$(CLI_OUT)/%.o: tests/cli/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -c -o $@ $<

$(CLI_OUT)/user: $(CLI_OUT)/user.o $(CLI_OUT)/job.o
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o,$^) -lutil -lcjson -lseccomp

$(CLI_OUT)/steer: $(CLI_OUT)/steer.o
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o,$^) -lcjson

$(CLI_OUT)/breakout: $(CLI_OUT)/breakout.o
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o,$^)

guests: $(CLI_BINS)

-include $(CLI_OUT)/guest.d $(CLI_OUT)/user.d $(CLI_OUT)/job.d $(CLI_OUT)/steer.d $(CLI_OUT)/breakout.d
