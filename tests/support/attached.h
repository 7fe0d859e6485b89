/* SPDX-License-Identifier: MIT
 *
 * An engine that is given views of the directories of a source, for tests with cmocka. */
#ifndef SUPPORT_ATTACHED_H
#define SUPPORT_ATTACHED_H

#include "engine/engine_internal.h"
#include "support/safetensors_fixture.h"

#include <pthread.h>
#include <time.h>

#define BOUND_SECONDS 20

struct setting {
    char *directory;
    struct unshard_checkpoint *whole; /* as the source was at first */
    struct unshard_checkpoint place;  /* the same without its files */
    struct unshard_engine *engine;
};

/* Over what is in the directory now. */
static inline void begin(struct setting *setting, const struct unshard_fetch_options *options,
                         const struct unshard_publisher *publisher)
{
    struct unshard_error error;
    assert_int_equal(unshard_checkpoint_open(setting->directory, NULL, &setting->whole, &error), 0);
    setting->place = *setting->whole;
    setting->place.file_count = setting->place.view_count = setting->place.component_count = 0;
    assert_int_equal(
        unshard_engine_start(&setting->place, options, publisher, &setting->engine, &error), 0);
}

static inline int tear_down(void **state)
{
    struct setting *setting = *state;
    unshard_engine_stop(setting->engine);
    unshard_checkpoint_close(setting->whole);
    fixture_remove(setting->directory);
    free(setting);
    return 0;
}

static inline struct unshard_checkpoint *lay_out(struct setting *setting, const char *directory)
{
    struct unshard_checkpoint *root, *layout;
    struct unshard_error error;
    struct layout_context context = {0};
    assert_int_equal(checkpoint_lay_out(&setting->place, &context, "", &root, &error), 0);
    context.above = root;
    assert_int_equal(checkpoint_lay_out(&setting->place, &context, directory, &layout, &error), 0);
    unshard_layout_release(root);
    return layout;
}

static inline uint32_t view_called(const struct unshard_checkpoint *layout, const char *name)
{
    const struct unshard_node *node = unshard_node_child(layout, 0, name);
    assert_non_null(node);
    return node->view;
}

/* Attaches a file of a directory as it is now, and lets go of the layout. */
static inline uint32_t attach(struct setting *setting, const char *directory, const char *name)
{
    struct unshard_checkpoint *layout = lay_out(setting, directory);
    struct unshard_error error;
    uint32_t view;
    assert_int_equal(
        unshard_engine_attach(setting->engine, layout, view_called(layout, name), &view, &error),
        0);
    unshard_layout_release(layout);
    return view;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

struct reading {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    int error;
    char *out;
};

static inline void done(void *cookie, int error, const void *data, size_t size)
{
    struct reading *reading = cookie;
    pthread_mutex_lock(&reading->lock);
    reading->done = true;
    reading->error = error;
    if (error == 0)
        memcpy(reading->out, data, size);
    pthread_cond_broadcast(&reading->changed);
    pthread_mutex_unlock(&reading->lock);
}

static inline int read_all(struct unshard_engine *engine, uint32_t view, char *out, size_t size)
{
    struct reading reading = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .out = out};
    unshard_engine_view_opened(engine, view, false, 1);
    unshard_engine_read(engine, view, 0, size, done, &reading);
    pthread_mutex_lock(&reading.lock);
    while (!reading.done)
        pthread_cond_wait(&reading.changed, &reading.lock);
    pthread_mutex_unlock(&reading.lock);
    unshard_engine_view_opened(engine, view, false, -1);
    return reading.error;
}

static inline const struct view *find_view(const struct unshard_checkpoint *checkpoint,
                                           const char *path)
{
    for (uint32_t v = 0; v < checkpoint->view_count; v++)
        if (strcmp(checkpoint->views[v].path, path) == 0)
            return &checkpoint->views[v];
    return NULL;
}

/* What a view of the checkpoint shows, put together from the files on disk. */
static inline char *expected(const struct setting *setting, const char *path, size_t *size)
{
    const struct view *view = find_view(setting->whole, path);
    assert_non_null(view);
    char *bytes = malloc(view->map.size);
    for (uint64_t at = 0; at < view->map.size;) {
        struct extent_piece piece = extent_map_at(&view->map, at, view->map.size);
        if (piece.source == EXTENT_LITERAL) {
            memcpy(bytes + at, view->map.literal + piece.source_offset, piece.length);
        } else {
            int fd = checkpoint_open_file(setting->whole, piece.source, 0);
            assert_int_equal(pread(fd, bytes + at, piece.length, (off_t)piece.source_offset),
                             piece.length);
            close(fd);
        }
        at += piece.length;
    }
    *size = view->map.size;
    return bytes;
}

static inline void check_view(struct setting *setting, uint32_t view, const char *path)
{
    size_t size;
    char *right = expected(setting, path, &size), *got = malloc(size);
    assert_int_equal(unshard_engine_view_facts(setting->engine, view).size, size);
    assert_int_equal(read_all(setting->engine, view, got, size), 0);
    assert_memory_equal(got, right, size);
    free(right);
    free(got);
}

/* ---- what the engine has -----------------------------------------------------------------------
 */

static inline uint32_t components(struct unshard_engine *engine)
{
    struct unshard_status *status = unshard_status_take(engine, UNSHARD_NO_VIEW);
    uint32_t count = status->component_count + status->file_count;
    unshard_status_free(status);
    return count;
}

static inline void wait_until_empty(struct unshard_engine *engine)
{
    for (int i = 0; components(engine) > 0; i++) {
        assert_true(i < BOUND_SECONDS * 100);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

#endif
