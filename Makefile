# bivisor. `make` builds, `make check` tests, `make run` boots Linux; see README.md.
MAKEFLAGS += --no-builtin-rules
BUILD ?= build
CC = gcc
SAN ?=
CSTD = -std=gnu11
WARN = -Wall -Wextra -Wno-unused-parameter -Wstrict-prototypes -Wmissing-prototypes \
       -Wshadow -Wundef -Werror
CFLAGS ?= -O2 -g
CPPFLAGS += -Isrc -D_GNU_SOURCE
ALL_CFLAGS = $(CSTD) $(WARN) $(CFLAGS) -fno-strict-aliasing -fwrapv -pthread -MMD -MP $(SAN)
# These rooms run while the guest's vector state is in the host's registers
# (src/cpu/vec.h): no vector code, no libc behind the compiler's back.
CORE_ROOMS = cpu mem mmu sem interp
CORE_CFLAGS = -mgeneral-regs-only -mmemcpy-strategy=rep_8byte:-1:noalign \
              -mmemset-strategy=rep_8byte:-1:noalign -fno-stack-protector
LDLIBS = -lZydis -lpthread

# ROOMS narrows a build to some rooms (for work on one of them).
ROOMS ?= *
SRCS = $(sort $(wildcard $(ROOMS:%=src/%/*.c)))
OBJS = $(SRCS:%.c=$(BUILD)/%.o)
LIB = $(BUILD)/libbivisor.a
UNIT_SRCS = $(sort $(wildcard tests/unit/*.c))
UNITS = $(UNIT_SRCS:tests/unit/%.c=$(BUILD)/unit/%)

all: $(BUILD)/bivisor

$(BUILD)/bivisor: $(BUILD)/src/main.o $(LIB)
	$(CC) $(ALL_CFLAGS) -o $@ $^ $(LDLIBS)

$(LIB): $(OBJS)
	@rm -f $@
	ar rcs $@ $^

core = $(if $(filter $(CORE_ROOMS),$(word 2,$(subst /, ,$1))),$(CORE_CFLAGS))

$(BUILD)/src/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(call core,src/$*.c) -c -o $@ $<

$(BUILD)/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(ALL_CFLAGS) -o $@ $< $(LIB) -lcmocka $(LDLIBS)

units: $(UNITS)

clean:
	rm -rf $(BUILD)

-include $(OBJS:.o=.d) $(BUILD)/src/main.d

.PHONY: all units clean
.SECONDARY:
