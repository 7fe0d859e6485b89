/* SPDX-License-Identifier: MIT
 *
 * The engine against a checkpoint made by hand and a page cache made of memory: what is stored and
 * what reads get are the view's bytes, and reads are answered whatever stores do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "checkpoint/model.h"

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
    char *expected; /* the view's bytes */
    uint32_t numbers[FILES];
    char names[FILES][16];
};

static void write_file(struct fixture *fixture, int i, const char *bytes)
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
        .inode = status.st_ino};
}

/* A view of odd pieces: a literal, each file but its first seven bytes, a literal between. */
static void build_view(struct fixture *fixture, char **contents)
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

static int setup(void **state)
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
    fixture->checkpoint =
        (struct unshard_checkpoint){.source = fixture->directory,
                                    .source_fd = open(fixture->directory, O_RDONLY | O_DIRECTORY),
                                    .files = fixture->files,
                                    .file_count = FILES,
                                    .components = &fixture->component,
                                    .component_count = 1,
                                    .views = &fixture->view,
                                    .view_count = 1};
    *state = fixture;
    return 0;
}

static int teardown(void **state)
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
    uint64_t pages, stored, wrong;
    bool blocked; /* stores wait until this is false */
    unsigned waiting;
};

static int cache_store(void *context, uint32_t view, uint64_t offset, const void *data, size_t size)
{
    struct cache *cache = context;
    (void)view;
    pthread_mutex_lock(&cache->lock);
    cache->waiting++;
    pthread_cond_broadcast(&cache->changed);
    while (cache->blocked)
        pthread_cond_wait(&cache->changed, &cache->lock);
    cache->waiting--;
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

static void cache_init(struct cache *cache, const struct fixture *fixture)
{
    *cache = (struct cache){.fixture = fixture, .pages = (fixture->view.size + PAGE - 1) / PAGE};
    cache->present = calloc(cache->pages, sizeof *cache->present);
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->changed, NULL);
}

static void set_blocked(struct cache *cache, bool blocked)
{
    pthread_mutex_lock(&cache->lock);
    cache->blocked = blocked;
    pthread_cond_broadcast(&cache->changed);
    pthread_mutex_unlock(&cache->lock);
}

static struct timespec deadline(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BOUND_SECONDS;
    return until;
}

/* Waits until at least `pages` are there. */
static void wait_for_pages(struct cache *cache, uint64_t pages)
{
    struct timespec until = deadline();
    pthread_mutex_lock(&cache->lock);
    int result = 0;
    while (cache->stored < pages && result == 0)
        result = pthread_cond_timedwait(&cache->changed, &cache->lock, &until);
    pthread_mutex_unlock(&cache->lock);
    assert_int_equal(result, 0);
}

static bool is_present(struct cache *cache, uint64_t page)
{
    pthread_mutex_lock(&cache->lock);
    bool present = cache->present[page];
    pthread_mutex_unlock(&cache->lock);
    return present;
}

