/* SPDX-License-Identifier: MIT
 *
 * For tests of the engine: a checkpoint made by hand, a page cache made of memory, and reads that
 * can be waited for. To be included after cmocka. */
#ifndef SUPPORT_ENGINE_FIXTURE_H
#define SUPPORT_ENGINE_FIXTURE_H

#include "engine/engine_internal.h"
#include "tree/model.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILES 5
#define CHUNK 65536U
#define PAGE 4096U
#define BOUND_SECONDS 30

static const uint64_t file_sizes[FILES] = {300001, 1, 65536 * 3, 777, 200003};

/* ---- a checkpoint made by hand --------------------------------------------------------------- */

struct fixture {
    char directory[64];
    struct unshard_checkpoint checkpoint;
    struct source_file files[FILES];
    struct component component;
    struct view view;
    struct unshard_node node;
    char *expected; /* the view's bytes */
    uint32_t numbers[FILES];
    char names[FILES][16];
};

static inline void write_file(struct fixture *fixture, int i, const char *bytes)
{
    struct stat status;
    char path[96];
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[i]);
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, file_sizes[i]), (ssize_t)file_sizes[i]);
    assert_int_equal(fstat(fd, &status), 0);
    close(fd);
    fixture->files[i] = (struct source_file){
        .path = fixture->names[i],
        .size = file_sizes[i],
        .mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec,
        .device = status.st_dev,
        .inode = status.st_ino,
        .mode = status.st_mode,
        .uid = status.st_uid,
        .gid = status.st_gid};
}

/* A view of odd pieces: a literal, each file but its first seven bytes, a literal between. */
static inline void build_view(struct fixture *fixture, char **contents)
{
    struct extent_map_builder builder = {0};
    char literal[5000];
    memset(literal, 'h', sizeof literal);
    assert_int_equal(extent_map_append_literal(&builder, literal, sizeof literal), 0);
    for (uint32_t i = 0; i < FILES; i++) {
        uint64_t skip = file_sizes[i] > 7 ? 7 : 0;
        assert_int_equal(extent_map_append_source(&builder, i, skip, file_sizes[i] - skip), 0);
        if (i == 2)
            assert_int_equal(extent_map_append_literal(&builder, "between", 7), 0);
    }
    fixture->view =
        (struct view){.path = "view", .size = builder.size, .component = 0, .prefetch = true};
    assert_int_equal(extent_map_finish(&builder, &fixture->view.map), 0);
    fixture->expected = malloc(fixture->view.size);
    for (uint64_t at = 0; at < fixture->view.size;) {
        struct extent_piece piece = extent_map_at(&fixture->view.map, at, UINT64_MAX);
        const char *from =
            piece.source == EXTENT_LITERAL ? fixture->view.map.literal : contents[piece.source];
        memcpy(fixture->expected + at, from + piece.source_offset, piece.length);
        at += piece.length;
    }
}

static inline int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    char *contents[FILES];
    uint32_t seed = 12345;
    strcpy(fixture->directory, "/tmp/unshard-engine-XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    for (int i = 0; i < FILES; i++) {
        contents[i] = malloc(file_sizes[i]);
        for (uint64_t b = 0; b < file_sizes[i]; b++)
            contents[i][b] = (char)((seed = seed * 1664525 + 1013904223) >> 24);
        snprintf(fixture->names[i], sizeof fixture->names[i], "s%d", i);
        write_file(fixture, i, contents[i]);
        fixture->numbers[i] = (uint32_t)i;
    }
    build_view(fixture, contents);
    for (int i = 0; i < FILES; i++)
        free(contents[i]);
    fixture->component = (struct component){
        .name = ".", .files = fixture->numbers, .file_count = FILES, .format = "test"};
    fixture->node = (struct unshard_node){.kind = UNSHARD_NODE_FILE, .mode = S_IFREG | 0444};
    fixture->checkpoint =
        (struct unshard_checkpoint){.holders = 1,
                                    .source = fixture->directory,
                                    .source_fd = open(fixture->directory, O_RDONLY | O_DIRECTORY),
                                    .files = fixture->files,
                                    .file_count = FILES,
                                    .components = &fixture->component,
                                    .component_count = 1,
                                    .views = &fixture->view,
                                    .view_count = 1,
                                    .nodes = &fixture->node,
                                    .node_count = 1};
    *state = fixture;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < FILES; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[i]);
        unlink(path);
    }
    rmdir(fixture->directory);
    close(fixture->checkpoint.source_fd);
    extent_map_free(&fixture->view.map);
    free(fixture->expected);
    free(fixture);
    return 0;
}

/* ---- a page cache made of memory ------------------------------------------------------------- */

