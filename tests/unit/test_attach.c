/* SPDX-License-Identifier: MIT
 *
 * An engine that is given views of layouts while it runs: what is the same keeps its number, what
 * nobody needs leaves, and every byte is right meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/attached.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

/* Two shards that are merged, and a configuration. */
static void make_model(const char *root, const char *name, const char *tensor)
{
    char path[64], one[64], two[64];
    snprintf(one, sizeof one, "%s.one", tensor);
    snprintf(two, sizeof two, "%s.two", tensor);
    snprintf(path, sizeof path, "%s/model-00001-of-00002.safetensors", name);
    fixture_shard(root, path, one);
    snprintf(path, sizeof path, "%s/model-00002-of-00002.safetensors", name);
    fixture_shard(root, path, two);
    snprintf(path, sizeof path, "%s/config.json", name);
    fixture_text(root, path, "{}");
}

static int set_up(void **state)
{
    struct setting *setting = calloc(1, sizeof *setting);
    struct unshard_fetch_options options = {.prefetch = UNSHARD_PREFETCH_OPEN};
    setting->directory = fixture_directory();
    make_model(setting->directory, "a", "alpha");
    make_model(setting->directory, "b", "beta");
    begin(setting, &options, NULL);
    *state = setting;
    return 0;
}

static void views_are_served(void **state)
{
    struct setting *setting = *state;
    assert_int_equal(components(setting->engine), 0);
    uint32_t a = attach(setting, "a", "model.safetensors");
    uint32_t b = attach(setting, "b", "model.safetensors");
    uint32_t config = attach(setting, "a", "config.json");
    assert_int_not_equal(a, b);
    check_view(setting, a, "a/model.safetensors");
    check_view(setting, b, "b/model.safetensors");
    check_view(setting, config, "a/config.json");
    struct unshard_status *status = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
    assert_int_equal(status->component_count, 2);
    assert_string_equal(status->components[0].view, "a/model.safetensors");
    unshard_status_free(status);
    unshard_engine_detach(setting->engine, config);
    unshard_engine_detach(setting->engine, a);
    unshard_engine_detach(setting->engine, b);
}

static void what_is_the_same_keeps_its_number(void **state)
{
    struct setting *setting = *state;
    uint32_t first = attach(setting, "a", "model.safetensors");
    uint32_t config = attach(setting, "a", "config.json");
    fixture_text(setting->directory, "a/README.md", "new");
    assert_int_equal(attach(setting, "a", "model.safetensors"), first);
    assert_int_equal(attach(setting, "a", "config.json"), config);
    fixture_text(setting->directory, "a/config.json", "{\"longer\": true}");
    assert_int_equal(attach(setting, "a", "model.safetensors"), first);
    assert_int_not_equal(attach(setting, "a", "config.json"), config);
    fixture_shard(setting->directory, "a/model-00002-of-00002.safetensors", "another");
    uint32_t other = attach(setting, "a", "model.safetensors");
    assert_int_not_equal(other, first);
    /* One shard of two is what it was: it is there once. */
    struct unshard_status *status = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
    assert_int_equal(status->file_count, 5);
    unshard_status_free(status);
}

static void link_model(const char *root, const char *from, const char *to)
{
    for (int i = 1; i <= 2; i++) {
        char one[PATH_MAX], two[PATH_MAX];
        snprintf(one, sizeof one, "%s/%s/model-0000%d-of-00002.safetensors", root, from, i);
        snprintf(two, sizeof two, "%s/%s/model-0000%d-of-00002.safetensors", root, to, i);
        if (link(one, two) != 0)
            fixture_die("%s", two);
    }
}

static void names_of_the_same_files_are_one_view(void **state)
{
    struct setting *setting = *state;
    fixture_text(setting->directory, "c/config.json", "{\"c\": 1}");
    link_model(setting->directory, "a", "c");
    uint32_t a = attach(setting, "a", "model.safetensors");
    assert_int_equal(attach(setting, "c", "model.safetensors"), a);
    assert_int_not_equal(attach(setting, "c", "config.json"), attach(setting, "a", "config.json"));
    check_view(setting, a, "a/model.safetensors");
}

static void a_file_counts_as_long_as_a_name_leads_to_it(void **state)
{
    struct setting *setting = *state;
    fixture_text(setting->directory, "c/config.json", "{\"c\": 1}");
    link_model(setting->directory, "a", "c");
    uint32_t view = attach(setting, "a", "model.safetensors");
    assert_int_equal(attach(setting, "c", "model.safetensors"), view);
    size_t size;
    char *right = expected(setting, "a/model.safetensors", &size), *got = malloc(size);
    for (int i = 1; i <= 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "a/model-0000%d-of-00002.safetensors", i);
        assert_int_equal(unlink(fixture_path(setting->directory, name)), 0);
    }
    assert_int_equal(read_all(setting->engine, view, got, size), 0);
    assert_memory_equal(got, right, size);
    /* The watcher finds them by that name, too. */
    for (int i = 0; strstr(source_path(setting->engine->source, 0), "c/model-") == NULL; i++) {
        assert_true(i < BOUND_SECONDS * 100);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_int_equal(read_all(setting->engine, view, got, size), 0);
    free(right);
    free(got);
}

