/* SPDX-License-Identifier: MIT
 *
 * The engine with files of which digests are known: no byte that does not match is stored or read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "engine/engine_internal.h"
#include "support/engine_fixture.h"

#include <sched.h>
#include <stdatomic.h>

#define WRONG_FILE 2

static struct expected_digest wholes[FILES];
static struct expected_chunks pieces[FILES];
static uint8_t piece_digests[FILES][8][32];
static struct expectation expectations[FILES];

static char *content_of(const struct fixture *fixture, int i)
{
    char path[96], *content = malloc(file_sizes[i] + 1);
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[i]);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fread(content, 1, file_sizes[i], file), file_sizes[i]);
    fclose(file);
    return content;
}

/* Digests of the files as they are now: of the whole, or also of pieces as long as a chunk. */
static void expect(struct fixture *fixture, bool chunks)
{
    for (int i = 0; i < FILES; i++) {
        char *content = content_of(fixture, i);
        struct hasher *hasher = hasher_new(DIGEST_SHA256, file_sizes[i]);
        hasher_update(hasher, content, file_sizes[i]);
        wholes[i].origin = "a test";
        hasher_finish(hasher, &wholes[i].digest);
        hasher_free(hasher);
        uint32_t count = 0;
        for (uint64_t at = 0; at < file_sizes[i]; at += CHUNK)
            memcpy(piece_digests[i][count++],
                   digest_of(DIGEST_SHA256, NULL, content + at,
                             file_sizes[i] - at < CHUNK ? file_sizes[i] - at : CHUNK)
                       .bytes,
                   32);
        pieces[i] = (struct expected_chunks){CHUNK, count, DIGEST_SHA256, piece_digests[i][0],
                                             "a manifest"};
        expectations[i] = (struct expectation){
            .digests = &wholes[i], .digest_count = 1, .chunks = chunks ? &pieces[i] : NULL};
        fixture->files[i].expectation = &expectations[i];
        free(content);
    }
}

