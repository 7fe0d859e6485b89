/* SPDX-License-Identifier: MIT
 *
 * Epochs: references, what a pass gains; and a file that begins anew again and again while it is
 * read and stored: nobody gets bytes of two contents, and none of one that is over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/engine_internal.h"
#include "property/random.h"
#include "support/engine_fixture.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>

enum { CHANGED_FILE = 2, CONTENTS = 100, READERS = 3, MOST_READ = 40000 };

/* The watcher sees nothing: the test does what it would do. */
int __wrap_source_poll(struct source *source, uint32_t file, bool closely);
int __wrap_source_poll(struct source *source, uint32_t file, bool closely)
{
    (void)source, (void)file, (void)closely;
    return 0;
}

/* ---- an epoch alone -------------------------------------------------------------------------- */

static const struct expected_digest whole = {.digest = {.algorithm = DIGEST_SHA256},
                                             .origin = "a list"};

static struct file_epoch *epoch_to_hash(void)
{
    struct source_identity identity = {.inode = 7, .size = 3 * CHUNK};
    struct file_check known = {.kind = CHECK_WHOLE};
    struct file_epoch *epoch = epoch_new(5, 0, &identity, &whole, &known);
    assert_non_null(epoch);
    return epoch;
}

static void *hold_and_release(void *argument)
{
    struct file_epoch *epoch = argument;
    for (unsigned i = 0; i < 10000; i++)
        epoch_release(epoch_hold(epoch));
    epoch_release(epoch);
    return NULL;
}

static void an_epoch_lives_as_long_as_somebody_refers_to_it(void **state)
{
    pthread_t threads[4];
    struct file_epoch *epoch = epoch_to_hash();
    (void)state;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hold_and_release, epoch_hold(epoch)), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&epoch->references), 1);
    assert_int_equal(epoch->file, 5);
    epoch_release(epoch);
    epoch_release(NULL);
}

static void what_a_pass_gains_is_what_chunks_are_checked_by(void **state)
{
    struct chunk_tag tags[3];
    struct file_epoch *epoch = epoch_to_hash();
    const struct file_check *before = epoch->check;
    (void)state;
    memset(tags, 'x', sizeof tags);
    struct gained *gained = gained_new(CHUNK, 3, tags, whole.origin, true);
    assert_non_null(gained);
    assert_false(epoch_is_verified(epoch));
    epoch_gain(epoch, gained);
    memset(tags, 'y', sizeof tags); /* it is a copy */
    assert_true(epoch_is_verified(epoch));
    assert_int_equal(before->kind, CHECK_WHOLE); /* who still reads by that may */
    assert_int_equal(epoch->check->kind, CHECK_CHUNKS);
    assert_int_equal(epoch->check->chunks.count, 3);
    assert_int_equal(epoch->check->chunks.digests[3 * CHUNK_TAG_BYTES - 1], 'x');
    assert_string_equal(epoch->check->chunks.origin, "a list");
    epoch_release(epoch);
}

static void what_an_earlier_mount_has_kept_is_not_verified_yet(void **state)
{
    struct chunk_tag tag = {{0}};
    struct file_epoch *epoch = epoch_to_hash();
    (void)state;
    epoch_gain(epoch, gained_new(CHUNK, 1, &tag, whole.origin, false));
    assert_int_equal(epoch->check->kind, CHECK_CHUNKS);
    assert_false(epoch_is_verified(epoch));
    epoch_release(epoch);
}

/* ---- one after the other --------------------------------------------------------------------- */

/* Content n of the file is what the fixture wrote, with n mixed into each byte. */
struct play {
    struct fixture *fixture;
    struct unshard_engine *engine;
    struct cache cache;
    uint64_t first, end; /* where the file stands in the view */
    atomic_uint content; /* the current one */
    atomic_bool over, changing;
    atomic_uint mixed, old, wrong, reads, errors, stores;
};

/* The content that bytes [offset, offset + size) of the view are of; all of another file: UINT_MAX.
 * Counts what cannot be. */
