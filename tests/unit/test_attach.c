/* SPDX-License-Identifier: MIT
 *
 * An engine that is given views of layouts while it runs: what is the same keeps its number, what
 * nobody needs leaves, and every byte is right meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/engine_internal.h"
#include "support/safetensors_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define BOUND_SECONDS 20

struct setting {
    char *directory;
    struct unshard_checkpoint *whole; /* as the source was at first */
    struct unshard_checkpoint place;  /* the same without its files */
    struct unshard_engine *engine;
};

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
    struct unshard_error error;
    setting->directory = fixture_directory();
    make_model(setting->directory, "a", "alpha");
    make_model(setting->directory, "b", "beta");
    *state = setting;
    if (unshard_checkpoint_open(setting->directory, NULL, &setting->whole, &error) != 0)
        return -1;
    setting->place = *setting->whole;
    setting->place.file_count = setting->place.view_count = setting->place.component_count = 0;
    struct unshard_fetch_options options = {.prefetch = UNSHARD_PREFETCH_OPEN};
    return unshard_engine_start(&setting->place, &options, NULL, &setting->engine, &error);
}

static int tear_down(void **state)
{
    struct setting *setting = *state;
    unshard_engine_stop(setting->engine);
    unshard_checkpoint_close(setting->whole);
    fixture_remove(setting->directory);
    free(setting);
    return 0;
}

static struct unshard_checkpoint *lay_out(struct setting *setting, const char *directory)
{
    struct unshard_checkpoint *root, *layout;
    struct unshard_error error;
    assert_int_equal(checkpoint_lay_out(&setting->place, NULL, "", &root, &error), 0);
    assert_int_equal(checkpoint_lay_out(&setting->place, root, directory, &layout, &error), 0);
    unshard_checkpoint_close(root);
    return layout;
}

static uint32_t view_called(const struct unshard_checkpoint *layout, const char *name)
{
    const struct unshard_node *node = unshard_node_child(layout, 0, name);
    assert_non_null(node);
    return node->view;
}

/* Attaches a file of a directory as it is now, and lets go of the layout. */
static uint32_t attach(struct setting *setting, const char *directory, const char *name)
{
    struct unshard_checkpoint *layout = lay_out(setting, directory);
    struct unshard_error error;
    uint32_t view;
    assert_int_equal(unshard_engine_attach(setting->engine, layout, view_called(layout, name),
                                           &view, &error),
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

static void done(void *cookie, int error, const void *data, size_t size)
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

static int read_all(struct unshard_engine *engine, uint32_t view, char *out, size_t size)
{
    struct reading reading = {.lock = PTHREAD_MUTEX_INITIALIZER,
                              .changed = PTHREAD_COND_INITIALIZER,
                              .out = out};
    unshard_engine_view_opened(engine, view, false, 1);
    unshard_engine_read(engine, view, 0, size, done, &reading);
    pthread_mutex_lock(&reading.lock);
    while (!reading.done)
        pthread_cond_wait(&reading.changed, &reading.lock);
    pthread_mutex_unlock(&reading.lock);
    unshard_engine_view_opened(engine, view, false, -1);
    return reading.error;
}

static const struct view *find_view(const struct unshard_checkpoint *checkpoint, const char *path)
{
    for (uint32_t v = 0; v < checkpoint->view_count; v++)
        if (strcmp(checkpoint->views[v].path, path) == 0)
            return &checkpoint->views[v];
    return NULL;
}

/* What a view of the checkpoint shows, put together from the files on disk. */
static char *expected(const struct setting *setting, const char *path, size_t *size)
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

static void check_view(struct setting *setting, uint32_t view, const char *path)
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

static uint32_t components(struct unshard_engine *engine)
{
    struct unshard_status *status = unshard_status_take(engine, UNSHARD_NO_VIEW);
    uint32_t count = status->component_count + status->file_count;
    unshard_status_free(status);
    return count;
}

static void wait_until_empty(struct unshard_engine *engine)
{
    for (int i = 0; components(engine) > 0; i++) {
        assert_true(i < BOUND_SECONDS * 100);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
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
    fixture_text(setting->directory, "a/config.json", "{\"longer\": true}");
    assert_int_equal(attach(setting, "a", "model.safetensors"), first);
    assert_int_equal(attach(setting, "a", "config.json"), config);
    fixture_shard(setting->directory, "a/model-00002-of-00002.safetensors", "another");
    uint32_t other = attach(setting, "a", "model.safetensors");
    assert_int_not_equal(other, first);
    /* One shard of two is what it was: it is there once. */
    struct unshard_status *status = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
    assert_int_equal(status->file_count, 4);
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
    unshard_engine_prefetch(setting->engine, a);
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
    struct unshard_checkpoint *root, *layout;
    struct unshard_error error;
    uint32_t view;
    char got[65536];
    if (checkpoint_lay_out(&setting->place, NULL, "", &root, &error) != 0 ||
        checkpoint_lay_out(&setting->place, root, directory, &layout, &error) != 0)
        return false;
    unshard_checkpoint_close(root);
    const struct unshard_node *node = unshard_node_child(layout, 0, "model.safetensors");
    bool good = unshard_engine_attach(setting->engine, layout, node->view, &view, &error) == 0;
    unshard_layout_release(layout);
    if (!good)
        return false;
    unshard_engine_prefetch(setting->engine, view);
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
        player->wrong = !play_round(player->setting, which == 0 ? "a" : "b", rights[which],
                                    sizes[which]);
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
        cmocka_unit_test_setup_teardown(many_come_and_go, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
