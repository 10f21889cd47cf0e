# The verifier's tests: what they share (set.c), and the translator with the mutants of
# src/bt/mutant.h in it, for unit/bt_mutants.
$(BUILD)/verify/%.o: tests/verify/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/unit/bt_verify: tests/unit/bt_verify.c $(BUILD)/verify/set.o $(LIB)
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -o $@ $< $(BUILD)/verify/set.o $(LIB) -lcmocka $(LDLIBS)

-include $(wildcard $(BUILD)/verify/*.d)
