# unshard. `make help` lists the targets.
#
# Variables: SAN=address,undefined or SAN=thread   build and test with sanitizers
#            DEBUG=1                               -O1 and the invariant checks of the engine
#            PREFIX= DESTDIR=                      where `make install` puts things
#            SRC= MNT=                             your own checkpoint for `make demo`
.DEFAULT_GOAL := all
SHELL := /bin/bash

PREFIX ?= /usr/local
CC := gcc
SAN ?=
DEBUG ?=
comma := ,
BUILD := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(DEBUG),/debug)

PKGS := fuse3 libcjson libxxhash libcrypto
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Wstrict-prototypes \
            -Wformat=2 -Wundef -Werror
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Ilib -I. $(shell pkg-config --cflags fuse3 2>/dev/null)
CFLAGS ?= -g
CFLAGS += -std=gnu11 $(WARNINGS) -pthread -fno-omit-frame-pointer -fPIC
LDFLAGS += -pthread
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

LIB_SRC := $(wildcard lib/*/*.c)
FS_SRC := $(wildcard fs/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c) $(wildcard tests/property/test_*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
FS_OBJ := $(FS_SRC:%.c=$(BUILD)/obj/%.o)
UNIT_BIN := $(UNIT_SRC:tests/%.c=$(BUILD)/tests/%)
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=build/fuzz/%)

.PHONY: all lib tests fuzz clean
all: $(BUILD)/unshard lib

lib: $(BUILD)/libunshard.a $(BUILD)/libunshard.so

$(BUILD)/unshard: $(FS_OBJ) $(BUILD)/libunshard.a
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(FS_OBJ) $(BUILD)/libunshard.a $(FUSE_LIBS) $(LIB_LIBS)

# The archive for the tests and the daemon: every symbol of the library is reachable.
$(BUILD)/libunshard.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

# The library for others: only what lib/unshard.h declares is visible.
$(BUILD)/libunshard.so: $(LIB_OBJ) lib/libunshard.map
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,libunshard.so.0 \
	    -Wl,--version-script=lib/libunshard.map -o $@ $(LIB_OBJ) $(LIB_LIBS)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# One program per file in tests/unit and tests/property.
$(BUILD)/tests/%: tests/%.c $(BUILD)/libunshard.a Makefile
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -Itests $(LDFLAGS) -o $@ $< $(BUILD)/libunshard.a \
	    $(shell pkg-config --libs cmocka) $(LIB_LIBS)

# One libFuzzer program per file in tests/fuzz, with all of the library under ASan and UBSan.
FUZZ_CFLAGS := -std=gnu11 -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
build/fuzz/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	clang $(CPPFLAGS) $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<
build/fuzz/%: tests/fuzz/%.c $(LIB_SRC:%.c=build/fuzz/obj/%.o)
	@mkdir -p $(@D)
	clang $(CPPFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIB_LIBS)

tests: $(UNIT_BIN)
fuzz: $(FUZZ_BIN)

clean:
	rm -rf build

-include $(LIB_OBJ:.o=.d) $(FS_OBJ:.o=.d) $(UNIT_BIN:=.d)
-include tests/tests.mk