struct cache {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const struct fixture *fixture;
    bool *present; /* a flag a page */
    uint64_t pages, stored, wrong, dropped;
    bool blocked; /* stores wait until this is false */
    int failing;  /* what stores fail with, a negative errno; 0: they do not */
    unsigned waiting;
};

/* Pages are taken away: whole ones only. */
static inline void cache_drop(void *context, uint32_t view, uint64_t offset, uint64_t size)
{
    struct cache *cache = context;
    (void)view;
    pthread_mutex_lock(&cache->lock);
    for (uint64_t page = offset / PAGE; page < (offset + size + PAGE - 1) / PAGE; page++) {
        cache->stored -= cache->present[page];
        cache->present[page] = false;
        cache->dropped++;
    }
    pthread_cond_broadcast(&cache->changed);
    pthread_mutex_unlock(&cache->lock);
}

static inline int cache_store(void *context, uint32_t view, uint64_t offset, const void *data,
                              size_t size)
{
    struct cache *cache = context;
    (void)view;
    pthread_mutex_lock(&cache->lock);
    cache->waiting++;
    pthread_cond_broadcast(&cache->changed);
    while (cache->blocked)
        pthread_cond_wait(&cache->changed, &cache->lock);
    cache->waiting--;
    int failing = cache->failing;
    if (failing != 0) {
        pthread_mutex_unlock(&cache->lock);
        return failing;
    }
    uint64_t end = offset + size, view_size = cache->fixture->view.size;
    if (offset % PAGE != 0 || end > view_size || (end % PAGE != 0 && end != view_size) ||
        memcmp(cache->fixture->expected + offset, data, size) != 0)
        cache->wrong++;
    for (uint64_t page = offset / PAGE; page < (end + PAGE - 1) / PAGE; page++) {
        cache->stored += !cache->present[page];
        cache->present[page] = true;
    }
    pthread_cond_broadcast(&cache->changed);
    pthread_mutex_unlock(&cache->lock);
    return 0;
}

static inline void cache_init(struct cache *cache, const struct fixture *fixture)
{
    *cache = (struct cache){.fixture = fixture, .pages = (fixture->view.size + PAGE - 1) / PAGE};
    cache->present = calloc(cache->pages, sizeof *cache->present);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->changed, NULL);
}

static inline void set_blocked(struct cache *cache, bool blocked)
{
    pthread_mutex_lock(&cache->lock);
    cache->blocked = blocked;
    pthread_cond_broadcast(&cache->changed);
    pthread_mutex_unlock(&cache->lock);
}

static inline void set_failing(struct cache *cache, int error)
{
    pthread_mutex_lock(&cache->lock);
    cache->failing = error;
    pthread_mutex_unlock(&cache->lock);
}

/* The kernel drops everything, and tells nobody. */
static inline void lose_pages(struct cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    memset(cache->present, 0, cache->pages * sizeof *cache->present);
    cache->stored = 0;
    pthread_mutex_unlock(&cache->lock);
}

static inline struct timespec deadline(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BOUND_SECONDS;
    return until;
}

/* Waits until at least `pages` are there. */
static inline void wait_for_pages(struct cache *cache, uint64_t pages)
{
    struct timespec until = deadline();
    pthread_mutex_lock(&cache->lock);
    int result = 0;
    while (cache->stored < pages && result == 0)
        result = pthread_cond_timedwait(&cache->changed, &cache->lock, &until);
    pthread_mutex_unlock(&cache->lock);
    assert_int_equal(result, 0);
}

/* Waits until so many stores are being blocked. */
static inline void wait_for_blocked_stores(struct cache *cache, unsigned count)
{
    struct timespec until = deadline();
    pthread_mutex_lock(&cache->lock);
    int result = 0;
    while (cache->waiting < count && result == 0)
        result = pthread_cond_timedwait(&cache->changed, &cache->lock, &until);
    pthread_mutex_unlock(&cache->lock);
    assert_int_equal(result, 0);
}

static inline bool is_present(struct cache *cache, uint64_t page)
{
    pthread_mutex_lock(&cache->lock);
    bool present = cache->present[page];
    pthread_mutex_unlock(&cache->lock);
    return present;
}

/* Waits until none of the pages [first, last] is there. */
static inline void wait_for_no_pages(struct cache *cache, uint64_t first, uint64_t last)
{
    struct timespec until = deadline();
    pthread_mutex_lock(&cache->lock);
    int result = 0;
    for (uint64_t page = first; page <= last && result == 0;)
        if (!cache->present[page])
            page++;
        else
            result = pthread_cond_timedwait(&cache->changed, &cache->lock, &until);
    pthread_mutex_unlock(&cache->lock);
    assert_int_equal(result, 0);
}

static inline uint64_t bytes_stored(struct cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t stored = cache->stored;
    pthread_mutex_unlock(&cache->lock);
    return stored * PAGE;
}