/* Changes the byte in the middle of a file; its times stay. */
static void flip(const struct fixture *fixture, int i)
{
    char path[96];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[i]);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &status), 0);
    off_t middle = (off_t)(file_sizes[i] / 2);
    char byte;
    assert_int_equal(pread(fd, &byte, 1, middle), 1);
    byte = (char)(byte ^ 1);
    assert_int_equal(pwrite(fd, &byte, 1, middle), 1);
    struct timespec times[2] = {status.st_atim, status.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

/* Every page of the view is right or an error; returns how many are errors. */
static uint64_t read_all(struct fixture *fixture, struct unshard_engine *engine)
{
    uint64_t bad = 0;
    char page[PAGE];
    size_t got;
    for (uint64_t at = 0; at < fixture->view.size; at += PAGE) {
        if (read_view(engine, at, page, PAGE, &got) == 0)
            assert_memory_equal(page, fixture->expected + at, got);
        else
            bad++;
    }
    return bad;
}

/* The pages of the view that hold bytes of the file. */
static uint64_t pages_of_file(const struct fixture *fixture, uint32_t file)
{
    struct extent_map_images images =
        extent_map_images_of(&fixture->view.map, file, 0, UINT64_MAX / 2);
    struct extent_piece image;
    assert_true(extent_map_next_image(&images, &image));
    return (image.view_offset + image.length - 1) / PAGE - image.view_offset / PAGE + 1;
}

static struct unshard_fetch_options verifying(enum unshard_verify verify,
                                              enum unshard_prefetch prefetch)
{
    struct unshard_fetch_options options = small;
    options.verify = verify;
    options.prefetch = prefetch;
    return options;
}

static int setup_cache(void **state)
{
    setenv("UNSHARD_CACHE_DIR", "/dev/null/none", 1);
    return setup(state);
}

/* ---- whole files ----------------------------------------------------------------------------- */

static void good_files_are_served_and_verified(struct fixture *fixture, enum unshard_verify verify)
{
    struct cache cache;
    expect(fixture, false);
    cache_init(&cache, fixture);
    struct unshard_engine *engine = start(fixture, &cache, verifying(verify, UNSHARD_PREFETCH_ALL));
    unshard_engine_view_known(engine, 0, true);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    wait_for_status(engine, "\"state\":\t\"verified\"");
    assert_int_equal(read_all(fixture, engine), 0);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_false(status_has(engine, "\"state\":\t\"failed\""));
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_strict_serves_what_matches(void **state)
{
    good_files_are_served_and_verified(*state, UNSHARD_VERIFY_STRICT);
}

static void test_async_serves_what_matches(void **state)
{
    good_files_are_served_and_verified(*state, UNSHARD_VERIFY_ASYNC);
}

/* A further name of the first file, which no view shows: no pass is made over it. */
static struct unshard_engine *start_with_other_name(struct fixture *fixture,
                                                    struct source_file files[FILES + 1],
                                                    struct cache *cache)
{
    memcpy(files, fixture->files, sizeof fixture->files);
    files[FILES] = files[0];
    fixture->checkpoint.files = files;
    fixture->checkpoint.file_count = FILES + 1;
    return start(fixture, cache, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_ALL));
}

static void wait_for_file(struct unshard_engine *engine, uint32_t number, bool blocked)
{
    struct timespec until = deadline(), now;
    const struct file_state *file = &engine->files[number];
    bool found = false;
    while (!found) {
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
        pthread_mutex_lock(&engine->lock);
        found = blocked ? gate_is_blocked(&file->gate)
                        : epoch_is_verified(file->epoch) && gate_is_open(&file->gate);
        pthread_mutex_unlock(&engine->lock);
    }
}

static void test_a_file_is_passed_once_for_all_its_names(void **state)
{
    struct fixture *fixture = *state;
    struct source_file files[FILES + 1];
    struct cache cache;
    expect(fixture, false);
    cache_init(&cache, fixture);
    struct unshard_engine *engine = start_with_other_name(fixture, files, &cache);
    unshard_engine_view_known(engine, 0, true);
    wait_for_file(engine, FILES, false);
    pthread_mutex_lock(&engine->lock);
    assert_true(epoch_is_verified(engine->files[0].epoch));
    assert_true(epoch_is_verified(engine->files[FILES].epoch));
    pthread_mutex_unlock(&engine->lock);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    unshard_engine_stop(engine);
    flip(fixture, 0);
    engine = start_with_other_name(fixture, files, &cache);
    unshard_engine_view_known(engine, 0, true);
    wait_for_file(engine, FILES, true);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_strict_on_demand(void **state)
{
    struct fixture *fixture = *state;
    expect(fixture, false);
    struct unshard_engine *engine =
        start(fixture, NULL, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_OFF));
    for (uint64_t at = 0; at < fixture->view.size; at += 10007)
        check_read(fixture, engine, at, 5000);
    assert_int_equal(read_all(fixture, engine), 0);
    unshard_engine_stop(engine);
}

/* ---- a chunk that is hashed while it is read --------------------------------------------------
 * Linked in place of the library's functions, which they call: all is in memory as far as a pass
 * can tell, and so many of its chunks fail when half of them is hashed. */

static atomic_bool in_memory, on_storage;
static pthread_mutex_t held_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t held_changed = PTHREAD_COND_INITIALIZER;
static uint32_t held_file = UINT32_MAX; /* its reads wait */
static unsigned reads_held;
static bool later_ones_pass; /* ... that have begun already */
static bool only_start_held; /* ... but of chunks behind the first one */
static atomic_uint failing_streams, streams, polls_of_wrong_file;
static _Thread_local bool stream_is_to_fail;
static _Thread_local struct hasher *fed; /* by the stream that runs */

int __real_source_read(struct source *source, uint32_t file, uint64_t offset, void *buffer,
                       size_t length, bool *cached, struct unshard_error *error);
int __wrap_source_read(struct source *source, uint32_t file, uint64_t offset, void *buffer,
                       size_t length, bool *cached, struct unshard_error *error);
int __real_source_poll(struct source *source, uint32_t file, bool closely);
int __wrap_source_poll(struct source *source, uint32_t file, bool closely);
int __real_pass_stream(struct unshard_engine *engine, struct fetch *fetch, struct hasher **hasher,
                       bool *cached, struct unshard_error *error);
int __wrap_pass_stream(struct unshard_engine *engine, struct fetch *fetch, struct hasher **hasher,
                       bool *cached, struct unshard_error *error);
struct hasher *__real_hasher_copy(const struct hasher *hasher);
struct hasher *__wrap_hasher_copy(const struct hasher *hasher);

int __wrap_source_read(struct source *source, uint32_t file, uint64_t offset, void *buffer,
                       size_t length, bool *cached, struct unshard_error *error)
{
    pthread_mutex_lock(&held_lock);
    bool passes = later_ones_pass || (offset != 0 && only_start_held);
    bool waits = file == held_file && !passes;
    reads_held += waits;
    pthread_cond_broadcast(&held_changed);
    while (file == held_file && !passes)
        pthread_cond_wait(&held_changed, &held_lock);
    reads_held -= waits;
    pthread_mutex_unlock(&held_lock);
    int result = __real_source_read(source, file, offset, buffer, length, cached, error);
    *cached = (*cached || atomic_load(&in_memory)) && !atomic_load(&on_storage);
    if (!stream_is_to_fail)
        return result;
    hasher_update(fed, "what came before", 16);
    return error_set(error, "read-error", EIO, "a test");
}

int __wrap_source_poll(struct source *source, uint32_t file, bool closely)
{
    int result = __real_source_poll(source, file, closely);
    atomic_fetch_add(&polls_of_wrong_file, file == WRONG_FILE);
    return result;
}

struct hasher *__wrap_hasher_copy(const struct hasher *hasher)
{
    return fed = __real_hasher_copy(hasher);
}

/* One that fails does so when some of it has been hashed. */
int __wrap_pass_stream(struct unshard_engine *engine, struct fetch *fetch, struct hasher **hasher,
                       bool *cached, struct unshard_error *error)
{
    atomic_fetch_add(&streams, 1);
    stream_is_to_fail = atomic_load(&failing_streams) > 0;
    atomic_fetch_sub(&failing_streams, stream_is_to_fail);
    int result = __real_pass_stream(engine, fetch, hasher, cached, error);
    stream_is_to_fail = false;
    return result;
}

static uint64_t bad_pages_when_streams_fail(struct fixture *fixture, unsigned times)
{
    atomic_store(&in_memory, true);
    atomic_store(&failing_streams, times);
    atomic_store(&streams, 0);
    expect(fixture, false);
    struct unshard_engine *engine =
        start(fixture, NULL, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_OFF));
    uint64_t bad = read_all(fixture, engine);
    assert_true(atomic_load(&streams) > times);
    assert_int_equal(atomic_load(&failing_streams), 0);
    unshard_engine_stop(engine);
    atomic_store(&in_memory, false);
    return bad;
}

