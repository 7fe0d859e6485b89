/* SPDX-License-Identifier: MIT
 *
 * The budget of all models together: three in turn where two have room, into a page cache that
 * counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/attached.h"

#define CHUNK (UINT64_C(64) << 10)
#define MODELS 3
#define MOST_PAGES 4096U

/* What the kernel has of each view. */
struct cache {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool present[16][MOST_PAGES];
    uint64_t bytes, most; /* now, and at any time */
    unsigned dropped[16]; /* how often all of the view was taken away */
    struct unshard_engine *engine;
};

static void note(struct cache *cache, uint32_t view, uint64_t first, uint64_t end, bool present)
{
    for (uint64_t page = first; page < end; page++) {
        if (cache->present[view][page] != present)
            cache->bytes += present ? PAGE_BYTES : -PAGE_BYTES;
        cache->present[view][page] = present;
    }
    cache->most = cache->bytes > cache->most ? cache->bytes : cache->most;
    pthread_cond_broadcast(&cache->changed);
}

static int store(void *context, uint32_t view, uint64_t offset, const void *data, size_t size)
{
    struct cache *cache = context;
    (void)data;
    pthread_mutex_lock(&cache->lock);
    note(cache, view, offset / PAGE_BYTES, (offset + size + PAGE_BYTES - 1) / PAGE_BYTES, true);
    pthread_mutex_unlock(&cache->lock);
    return 0;
}

static void drop(void *context, uint32_t view, uint64_t offset, uint64_t size)
{
    struct cache *cache = context;
    uint64_t end = size == 0 ? MOST_PAGES : (offset + size) / PAGE_BYTES;
    pthread_mutex_lock(&cache->lock);
    cache->dropped[view] += offset == 0 && size == 0;
    note(cache, view, offset / PAGE_BYTES, end, false);
    pthread_mutex_unlock(&cache->lock);
}

struct budget_setting {
    struct setting setting; /* first */
    struct cache cache;
    uint32_t views[MODELS];
    uint64_t size; /* of each view */
};

static void make_big(const char *root, char name)
{
    char path[64];
    struct fixture_tensor only = {"weights", "F32", 1U << 20, 4};
    snprintf(path, sizeof path, "%c/model.safetensors", name);
    fixture_safetensors(root, path, "{\"format\":\"pt\"}", &only, 1, (unsigned)name);
}

static int set_up(void **state)
{
    struct budget_setting *budget = calloc(1, sizeof *budget);
    struct setting *setting = &budget->setting;
    struct unshard_publisher publisher = {.context = &budget->cache, .store = store, .drop = drop};
    struct unshard_fetch_options options = {.prefetch = UNSHARD_PREFETCH_OPEN,
                                            .chunk_bytes = CHUNK,
                                            .buffer_bytes = 64 * CHUNK,
                                            .budget_bytes = UINT64_C(9) << 20};
    pthread_mutex_init(&budget->cache.lock, NULL);
    pthread_cond_init(&budget->cache.changed, NULL);
    setting->directory = fixture_directory();
    for (int i = 0; i < MODELS; i++)
        make_big(setting->directory, (char)('a' + i));
    begin(setting, &options, &publisher);
    for (int i = 0; i < MODELS; i++) {
        char name[] = {(char)('a' + i), '\0'};
        budget->views[i] = attach(setting, name, "model.safetensors");
        unshard_engine_view_known(setting->engine, budget->views[i], true);
    }
    budget->size = unshard_engine_view_facts(setting->engine, budget->views[0]).size;
    *state = budget;
    return 0;
}

static struct timespec bound(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BOUND_SECONDS;
    return until;
}

static bool all_there(const struct budget_setting *budget, uint32_t view)
{
    for (uint64_t page = 0; page < budget->size / PAGE_BYTES; page++)
        if (!budget->cache.present[view][page])
            return false;
    return true;
}

