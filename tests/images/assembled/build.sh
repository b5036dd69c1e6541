#!/bin/sh
# Makes the files of this folder from their sources, with the cross assemblers and linkers of GNU binutils
# (Debian: binutils-arm-linux-gnueabi and so on; the files in the tree are made by 2.40).
set -eu
cd "$(dirname "$0")"
make_object() { "$2-as" -o "$1.o" "$1.s"; }
# Without a symbol table, so that the dynamic one is read.
make_shared() { "$2-ld" -z max-page-size=4096 -shared -o "$1.so" "$1.o" && "$2-strip" "$1.so"; }
make_object aarch64 aarch64-linux-gnu
arm-linux-gnueabi-as -meabi=gnu -o arm_old.o arm_old.s
make_object hppa hppa-linux-gnu
make_object powerpc64le powerpc64le-linux-gnu
make_object riscv64 riscv64-linux-gnu
for both in 'arm arm-linux-gnueabi' 'micromips mips-linux-gnu' 'mips16 mips-linux-gnu' \
    'powerpc64 powerpc64-linux-gnu'; do
    # shellcheck disable=SC2086
    make_object $both && make_shared $both
done