static void test_a_pass_goes_on_after_a_read_that_fails(void **state)
{
    assert_int_equal(bad_pages_when_streams_fail(*state, 3), 0);
}

static void test_a_pass_does_not_try_for_ever(void **state)
{
    assert_true(bad_pages_when_streams_fail(*state, 4) > 0);
}

static uint64_t staged_bytes(struct unshard_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    uint64_t bytes = engine->staging.bytes;
    pthread_mutex_unlock(&engine->lock);
    return bytes;
}

static void test_copies_that_nobody_comes_for_are_given_back(void **state)
{
    struct fixture *fixture = *state;
    struct timespec until = deadline(), now;
    expect(fixture, false);
    atomic_store(&on_storage, true);
    struct unshard_engine *engine =
        start(fixture, NULL, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_OFF));
    check_read(fixture, engine, 8192, PAGE);
    assert_true(staged_bytes(engine) > 0);
    do {
        pthread_mutex_lock(&engine->lock);
        engine->traffic.asked_ns = engine->traffic.given_ns = 0; /* long ago */
        pthread_mutex_unlock(&engine->lock);
        sched_yield();
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
    } while (staged_bytes(engine) > 0);
    assert_int_equal(read_all(fixture, engine), 0);
    unshard_engine_stop(engine);
    atomic_store(&on_storage, false);
}

/* ---- what blocks ----------------------------------------------------------------------------- */

/* A store waits for pages that an unanswered read has locked. When that read also needs a file that
 * has not been hashed yet, somebody who does not store must hash it. */
