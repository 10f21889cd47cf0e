# What tests/boot needs besides bivisor: the program that types at the guest's console.
BOOT_DRIVE = $(BUILD)/boot/drive

$(BOOT_DRIVE): tests/boot/drive.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -o $@ $<

# And one that tells what is in a PNG file.
BOOT_PNG = $(BUILD)/boot/png
$(BOOT_PNG): tests/boot/png.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -o $@ $< -lz

# And a VNC client.
BOOT_VNC = $(BUILD)/boot/vnc
$(BOOT_VNC): tests/boot/vnc.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -o $@ $< -lvncclient -lz

boot-driver: $(BOOT_DRIVE) $(BOOT_PNG) $(BOOT_VNC)

# Every kernel with every way to boot and run it, and all that networks, firmware and disks have
# tests for: half an hour. Then Linux on many CPUs: two hours.
check-long: deps-check
	@$(MAKE) --no-print-directory all guests boot-driver fidelity-bin
	@BUILD=$(BUILD) FRESH=1 tests/fidelity/run
	@BUILD=$(BUILD) FRESH=1 tests/fidelity/cells
	@BUILD=$(BUILD) tests/direct/selftests
	@BUILD=$(BUILD) tests/boot/run --long
	@BUILD=$(BUILD) tests/boot/net
	@BUILD=$(BUILD) tests/boot/share
	@BUILD=$(BUILD) tests/exec/run
	@BUILD=$(BUILD) tests/cli/hosts
	@BUILD=$(BUILD) tests/stress/devices 120
	@BUILD=$(BUILD) tests/boot/firmware
	@tools/deps compare && BUILD=$(BUILD) tests/boot/dmesg
	@BUILD=$(BUILD) tests/boot/screen
	@BUILD=$(BUILD) tests/boot/display
	@BUILD=$(BUILD) tests/qemu/virtme
	@BUILD=$(BUILD) tests/guide/run
	@BUILD=$(BUILD) tests/disk/run
	@BUILD=$(BUILD) tests/snapshot/run
	@BUILD=$(BUILD) tests/smp/run
	@BUILD=$(BUILD) tests/gdb/run
	@BUILD=$(BUILD) tests/gdb/run linux

# The table of bad input under the sanitizers.
check-bad-asan:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan \
	    SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" all
	@BUILD=$(BUILD)/asan ASSETS=$(ASSETS) tests/boot/bad

-include $(BUILD)/boot/drive.d $(BUILD)/boot/png.d $(BUILD)/boot/vnc.d

.PHONY: boot-driver check-long check-bad-asan