static unsigned content_of(struct play *play, uint64_t offset, const char *data, size_t size)
{
    unsigned found = UINT_MAX;
    for (uint64_t at = offset; at < offset + size; at++) {
        unsigned mixed = (unsigned char)(data[at - offset] ^ play->fixture->expected[at]);
        if (at < play->first || at >= play->end) {
            atomic_fetch_add(&play->wrong, mixed != 0);
            continue;
        }
        atomic_fetch_add(&play->mixed, found != UINT_MAX && found != mixed);
        found = mixed;
    }
    return found;
}

/* Some stores take as long as it would take another content to come, if it did not wait for them.
 */
static void linger(const struct play *play, unsigned content)
{
    uint64_t start = engine_now_ns(), now = start;
    while (atomic_load(&play->content) == content &&
           now - start < (atomic_load(&play->changing) ? 2000000 : 300000)) {
        sched_yield();
        now = engine_now_ns();
    }
}

static int store(void *context, uint32_t view, uint64_t offset, const void *data, size_t size)
{
    struct play *play = context;
    (void)view;
    unsigned content = content_of(play, offset, data, size);
    if (content != UINT_MAX && atomic_fetch_add(&play->stores, 1) % 8 == 0)
        linger(play, content);
    atomic_fetch_add(&play->old, content != UINT_MAX && content != atomic_load(&play->content));
    pthread_mutex_lock(&play->cache.lock);
    for (uint64_t page = offset / PAGE; page < (offset + size + PAGE - 1) / PAGE; page++) {
        play->cache.stored += !play->cache.present[page];
        play->cache.present[page] = true;
    }
    pthread_cond_broadcast(&play->cache.changed);
    pthread_mutex_unlock(&play->cache.lock);
    return 0;
}

static void drop(void *context, uint32_t view, uint64_t offset, uint64_t size)
{
    struct play *play = context;
    cache_drop(&play->cache, view, offset, size);
}

static void *read_on(void *argument)
{
    static atomic_uint number;
    static const read_function ways[] = {unshard_engine_read, unshard_engine_read_ahead,
                                         unshard_engine_read_direct};
    struct play *play = argument;
    struct random_state random = {random_seed() + atomic_fetch_add(&number, 1)};
    char *data = malloc(MOST_READ);
    size_t got;
    while (!atomic_load(&play->over)) {
        uint64_t around = play->first - PAGE + random_below(&random, play->end - play->first);
        size_t size = (size_t)random_below(&random, MOST_READ - 1) + 1;
        unsigned before = atomic_load(&play->content);
        int error =
            read_view_by(ways[random_below(&random, 3)], play->engine, around, data, size, &got);
        unsigned content = error == 0 ? content_of(play, around, data, got) : UINT_MAX;
        bool old = content < before || content > atomic_load(&play->content);
        atomic_fetch_add(&play->old, content != UINT_MAX && old);
        atomic_fetch_add(error == 0 ? &play->reads : &play->errors, 1);
    }
    free(data);
    return NULL;
}

static void write_content(const struct play *play, const char *bytes, unsigned content)
{
    char path[96], temporary[100], *mixed = malloc(file_sizes[CHANGED_FILE]);
    for (uint64_t i = 0; i < file_sizes[CHANGED_FILE]; i++)
        mixed[i] = (char)(bytes[i] ^ (char)content);
    snprintf(path, sizeof path, "%s/%s", play->fixture->directory,
             play->fixture->names[CHANGED_FILE]);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(mixed, 1, file_sizes[CHANGED_FILE], file), file_sizes[CHANGED_FILE]);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(temporary, path), 0);
    free(mixed);
}

static void wait_until_clear(struct play *play)
{
    struct timespec until = deadline(), now;
    for (bool clear = false; !clear;) {
        clock_gettime(CLOCK_REALTIME, &now);
        assert_true(now.tv_sec < until.tv_sec);
        sched_yield();
        pthread_mutex_lock(&play->engine->lock);
        clear = gate_is_clear(&play->engine->files[CHANGED_FILE].gate);
        pthread_mutex_unlock(&play->engine->lock);
    }
}