static void reads_go_on_while_stores_are_blocked(struct fixture *fixture, bool bad)
{
    struct cache cache;
    struct unshard_fetch_options options = verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_OFF);
    size_t got;
    char across[5000];
    uint64_t end_of_first = 5000 + file_sizes[0] - 7;
    options.jobs = 1;
    expect(fixture, false);
    if (bad)
        flip(fixture, WRONG_FILE);
    cache_init(&cache, fixture);
    set_blocked(&cache, true);
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    for (unsigned worker = 0; worker < storers_of(engine); worker++)
        check_read(fixture, engine, 8192 + (uint64_t)worker * CHUNK, PAGE);
    wait_for_blocked_stores(&cache, storers_of(engine));
    int error = read_view(engine, end_of_first - 2000, across, sizeof across, &got);
    assert_int_equal(error, bad ? EIO : 0);
    if (!bad)
        assert_memory_equal(across, fixture->expected + end_of_first - 2000, sizeof across);
    check_read(fixture, engine, fixture->view.size - 3000, 3000);
    set_blocked(&cache, false);
    assert_int_equal(read_all(fixture, engine), bad ? pages_of_file(fixture, WRONG_FILE) : 0);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void hold_reads_of(uint32_t file)
{
    pthread_mutex_lock(&held_lock);
    held_file = file;
    pthread_cond_broadcast(&held_changed);
    pthread_mutex_unlock(&held_lock);
}

/* Stores that are blocked have as many as prefetching gives them: no reader finds more to do but
 * the one whose read is held. */
static void wait_for_few_buffers(struct unshard_engine *engine)
{
    struct timespec until = deadline(), now;
    bool all_taken;
    do {
        pthread_mutex_lock(&engine->lock);
        all_taken = !buffers_may_fetch(&engine->buffers, 1) &&
                    engine->threads.idle_readers + 1 >= engine->threads.reader_count;
        pthread_mutex_unlock(&engine->lock);
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
        sched_yield();
    } while (!all_taken);
}

/* With one read at a time: while storage is waited for, what has been verified is stored from
 * staging, and while that goes on, storage is read. */
static void test_storage_is_read_while_others_store(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    struct unshard_fetch_options options = verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_ALL);
    options.jobs = 1;
    atomic_store(&on_storage, true);
    expect(fixture, false);
    cache_init(&cache, fixture);
    set_blocked(&cache, true);
    hold_reads_of(FILES - 1);
    struct unshard_engine *engine = start(fixture, &cache, options);
    unshard_engine_view_known(engine, 0, true);
    wait_for_blocked_stores(&cache, 1);
    wait_for_few_buffers(engine);
    hold_reads_of(UINT32_MAX);
    wait_for_absence(engine, "\"state\":\t\"pending\"");
    wait_for_absence(engine, "\"state\":\t\"reading\"");
    set_blocked(&cache, false);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
    atomic_store(&on_storage, false);
}

static void test_hashing_needs_no_worker_that_stores(void **state)
{
    reads_go_on_while_stores_are_blocked(*state, false);
}

static void test_a_mismatch_waits_for_no_store(void **state)
{
    reads_go_on_while_stores_are_blocked(*state, true);
}

