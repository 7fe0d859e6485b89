/* SPDX-License-Identifier: MIT
 *
 * Which kinds of digests files are checked by. */
#include "base/text.h"
#include "digest/digest.h"
#include "unshard.h"

#include <string.h>

static bool is_used(const struct unshard_status *status, const char *algorithm)
{
    for (uint32_t i = 0; i < status->file_count; i++)
        if (status->files[i]->algorithm != NULL &&
            strcmp(status->files[i]->algorithm, algorithm) == 0)
            return true;
    return false;
}

char *unshard_status_digests(const struct unshard_status *status)
{
    struct text text = {0};
    for (unsigned i = DIGEST_NONE + 1; i < DIGEST_ALGORITHM_COUNT; i++)
        if (is_used(status, digest_algorithm_name(i)))
            text_printf(&text, "%s%s", text.length > 0 ? "," : "", digest_algorithm_name(i));
    if (text.length == 0)
        text_append_string(&text, "none");
    return text_take(&text);
}
