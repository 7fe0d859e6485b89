/* SPDX-License-Identifier: MIT */
#include "engine/engine_internal.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct chunk *chunk_of(struct unshard_engine *engine, const struct fetch *fetch)
{
    return &engine->files[fetch->file].chunks[fetch->index];
}

uint32_t chunk_length(const struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    uint64_t rest = engine->files[file].size - (uint64_t)index * engine->chunk_bytes;
    return rest < engine->chunk_bytes ? (uint32_t)rest : engine->chunk_bytes;
}

/* What has failed several times is tried again after 1, 2, 4, 8 seconds, and so on. */
#define MOST_DOUBLINGS 3U
/* So many failed chunks, and a file rests. */
#define FAILURES_TO_REST 3U

static uint64_t again_after_ns(unsigned before)
{
    return UINT64_C(1000000000) << (before < MOST_DOUBLINGS ? before : MOST_DOUBLINGS);
}

#ifdef UNSHARD_CHECK_INVARIANTS
static void require(bool holds, const char *what, uint32_t file, uint32_t index)
{
    if (holds)
        return;
    fprintf(stderr, "chunk %u of file %u: invariant broken: %s\n", index, file, what);
    abort();
}

void chunk_check(const struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    const struct chunk *chunk = &engine->files[file].chunks[index];
    const struct fetch *fetch = chunk->fetch;
    bool active = chunk->state == CHUNK_QUEUED || chunk->state == CHUNK_READING ||
                  chunk->state == CHUNK_READY;
    bool buffered = chunk->state == CHUNK_READING || chunk->state == CHUNK_READY;
    bool left = active || chunk->state == CHUNK_PUBLISHED;
    const struct wanted *wanted = &engine->files[file].wanted;
    require((fetch != NULL) == active, "a fetch exactly in QUEUED, READING, READY", file, index);
    require(!left || !wanted_has(wanted, WANTED_BY_READERS, index),
            "what is there or on its way is not wanted", file, index);
    require(chunk->state != CHUNK_ABSENT || wanted_has(wanted, WANTED_BY_READERS, index),
            "what is ABSENT is wanted", file, index);
    require(engine->buffers.free_count + engine->buffers.kept.count <= engine->buffers.count,
            "no buffer returned twice", file, index);
    require(engine->queues.stalled + engine->queues.staged <= engine->queues.reading.count,
            "what is left out of the reads in flight is part of them", file, index);
    if (fetch == NULL)
        return;
    require(fetch->file == file && fetch->index == index, "the fetch is its own", file, index);
    require(!fetch->orphan && !gate_is_blocked(&engine->files[file].gate),
            "none of what is not to be served", file, index);
    require(fetch->epoch == NULL || fetch->epoch == engine->files[file].epoch,
            "its content is the current one", file, index);
    require((fetch->buffer != NULL) == buffered, "a buffer exactly in READING, READY", file, index);
    require(chunk->state != CHUNK_READY || fetch->waiters == NULL, "READY has no waiters", file,
            index);
    require(chunk->state != CHUNK_READY || fetch->references > 0, "READY is referenced", file,
            index);
}
#else
void chunk_check(const struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    (void)engine, (void)file, (void)index;
}
#endif

void fetch_list_append(struct fetch_list *list, struct fetch *fetch)
{
    fetch->next = NULL;
    fetch->previous = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = fetch;
    list->last = fetch;
    list->count++;
}

void fetch_list_remove(struct fetch_list *list, struct fetch *fetch)
{
    *(fetch->previous != NULL ? &fetch->previous->next : &list->first) = fetch->next;
    *(fetch->next != NULL ? &fetch->next->previous : &list->last) = fetch->previous;
    fetch->next = fetch->previous = NULL;
    list->count--;
}

void chunk_forget(struct unshard_engine *engine, uint32_t file, uint32_t index, enum wanted_by by)
{
    struct file_state *state = &engine->files[file];
    struct chunk *chunk = &state->chunks[index];
    if (chunk->state == CHUNK_READY)
        chunk->fetch->given_up = true;
    if (chunk->state != CHUNK_PUBLISHED)
        return;
    uint32_t length = chunk_length(engine, file, index);
    if (!chunk_is_unshown(state, index))
        state->bytes_published -= length;
    engine->window.published_bytes -= length;
    if (!chunk->consumed)
        engine->window.unconsumed_bytes -= length;
    chunk->consumed = false;
    chunk->state = CHUNK_ABSENT;
    outliving_mark(state, index);
    wanted_put(&state->wanted, index, by);
}