static void test_strict_serves_nothing_of_what_does_not_match(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    expect(fixture, false);
    flip(fixture, WRONG_FILE);
    cache_init(&cache, fixture);
    struct unshard_engine *engine =
        start(fixture, &cache, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_ALL));
    unshard_engine_view_known(engine, 0, true);
    wait_for_status(engine, "\"mismatch\":\t{");
    assert_int_equal(read_all(fixture, engine), pages_of_file(fixture, WRONG_FILE));
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(cache.wrong, 0);
    char *errors = rendered(engine, unshard_status_errors);
    assert_non_null(strstr(errors, "code=mismatch"));
    assert_non_null(strstr(errors, "s2: does not match: sha256 is"));
    assert_null(strstr(errors, "s1"));
    free(errors);
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_async_takes_away_what_does_not_match(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    expect(fixture, false);
    flip(fixture, WRONG_FILE);
    cache_init(&cache, fixture);
    struct unshard_engine *engine =
        start(fixture, &cache, verifying(UNSHARD_VERIFY_ASYNC, UNSHARD_PREFETCH_ALL));
    unshard_engine_view_known(engine, 0, true);
    wait_for_status(engine, "\"mismatch\":\t{");
    struct extent_map_images images =
        extent_map_images_of(&fixture->view.map, WRONG_FILE, 0, UINT64_MAX / 2);
    struct extent_piece image;
    assert_true(extent_map_next_image(&images, &image));
    wait_for_no_pages(&cache, image.view_offset / PAGE,
                      (image.view_offset + image.length - 1) / PAGE);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(read_all(fixture, engine), pages_of_file(fixture, WRONG_FILE));
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_off_serves_all(void **state)
{
    struct fixture *fixture = *state;
    char byte[PAGE];
    size_t got;
    expect(fixture, false);
    flip(fixture, WRONG_FILE);
    struct unshard_engine *engine =
        start(fixture, NULL, verifying(UNSHARD_VERIFY_OFF, UNSHARD_PREFETCH_OFF));
    for (uint64_t at = 0; at < fixture->view.size; at += PAGE)
        assert_int_equal(read_view(engine, at, byte, PAGE, &got), 0);
    unshard_engine_stop(engine);
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static void test_only_the_bad_chunk_fails(void **state)
{
    struct fixture *fixture = *state;
    expect(fixture, true);
    flip(fixture, WRONG_FILE);
    struct unshard_engine *engine =
        start(fixture, NULL, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_OFF));
    uint64_t bad = read_all(fixture, engine);
    assert_in_range(bad, CHUNK / PAGE, CHUNK / PAGE + 1);
    char *errors = rendered(engine, unshard_status_errors);
    assert_non_null(strstr(errors, "s2: the chunk at 65536 does not match"));
    assert_non_null(strstr(errors, "(a manifest)"));
    free(errors);
    unshard_engine_stop(engine);
}

static void test_contradictions_serve_nothing(void **state)
{
    struct fixture *fixture = *state;
    expect(fixture, false);
    expectations[WRONG_FILE].contradicts = true;
    expectations[WRONG_FILE].error =
        (struct unshard_error){.code = "contradiction", .message = "two lists differ"};
    struct unshard_engine *engine =
        start(fixture, NULL, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_OFF));
    assert_int_equal(read_all(fixture, engine), pages_of_file(fixture, WRONG_FILE));
    assert_true(status_has(engine, "two lists differ"));
    unshard_engine_stop(engine);
}

/* ---- change and repair ----------------------------------------------------------------------- */

static void test_a_replaced_file_heals(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    char path[96], temporary[100];
    expect(fixture, false);
    char *good = content_of(fixture, WRONG_FILE);
    flip(fixture, WRONG_FILE);
    cache_init(&cache, fixture);
    struct unshard_engine *engine =
        start(fixture, &cache, verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_ALL));
    unshard_engine_view_known(engine, 0, true);
    wait_for_status(engine, "\"mismatch\":\t{");
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[WRONG_FILE]);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(good, 1, file_sizes[WRONG_FILE], file), file_sizes[WRONG_FILE]);
    fclose(file);
    assert_int_equal(rename(temporary, path), 0);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    assert_int_equal(read_all(fixture, engine), 0);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_false(status_has(engine, "\"mismatch\":\t{"));
    assert_int_equal(cache.wrong, 0);
    unshard_engine_stop(engine);
    free(cache.present);
    free(good);
}

static void hold_start_of(uint32_t file)
{
    pthread_mutex_lock(&held_lock);
    held_file = file;
    only_start_held = file != UINT32_MAX;
    later_ones_pass = false;
    pthread_cond_broadcast(&held_changed);
    pthread_mutex_unlock(&held_lock);
}

/* Once there is one that waits. */
static void let_later_reads_pass(void)
{
    struct timespec until = deadline();
    int result = 0;
    pthread_mutex_lock(&held_lock);
    while (reads_held == 0 && result == 0)
        result = pthread_cond_timedwait(&held_changed, &held_lock, &until);
    assert_int_equal(result, 0);
    later_ones_pass = true;
    pthread_mutex_unlock(&held_lock);
}

/* Puts another file in the place of WRONG_FILE. */
static void replace(const struct fixture *fixture, const char *content)
{
    char path[96], temporary[100];
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[WRONG_FILE]);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(content, 1, file_sizes[WRONG_FILE], file), file_sizes[WRONG_FILE]);
    fclose(file);
    assert_int_equal(rename(temporary, path), 0);
}