static void open_model(struct budget_setting *budget, int model)
{
    struct unshard_engine *engine = budget->setting.engine;
    unshard_engine_view_opened(engine, budget->views[model], false, 1);
    unshard_engine_prefetch(engine, budget->views[model], (uint64_t)model);
}

static void close_model(struct budget_setting *budget, int model)
{
    unshard_engine_view_opened(budget->setting.engine, budget->views[model], false, -1);
}

static void wait_until_there(struct budget_setting *budget, int model)
{
    struct timespec until = bound();
    int result = 0;
    pthread_mutex_lock(&budget->cache.lock);
    while (!all_there(budget, budget->views[model]) && result == 0)
        result = pthread_cond_timedwait(&budget->cache.changed, &budget->cache.lock, &until);
    pthread_mutex_unlock(&budget->cache.lock);
    assert_int_equal(result, 0);
}

/* Opened, prefetched as a whole, read, and closed. */
static void load(struct budget_setting *budget, int model)
{
    char path[] = {(char)('a' + model),
                   '/',
                   'm',
                   'o',
                   'd',
                   'e',
                   'l',
                   '.',
                   's',
                   'a',
                   'f',
                   'e',
                   't',
                   'e',
                   'n',
                   's',
                   'o',
                   'r',
                   's',
                   '\0'};
    open_model(budget, model);
    wait_until_there(budget, model);
    check_view(&budget->setting, budget->views[model], path);
    close_model(budget, model);
}

static unsigned drops_of(struct budget_setting *budget, int model)
{
    pthread_mutex_lock(&budget->cache.lock);
    unsigned dropped = budget->cache.dropped[budget->views[model]];
    pthread_mutex_unlock(&budget->cache.lock);
    return dropped;
}

static void the_budget_is_kept(void **state)
{
    struct budget_setting *budget = *state;
    for (int turn = 0; turn < 3; turn++)
        for (int model = 0; model < MODELS; model++)
            load(budget, model);
    assert_true(budget->cache.most <= (UINT64_C(9) << 20) / 100 * 105);
    assert_true(budget->cache.most >= 2 * budget->size / PAGE_BYTES * PAGE_BYTES);
    /* Of nine loads two found room. */
    assert_int_equal(drops_of(budget, 0) + drops_of(budget, 1) + drops_of(budget, 2), 7);
}

static void who_was_read_longest_ago_goes_first(void **state)
{
    struct budget_setting *budget = *state;
    load(budget, 0);
    load(budget, 1);
    load(budget, 0); /* still there */
    assert_int_equal(drops_of(budget, 0) + drops_of(budget, 1), 0);
    load(budget, 2);
    assert_int_equal(drops_of(budget, 1), 1);
    assert_int_equal(drops_of(budget, 0), 0);
}

static void what_is_open_stays(void **state)
{
    struct budget_setting *budget = *state;
    open_model(budget, 0);
    wait_until_there(budget, 0);
    load(budget, 1);
    load(budget, 2);
    assert_int_equal(drops_of(budget, 0), 0);
    assert_int_equal(drops_of(budget, 1), 1);
    close_model(budget, 0);
}

/* It has the plan for itself, and still does not get it all at once. */
static void a_model_that_is_larger_is_not_pushed_out_by_itself(void **state)
{
    struct budget_setting *budget = *state;
    struct unshard_engine *engine = budget->setting.engine;
    for (int model = 0; model < MODELS; model++) {
        unshard_engine_view_opened(engine, budget->views[model], false, 1);
        assert_true(unshard_engine_prefetch(engine, budget->views[model], 7));
    }
    for (int model = 0; model < MODELS; model++) {
        char path[] = "a/model.safetensors";
        path[0] = (char)(path[0] + model);
        check_view(&budget->setting, budget->views[model], path);
        assert_false(unshard_engine_prefetch(engine, budget->views[model], 7));
        assert_int_equal(drops_of(budget, model), 0);
    }
    for (int model = 0; model < MODELS; model++)
        close_model(budget, model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_budget_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_was_read_longest_ago_goes_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_open_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_model_that_is_larger_is_not_pushed_out_by_itself, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
