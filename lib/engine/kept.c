/* SPDX-License-Identifier: MIT */
#include "engine/kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int kept_init(struct kept_chunks *kept, size_t limit)
{
    *kept = (struct kept_chunks){.limit = limit};
    kept->chunks = calloc(limit + 1, sizeof *kept->chunks);
    return kept->chunks != NULL ? 0 : -ENOMEM;
}

void kept_free(struct kept_chunks *kept)
{
    free(kept->chunks);
    *kept = (struct kept_chunks){0};
}

void kept_put(struct kept_chunks *kept, const struct kept_chunk *chunk)
{
    kept->chunks[kept->count++] = *chunk;
}

static size_t find(const struct kept_chunks *kept, uint32_t file, uint32_t index)
{
    size_t i = 0;
    while (i < kept->count && (kept->chunks[i].file != file || kept->chunks[i].index != index))
        i++;
    return i;
}

static bool take(struct kept_chunks *kept, size_t number, struct kept_chunk *out)
{
    if (number >= kept->count)
        return false;
    *out = kept->chunks[number];
    kept->count--;
    memmove(kept->chunks + number, kept->chunks + number + 1,
            (kept->count - number) * sizeof *kept->chunks);
    return true;
}

bool kept_has(const struct kept_chunks *kept, uint32_t file, uint32_t index)
{
    return find(kept, file, index) < kept->count;
}

bool kept_take(struct kept_chunks *kept, uint32_t file, uint32_t index, struct kept_chunk *out)
{
    return take(kept, find(kept, file, index), out);
}

bool kept_take_oldest(struct kept_chunks *kept, uint64_t before_ns, struct kept_chunk *out)
{
    return kept->count > 0 && kept->chunks[0].since_ns <= before_ns && take(kept, 0, out);
}

bool kept_take_of(struct kept_chunks *kept, uint32_t file, struct kept_chunk *out)
{
    size_t i = 0;
    while (i < kept->count && kept->chunks[i].file != file)
        i++;
    return take(kept, i, out);
}
