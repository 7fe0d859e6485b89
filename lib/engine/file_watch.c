/* SPDX-License-Identifier: MIT
 *
 * Whether shards are still the files they were. A shard that has changed on disk is blocked at
 * once, so that nobody reads a mixture of two files. It is read anew as soon as that cannot happen:
 * when it must match the same digest as before, or when nobody has it open; and when its header
 * still describes the same tensors at the same places, for that is what views were made from. Of a
 * file that is shown as it is (plain_file.c) header and length may be others.
 *
 * Which files are looked at, and when, says store/watch.h. Besides, those are in each round that
 * are blocked, those of which a read has failed, and where the kernel does not tell of changes
 * those that are being read.
 */
#include "engine/admit.h"
#include "engine/engine_internal.h"

#include "base/error.h"
#include "formats/gather.h"
#include "store/watch.h"
#include "tree/headers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Further handles of a file that nobody has read from for so long are closed. */
#define IDLE_HANDLE_NS UINT64_C(10000000000)
#define WATCH_SECONDS 1

static struct timespec in_a_moment(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WATCH_SECONDS;
    return until;
}

/* True when the engine is to stop. */
static bool wait_a_moment(struct unshard_engine *engine)
{
    struct timespec until = in_a_moment();
    pthread_mutex_lock(&engine->lock);
    int result = 0;
    while (!engine->stopping && !engine->threads.look_now && result == 0)
        result = pthread_cond_timedwait(&engine->threads.tick, &engine->lock, &until);
    engine->threads.look_now = false;
    bool stopping = engine->stopping;
    pthread_mutex_unlock(&engine->lock);
    return stopping;
}

/* Somebody has a view of the file open. Caller holds engine->lock. */
static bool is_open(const struct unshard_engine *engine, const struct file_state *file)
{
    for (uint32_t i = 0; i < file->views.count; i++)
        if (engine->views[file->views.numbers[i]].opened > 0)
            return true;
    return false;
}

/* It is blocked, and its pages, and those of who depends on it, are gone. Caller holds
 * engine->lock.
 */
static bool is_clear(const struct unshard_engine *engine, const struct file_state *file)
{
    bool clear = gate_is_clear(&file->gate);
    for (size_t i = 0; i < file->dependents.count && clear; i++)
        clear = gate_is_clear(&engine->files[file->dependents.numbers[i]].gate);
    return clear;
}

/* A storer takes the pages of a blocked file away, as soon as readers let it. */
static void wait_until_clear(struct unshard_engine *engine, uint32_t number,
                             const struct timespec *until)
{
    const struct file_state *file = &engine->files[number];
    int result = 0;
    pthread_mutex_lock(&engine->lock);
    while (!engine->stopping && !is_clear(engine, file) && result == 0)
        result = pthread_cond_timedwait(&engine->pages.stores_done, &engine->lock, until);
    pthread_mutex_unlock(&engine->lock);
}

/* Whatever of the file has been served before has matched a digest, which is that of the new one
 * too. With verify=async that is so once all of it has matched. Caller holds engine->lock. */
static bool serves_one_content(const struct unshard_engine *engine, const struct file_state *file)
{
    return file->epoch->check->kind == CHECK_CHUNKS ||
           (file->epoch->whole != NULL && engine->options.verify == UNSHARD_VERIFY_STRICT);
}

static bool may_begin_anew(struct unshard_engine *engine, uint32_t number)
{
    const struct file_state *file = &engine->files[number];
    pthread_mutex_lock(&engine->lock);
    bool opened = is_open(engine, file);
    for (size_t i = 0; i < file->dependents.count; i++)
        opened = opened || is_open(engine, &engine->files[file->dependents.numbers[i]]);
    bool clear = is_clear(engine, file) &&
                 (!plain_file(engine, number) || plain_file_is_quiet(engine, number));
    bool one_content = serves_one_content(engine, file);
    pthread_mutex_unlock(&engine->lock);
    return clear && (one_content || !opened || engine->checkpoint->files[number].failed);
}

/* Only this thread begins anew with a file, so the epoch at hand is the newest. */
static void block(struct unshard_engine *engine, uint32_t number, enum gate_reason reason,
                  const struct unshard_error *error)
{
    file_block(engine, engine->files[number].epoch, reason, error, NULL);
}

