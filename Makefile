# unshard. `make help` lists the targets.
#
# Variables: SAN=address,undefined or SAN=thread   build and test with sanitizers
#            DEBUG=1                               -O1 and the invariant checks of the engine
#            PREFIX= DESTDIR=                      where `make install` puts things
#            SRC= MNT=                             your own checkpoint for `make demo`
#            V=1                                   show the commands of the compiler
#            FUZZ_SECONDS=6                        how long each fuzz target runs in `make check` (60)
#            PYTEST=                               further arguments for pytest
#            BASE= MEASURE=                        for `make bench`: another commit beside this; what (--help)
#            MACHINE=aarch64                       for `make wheel`: another machine than this
.DEFAULT_GOAL := all
SHELL := /bin/bash

PREFIX ?= /usr/local
CC := gcc
SAN ?=
DEBUG ?=
comma := ,
# V=1 shows the commands of the compiler.
Q := $(if $(V),,@)
BUILD := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(DEBUG),/debug)

PKGS := fuse3 libcjson libxxhash libcrypto
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Wstrict-prototypes \
            -Wformat=2 -Wundef -Werror
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib -I. $(shell pkg-config --cflags fuse3 2>/dev/null)
CFLAGS ?= -g
CFLAGS += -std=gnu11 $(WARNINGS) -pthread -fno-omit-frame-pointer -fPIC
LDFLAGS += -pthread -Wl,-z,relro,-z,now
ifneq ($(SAN),)
CFLAGS += -O1 -fsanitize=$(SAN) -fno-sanitize-recover=undefined -DUNSHARD_CHECK_INVARIANTS
LDFLAGS += -fsanitize=$(SAN)
else ifneq ($(DEBUG),)
CFLAGS += -O1 -DUNSHARD_CHECK_INVARIANTS
else
CFLAGS += -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
endif
LIB_LIBS := $(shell pkg-config --libs libcjson libxxhash libcrypto 2>/dev/null)
FUSE_LIBS := $(shell pkg-config --libs fuse3 2>/dev/null)

LIB_SRC := $(wildcard lib/*/*.c lib/*/*/*.c)
FS_SRC := $(wildcard fs/*/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c) $(wildcard tests/property/test_*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
FS_OBJ := $(FS_SRC:%.c=$(BUILD)/obj/%.o)
UNIT_BIN := $(UNIT_SRC:tests/%.c=$(BUILD)/tests/%)
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=build/fuzz/%)