static void wait_for_epoch(struct unshard_engine *engine, uint32_t number, uint32_t wanted)
{
    struct timespec until = deadline(), now;
    uint32_t epoch = 0;
    while (epoch != wanted) {
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
        pthread_mutex_lock(&engine->lock);
        epoch =
            gate_is_blocked(&engine->files[number].gate) ? 0 : engine->files[number].epoch->number;
        pthread_mutex_unlock(&engine->lock);
    }
}

static bool is_clear(struct unshard_engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    bool clear = gate_is_clear(&engine->files[WRONG_FILE].gate);
    pthread_mutex_unlock(&engine->lock);
    return clear;
}

static void wait_for_clear_file(struct unshard_engine *engine)
{
    struct timespec until = deadline(), now;
    while (!is_clear(engine)) {
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
    }
}

/* Set: WRONG_FILE begins anew between when a read has copied a page and when it looks whether it
 * may have it. */
static struct unshard_engine *begins_anew_after_copy;
bool __real_held_pages_take(struct held_pages *held, uint32_t view, uint64_t page, bool cached,
                            uint32_t *from, uint32_t *to, char *out);
bool __wrap_held_pages_take(struct held_pages *held, uint32_t view, uint64_t page, bool cached,
                            uint32_t *from, uint32_t *to, char *out);
bool __wrap_held_pages_take(struct held_pages *held, uint32_t view, uint64_t page, bool cached,
                            uint32_t *from, uint32_t *to, char *out)
{
    struct unshard_error error = {.code = "changed", .offset = UNSHARD_NO_OFFSET};
    struct unshard_engine *engine = begins_anew_after_copy;
    bool taken = __real_held_pages_take(held, view, page, cached, from, to, out);
    begins_anew_after_copy = NULL;
    if (engine == NULL)
        return taken;
    assert_true(taken);
    file_block(engine, engine->files[WRONG_FILE].epoch, GATE_CHANGED, &error, NULL);
    wait_for_clear_file(engine);
    assert_int_equal(file_reset(engine, WRONG_FILE), 0);
    return taken;
}

/* The page of the view with the byte that flip changes. */
static uint64_t flipped_page(const struct fixture *fixture)
{
    struct extent_map_images images =
        extent_map_images_of(&fixture->view.map, WRONG_FILE, file_sizes[WRONG_FILE] / 2, 1);
    struct extent_piece image;
    assert_true(extent_map_next_image(&images, &image));
    return image.view_offset / PAGE;
}

/* Chunks of an old file that wait for the hasher, whose first chunk hangs, are not those of the
 * new one; nor does anybody wait for the one that hangs. */
static void test_buffers_of_an_old_file_are_not_served(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    char page[PAGE];
    size_t got;
    expect(fixture, false);
    char *good = content_of(fixture, WRONG_FILE);
    flip(fixture, WRONG_FILE);
    cache_init(&cache, fixture);
    hold_start_of(WRONG_FILE);
    struct unshard_engine *engine =
        start(fixture, &cache, verifying(UNSHARD_VERIFY_ASYNC, UNSHARD_PREFETCH_ALL));
    unshard_engine_view_known(engine, 0, true);
    uint64_t where = flipped_page(fixture);
    read_view(engine, where * PAGE, page, PAGE, &got);
    assert_memory_not_equal(page, fixture->expected + where * PAGE, PAGE);
    let_later_reads_pass();
    replace(fixture, good);
    wait_for_epoch(engine, WRONG_FILE, 1);
    assert_int_equal(read_view(engine, where * PAGE, page, PAGE, &got), 0);
    assert_memory_equal(page, fixture->expected + where * PAGE, PAGE);
    where -= file_sizes[WRONG_FILE] / 2 / PAGE - 1;
    assert_int_equal(read_view(engine, where * PAGE, page, PAGE, &got), 0);
    assert_memory_equal(page, fixture->expected + where * PAGE, PAGE);
    hold_start_of(UINT32_MAX);
    wait_for_pages(&cache, pages_with_shard_bytes(fixture));
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    assert_int_equal(read_all(fixture, engine), 0);
    unshard_engine_stop(engine);
    free(cache.present);
    free(good);
}

