# Installing, and packages.
PREFIX ?= /usr/local
VERSION = $(shell sed -n 's/^\#define CTL_VERSION "\(.*\)"/\1/p' src/ctl/ctl.h)

# The program, its man page, completion for bash and zsh, papers; and in libexec/bivisor QEMU's
# name for it, for a PATH that should find it there.
install: all
	@tools/install $(BUILD)/bivisor "$(DESTDIR)" "$(PREFIX)"
	@echo "installed in $(DESTDIR)$(PREFIX)"

uninstall:
	@tools/install --remove "$(DESTDIR)" "$(PREFIX)"

# A Debian package: build/bivisor_VERSION_ARCH.deb.
deb: deps
	@tools/deps deb
	@$(MAKE) --no-print-directory all
	@tools/make-deb $(BUILD)/bivisor $(VERSION) $(BUILD)

# A program that needs no library of the host's: build/static/bivisor. Zydis and cJSON come from
# Debian's source packages; the user network, the VNC server and the network block device, whose libraries are not
# to be had as archives, are left out.
STATIC = $(BUILD)/static
static: deps
	@tools/make-static-libs $(BUILD)/static-libs
	@$(MAKE) --no-print-directory BUILD=$(STATIC) HAVE_LIBNBD= HAVE_LIBSLIRP= HAVE_LIBVNCSERVER= \
	    CPPFLAGS="-Isrc -D_GNU_SOURCE" \
	    LDLIBS="-static -L$(abspath $(BUILD))/static-libs/lib -lZydis -lcjson -lseccomp -lz -llzma -lzstd -llz4 -lpthread -lm" \
	    all
	@echo "$(STATIC)/bivisor: static; without --net user, --display vnc and disks of nbd:// servers"

# The package in a clean root of Debian's, the static program in an empty one.
check-packages: deps-check
	@tools/deps packages
	@$(MAKE) --no-print-directory deb static guests
	@BUILD=$(BUILD) tests/package/run

.PHONY: install uninstall deb static check-packages
