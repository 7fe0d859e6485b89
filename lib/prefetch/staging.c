/* SPDX-License-Identifier: MIT
 *
 * One memory file for the whole engine, sparse, in which every source file has a range as long as
 * itself. It is written and read, never mapped, and holes are punched where copies are done with.
 */
#include "prefetch/engine_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int staging_init(struct unshard_engine *engine)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++) {
        engine->files[i].staging_base = end;
        end += engine->files[i].chunk_count * (uint64_t)engine->chunk_bytes;
    }
    engine->staging_end = end;
    engine->staging_fd = memfd_create("unshard-staging", MFD_CLOEXEC);
    /* Without it files are read again. */
    if (engine->staging_fd >= 0 && ftruncate(engine->staging_fd, (off_t)end) != 0) {
        close(engine->staging_fd);
        engine->staging_fd = -1;
    }
    return 0;
}

bool staging_move(struct unshard_engine *engine, uint64_t length, uint64_t *base)
{
    uint64_t end = engine->staging_end + length;
    if (engine->staging_fd >= 0 && ftruncate(engine->staging_fd, (off_t)end) != 0)
        return false;
    *base = engine->staging_end;
    engine->staging_end = end;
    return true;
}

void staging_free(struct unshard_engine *engine)
{
    if (engine->staging_fd >= 0)
        close(engine->staging_fd);
    engine->staging_fd = -1;
}

static uint64_t position(const struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    return engine->files[file].staging_base + (uint64_t)index * engine->chunk_bytes;
}

bool staging_put(struct unshard_engine *engine, const struct fetch *fetch)
{
    ssize_t wrote = pwrite(engine->staging_fd, fetch->buffer, fetch->length,
                           (off_t)position(engine, fetch->file, fetch->index));
    return wrote == (ssize_t)fetch->length;
}

bool staging_get(struct unshard_engine *engine, const struct fetch *fetch)
{
    ssize_t got = pread(engine->staging_fd, fetch->buffer, fetch->length,
                        (off_t)position(engine, fetch->file, fetch->index));
    return got == (ssize_t)fetch->length;
}

void staging_drop(struct unshard_engine *engine, uint32_t file, uint32_t index, uint64_t length)
{
    if (engine->staging_fd < 0 || length == 0)
        return;
    if (fallocate(engine->staging_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)position(engine, file, index), (off_t)length) != 0)
        engine_log(engine, 4, "event=staging-kept errno=%d", errno);
}
