# The program of a cell: freestanding, linked at an address of its own, carried within the
# command.
CELL_OUT = $(BUILD)/cell
CELL_CFLAGS = $(CSTD) -Wall -Wextra -Wshadow -Werror -O2 -g0 -ffreestanding -nostdlib \
    -fno-pic -fno-pie -mcmodel=large -fno-stack-protector -fno-tree-loop-distribute-patterns \
    -fno-asynchronous-unwind-tables -fcf-protection=none -mgeneral-regs-only -MMD -MP -Isrc

$(CELL_OUT)/%.o: guest/cell/%
	@mkdir -p $(@D)
	$(Q)echo "  CELL  $<"
	$(Q)$(CC) $(CELL_CFLAGS) -c -o $@ $<

$(CELL_OUT)/cell: $(CELL_OUT)/loops.S.o $(CELL_OUT)/setup.c.o guest/cell/cell.ld
	$(Q)ld -static -nostdlib -z noexecstack -T guest/cell/cell.ld -o $@ $(filter %.o,$^)

# As data: _binary_cell_start and so on.
$(CELL_OUT)/image.o: $(CELL_OUT)/cell
	$(Q)cd $(CELL_OUT) && ld -r -b binary -z noexecstack -o image.o cell

-include $(wildcard $(CELL_OUT)/*.d)
