/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/digest_list_check.h"

#include "digest/checksum_list.h"

static void parse(const uint8_t *data, size_t size, enum digest_algorithm algorithm,
                  const char *implied_name)
{
    struct arena arena = {0};
    struct digest_list list = {0};
    struct unshard_error error = {0};
    int result = checksum_list_parse((const char *)data, size, "fuzz", algorithm, implied_name,
                                     &arena, &list, &error);
    check_list(result, &list, &error);
    for (uint32_t i = 0; i < list.count; i++)
        require(list.items[i].digest.algorithm != DIGEST_NONE && list.items[i].line > 0);
    digest_list_free(&list);
    arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(data, size, DIGEST_NONE, NULL);
    parse(data, size, DIGEST_SHA256, "model.safetensors");
    return 0;
}
