# A Debian on a disk, to its login and back: tests/debian/run. ENGINES="bt kvm".
check-debian: deps
	@tools/deps disk
	@$(MAKE) --no-print-directory all boot-driver
	@BUILD=$(BUILD) tests/debian/run $(DEBIAN)

# A Debian that copies itself to disks of other layouts, and autopkgtest in a machine.
check-layouts: deps
	@tools/deps disk
	@$(MAKE) --no-print-directory all boot-driver
	@BUILD=$(BUILD) tests/debian/layouts $(LAYOUTS)
	@BUILD=$(BUILD) tests/debian/autopkgtest

.PHONY: check-debian check-layouts