struct fetch *fetch_create(struct unshard_engine *engine, uint32_t file, uint32_t index)
{
    struct file_state *state = &engine->files[file];
    struct chunk *chunk = &state->chunks[index];
    struct fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return NULL;
    chunk_touch(state, index);
    chunk_forget(engine, file, index, WANTED_BY_READERS);
    wanted_take(&state->wanted, index);
    fetch->file = file;
    fetch->index = index;
    fetch->length = chunk_length(engine, file, index);
    if (chunk->state == CHUNK_FAILED)
        state->chunks_failed--;
    chunk->fetch = fetch;
    chunk->state = CHUNK_QUEUED;
    fetch->since_ns = engine_now_ns();
    return fetch;
}

void fetch_line_up(struct unshard_engine *engine, struct fetch *fetch)
{
    struct file_state *file = &engine->files[fetch->file];
    bool closed = gate_is_closed(&file->gate) && !fetch->detached;
    if (closed)
        number_set_add(&engine->agenda.holding, fetch->file);
    fetch_list_append(closed ? &file->held : &engine->queues.demand, fetch);
}

void fetch_queue(struct unshard_engine *engine, struct fetch *fetch)
{
    struct file_state *file = &engine->files[fetch->file];
    fetch->demanded = true;
    pass_demand(engine, fetch->file);
    bool closed = gate_is_closed(&file->gate);
    if (closed && engine->checkpoint->files[fetch->file].gathered != NULL)
        gathered_demand(engine, engine->checkpoint->files[fetch->file].gathered);
    fetch_line_up(engine, fetch);
    if (file->pass_demanded || closed) /* to begin the pass */
        readers_wake(engine);
    chunk_check(engine, fetch->file, fetch->index);
}

/* Takes the buffer in which the chunk is kept, if it is; fetch->kept when it is still good: what is
 * kept of a file goes when it is blocked, but meanwhile there may be digests to match. */
static bool take_kept(struct unshard_engine *engine, struct fetch *fetch)
{
    const struct file_state *state = &engine->files[fetch->file];
    struct kept_chunk kept;
    bool found = kept_take(&engine->buffers.kept, fetch->file, fetch->index, &kept);
    fetch->kept = found && kept.check == state->epoch->check;
    if (found) {
        fetch->buffer = kept.buffer;
        fetch->digest = kept.digest;
        fetch->asked += kept.asked;
    }
    return found;
}

void fetch_note_epoch(struct unshard_engine *engine, struct fetch *fetch)
{
    struct file_epoch *epoch = engine->files[fetch->file].epoch;
    epoch_release(fetch->epoch); /* of an attempt before */
    fetch->epoch = epoch_hold(epoch);
    fetch->check = epoch->check;
}

void fetch_take_buffer(struct unshard_engine *engine, struct fetch *fetch)
{
    fetch->staged = staging_has(&engine->staging, fetch->file, fetch->index);
    fetch->buffer = fetch->staged ? staging_take(&engine->staging, fetch->file, fetch->index)
                                  : buffers_take(&engine->buffers);
}

bool fetch_stage(struct unshard_engine *engine, struct fetch *fetch)
{
    if (!staging_put(&engine->staging, fetch->file, engine->files[fetch->file].size, fetch->index,
                     fetch->buffer))
        return false;
    fetch->buffer = NULL;
    readers_wake(engine); /* there is another buffer in its place */
    return true;
}

void fetch_free(struct fetch *fetch)
{
    epoch_release(fetch->epoch);
    free(fetch);
}

bool fetch_from_kept(struct unshard_engine *engine, struct fetch *fetch)
{
    if (!take_kept(engine, fetch))
        return false;
    if (!fetch->kept) {
        fetch_return_buffer(engine, fetch);
        return false;
    }
    fetch_note_epoch(engine, fetch);
    fetch->references = 1;
    chunk_of(engine, fetch)->state = CHUNK_READY;
    fetch->answered = true;
    chunk_check(engine, fetch->file, fetch->index);
    return true;
}

/* Somebody will ask for the rest of the chunk and find no pages of it. */
static bool is_to_be_kept(const struct unshard_engine *engine, const struct fetch *fetch)
{
    bool missed = fetch->uncached || (fetch->demanded && fetch->refused);
    return !engine->stopping && engine->buffers.kept.limit > 0 && missed &&
           fetch->asked < fetch->length;
}

static void keep(struct unshard_engine *engine, struct fetch *fetch)
{
    struct kept_chunk chunk = {.file = fetch->file,
                               .index = fetch->index,
                               .check = fetch->check,
                               .digest = fetch->digest,
                               .asked = fetch->asked,
                               .since_ns = engine_now_ns(),
                               .buffer = fetch->buffer};
    buffers_keep(&engine->buffers, &chunk);
    fetch->buffer = NULL;
    readers_wake(engine);
}

static void begin_reading(struct unshard_engine *engine, struct fetch *fetch)
{
    fetch->references = 1;
    fetch->since_ns = engine_now_ns();
    fetch->stalled = false;
    if (engine->queues.reading.count == 0)
        engine->traffic.reading_since_ns = fetch->since_ns;
    fetch_list_append(&engine->queues.reading, fetch);
}

