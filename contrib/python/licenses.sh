#!/bin/bash
# Collects the licences of all that is linked into the wheel's program, as TARGET/LICENSE.NAME.
# usage: licenses.sh SOURCES TARGET
#     SOURCES: the folder with Debian's sources of cJSON and xxHash
set -euo pipefail
sources=$1 target=$2

cp LICENSE "$target/LICENSE.unshard"
cp "$sources/cjson/debian/copyright" "$target/LICENSE.cjson"
cp "$sources/xxhash/debian/copyright" "$target/LICENSE.xxhash"
cp /usr/share/doc/libfuse3-dev/copyright "$target/LICENSE.libfuse"
cp /usr/share/doc/libssl-dev/copyright "$target/LICENSE.openssl"
cp /usr/share/doc/libc6-dev/copyright "$target/LICENSE.glibc"
# What these refer to.
for name in LGPL-2.1 Apache-2.0; do
    cp "/usr/share/common-licenses/$name" "$target/LICENSE.$name"
done
