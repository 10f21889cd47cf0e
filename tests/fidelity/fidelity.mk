# The engines against the host's CPU; see tests/fidelity/fidelity.h.
FID_SRCS = $(sort $(wildcard tests/fidelity/*.c))
FID = $(BUILD)/fidelity/fidelity

$(BUILD)/fidelity/%.o: tests/fidelity/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -c -o $@ $<

$(FID): $(FID_SRCS:tests/fidelity/%.c=$(BUILD)/fidelity/%.o) $(TESTLIB) $(LIB)
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)

fidelity-bin: $(FID)

# CASES random cases from SEED (default: the time), shrunk and printed where they differ.
CASES ?= 20000000
SEED ?=
fidelity: deps-check
	@$(MAKE) --no-print-directory fidelity-bin
	$(FID) --cases $(CASES) $(if $(SEED),--seed $(SEED))

-include $(FID_SRCS:tests/fidelity/%.c=$(BUILD)/fidelity/%.d)
.PHONY: fidelity fidelity-bin
