# A Debian on a disk, to its login and back: tests/debian/run. ENGINES="bt kvm".
check-debian: deps
	@tools/deps disk
	@$(MAKE) --no-print-directory all boot-driver
	@BUILD=$(BUILD) tests/debian/run $(DEBIAN)

.PHONY: check-debian
