# The verifier's tests: what they share (set.c), and the translator with the mutants of
# src/tr/mutant.h in it, for unit/bt_mutants.
$(BUILD)/verify/%.o: tests/verify/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/unit/bt_verify $(BUILD)/unit/bt_accepts: $(BUILD)/verify/set.o

-include $(wildcard $(BUILD)/verify/*.d)

# Linked before the library, whose own translator is then not looked at.
MUTANT_OBJS = $(patsubst src/%.c,$(BUILD)/mutant/%.o,$(wildcard src/tr/*.c))

$(BUILD)/mutant/%.o: src/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $< (mutants)"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(CORE_CFLAGS) -DBT_MUTANTS -c -o $@ $<

$(BUILD)/unit/bt_mutants.o: CPPFLAGS += -DBT_MUTANTS
$(BUILD)/unit/bt_mutants: $(BUILD)/verify/set.o $(MUTANT_OBJS)

-include $(wildcard $(BUILD)/mutant/*/*.d)