/* What async has served has not matched yet: somebody may have bytes of it. */
static void test_async_does_not_begin_anew_under_a_reader(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    char page[PAGE];
    size_t got;
    expect(fixture, false);
    char *good = content_of(fixture, WRONG_FILE);
    flip(fixture, WRONG_FILE);
    cache_init(&cache, fixture);
    hold_start_of(WRONG_FILE);
    struct unshard_engine *engine =
        start(fixture, &cache, verifying(UNSHARD_VERIFY_ASYNC, UNSHARD_PREFETCH_OFF));
    unshard_engine_view_known(engine, 0, true);
    unshard_engine_view_opened(engine, 0, false, 1);
    uint64_t where = flipped_page(fixture);
    assert_int_equal(read_view(engine, where * PAGE, page, PAGE, &got), 0);
    replace(fixture, good);
    wait_for_status(engine, "changed on disk since it was mounted");
    unsigned before = atomic_load(&polls_of_wrong_file);
    while (atomic_load(&polls_of_wrong_file) < before + 2)
        sched_yield();
    assert_int_equal(read_view(engine, where * PAGE, page, PAGE, &got), EIO);
    unshard_engine_view_opened(engine, 0, false, -1);
    wait_for_epoch(engine, WRONG_FILE, 1);
    hold_start_of(UINT32_MAX);
    assert_int_equal(read_all(fixture, engine), 0);
    assert_int_equal(unshard_engine_quiesce(engine, 10000), 0);
    unshard_engine_stop(engine);
    free(cache.present);
    free(good);
}

/* A storer is about to drop them. */
static void wait_for_taken_pages(struct unshard_engine *engine)
{
    struct timespec until = deadline(), now;
    for (bool due = true; due;) {
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
        pthread_mutex_lock(&engine->lock);
        due = gate_pages_are_due(&engine->files[WRONG_FILE].gate);
        pthread_mutex_unlock(&engine->lock);
    }
}

/* A page that is held in memory counts while its files are what it was made of, and served. */
static void test_held_pages_of_another_content_are_not_served(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_error error = {.code = "mismatch", .offset = UNSHARD_NO_OFFSET};
    char page[PAGE], held[PAGE], out[PAGE];
    size_t got;
    uint64_t where = flipped_page(fixture);
    struct unshard_engine *engine =
        start(fixture, NULL, verifying(UNSHARD_VERIFY_OFF, UNSHARD_PREFETCH_OFF));
    memset(held, 'w', PAGE);
    assert_true(held_pages_add(&engine->held, 0, where, 0, held, PAGE, PAGE, out));
    assert_int_equal(read_view(engine, where * PAGE, page, PAGE, &got), 0);
    assert_memory_equal(page, held, PAGE);
    assert_true(held_pages_add(&engine->held, 0, where, 0, held, PAGE, PAGE, out));
    begins_anew_after_copy = engine;
    assert_int_equal(read_view(engine, where * PAGE, page, PAGE, &got), 0);
    assert_null(begins_anew_after_copy);
    assert_memory_equal(page, fixture->expected + where * PAGE, PAGE);
    assert_true(held_pages_add(&engine->held, 0, where, 0, held, PAGE, PAGE, out));
    struct gate *gate = &engine->files[WRONG_FILE].gate;
    pthread_mutex_lock(&engine->lock);
    gate_block(gate, GATE_MISMATCH, &error, NULL); /* no storer knows of it yet */
    pthread_mutex_unlock(&engine->lock);
    assert_int_equal(read_view(engine, where * PAGE, page, PAGE, &got), EIO);
    assert_true(held_pages_add(&engine->held, 0, where, 0, held, PAGE, PAGE, out));
    pthread_mutex_lock(&engine->lock);
    gate_take_pages(gate);
    gate_pages_gone(gate);
    gate_renew(gate, false);
    pthread_mutex_unlock(&engine->lock);
    file_block(engine, engine->files[WRONG_FILE].epoch, GATE_MISMATCH, &error, NULL);
    wait_for_clear_file(engine);
    assert_true(held_pages_empty(&engine->held));
    unshard_engine_stop(engine);
}

/* All chunks of the file that were read are in the page cache, and held pages. */
static void wait_for_published(struct unshard_engine *engine, uint32_t number)
{
    struct timespec until = deadline(), now;
    const struct file_state *file = &engine->files[number];
    for (bool found = false; !found;) {
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
        pthread_mutex_lock(&engine->lock);
        found = file->stores == 0 && file->bytes_published > 0;
        pthread_mutex_unlock(&engine->lock);
    }
}