static void start_own(struct unshard_engine *engine, struct fetch *fetch)
{
    fetch_note_epoch(engine, fetch);
    if (!take_kept(engine, fetch))
        fetch_take_buffer(engine, fetch);
    fetch->counts_staged = fetch->staged || fetch->kept;
    /* What the source has in memory costs one copy less from there. */
    fetch->from_pages = fetch->stored && !fetch->kept && !fetch->staged &&
                        !engine->pages.no_stores && engine->publisher.retrieve != NULL &&
                        !jobs_read_memory(&engine->jobs);
    engine->queues.staged += fetch->counts_staged;
    chunk_of(engine, fetch)->state = CHUNK_READING;
    begin_reading(engine, fetch);
    chunk_check(engine, fetch->file, fetch->index);
}

static void start_detached(struct unshard_engine *engine, struct fetch *fetch)
{
    if (fetch->buffer == NULL) {
        fetch_note_epoch(engine, fetch);
        fetch_take_buffer(engine, fetch);
    }
    engine->passes.reading++;
    begin_reading(engine, fetch);
}

void fetch_start(struct unshard_engine *engine, struct fetch *fetch)
{
    if (fetch->detached)
        start_detached(engine, fetch);
    else
        start_own(engine, fetch);
}

void fetch_hold(struct fetch *fetch)
{
    fetch->references++;
}

void fetch_return_buffer(struct unshard_engine *engine, struct fetch *fetch)
{
    buffers_give(&engine->buffers, fetch->buffer);
    fetch->buffer = NULL;
    readers_wake(engine);
}

/* The chunk is PUBLISHED from now on. */
static void publish(struct unshard_engine *engine, uint32_t file, uint32_t index, bool consumed)
{
    struct file_state *state = &engine->files[file];
    struct chunk *chunk = &state->chunks[index];
    uint32_t length = chunk_length(engine, file, index);
    chunk->state = CHUNK_PUBLISHED;
    chunk->doubted = false;
    chunk->published_tick = engine_tick(engine, engine_now_ns());
    chunk->consumed = consumed;
    outliving_mark(state, index);
    if (!chunk_is_unshown(state, index))
        state->bytes_published += length;
    engine->window.published_bytes += length;
    if (consumed)
        drop_behind_note(engine, file, index);
    else
        engine->window.unconsumed_bytes += length;
}

static void chunk_published(struct unshard_engine *engine, const struct fetch *fetch)
{
    bool passed = fetch->demanded || schedule_stream_ended(engine, fetch->stream);
    publish(engine, fetch->file, fetch->index,
            passed &&
                (engine->window.limited || engine->options.prefetch == UNSHARD_PREFETCH_OPEN));
}

void chunk_restore(struct unshard_engine *engine, uint32_t file, uint32_t index, bool consumed)
{
    wanted_take(&engine->files[file].wanted, index);
    publish(engine, file, index, consumed);
}

/* The fetch has ended and nothing is there of it. */
static void chunk_is_absent(struct unshard_engine *engine, const struct fetch *fetch)
{
    chunk_of(engine, fetch)->state = CHUNK_ABSENT;
    wanted_put(&engine->files[fetch->file].wanted, fetch->index, WANTED_BY_PLAN);
    schedule_offer(engine, fetch->file);
}

static void orphan_free(struct unshard_engine *engine, struct fetch *fetch)
{
    engine->files[fetch->file].orphans--;
    fetch_free(fetch);
}

void fetch_release(struct unshard_engine *engine, struct fetch *fetch)
{
    if (--fetch->references > 0)
        return;
    if (fetch->orphan) {
        fetch_return_buffer(engine, fetch);
        orphan_free(engine, fetch);
        return;
    }
    bool served = !fetch->staged || fetch->stored;
    if (is_to_be_kept(engine, fetch))
        keep(engine, fetch);
    else if (served || !fetch_stage(engine, fetch))
        fetch_return_buffer(engine, fetch);
    chunk_of(engine, fetch)->fetch = NULL;
    if (fetch->stored && !fetch->given_up)
        chunk_published(engine, fetch);
    else
        chunk_is_absent(engine, fetch);
    chunk_check(engine, fetch->file, fetch->index);
    fetch_free(fetch);
}

struct file_trouble *file_trouble(struct file_state *file)
{
    if (file->trouble == NULL)
        file->trouble = calloc(1, sizeof *file->trouble);
    return file->trouble;
}

void file_note_error(struct file_state *file, const struct unshard_error *error)
{
    struct file_trouble *trouble = file_trouble(file);
    file->failing = true;
    if (trouble == NULL)
        return;
    trouble->error = *error;
    error_stamp(&trouble->error);
}

