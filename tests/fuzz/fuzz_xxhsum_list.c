/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/digest_list_check.h"

#include "digest/xxhsum_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena = {0};
    struct digest_list list = {0};
    struct unshard_error error = {0};
    int result = xxhsum_list_parse((const char *)data, size, "fuzz", &arena, &list, &error);
    check_list(result, &list, &error);
    digest_list_free(&list);
    arena_free(&arena);
    return 0;
}