/* Another file is in its place, before or after that is known. */
static void begin_anew(struct play *play, const char *bytes, unsigned content)
{
    struct unshard_error error = {.code = "changed", .offset = UNSHARD_NO_OFFSET};
    atomic_store(&play->changing, true);
    if (content % 2 == 0)
        write_content(play, bytes, content);
    file_block(play->engine, play->engine->files[CHANGED_FILE].epoch, GATE_CHANGED, &error, NULL);
    if (content % 2 != 0)
        write_content(play, bytes, content);
    wait_until_clear(play);
    for (uint64_t page = play->first / PAGE; page <= (play->end - 1) / PAGE; page++)
        assert_false(is_present(&play->cache, page));
    assert_int_equal(source_reopen(play->engine->source, CHANGED_FILE, &error), 0);
    atomic_store(&play->content, content);
    assert_int_equal(file_reset(play->engine, CHANGED_FILE), 0);
    atomic_store(&play->changing, false);
}

static char *bytes_of_file(const struct fixture *fixture)
{
    char path[96], *bytes = malloc(file_sizes[CHANGED_FILE]);
    snprintf(path, sizeof path, "%s/%s", fixture->directory, fixture->names[CHANGED_FILE]);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    assert_int_equal(fread(bytes, 1, file_sizes[CHANGED_FILE], file), file_sizes[CHANGED_FILE]);
    fclose(file);
    return bytes;
}

static void start_play(struct play *play)
{
    struct unshard_publisher publisher = {.context = play, .store = store, .drop = drop};
    struct unshard_error error;
    struct extent_piece image;
    struct extent_map_images images =
        extent_map_images_of(&play->fixture->view.map, CHANGED_FILE, 0, file_sizes[CHANGED_FILE]);
    assert_true(extent_map_next_image(&images, &image));
    play->first = image.view_offset;
    play->end = image.view_offset + image.length;
    cache_init(&play->cache, play->fixture);
    assert_int_equal(
        unshard_engine_start(&play->fixture->checkpoint, &small, &publisher, &play->engine, &error),
        0);
    unshard_engine_view_known(play->engine, 0, true);
}

/* All of it is there, and of the last content. */
static void read_all(struct play *play)
{
    char page[PAGE];
    size_t got;
    for (uint64_t at = 0; at < play->fixture->view.size; at += PAGE) {
        assert_int_equal(read_view(play->engine, at, page, PAGE, &got), 0);
        unsigned content = content_of(play, at, page, got);
        assert_true(content == UINT_MAX || content == CONTENTS);
    }
}

static void no_read_or_store_is_of_two_contents_or_an_old_one(void **state)
{
    static struct play play;
    pthread_t threads[READERS];
    play = (struct play){.fixture = *state};
    char *bytes = bytes_of_file(play.fixture);
    start_play(&play);
    for (size_t i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &play), 0);
    for (unsigned content = 1; content <= CONTENTS; content++) {
        unsigned before = atomic_load(&play.reads);
        begin_anew(&play, bytes, content);
        while (atomic_load(&play.reads) < before + 3)
            sched_yield();
    }
    atomic_store(&play.over, true);
    for (size_t i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    read_all(&play);
    assert_int_equal(atomic_load(&play.mixed), 0);
    assert_int_equal(atomic_load(&play.old), 0);
    assert_int_equal(atomic_load(&play.wrong), 0);
    assert_int_equal(play.engine->files[CHANGED_FILE].epoch->number, CONTENTS);
    assert_int_equal(unshard_engine_quiesce(play.engine, 10000), 0);
    unshard_engine_stop(play.engine);
    free(play.cache.present);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_lives_as_long_as_somebody_refers_to_it),
        cmocka_unit_test(what_a_pass_gains_is_what_chunks_are_checked_by),
        cmocka_unit_test(what_an_earlier_mount_has_kept_is_not_verified_yet),
        cmocka_unit_test_setup_teardown(no_read_or_store_is_of_two_contents_or_an_old_one, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
