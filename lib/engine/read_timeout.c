/* SPDX-License-Identifier: MIT
 *
 * The timeout of readers.
 *
 * A reader waits for a chunk, and fails when storage has given nothing of what the chunk waits for
 * in all of read_timeout_seconds. So the time counts from when the first reader asked for it, and
 * again from each sign of storage:
 *   - a chunk whose own read hangs has none since the read began;
 *   - one that waits behind a read that hangs, of its file or of the file whose pass is to open it,
 *     has what that file was given last: a pass over a large file is no timeout while it goes on;
 *   - all others wait for their turn, which comes while storage gives anything at all.
 * The time is the chunk's: the kernel asks again, page by page, for what a READ ahead did not get,
 * and the reader is told after the time that was said, not after twice that. */
#include "engine/engine_internal.h"

#include "formats/gather.h"

#include <errno.h>

/* The file whose hanging reads hold up a chunk of this one, or NULL. */
static const struct file_state *held_up_by(const struct unshard_engine *engine, uint32_t number)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    const struct file_state *file = &engine->files[number];
    if (file->stalled > 0)
        return file;
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++) {
        file = &engine->files[gathered->sources[i].file];
        if (file->stalled > 0)
            return file;
    }
    for (uint32_t at = number; (at = same_file_next(engine, number, at)) != number;)
        if (engine->files[at].stalled > 0) /* a pass over it under this name opens the other */
            return &engine->files[at];
    return NULL;
}

static bool is_timed_out(const struct unshard_engine *engine, const struct fetch *fetch,
                         uint64_t now)
{
    uint64_t limit = (uint64_t)(engine->options.read_timeout_seconds * 1e9);
    const struct file_state *held_up = held_up_by(engine, fetch->file);
    uint64_t sign = fetch->stalled    ? fetch->since_ns
                    : held_up != NULL ? held_up->given_ns
                                      : engine->traffic.given_ns;
    uint64_t since = sign > fetch->awaited_ns ? sign : fetch->awaited_ns;
    return now > since && now - since >= limit;
}

/* Moves the waiters of chunks that have been waited for too long to *expired. */
static void expire_waiters(const struct unshard_engine *engine, struct fetch_list *list,
                           uint64_t now, struct waiter **expired)
{
    for (struct fetch *fetch = list->first; fetch != NULL; fetch = fetch->next) {
        if (fetch->waiters == NULL || !is_timed_out(engine, fetch, now))
            continue;
        while (fetch->waiters != NULL) {
            struct waiter *waiter = fetch->waiters;
            fetch->waiters = waiter->next;
            waiter->next = *expired;
            *expired = waiter;
        }
    }
}

void expire_reads(struct unshard_engine *engine, uint64_t now)
{
    struct waiter *expired = NULL;
    expire_waiters(engine, &engine->queues.demand, now, &expired);
    expire_waiters(engine, &engine->queues.retries, now, &expired);
    expire_waiters(engine, &engine->queues.reading, now, &expired);
    for (uint32_t i = engine->agenda.holding.count; i-- > 0;) {
        struct fetch_list *held = &engine->files[engine->agenda.holding.numbers[i]].held;
        expire_waiters(engine, held, now, &expired);
        if (held->first == NULL)
            number_set_remove(&engine->agenda.holding, engine->agenda.holding.numbers[i]);
    }
    if (expired == NULL)
        return;
    pthread_mutex_unlock(&engine->lock);
    waiters_complete(expired, NULL, EIO);
    engine_log(engine, 3, "event=reads-timed-out seconds=%.1f",
               engine->options.read_timeout_seconds);
    pthread_mutex_lock(&engine->lock);
}
