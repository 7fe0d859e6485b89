/* SPDX-License-Identifier: MIT */
#include "engine/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MOST_RESERVE 8U
#define LEAST_RESERVE 2U
#define HUGE_PAGE ((size_t)2 << 20)
/* Address space becomes memory that the kernel accounts for in steps of so much. */
#define STEP_BYTES ((size_t)64 << 20)

static size_t reserve_of(size_t count)
{
    size_t share = count / 8;
    return share < LEAST_RESERVE ? LEAST_RESERVE : share > MOST_RESERVE ? MOST_RESERVE : share;
}

/* Address space from a huge page's start on; NULL: there is not as much. */
static char *map(size_t bytes)
{
    char *memory = mmap(NULL, bytes + HUGE_PAGE, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)memory % HUGE_PAGE) % HUGE_PAGE;
    if (before > 0)
        munmap(memory, before);
    munmap(memory + before + bytes, HUGE_PAGE - before);
    return memory + before;
}

static bool make_usable(char *memory, size_t bytes)
{
    if (mprotect(memory, bytes, PROT_READ | PROT_WRITE) != 0)
        return false;
    madvise(memory, bytes, MADV_HUGEPAGE);
    return true;
}

static size_t page_end(size_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

int buffers_init(struct buffers *buffers, uint64_t bytes, uint32_t each, uint64_t loans)
{
    size_t count = (size_t)(bytes / each);
    count = count < LEAST_BUFFERS ? LEAST_BUFFERS : count;
    *buffers = (struct buffers){.count = count,
                                .each = each,
                                .reserve = reserve_of(count),
                                .most_loans = (size_t)(loans / each)};
    for (;; buffers->most_loans = 0) {
        buffers->bytes = page_end((count + buffers->most_loans) * each);
        buffers->memory = map(buffers->bytes);
        if (buffers->memory != NULL || buffers->most_loans == 0)
            break;
    }
    buffers->free = calloc(count, sizeof *buffers->free);
    buffers->spare = calloc(buffers->most_loans + 1, sizeof *buffers->spare);
    if (buffers->memory == NULL || buffers->free == NULL || buffers->spare == NULL ||
        !make_usable(buffers->memory, page_end(count * each)))
        return -ENOMEM;
    while (buffers->free_count < count)
        buffers_give(buffers, buffers->memory + (count - 1 - buffers->free_count) * each);
    return kept_init(&buffers->kept, (count - buffers->reserve) / 2);
}

void buffers_destroy(struct buffers *buffers)
{
    if (buffers->memory != NULL)
        munmap(buffers->memory, buffers->bytes);
    free(buffers->free);
    free(buffers->spare);
    kept_free(&buffers->kept);
}

char *buffers_take(struct buffers *buffers)
{
    return buffers->free[--buffers->free_count];
}

void buffers_give(struct buffers *buffers, char *buffer)
{
    buffers->free[buffers->free_count++] = buffer;
}

bool buffers_may_fetch(const struct buffers *buffers, size_t others)
{
    return buffers->free_count + buffers->kept.count > buffers->reserve + others;
}

static bool give_oldest(struct buffers *buffers)
{
    struct kept_chunk oldest;
    if (!kept_take_oldest(&buffers->kept, UINT64_MAX, &oldest))
        return false;
    buffers_give(buffers, oldest.buffer);
    return true;
}

void buffers_reclaim(struct buffers *buffers, size_t least)
{
    while (buffers->free_count <= least && give_oldest(buffers))
        continue;
}

void buffers_keep(struct buffers *buffers, const struct kept_chunk *chunk)
{
    if (buffers->kept.count >= buffers->kept.limit)
        give_oldest(buffers);
    kept_put(&buffers->kept, chunk);
}

void buffers_forget(struct buffers *buffers, uint32_t file)
{
    struct kept_chunk chunk;
    while (kept_take_of(&buffers->kept, file, &chunk))
        buffers_give(buffers, chunk.buffer);
}

/* ---- loans -------------------------------------------------------------------------------------
 */

/* One more than there were; NULL: memory is short, or as many are there as may be. */
static char *make_substitute(struct buffers *buffers)
{
    if (buffers->substitutes == buffers->most_loans)
        return NULL;
    if (buffers->substitutes == buffers->usable) {
        size_t more = STEP_BYTES / buffers->each + 1, left = buffers->most_loans - buffers->usable;
        more = more < left ? more : left;
        size_t from = page_end((buffers->count + buffers->usable) * buffers->each);
        size_t end = page_end((buffers->count + buffers->usable + more) * buffers->each);
        if (end > from && !make_usable(buffers->memory + from, end - from))
            return NULL;
        buffers->usable += more;
    }
    return buffers->memory + (buffers->count + buffers->substitutes++) * buffers->each;
}

static char *take_spare(struct buffers *buffers)
{
    if (buffers->spare_warm > 0 && --buffers->spare_warm < buffers->spare_unused)
        buffers->spare_unused = buffers->spare_warm;
    return buffers->spare[--buffers->spare_count];
}

bool buffers_lend(struct buffers *buffers)
{
    char *other = buffers->spare_count > 0 ? take_spare(buffers) : make_substitute(buffers);
    if (other != NULL)
        buffers_give(buffers, other);
    return other != NULL;
}

void buffers_recall(struct buffers *buffers)
{
    buffers_end_loan(buffers, buffers_take(buffers));
}

void buffers_end_loan(struct buffers *buffers, char *buffer)
{
    buffers->spare[buffers->spare_count++] = buffer;
    buffers->spare_warm++;
}

char *buffers_take_unused(struct buffers *buffers)
{
    if (buffers->spare_unused == 0)
        return NULL;
    size_t coolest = buffers->spare_count - buffers->spare_warm;
    char *buffer = buffers->spare[coolest];
    buffers->spare[coolest] = buffers->spare[--buffers->spare_count];
    buffers->spare_warm--;
    buffers->spare_unused--;
    return buffer;
}

void buffers_put_empty(struct buffers *buffers, char *buffer)
{
    size_t at = buffers->spare_count - buffers->spare_warm;
    if (at < buffers->spare_count)
        buffers->spare[buffers->spare_count] = buffers->spare[at];
    buffers->spare[at] = buffer;
    buffers->spare_count++;
}

void buffers_begin_count(struct buffers *buffers)
{
    buffers->spare_unused = buffers->spare_warm;
}
