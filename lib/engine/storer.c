/* SPDX-License-Identifier: MIT
 *
 * Storers store what was read, and drop what is not to be there any more. Both may block on pages
 * that a read has locked, until that is answered: by a reader, which never waits for a storer.
 *
 * A few at a time store into one view: more only wait for the lock of its page cache. When all of
 * them are blocked for long, by readers of files whose storage hangs, there are more of them.
 */
#include "engine/budget.h"
#include "engine/engine_internal.h"

/* As many as one page cache takes. */
#define MOST_INTO_A_VIEW 4U

void storers_wake(struct unshard_engine *engine)
{
    if (engine->threads.idle_storers > 0)
        pthread_cond_signal(&engine->threads.store_work);
}

/* Another storer into one of its views would only wait. */
static bool is_crowded(const struct unshard_engine *engine, const struct fetch *fetch)
{
    const struct file_state *file = &engine->files[fetch->file];
    for (uint32_t i = 0; i < file->views.count; i++)
        if (engine->views[file->views.numbers[i]].storing >= MOST_INTO_A_VIEW)
            return true;
    return false;
}

static struct fetch *next_store(struct unshard_engine *engine)
{
    for (struct fetch *fetch = engine->queues.stores.first; fetch != NULL; fetch = fetch->next)
        if (!is_crowded(engine, fetch)) {
            fetch_list_remove(&engine->queues.stores, fetch);
            engine->pages.storing++;
            return fetch;
        }
    return NULL;
}

/* A READY chunk goes to the page cache. No lock held, the caller's reference is used up. */
static void store_and_release(struct unshard_engine *engine, struct fetch *fetch)
{
    pthread_mutex_lock(&engine->lock);
    bool there = fetch->stored, refused = false; /* which a reader may find to be wrong meanwhile */
    pthread_mutex_unlock(&engine->lock);
    bool stored = !there && publish_chunk(engine, fetch, &refused);
    pthread_mutex_lock(&engine->lock);
    if (!there)
        fetch->stored = stored;
    fetch->refused = refused;
    engine->pages.storing--;
    engine->pages.done_count++;
    fetch_release(engine, fetch);
    if (engine->queues.stores.count > 0) /* what was crowded may not be any more */
        storers_wake(engine);
    else
        readers_wake(engine);
    pthread_mutex_unlock(&engine->lock);
}

static void *storer(void *argument)
{
    struct unshard_engine *engine = argument;
    pthread_mutex_lock(&engine->lock);
    while (!engine->stopping) {
        if (file_drop_next(engine) || budget_drop_next(engine))
            continue;
        struct fetch *fetch = next_store(engine);
        if (fetch == NULL) {
            engine->threads.idle_storers++;
            pthread_cond_wait(&engine->threads.store_work, &engine->lock);
            engine->threads.idle_storers--;
            continue;
        }
        pthread_mutex_unlock(&engine->lock);
        store_and_release(engine, fetch);
        drop_behind(engine);
        pthread_mutex_lock(&engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

static void spawn(struct unshard_engine *engine, unsigned wanted)
{
    while (engine->threads.storer_count < wanted && engine->threads.storer_count < MAX_STORERS &&
           pthread_create(&engine->threads.storers[engine->threads.storer_count], NULL, storer,
                          engine) == 0)
        engine->threads.storer_count++;
}

void storers_spawn(struct unshard_engine *engine)
{
    bool blocked = (engine->queues.stores.count + engine->pages.drops_due > 0 ||
                    engine->agenda.giving_back.count > 0) &&
                   engine->threads.idle_storers == 0 &&
                   engine->pages.done_count == engine->pages.done_before;
    engine->pages.done_before = engine->pages.done_count;
    if (engine->threads.storer_count == 0)
        spawn(engine, engine->processors < 2                 ? 2
                      : engine->processors > MAX_STORERS / 2 ? MAX_STORERS / 2
                                                             : engine->processors);
    else if (blocked)
        spawn(engine, engine->threads.storer_count + 1);
}