static void block_changed(struct unshard_engine *engine, uint32_t number, enum gate_reason reason,
                          const char *why)
{
    struct unshard_error error;
    error_set(&error, "changed", ESTALE, "%s: changed on disk since it was mounted: %s",
              engine->checkpoint->files[number].path, why);
    block(engine, number, reason, &error);
}

/* A digest is of so many bytes: nothing else can match it. */
static bool has_digest(const struct unshard_engine *engine, uint32_t number)
{
    const struct expectation *expectation = engine->checkpoint->files[number].expectation;
    return engine->options.verify != UNSHARD_VERIFY_OFF && expectation != NULL &&
           (expectation->digest_count > 0 || expectation->chunks != NULL);
}

static void take_plain_file(struct unshard_engine *engine, uint32_t number)
{
    uint64_t size = source_identity(engine->source, number).size;
    if (size != engine->checkpoint->files[number].size && has_digest(engine, number)) {
        block_changed(engine, number, GATE_IMPOSSIBLE,
                      "its length is not that of the file whose digest is known");
        return;
    }
    int result = plain_file_replace(engine, number);
    if (result != 0)
        block_changed(engine, number, GATE_UNUSABLE, strerrordesc_np(-result));
}

static void take_new_file(struct unshard_engine *engine, uint32_t number)
{
    struct unshard_error error;
    if (source_reopen(engine->source, number, &error) != 0) {
        block(engine, number, GATE_UNUSABLE, &error);
        return;
    }
    uint64_t size = source_identity(engine->source, number).size;
    if (check_possible(engine, number, size, &error) != 0) {
        block(engine, number, GATE_IMPOSSIBLE, &error);
        return;
    }
    pthread_mutex_lock(&engine->lock);
    bool plain = plain_file(engine, number);
    pthread_mutex_unlock(&engine->lock);
    if (plain) {
        take_plain_file(engine, number);
        return;
    }
    uint64_t needed = engine->files[number].size;
    if (size < needed) {
        error_set_at(&error, "truncated", EIO, size,
                     "%s: ends at byte %llu, %llu bytes are missing from there",
                     engine->checkpoint->files[number].path, (unsigned long long)size,
                     (unsigned long long)(needed - size));
        block(engine, number, GATE_UNUSABLE, &error);
    } else if (!headers_same_layout(engine->checkpoint, number)) {
        block_changed(engine, number, GATE_LAYOUT,
                      "its header says something else now; who opens it again has the new one");
    } else if (file_reset(engine, number) != 0) {
        block_changed(engine, number, GATE_UNUSABLE, strerrordesc_np(ENOMEM));
    }
}

static void look_at(struct unshard_engine *engine, struct watch *watch, uint32_t number,
                    const struct timespec *patience)
{
    const char *path = source_path(engine->source, number);
    pthread_mutex_lock(&engine->lock);
    bool blocked = gate_is_blocked(&engine->files[number].gate);
    pthread_mutex_unlock(&engine->lock);
    /* What is bad may be repaired in place, and its mtime kept. */
    struct permissions before = source_permissions(engine->source, number);
    int changed = source_poll(engine->source, number, blocked);
    struct permissions after = source_permissions(engine->source, number);
    if (source_path(engine->source, number) != path)
        watch_rename(watch, number, source_path(engine->source, number));
    if (!permissions_same(&before, &after))
        view_permissions_note(engine, number);
    if (changed == -ENOENT && engine->root.followed && !blocked)
        block_changed(engine, number, GATE_GONE,
                      "it is not in the directory that the source's path leads to now");
    if (changed <= 0)
        return;
    if (!blocked) {
        block_changed(engine, number, GATE_CHANGED, "it is read again when nobody has it open");
        wait_until_clear(engine, number, patience);
    }
    if (may_begin_anew(engine, number))
        take_new_file(engine, number);
}

static void note_source(struct unshard_engine *engine, int result)
{
    struct unshard_error error;
    if (result < 0)
        error_set(
            &error, "source-gone", -result,
            "%s: the source is not there any more: %s; what is open of it is served, nothing else",
            engine->checkpoint->source, strerrordesc_np(-result));
    pthread_mutex_lock(&engine->lock);
    bool news = (result < 0) != engine->root.gone;
    engine->root.gone = result < 0;
    if (news && result < 0) {
        error_stamp(&error);
        engine->root.error = error;
    }
    pthread_mutex_unlock(&engine->lock);
    if (news && result < 0)
        engine_log(engine, 3, "event=source-gone errno=%d", -result);
    else if (news || result > 0)
        engine_log(engine, 4,
                   "event=source-replaced message=\"the path of the source leads to another "
                   "directory now\"");
}