/* The store of a page that two files share is one of each: who blocks the one waits for it. */
static void test_a_shared_page_is_stored_before_its_file_is_clear(void **state)
{
    struct fixture *fixture = *state;
    struct cache cache;
    struct unshard_error error = {.code = "mismatch", .offset = UNSHARD_NO_OFFSET};
    char page[PAGE];
    size_t got;
    cache_init(&cache, fixture);
    struct unshard_engine *engine =
        start(fixture, &cache, verifying(UNSHARD_VERIFY_OFF, UNSHARD_PREFETCH_OFF));
    unshard_engine_view_known(engine, 0, true);
    /* File 1 is one byte between file 0 and WRONG_FILE: what completes their page. */
    uint64_t shared = (5000 + file_sizes[0] - 7) / PAGE;
    assert_int_equal(read_view(engine, shared * PAGE - 1, page, 1, &got), 0);
    assert_int_equal(read_view(engine, (shared + 1) * PAGE, page, 1, &got), 0);
    wait_for_published(engine, 0);
    wait_for_published(engine, WRONG_FILE);
    assert_false(is_present(&cache, shared));
    set_blocked(&cache, true);
    assert_int_equal(
        read_view(engine, shared * PAGE + (5000 + file_sizes[0] - 7) % PAGE, page, 1, &got), 0);
    wait_for_blocked_stores(&cache, 1);
    file_block(engine, engine->files[WRONG_FILE].epoch, GATE_MISMATCH, &error, NULL);
    wait_for_taken_pages(engine);
    for (unsigned i = 0; i < 1000; i++) {
        assert_false(is_clear(engine));
        sched_yield();
    }
    set_blocked(&cache, false);
    wait_for_clear_file(engine);
    assert_false(is_present(&cache, shared));
    unshard_engine_stop(engine);
    free(cache.present);
}

static void test_a_file_that_changes_is_blocked(void **state)
{
    struct fixture *fixture = *state;
    struct unshard_fetch_options options = verifying(UNSHARD_VERIFY_STRICT, UNSHARD_PREFETCH_OFF);
    struct unshard_engine *engine = start(fixture, NULL, options);
    unshard_engine_view_opened(engine, 0, false, 1);
    assert_int_equal(read_all(fixture, engine), 0);
    flip(fixture, WRONG_FILE);
    char path[96];
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[WRONG_FILE]);
    assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
    wait_for_status(engine, "changed on disk since it was mounted");
    assert_int_equal(read_all(fixture, engine), pages_of_file(fixture, WRONG_FILE));
    /* Nobody has it open: what is there now is what the file is. */
    unshard_engine_view_opened(engine, 0, false, -1);
    struct timespec until = deadline(), now;
    char byte[PAGE];
    size_t got;
    uint64_t bad;
    do {
        bad = 0;
        for (uint64_t at = 0; at < fixture->view.size; at += PAGE)
            bad += read_view(engine, at, byte, PAGE, &got) != 0;
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
    } while (bad > 0);
    unshard_engine_stop(engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_strict_serves_what_matches, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_async_serves_what_matches, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_is_passed_once_for_all_its_names, setup_cache,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_strict_on_demand, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_copies_that_nobody_comes_for_are_given_back,
                                        setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_a_pass_goes_on_after_a_read_that_fails, setup_cache,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_pass_does_not_try_for_ever, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_storage_is_read_while_others_store, setup_cache,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_hashing_needs_no_worker_that_stores, setup_cache,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_mismatch_waits_for_no_store, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_strict_serves_nothing_of_what_does_not_match,
                                        setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_async_takes_away_what_does_not_match, setup_cache,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_off_serves_all, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_only_the_bad_chunk_fails, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_contradictions_serve_nothing, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_a_replaced_file_heals, setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_buffers_of_an_old_file_are_not_served, setup_cache,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_async_does_not_begin_anew_under_a_reader, setup_cache,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_held_pages_of_another_content_are_not_served,
                                        setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_a_shared_page_is_stored_before_its_file_is_clear,
                                        setup_cache, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_changes_is_blocked, setup_cache, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