bool error_is_transient(const struct unshard_error *error)
{
    return strcmp(error->code, "read-error") == 0;
}

static void take_waiters(struct fetch *fetch, struct waiter **waiters)
{
    for (struct waiter *waiter = fetch->waiters, *next; waiter != NULL; waiter = next) {
        next = waiter->next;
        waiter->next = *waiters;
        *waiters = waiter;
    }
    fetch->waiters = NULL;
}

void fetch_disown(struct unshard_engine *engine, struct fetch *fetch, struct waiter **waiters)
{
    struct file_state *state = &engine->files[fetch->file];
    take_waiters(fetch, waiters);
    state->retrying -= fetch->retried;
    state->stalled -= fetch->stalled;
    fetch->retried = false;
    fetch->orphan = true;
    state->orphans++;
    chunk_of(engine, fetch)->fetch = NULL;
    chunk_is_absent(engine, fetch);
    chunk_check(engine, fetch->file, fetch->index);
}

void fetch_cancel(struct unshard_engine *engine, struct fetch *fetch, struct waiter **waiters)
{
    struct file_state *state = &engine->files[fetch->file];
    struct chunk *chunk = chunk_of(engine, fetch);
    if (fetch->detached) {
        pass_cancel(engine, fetch);
        return;
    }
    take_waiters(fetch, waiters);
    if (fetch->retried)
        state->retrying--;
    if (fetch->pass)
        pass_abandon(engine, fetch->file);
    chunk->fetch = NULL;
    chunk_is_absent(engine, fetch);
    fetch_free(fetch);
}

/* A chunk of the file has failed for now: it is tried again later, and where one fails after the
 * other the file rests. */
static void put_off(struct unshard_engine *engine, const struct fetch *fetch)
{
    struct file_state *state = &engine->files[fetch->file];
    unsigned attempts = chunk_of(engine, fetch)->attempts;
    uint64_t now = engine_now_ns();
    number_set_add(&engine->agenda.putting_off, fetch->file);
    wanted_put_off(&state->wanted, fetch->index, WANTED_BY_PLAN,
                   now + again_after_ns(attempts < MAX_ATTEMPTS ? 0 : attempts - MAX_ATTEMPTS));
    if (state->chunks_failed < FAILURES_TO_REST || state->wanted.rest_until_ns != 0)
        return;
    wanted_rest(&state->wanted, now + again_after_ns(state->rests));
    state->rests++;
}

bool fetch_retry(struct unshard_engine *engine, struct fetch *fetch,
                 const struct unshard_error *error)
{
    const struct file_state *state = &engine->files[fetch->file];
    struct chunk *chunk = chunk_of(engine, fetch);
    if (chunk->attempts < UINT8_MAX)
        chunk->attempts++;
    if (!error_is_transient(error) || chunk->attempts >= MAX_ATTEMPTS || engine->stopping ||
        (fetch->waiters == NULL && !fetch->pass && state->wanted.rest_until_ns != 0))
        return false;
    fetch->since_ns = engine_now_ns();
    fetch_list_append(&engine->queues.retries, fetch);
    return true;
}

bool fetch_fail(struct unshard_engine *engine, struct fetch *fetch,
                const struct unshard_error *error, struct waiter **waiters)
{
    struct file_state *state = &engine->files[fetch->file];
    struct chunk *chunk = chunk_of(engine, fetch);
    fetch_return_buffer(engine, fetch);
    fetch->references = 0;
    if (fetch->orphan) { /* which says nothing of what is there now */
        if (fetch->pass)
            pass_abandon(engine, fetch->file);
        orphan_free(engine, fetch);
        return false;
    }
    file_note_error(state, error);
    number_set_add(&engine->agenda.suspects, fetch->file);
    if (fetch->retried)
        state->retrying--;
    fetch->retried = false;
    if (fetch_retry(engine, fetch, error)) {
        chunk->state = CHUNK_QUEUED;
        fetch->retried = true;
        state->retrying++;
        chunk_check(engine, fetch->file, fetch->index);
        return true;
    }
    *waiters = fetch->waiters;
    if (fetch->pass)
        pass_abandon(engine, fetch->file);
    chunk->fetch = NULL;
    chunk->state = CHUNK_FAILED;
    chunk->retry_at = (uint32_t)((engine_now_ns() - engine->start_ns) / 1000000000U) + 1;
    if (strcmp(error->code, "mismatch") == 0) { /* until the file changes on disk */
        chunk->retry_at = UINT32_MAX;
        note_chunk_mismatch(state, fetch->check, &fetch->digest, error->offset);
    }
    state->chunks_failed++;
    if (error_is_transient(error))
        put_off(engine, fetch);
    chunk_check(engine, fetch->file, fetch->index);
    fetch_free(fetch);
    return false;
}
