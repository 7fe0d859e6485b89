/* SPDX-License-Identifier: MIT
 *
 * One memory file for the whole engine, sparse, in which every source file has a range as long as
 * itself. It is written and read, never mapped, and holes are punched where copies are done with.
 */
#include "engine/engine_internal.h"

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

/* ---- what nobody comes for ---------------------------------------------------------------------
 *
 * The kernel can take page cache back, and not this memory. A copy that is given back is read from
 * storage when it is wanted, and compared with what the file's pass has seen there.
 */

#define IDLE_NS UINT64_C(60000000000)
/* At a time, so that the housekeeper gets on. */
#define MOST_GIVEN_BACK 1024U

/* A copy that no fetch is about to use, of a file whose pass is over. Caller holds engine->lock. */
static bool is_left(const struct file_state *file, uint32_t index)
{
    return file->pass == NULL && file->chunks[index].staged && file->chunks[index].fetch == NULL;
}

static void give_back(struct unshard_engine *engine, uint32_t number, uint32_t index)
{
    uint32_t length = chunk_length(engine, number, index);
    engine->files[number].chunks[index].staged = false;
    engine->staged_bytes -= length;
    pthread_mutex_unlock(&engine->lock);
    staging_drop(engine, number, index, length);
    pthread_mutex_lock(&engine->lock);
}

void staging_give_back(struct unshard_engine *engine, uint64_t now)
{
    uint64_t last = engine->asked_ns > engine->given_ns ? engine->asked_ns : engine->given_ns;
    bool idle = now > last && now - last > IDLE_NS;
    unsigned count = 0;
    /* The copies themselves make the budget smaller: not by that much. */
    if (engine->staged_bytes == 0 || (!idle && engine->staged_bytes / 2 <= engine->staging_budget))
        return;
    for (uint32_t number = 0; number < engine->checkpoint->file_count; number++) {
        const struct file_state *file = &engine->files[number];
        for (uint32_t i = chunk_next_touched(file, 0);
             i < file->chunk_count && count < MOST_GIVEN_BACK; i = chunk_next_touched(file, i + 1))
            if (is_left(file, i)) {
                give_back(engine, number, i);
                count++;
            }
    }
}
