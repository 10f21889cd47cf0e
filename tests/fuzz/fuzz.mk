# Fuzzing. `make fuzz TIME=60` gives each target so many seconds with libFuzzer, under
# AddressSanitizer and UBSan; FUZZ="dev boot" takes some targets only. `make check` runs the
# corpus through the same targets (`replay`) as they are.
TIME ?= 60
FUZZ ?= boot elf translate dev interp bt control qcow2 fat virtio e1000 net share gdb api snapshot chain svm
FUZZ_TARGETS = boot elf translate dev interp bt control qcow2 fat virtio e1000 net share gdb api snapshot chain svm
FUZZ_OUT = $(BUILD)/fuzz
FUZZ_SAN = -fsanitize=address,undefined -fno-sanitize-recover=all
# Comparisons go to libFuzzer's own code, which uses vector registers.
FUZZ_COVER = -fsanitize-coverage=trace-pc
FUZZ_COVER_EDGE = -fsanitize-coverage=trace-cmp
FUZZ_LIB = $(shell dpkg -L libclang-rt-14-dev 2>/dev/null | grep libclang_rt.fuzzer-x86_64.a)
FUZZ_COMMON = $(FUZZ_OUT)/cpu.o $(FUZZ_OUT)/vguest.o $(TESTLIB)

$(FUZZ_OUT)/%.o: tests/fuzz/%.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -c -o $@ $<

# Nothing that counts may count itself.
$(FUZZ_OUT)/cover.o: tests/fuzz/cover.c
	@mkdir -p $(@D)
	$(Q)echo "  CC    $<"
	$(Q)$(CC) $(CSTD) $(WARN) -O2 -g -mgeneral-regs-only -c -o $@ $<

$(FUZZ_TARGETS:%=$(FUZZ_OUT)/%): $(FUZZ_OUT)/%: $(FUZZ_OUT)/%.o $(FUZZ_OUT)/replay.o \
    $(FUZZ_COMMON) $(LIB)
	$(Q)echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)

# In a build of its own, with SAN and coverage: the same with libFuzzer's main().
$(FUZZ_TARGETS:%=$(FUZZ_OUT)/%-fuzz): $(FUZZ_OUT)/%-fuzz: $(FUZZ_OUT)/%.o \
    $(FUZZ_OUT)/cover.o $(FUZZ_COMMON) $(LIB)
	$(Q)echo "  LD    $@"
	$(Q)g++ -pthread $(SAN) -static-libasan -Wl,--wrap=__sanitizer_cov_trace_pc -o $@ $^ $(FUZZ_LIB) $(LDLIBS)

replays: $(FUZZ_TARGETS:%=$(FUZZ_OUT)/%)

fuzzers: $(FUZZ_TARGETS:%=$(FUZZ_OUT)/%-fuzz)

fuzz-deps:
	@tools/deps fuzz

fuzz: fuzz-deps
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/san \
	    SAN="$(FUZZ_SAN) $(FUZZ_COVER)" EDGE_CFLAGS="$(FUZZ_COVER_EDGE)" fuzzers
	@BUILD=$(BUILD)/san tests/fuzz/run $(TIME) $(FUZZ)

-include $(wildcard $(FUZZ_OUT)/*.d)

.PHONY: replays fuzzers fuzz fuzz-deps
.SECONDARY: $(FUZZ_TARGETS:%=$(FUZZ_OUT)/%.o)