static uint64_t bytes_stored(struct cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    uint64_t stored = cache->stored;
    pthread_mutex_unlock(&cache->lock);
    return stored * PAGE;
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

static void read_done(void *cookie, int error, const void *data, size_t size)
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

static int read_view(struct unshard_engine *engine, uint64_t offset, char *out, size_t size,
                     size_t *got)
{
    struct result result = {.data = out};
    struct timespec until = deadline();
    pthread_mutex_init(&result.lock, NULL);
    pthread_cond_init(&result.changed, NULL);
    unshard_engine_read(engine, 0, offset, size, read_done, &result);
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

static void check_read(struct fixture *fixture, struct unshard_engine *engine, uint64_t offset,
                       size_t size)
{
    char *data = malloc(size + 1);
    size_t got = 0, expected = size;
    assert_int_equal(read_view(engine, offset, data, size, &got), 0);
    if (offset >= fixture->view.size)
        expected = 0;
    else if (expected > fixture->view.size - offset)
        expected = fixture->view.size - offset;
    assert_int_equal(got, expected);
    if (expected > 0)
        assert_memory_equal(data, fixture->expected + offset, expected);
    free(data);
}

static const struct unshard_fetch_options small = {.chunk_bytes = CHUNK, .buffer_bytes = 8 * CHUNK};

static struct unshard_engine *start(struct fixture *fixture, struct cache *cache,
                                    struct unshard_fetch_options options)
{
    struct unshard_publisher publisher = {.context = cache, .store = cache_store};
    struct unshard_engine *engine = NULL;
    struct unshard_error error;
    assert_int_equal(unshard_engine_start(&fixture->checkpoint, &options,
                                          cache != NULL ? &publisher : NULL, &engine, &error),
                     0);
    return engine;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_reads_at_every_boundary(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_engine *engine = start(fixture, NULL, small);
    static const size_t sizes[] = {1, 2, PAGE, PAGE + 1, CHUNK, 3 * CHUNK + 5, 1 << 20};
    for (size_t e = 0; e < fixture->view.map.count; e++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int d = -1; d <= 1; d++) {
                uint64_t at = fixture->view.map.extents[e].view_offset;
                if (at > 0 || d >= 0)
                    check_read(fixture, engine, at + (uint64_t)(int64_t)d, sizes[s]);
            }
    for (uint64_t at = 0; at < fixture->view.size; at += CHUNK - 1)
        check_read(fixture, engine, at, 3);
    check_read(fixture, engine, fixture->view.size - 1, 10);
    check_read(fixture, engine, fixture->view.size, 10);
    check_read(fixture, engine, fixture->view.size + 12345, 10);
    unshard_engine_stop(engine);
}

/* Pages that hold literal bytes alone come by reads, all others by stores, seams included. */
static uint64_t pages_with_shard_bytes(const struct fixture *fixture)
{
    return (fixture->view.size + PAGE - 1) / PAGE - 5000 / PAGE;
}

static void test_prefetch_stores_every_page_once_known(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    struct unshard_engine *engine = start(fixture, &cache, small);
    assert_int_equal(bytes_stored(&cache), 0);
    unshard_engine_view_known(engine, 0, true);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_reads_are_answered_while_all_stores_block(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    cache_init(&cache, fixture);
    cache.blocked = true;
    struct unshard_engine *engine = start(fixture, &cache, small);
    unshard_engine_view_known(engine, 0, true);
    for (uint64_t at = 0; at < fixture->view.size; at += 30000)
        check_read(fixture, engine, at, 131072);
    assert_int_equal(unshard_engine_quiesce(engine, 50), -ETIMEDOUT);
    for (uint64_t at = fixture->view.size; at > 30000; at -= 30000)
        check_read(fixture, engine, at - 30000, 40000);
    set_blocked(&cache, false);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_window_bounds_what_nobody_has_read(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    struct unshard_fetch_options options = small;
    cache_init(&cache, fixture);
    options.window_bytes = 8 * CHUNK;
    options.jobs = 2;
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    wait_for_pages(&cache, 3 * CHUNK / PAGE - 16);
    char *json = NULL;
    struct timespec until = deadline(), now;
    do { /* until it says that it waits */
        free(json);
        json = unshard_status_json(engine);
        assert_non_null(json);
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
    } while (strstr(json, "window ahead of readers is full") == NULL);
    free(json);
    assert_true(bytes_stored(&cache) <= 8 * CHUNK);
    /* A reader passes: everything comes, in part by its own reads. */
    for (uint64_t at = 0; at < fixture->view.size; at += PAGE)
        if (!is_present(&cache, at / PAGE))
            check_read(fixture, engine, at, PAGE);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_truncated_file_fails_only_its_ranges(void **state)
{
    struct fixture *fixture = *state;
    char path[96];
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[0]);
    assert_int_equal(truncate(path, 100), 0);
    struct unshard_engine *engine = start(fixture, NULL, small);
    char data[16];
    size_t got;
    assert_int_equal(read_view(engine, 5000, data, 16, &got), EIO);
    uint64_t second = fixture->view.map.extents[2].view_offset;
    check_read(fixture, engine, second, 100000);
    char *errors = unshard_status_errors(engine);
    assert_non_null(strstr(errors, "shard=\"s0\" code=changed"));
    assert_null(strstr(errors, "s1"));
    free(errors);
    unshard_engine_stop(engine);
}

static void test_bytes_that_change_silently_are_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_engine *engine = start(fixture, NULL, small);
    char path[96], data[16];
    size_t got;
    check_read(fixture, engine, 5000, 16);
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[0]);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "?", 1, 1000), 1);
    struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {fixture->files[0].mtime_ns / 1000000000, fixture->files[0].mtime_ns % 1000000000}};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    assert_int_equal(read_view(engine, 5000, data, 16, &got), EIO);
    char *errors = unshard_status_errors(engine);
    assert_non_null(strstr(errors, "as it was read before"));
    free(errors);
    unshard_engine_stop(engine);
}

static void test_stop_answers_what_is_queued(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_engine *engine = start(fixture, NULL, small);
    static char data[64][131072];
    struct result results[64];
    for (int i = 0; i < 64; i++) {
        results[i] = (struct result){.data = data[i]};
        pthread_mutex_init(&results[i].lock, NULL);
        pthread_cond_init(&results[i].changed, NULL);
        unshard_engine_read(engine, 0, (uint64_t)i * 10000, 131072, read_done, &results[i]);
    }
    unshard_engine_stop(engine);
    for (int i = 0; i < 64; i++)
        assert_int_equal(results[i].calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_at_every_boundary, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prefetch_stores_every_page_once_known, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_reads_are_answered_while_all_stores_block, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_window_bounds_what_nobody_has_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncated_file_fails_only_its_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bytes_that_change_silently_are_noticed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_stop_answers_what_is_queued, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
