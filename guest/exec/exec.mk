# The first process of `bivisor exec`'s machines: a static program without a C library, which
# bivisor carries within it. As data: _binary_init_start and so on.
EXEC_OUT = $(BUILD)/exec
EXEC_CFLAGS = $(CSTD) -Wall -Wextra -Wshadow -Werror -O2 -g0 -ffreestanding -nostdlib -static \
    -Wno-unused-parameter -fno-pic -fno-pie -no-pie -fno-stack-protector -fno-tree-loop-distribute-patterns \
    -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing -fwrapv -MMD -MP

$(EXEC_OUT)/init: guest/exec/init.c
	@mkdir -p $(@D)
	$(Q)echo "  GUEST $<"
	$(Q)$(CC) $(EXEC_CFLAGS) -MF $@.d -Wl,-z,noexecstack,--build-id=none -o $@ $<
	$(Q)strip $@

$(EXEC_OUT)/image.o: $(EXEC_OUT)/init
	$(Q)cd $(EXEC_OUT) && ld -r -b binary -z noexecstack -o image.o init

-include $(EXEC_OUT)/init.d
