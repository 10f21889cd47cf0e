# The first process of `bivisor exec`'s machines, and the agent of `bivisor do` (which is in
# it, too): static programs without a C library, which bivisor carries within it. As data:
# _binary_init_start, _binary_agent_start and so on.
EXEC_OUT = $(BUILD)/exec
EXEC_CFLAGS = $(CSTD) -Wall -Wextra -Wshadow -Werror -O2 -g0 -ffreestanding -nostdlib -static \
    -Wno-unused-parameter -fno-pic -fno-pie -no-pie -fno-stack-protector -fno-tree-loop-distribute-patterns \
    -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing -fwrapv -MMD -MP

$(EXEC_OUT)/%.o: guest/exec/%.c
	@mkdir -p $(@D)
	$(Q)echo "  GUEST $<"
	$(Q)$(CC) -Isrc $(EXEC_CFLAGS) -c -o $@ $<

$(EXEC_OUT)/init: $(EXEC_OUT)/init.o $(EXEC_OUT)/command.o $(EXEC_OUT)/agent.o
$(EXEC_OUT)/agent: $(EXEC_OUT)/alone.o $(EXEC_OUT)/command.o $(EXEC_OUT)/agent.o
$(EXEC_OUT)/init $(EXEC_OUT)/agent:
	$(Q)$(CC) $(filter-out -MMD -MP,$(EXEC_CFLAGS)) -Wl,-z,noexecstack,--build-id=none -o $@ $(filter %.o,$^)
	$(Q)strip $@

$(EXEC_OUT)/image.o: $(EXEC_OUT)/init $(EXEC_OUT)/agent
	$(Q)cd $(EXEC_OUT) && ld -r -b binary -z noexecstack -o image.o init agent

-include $(wildcard $(EXEC_OUT)/*.d)
