# Real programs of Debian's in a guest, compared with what they print natively. The first run
# makes their roots, too. PROGRAMS="perl gdb/watches" narrows it; ENGINES="bt interp".
PROGRAMS ?=
ENGINES ?= bt
comma = ,
check-programs: deps
	@tools/deps programs
	@$(MAKE) --no-print-directory all
	@BUILD=$(abspath $(BUILD)) tools/jobs compare tests/programs --parallel 2 \
	    --on $(subst $(eval ) ,$(comma),$(strip $(ENGINES))) $(PROGRAMS)

.PHONY: check-programs