MAN_SRC := $(wildcard contrib/man/*.[1-8])
SLOWFS_SRC := $(wildcard tests/slowfs/*.c)
SLOWFS := build/tests/slowfs/slowfs

.PHONY: all lib tests fuzz clean install uninstall deb help
all: $(BUILD)/unshard lib

help:
	@echo 'make             the daemon build/unshard and the library'
	@echo 'make deps        install what building and testing need (Debian packages, .venv)'
	@echo 'make check       build and run all tests; ends with "N passed, N failed"'
	@echo 'make lint        clang-format and clang-tidy'
	@echo 'make demo        make a small checkpoint, mount it, load it; or yours [SRC=... MNT=...]'
	@echo 'make picture     contrib/demo/watch.svg, recorded anew'
	@echo 'make campaign    corrupt shards, let storage fail, kill daemons: 2270 rounds [CAMPAIGN=...]'
	@echo 'make bench       measure, side by side with what else there is [MEASURE=--quick] [BASE=COMMIT]'
	@echo 'make manifests   contrib/kubernetes/daemonset.yaml, of the chart and its default values'
	@echo 'make deb         Debian packages in build/deb, checked with lintian'
	@echo 'make wheel       a Python wheel with the program in it, in build/wheel, checked with auditwheel'
	@echo 'make install     [PREFIX=/usr/local] [DESTDIR=]'
	@echo 'make clean'
	@sed -n 's/^# \?\(Variables:\)/\n\1/p; s/^#            /           /p' Makefile

lib: $(BUILD)/libunshard.a $(BUILD)/libunshard.so

$(BUILD)/unshard: $(FS_OBJ) $(BUILD)/libunshard.a
	@echo '  CC    $@'
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(FS_OBJ) $(BUILD)/libunshard.a $(FUSE_LIBS) $(LIB_LIBS)

# The archive for the tests and the daemon: every symbol of the library is reachable.
$(BUILD)/libunshard.a: $(LIB_OBJ)
	@rm -f $@
	@echo '  AR    $@'
	$(Q)$(AR) rcs $@ $^

# The library for others: only what lib/unshard.h declares is visible.
$(BUILD)/libunshard.so: $(LIB_OBJ) lib/libunshard.map
	@echo '  CC    $@'
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,libunshard.so.0 \
	    -Wl,--version-script=lib/libunshard.map -o $@ $(LIB_OBJ) $(LIB_LIBS)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# One program per file in tests/unit and tests/property. A test may stand in for functions.
$(BUILD)/tests/unit/test_verification: LDFLAGS += -Wl,--wrap=source_read,--wrap=source_poll,--wrap=pass_stream,--wrap=hasher_copy,--wrap=held_pages_take
$(BUILD)/tests/unit/test_export: LDFLAGS += -Wl,--wrap=source_read,--wrap=source_poll
$(BUILD)/tests/unit/test_inode_table: LDFLAGS += -Wl,--wrap=unshard_view_identity,--wrap=unshard_engine_attach,--wrap=unshard_engine_detach,--wrap=unshard_engine_view_known,--wrap=unshard_engine_tell,--wrap=unshard_engine_tell_no_more
$(BUILD)/tests/unit/test_epochs: LDFLAGS += -Wl,--wrap=source_poll
$(BUILD)/tests/%: tests/%.c $(BUILD)/libunshard.a Makefile
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -MF $@.d -Itests $(LDFLAGS) -o $@ $< $(BUILD)/libunshard.a \
	    $(shell pkg-config --libs cmocka) $(LIB_LIBS)

# The program as if it had another layout of what is kept for a successor.
NEXT := $(BUILD)/tests/unshard-next
$(NEXT): $(FS_OBJ) lib/keep/keep.c lib/keep/keep.h $(BUILD)/libunshard.a
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) -DKEEP_LAYOUT=1000U $(CFLAGS) $(LDFLAGS) -o $@ lib/keep/keep.c $(FS_OBJ) \
	    $(BUILD)/libunshard.a $(FUSE_LIBS) $(LIB_LIBS)

# One libFuzzer program per file in tests/fuzz, with all of the library under ASan and UBSan.
FUZZ_CFLAGS := -std=gnu11 -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
build/fuzz/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo '  CLANG $@'
	$(Q)clang $(CPPFLAGS) $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<
build/fuzz/%: tests/fuzz/%.c $(LIB_SRC:%.c=build/fuzz/obj/%.o)
	@mkdir -p $(@D)
	@echo '  CLANG $@'
	$(Q)clang $(CPPFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIB_LIBS)

# The slow and failing storage of the integration tests and benchmarks; never sanitized.
$(SLOWFS): $(SLOWFS_SRC) $(wildcard tests/slowfs/*.h) Makefile
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -g -O2 $(WARNINGS) -pthread -o $@ $(SLOWFS_SRC) $(FUSE_LIBS)

build/tests/bench/%: tests/bench/%.c Makefile
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -g -O2 $(WARNINGS) -pthread -o $@ $<

tests: $(UNIT_BIN) $(SLOWFS) $(NEXT)
fuzz: $(FUZZ_BIN)

LIBDIR := $(DESTDIR)$(PREFIX)/lib
UNITDIR := $(PREFIX)/lib/systemd/system
BASHDIR := $(PREFIX)/share/bash-completion/completions
ZSHDIR := $(PREFIX)/share/zsh/site-functions
UNIT := $(DESTDIR)$(UNITDIR)/unshard@.service
# mount(8) looks for its helper in /sbin alone; an installation into some other prefix goes without.
MOUNT_HELPER := $(if $(filter /usr /usr/local,$(PREFIX)),$(DESTDIR)/sbin/mount.unshard)
install: all
	install -D -m 755 $(BUILD)/unshard $(DESTDIR)$(PREFIX)/bin/unshard
	install -D -m 644 $(BUILD)/libunshard.a $(LIBDIR)/libunshard.a
	install -D -m 755 $(BUILD)/libunshard.so $(LIBDIR)/libunshard.so.0
	ln -sf libunshard.so.0 $(LIBDIR)/libunshard.so
	$(if $(MOUNT_HELPER),install -d $(dir $(MOUNT_HELPER)) && \
	    ln -sf $(PREFIX)/bin/unshard $(MOUNT_HELPER))
	install -D -m 644 lib/unshard.h $(DESTDIR)$(PREFIX)/include/unshard.h
	install -D -m 644 contrib/schema/status-1.json $(DESTDIR)$(PREFIX)/share/unshard/status-1.json
	install -D -m 644 contrib/completion/unshard.bash $(DESTDIR)$(BASHDIR)/unshard
	install -D -m 644 contrib/completion/_unshard $(DESTDIR)$(ZSHDIR)/_unshard
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/bin/unshard|$(PREFIX)/bin/unshard|' contrib/systemd/unshard@.service >$(UNIT)
	@for page in $(MAN_SRC); do \
	    install -D -v -m 644 $$page \
	        $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/} || exit 1; \
	done

uninstall:
	rm -f $(UNIT) $(DESTDIR)$(BASHDIR)/unshard $(DESTDIR)$(ZSHDIR)/_unshard \
	    $(DESTDIR)$(PREFIX)/share/unshard/status-1.json
	rm -f $(MOUNT_HELPER) $(DESTDIR)$(PREFIX)/bin/unshard $(LIBDIR)/libunshard.a $(LIBDIR)/libunshard.so.0 \
	    $(LIBDIR)/libunshard.so $(DESTDIR)$(PREFIX)/include/unshard.h \
	    $(foreach page,$(MAN_SRC),$(DESTDIR)$(PREFIX)/share/man/man$(patsubst .%,%,$(suffix $(page)))/$(notdir $(page)))

# A Debian package, in build/deb. debian/ must be at the top of a source, so a copy is made.
DEB_DIR := build/deb/unshard
deb:
	@tests/deps.sh package
	rm -rf build/deb
	mkdir -p $(DEB_DIR)
	cp -r Makefile LICENSE README.md lib fs contrib $(DEB_DIR)
	mkdir $(DEB_DIR)/tests && cp tests/tests.mk $(DEB_DIR)/tests
	mv $(DEB_DIR)/contrib/debian $(DEB_DIR)/debian
	cd $(DEB_DIR) && env -u MAKEFLAGS -u MAKELEVEL dpkg-buildpackage -us -uc -b
	cd build/deb && lintian --fail-on error,warning *.changes
	@ls -l build/deb/*.deb

clean:
	rm -rf build

# The fuzzers' objects are made by a chain of rules; without this make would delete them again.
.SECONDARY:
-include $(LIB_OBJ:.o=.d) $(FS_OBJ:.o=.d) $(UNIT_BIN:=.d) $(LIB_SRC:%.c=build/fuzz/obj/%.d)
include tests/tests.mk
include contrib/python/wheel.mk
