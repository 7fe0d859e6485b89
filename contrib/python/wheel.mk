# The Python wheel, in build/wheel. Included by the Makefile, after tests/tests.mk.
#
# Its program is the one that `make` builds, linked statically: Debian has archives of libfuse and
# libcrypto; cJSON and xxHash (with the functions for each vector unit, which Debian's archive is
# without) are compiled from Debian's sources, which contrib/python/tools.sh gets.
#
# MACHINE=aarch64 on another machine: all of it by a cross compiler.
THIS_MACHINE := $(shell uname -m)
MACHINE ?= $(THIS_MACHINE)
WHEELS := build/wheel
WHEEL := $(WHEELS)/$(MACHINE)
WHEEL_SHARE := $(WHEEL)/project/from-make/share
WHEEL_PYTHON := $(WHEELS)/tools/bin/python
PYTHON_SRC := $(wildcard contrib/python/src/unshard/*)
WHEEL_OBJ := $(WHEEL)/obj/standalone.o $(WHEEL)/obj/cJSON.o $(WHEEL)/obj/xxhash.o \
             $(if $(filter x86_64,$(MACHINE)),$(WHEEL)/obj/xxh_x86dispatch.o)
WHEEL_LDFLAGS := -static-pie -Wl,--wrap=dlopen,--wrap=getaddrinfo,--wrap=gethostbyname -s
ifneq ($(MACHINE),$(THIS_MACHINE))
CROSS := BUILD=build/$(MACHINE) CC=$(MACHINE)-linux-gnu-gcc AR=$(MACHINE)-linux-gnu-ar
CPPFLAGS += -I$(WHEEL)/root/usr/include/$(MACHINE)-linux-gnu
WHEEL_LDFLAGS += -L$(WHEEL)/root/usr/lib/$(MACHINE)-linux-gnu
endif

.PHONY: wheel wheel-run lint-python
wheel:
	$(if $(SAN)$(DEBUG),$(error A wheel is of a plain build: without SAN and DEBUG))
	@tests/deps.sh wheel $(MACHINE)
	@$(MAKE) --no-print-directory wheel-run MACHINE=$(MACHINE) $(CROSS)

$(WHEEL)/obj/standalone.o: contrib/python/standalone.c contrib/python/wheel.mk
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<
$(WHEEL)/obj/cJSON.o: $(WHEELS)/sources/cjson/cJSON.c
$(WHEEL)/obj/xxhash.o: $(WHEELS)/sources/xxhash/xxhash.c
$(WHEEL)/obj/xxh_x86dispatch.o: $(WHEELS)/sources/xxhash/xxh_x86dispatch.c
$(filter-out %/standalone.o,$(WHEEL_OBJ)):
	@mkdir -p $(@D)
	@echo '  CC    $@'
	$(Q)$(CC) -O2 -fPIC -D_FORTIFY_SOURCE=2 -fstack-protector-strong -c -o $@ $<

$(WHEEL)/unshard: $(FS_OBJ) $(BUILD)/libunshard.a $(WHEEL_OBJ)
	@echo '  CC    $@'
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(WHEEL_LDFLAGS) -o $@ $(FS_OBJ) $(BUILD)/libunshard.a \
	    $(WHEEL_OBJ) -l:libfuse3.a -l:libcrypto.a

# A copy, since what is put in has no place among the sources.
$(WHEEL)/built: $(WHEEL)/unshard $(PYTHON_SRC) $(wildcard contrib/python/*) LICENSE lib/unshard.h \
    $(MAN_SRC) $(wildcard contrib/completion/*)
	@rm -rf $(WHEEL)/project $(WHEELS)/*_$(MACHINE).whl
	@mkdir -p $(WHEEL)/project/from-make
	@cp -r contrib/python/. $(WHEEL)/project
	@cp $(WHEEL)/unshard lib/unshard.h $(WHEEL)/project/from-make
	@for page in $(MAN_SRC); do \
	    install -D -m 644 -t $(WHEEL_SHARE)/man/man$${page##*.} $$page || exit 1; done
	@install -D -m 644 contrib/completion/unshard.bash \
	    $(WHEEL_SHARE)/bash-completion/completions/unshard
	@install -D -m 644 -t $(WHEEL_SHARE)/zsh/site-functions contrib/completion/_unshard
	@contrib/python/licenses.sh $(WHEELS)/sources $(WHEEL)/project
	@echo '  WHEEL $(WHEEL)'
	$(Q)cd $(WHEEL)/project && MACHINE=$(MACHINE) ../../tools/bin/python -m hatchling build \
	    -t wheel -d ../.. >../build.log 2>&1 || { cat ../build.log; exit 1; }
	@$(WHEEL_PYTHON) contrib/python/check_wheel.py $(WHEELS)/*_$(MACHINE).whl
	@touch $@
wheel-run: $(WHEEL)/built
	@ls $(WHEELS)/*_$(MACHINE).whl

lint-run: lint-python
lint-python:
	@$(WHEEL_PYTHON) -m mypy --config-file contrib/python/pyproject.toml \
	    --cache-dir $(WHEELS)/mypy contrib/python/src/unshard
LINT_SRC += contrib/python/standalone.c
FORMAT_SRC += contrib/python/standalone.c
