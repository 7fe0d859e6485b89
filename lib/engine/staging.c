/* SPDX-License-Identifier: MIT */
#include "engine/staging.h"

#include "base/lazy_array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is copied under the lock. */
#define MOST_COPIED ((uint64_t)64 << 10)

int staging_init(struct staging *staging, struct buffers *buffers, uint32_t file_count)
{
    *staging = (struct staging){.buffers = buffers, .file_count = file_count};
    staging->files = lazy_array_new((size_t)file_count + 1, sizeof *staging->files);
    return staging->files != NULL ? 0 : -ENOMEM;
}

void staging_free(struct staging *staging)
{
    for (uint32_t i = 0; staging->files != NULL && i < staging->file_end; i++)
        staging_forget(staging, i);
    lazy_array_free(staging->files, (size_t)staging->file_count + 1, sizeof *staging->files);
    staging->files = NULL;
}

static uint32_t chunk_count(const struct staging *staging, uint64_t size)
{
    uint64_t each = staging->buffers->each;
    return (uint32_t)(size / each + (size % each != 0));
}

static uint64_t chunk_length(const struct staging *staging, uint64_t size, uint32_t index)
{
    uint64_t each = staging->buffers->each, rest = size - index * each;
    return rest < each ? rest : each;
}

/* A copy of it is enough, and its buffer goes back. */
static bool is_copied(const struct staging *staging, uint64_t length)
{
    return length <= MOST_COPIED && length <= staging->buffers->each / 4;
}

static uint64_t memory_of(const struct staging *staging, uint64_t size, uint32_t index)
{
    uint64_t length = chunk_length(staging, size, index);
    return is_copied(staging, length) ? length : staging->buffers->each;
}

uint64_t staging_cost(const struct staging *staging, uint64_t size)
{
    uint32_t count = chunk_count(staging, size);
    if (count == 0)
        return 0;
    return (count - 1) * (uint64_t)staging->buffers->each + memory_of(staging, size, count - 1);
}

uint64_t staging_room(const struct staging *staging)
{
    uint64_t used = staging->bytes + staging->reserved;
    return used < staging->budget ? staging->budget - used : 0;
}

bool staging_has(const struct staging *staging, uint32_t file, uint32_t index)
{
    const struct staged_file *staged = &staging->files[file];
    return staged->count > 0 && staged->chunks[index] != NULL;
}

static bool make_room(const struct staging *staging, struct staged_file *staged, uint64_t size)
{
    if (staged->chunks != NULL)
        return true;
    staged->size = size;
    staged->chunks = lazy_array_new(chunk_count(staging, size), sizeof *staged->chunks);
    return staged->chunks != NULL;
}

static void end_file(const struct staging *staging, struct staged_file *staged)
{
    if (staged->count > 0)
        return;
    lazy_array_free(staged->chunks, chunk_count(staging, staged->size), sizeof *staged->chunks);
    staged->chunks = NULL;
}

/* What holds the chunk from now on, when it is not the buffer; NULL: memory is short. */
static char *copy(struct staging *staging, char *buffer, uint64_t length)
{
    char *small = malloc((size_t)length);
    if (small == NULL)
        return NULL;
    memcpy(small, buffer, (size_t)length);
    buffers_give(staging->buffers, buffer);
    return small;
}

bool staging_put(struct staging *staging, uint32_t file, uint64_t size, uint32_t index,
                 char *buffer)
{
    struct staged_file *staged = &staging->files[file];
    uint64_t length = chunk_length(staging, size, index);
    if (!make_room(staging, staged, size))
        return false;
    staging->file_end = file >= staging->file_end ? file + 1 : staging->file_end;
    char *bytes = NULL;
    if (is_copied(staging, length))
        bytes = copy(staging, buffer, length);
    else if (buffers_lend(staging->buffers))
        bytes = buffer;
    staged->chunks[index] = bytes;
    staged->count += bytes != NULL;
    staging->bytes += bytes != NULL ? memory_of(staging, size, index) : 0;
    end_file(staging, staged);
    return bytes != NULL;
}

/* Takes the chunk out. */
static char *take_out(struct staging *staging, struct staged_file *staged, uint32_t index)
{
    char *bytes = staged->chunks[index];
    staged->chunks[index] = NULL;
    staged->count--;
    staging->bytes -= memory_of(staging, staged->size, index);
    return bytes;
}

char *staging_take(struct staging *staging, uint32_t file, uint32_t index)
{
    struct staged_file *staged = &staging->files[file];
    uint64_t length = chunk_length(staging, staged->size, index);
    char *bytes = take_out(staging, staged, index), *buffer = bytes;
    if (is_copied(staging, length)) {
        buffer = buffers_take(staging->buffers);
        memcpy(buffer, bytes, (size_t)length);
        free(bytes);
    } else {
        buffers_recall(staging->buffers);
    }
    end_file(staging, staged);
    return buffer;
}

void staging_forget(struct staging *staging, uint32_t file)
{
    struct staged_file *staged = &staging->files[file];
    if (staged->count == 0)
        return;
    for (uint32_t i = 0; staged->count > 0; i++) {
        if (staged->chunks[i] == NULL)
            continue;
        uint64_t length = chunk_length(staging, staged->size, i);
        char *bytes = take_out(staging, staged, i);
        if (is_copied(staging, length))
            free(bytes);
        else
            buffers_end_loan(staging->buffers, bytes);
    }
    end_file(staging, staged);
}