/* Pages that hold literal bytes alone come by reads, all others by stores, seams included. */
static inline uint64_t pages_with_shard_bytes(const struct fixture *fixture)
{
    return (fixture->view.size + PAGE - 1) / PAGE - 5000 / PAGE;
}

/* ---- reads that can be waited for ------------------------------------------------------------ */

struct result {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned calls;
    int error;
    size_t size;
    char *data;
};

static inline void read_done(void *cookie, int error, const void *data, size_t size)
{
    struct result *result = cookie;
    pthread_mutex_lock(&result->lock);
    result->calls++;
    result->error = error;
    result->size = size;
    if (error == 0)
        memcpy(result->data, data, size);
    pthread_cond_broadcast(&result->changed);
    pthread_mutex_unlock(&result->lock);
}

typedef void (*read_function)(struct unshard_engine *, uint32_t, uint64_t, size_t,
                              unshard_read_done, void *);

static inline int read_view_by(read_function read, struct unshard_engine *engine, uint64_t offset,
                               char *out, size_t size, size_t *got)
{
    struct result result = {.data = out};
    struct timespec until = deadline();
    pthread_mutex_init(&result.lock, NULL);
    pthread_cond_init(&result.changed, NULL);
    read(engine, 0, offset, size, read_done, &result);
    pthread_mutex_lock(&result.lock);
    int waited = 0;
    while (result.calls == 0 && waited == 0)
        waited = pthread_cond_timedwait(&result.changed, &result.lock, &until);
    pthread_mutex_unlock(&result.lock);
    assert_int_equal(waited, 0);
    assert_int_equal(result.calls, 1);
    *got = result.size;
    return result.error;
}

static inline int read_view(struct unshard_engine *engine, uint64_t offset, char *out, size_t size,
                            size_t *got)
{
    return read_view_by(unshard_engine_read, engine, offset, out, size, got);
}

static inline void check_read_by(read_function read, struct fixture *fixture,
                                 struct unshard_engine *engine, uint64_t offset, size_t size)
{
    char *data = malloc(size + 1);
    size_t got = 0, expected = size;
    assert_int_equal(read_view_by(read, engine, offset, data, size, &got), 0);
    if (offset >= fixture->view.size)
        expected = 0;
    else if (expected > fixture->view.size - offset)
        expected = fixture->view.size - offset;
    assert_int_equal(got, expected);
    if (expected > 0)
        assert_memory_equal(data, fixture->expected + offset, expected);
    free(data);
}

static inline void check_read(struct fixture *fixture, struct unshard_engine *engine,
                              uint64_t offset, size_t size)
{
    check_read_by(unshard_engine_read, fixture, engine, offset, size);
}

/* The status as it is now, rendered; the caller frees it. */
static inline char *rendered(struct unshard_engine *engine,
                             char *(*render)(const struct unshard_status *))
{
    struct unshard_status *status = unshard_status_take(engine, UNSHARD_NO_VIEW);
    assert_non_null(status);
    char *text = render(status);
    unshard_status_free(status);
    assert_non_null(text);
    return text;
}

static inline bool status_has(struct unshard_engine *engine, const char *text)
{
    char *json = rendered(engine, unshard_status_json);
    bool found = strstr(json, text) != NULL;
    free(json);
    return found;
}

static inline void wait_for_absence(struct unshard_engine *engine, const char *text)
{
    struct timespec until = deadline(), now;
    do {
        clock_gettime(CLOCK_REALTIME, &now);
        if (now.tv_sec >= until.tv_sec)
            fail_msg("still in the status: %s\n%s", text, rendered(engine, unshard_status_json));
    } while (status_has(engine, text));
}

static inline void wait_for_status(struct unshard_engine *engine, const char *text)
{
    struct timespec until = deadline(), now;
    do {
        clock_gettime(CLOCK_REALTIME, &now);
        if (now.tv_sec >= until.tv_sec)
            fail_msg("not in the status: %s\n%s", text, rendered(engine, unshard_status_json));
    } while (!status_has(engine, text));
}

static const struct unshard_fetch_options small = {.chunk_bytes = CHUNK, .buffer_bytes = 8 * CHUNK};

static inline struct unshard_engine *start(struct fixture *fixture, struct cache *cache,
                                           struct unshard_fetch_options options)
{
    struct unshard_publisher publisher = {
        .context = cache, .store = cache_store, .drop = cache_drop};
    struct unshard_engine *engine = NULL;
    struct unshard_error error;
    assert_int_equal(unshard_engine_start(&fixture->checkpoint, &options,
                                          cache != NULL ? &publisher : NULL, &engine, &error),
                     0);
    return engine;
}

/* How many stores into one view run at a time. */
static inline unsigned storers_of(const struct unshard_engine *engine)
{
    return engine->threads.storer_count < 4 ? engine->threads.storer_count : 4;
}

#endif