/* The directory itself may have been deleted and made anew, or a file system mounted over it. */
static void look_at_source(struct unshard_engine *engine, struct watch *watch)
{
    int result = source_follow(engine->source);
    engine->root.followed = engine->root.followed || result == 1;
    note_source(engine, result);
    if (result == 1)
        watch_look_at_all(watch);
}

/* The caller holds engine->lock. */
static bool is_watched(const struct unshard_engine *engine, uint32_t number)
{
    const struct source_file *file = &engine->checkpoint->files[number];
    const struct file_state *state = &engine->files[number];
    bool shown = state->views.count > 0 || state->dependents.count > 0;
    return file->gathered == NULL && shown &&
           (file->component != NO_COMPONENT || plain_file(engine, number));
}

static struct watch *watch_begin(struct unshard_engine *engine)
{
    struct notices_options options = {0};
    struct watch *watch = NULL;
    return watch_create(engine->checkpoint, &options, &watch) == 0 ? watch : NULL;
}

/* A file that has come, or that another view has come to show. */
static bool take_arrived(struct unshard_engine *engine, uint32_t *number, bool *watched)
{
    struct number_set *arrived = &engine->agenda.arrived;
    pthread_mutex_lock(&engine->lock);
    bool any = arrived->count > 0;
    *number = any ? arrived->numbers[arrived->count - 1] : 0;
    *watched = any && is_watched(engine, *number);
    if (any)
        number_set_remove(arrived, *number);
    pthread_mutex_unlock(&engine->lock);
    return any;
}

static void watch_arrived(struct unshard_engine *engine, struct watch *watch)
{
    uint32_t number;
    bool watched;
    while (take_arrived(engine, &number, &watched))
        if (watched)
            watch_add(watch, number);
}

static void end_watching(void *context, uint32_t file)
{
    watch_remove(context, file);
}

/* What is being read of the file may be of another one by now. Caller holds engine->lock. */
static void look_at_read(const struct unshard_engine *engine, struct watch *watch, uint32_t number)
{
    const struct gathered *gathered = engine->checkpoint->files[number].gathered;
    if (!watch_is_told(watch, number))
        watch_look(watch, number);
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++)
        look_at_read(engine, watch, gathered->sources[i].file);
}

static void look_soon(struct unshard_engine *engine, struct watch *watch)
{
    struct number_set *suspects = &engine->agenda.suspects;
    pthread_mutex_lock(&engine->lock);
    for (uint32_t i = suspects->count; i-- > 0;) {
        uint32_t number = suspects->numbers[i];
        watch_look(watch, number);
        if (!gate_is_blocked(&engine->files[number].gate))
            number_set_remove(suspects, number);
    }
    for (const struct fetch *fetch = engine->queues.reading.first; fetch != NULL;
         fetch = fetch->next)
        look_at_read(engine, watch, fetch->file);
    pthread_mutex_unlock(&engine->lock);
}

static void look_round(struct unshard_engine *engine, struct watch *watch)
{
    struct timespec patience;
    const uint32_t *files;
    engine_leave(engine, end_watching, watch);
    watch_arrived(engine, watch);
    look_at_source(engine, watch);
    look_soon(engine, watch);
    uint32_t count = watch_round(watch, &files);
    patience = in_a_moment(); /* for all of them together */
    for (uint32_t i = 0; i < count; i++)
        look_at(engine, watch, files[i], &patience);
    view_permissions_follow(engine);
}

void *file_watcher(void *argument)
{
    struct unshard_engine *engine = argument;
    struct watch *watch = NULL;
    while (!wait_a_moment(engine)) {
        keep_gained(engine);
        uint64_t now = engine_now_ns();
        source_close_idle(engine->source, now > IDLE_HANDLE_NS ? now - IDLE_HANDLE_NS : 0);
        if (watch == NULL)
            watch = watch_begin(engine); /* memory is short for a moment */
        if (watch != NULL)
            look_round(engine, watch);
    }
    keep_gained(engine);
    watch_free(watch);
    return NULL;
}
