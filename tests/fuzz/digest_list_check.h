/* SPDX-License-Identifier: MIT
 *
 * What must hold of any list of digests that a parser returns. */
#ifndef FUZZ_DIGEST_LIST_CHECK_H
#define FUZZ_DIGEST_LIST_CHECK_H

#include "digest/digest_list.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void require(int condition)
{
    if (!condition)
        abort();
}

static inline void check_safe_name(const char *name)
{
    require(name[0] != '\0' && name[0] != '/' && strlen(name) < 4096);
    for (const char *part = name;;) {
        size_t length = strcspn(part, "/");
        require(length > 0 && !(length == 1 && part[0] == '.'));
        require(!(length == 2 && part[0] == '.' && part[1] == '.'));
        if (part[length] == '\0')
            return;
        part += length + 1;
    }
}

static inline void check_list(int result, const struct digest_list *list,
                              const struct unshard_error *error)
{
    require(result == 0 || (error->code != NULL && error->message[0] != '\0'));
    require(list->malformed_count == 0 || list->malformed.message[0] != '\0');
    require(list->unsafe_count == 0 || list->unsafe[0] != '\0');
    require(list->unsupported_count == 0 || list->unsupported[0] != '\0');
    require(list->count <= DIGEST_LIST_MAX_ENTRIES);
    for (uint32_t i = 0; i < list->count; i++)
        check_safe_name(list->items[i].name);
}

#endif