static void what_nobody_needs_leaves(void **state)
{
    struct setting *setting = *state;
    uint32_t a = attach(setting, "a", "model.safetensors");
    assert_int_equal(attach(setting, "a", "model.safetensors"), a);
    assert_true(unshard_engine_prefetch(setting->engine, a, 1));
    check_view(setting, a, "a/model.safetensors");
    unshard_engine_detach(setting->engine, a);
    assert_true(components(setting->engine) > 0);
    unshard_engine_view_opened(setting->engine, a, false, 1);
    unshard_engine_detach(setting->engine, a);
    unshard_engine_view_opened(setting->engine, a, false, -1);
    wait_until_empty(setting->engine);
    assert_int_equal(attach(setting, "b", "model.safetensors"), a); /* the number is free */
    check_view(setting, a, "b/model.safetensors");
    unshard_engine_detach(setting->engine, a);
    wait_until_empty(setting->engine);
}

static uint32_t told_components(struct unshard_engine *engine)
{
    struct unshard_status *status = unshard_status_take(engine, UNSHARD_NO_VIEW);
    uint32_t count = status->component_count;
    unshard_status_free(status);
    return count;
}

/* The kernel may know what was there before for as long as it likes. */
static void what_is_replaced_is_told_while_it_is_read(void **state)
{
    struct setting *setting = *state;
    uint32_t before = attach(setting, "a", "model.safetensors");
    uint32_t other = attach(setting, "b", "model.safetensors");
    fixture_shard(setting->directory, "a/model-00002-of-00002.safetensors", "another");
    uint32_t now = attach(setting, "a", "model.safetensors");
    assert_int_not_equal(now, before);
    assert_int_equal(told_components(setting->engine), 2);
    unshard_engine_view_opened(setting->engine, before, false, 1);
    assert_int_equal(told_components(setting->engine), 3);
    unshard_engine_view_opened(setting->engine, before, false, -1);
    assert_int_equal(told_components(setting->engine), 2);
    unshard_engine_detach(setting->engine, before);
    unshard_engine_detach(setting->engine, now);
    unshard_engine_detach(setting->engine, other);
    wait_until_empty(setting->engine);
}

/* ---- several at once ---------------------------------------------------------------------------
 */

#define THREADS 4
#define ROUNDS 300

struct player {
    struct setting *setting;
    unsigned number;
    pthread_t thread;
    bool wrong;
};

static bool play_round(struct setting *setting, const char *directory, const char *right,
                       size_t size)
{
    uint64_t which_model = (uint64_t)*directory;
    struct unshard_checkpoint *root, *layout;
    struct unshard_error error;
    uint32_t view;
    char got[65536];
    struct layout_context context = {0};
    if (checkpoint_lay_out(&setting->place, &context, "", &root, &error) != 0)
        return false;
    context.above = root;
    int result = checkpoint_lay_out(&setting->place, &context, directory, &layout, &error);
    unshard_layout_release(root);
    if (result != 0)
        return false;
    const struct unshard_node *node = unshard_node_child(layout, 0, "model.safetensors");
    bool good = unshard_engine_attach(setting->engine, layout, node->view, &view, &error) == 0;
    unshard_layout_release(layout);
    if (!good)
        return false;
    unshard_engine_prefetch(setting->engine, view, which_model);
    good = read_all(setting->engine, view, got, size) == 0 && memcmp(got, right, size) == 0;
    struct unshard_status *status = unshard_status_take(setting->engine, view);
    good = good && status != NULL && status->component_count == 1;
    unshard_status_free(status);
    unshard_engine_detach(setting->engine, view);
    return good;
}

static void *play(void *argument)
{
    struct player *player = argument;
    size_t sizes[2];
    char *rights[] = {expected(player->setting, "a/model.safetensors", &sizes[0]),
                      expected(player->setting, "b/model.safetensors", &sizes[1])};
    for (unsigned i = 0; i < ROUNDS && !player->wrong; i++) {
        unsigned which = (i / 7 + player->number) % 2;
        player->wrong =
            !play_round(player->setting, which == 0 ? "a" : "b", rights[which], sizes[which]);
    }
    free(rights[0]);
    free(rights[1]);
    return NULL;
}

/* Has the watcher make its rounds one after the other. */
struct hurrying {
    struct unshard_engine *engine;
    atomic_bool over;
};

/* So that it takes away what nobody needs more often than once a second. */
static void *hurry(void *argument)
{
    struct hurrying *hurrying = argument;
    struct unshard_engine *engine = hurrying->engine;
    while (!atomic_load(&hurrying->over)) {
        pthread_mutex_lock(&engine->lock);
        engine->threads.look_now = true;
        pthread_cond_broadcast(&engine->threads.tick);
        pthread_mutex_unlock(&engine->lock);
        sched_yield();
    }
    return NULL;
}

static void many_come_and_go(void **state)
{
    struct setting *setting = *state;
    struct player players[THREADS];
    struct hurrying hurrying = {.engine = setting->engine};
    pthread_t hurrier;
    assert_int_equal(pthread_create(&hurrier, NULL, hurry, &hurrying), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        players[i] = (struct player){.setting = setting, .number = i};
        assert_int_equal(pthread_create(&players[i].thread, NULL, play, &players[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(players[i].thread, NULL);
        assert_false(players[i].wrong);
    }
    atomic_store(&hurrying.over, true);
    pthread_join(hurrier, NULL);
    wait_until_empty(setting->engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(views_are_served, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_the_same_keeps_its_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_of_the_same_files_are_one_view, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_counts_as_long_as_a_name_leads_to_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_nobody_needs_leaves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_replaced_is_told_while_it_is_read, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(many_come_and_go, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
