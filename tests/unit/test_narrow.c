/* SPDX-License-Identifier: MIT
 *
 * A status for somebody who may list only some directories: nothing of the others is in it, and
 * all figures are what they would be without them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/attached.h"

#include <pthread.h>

/* ---- a publisher whose stores can be held up --------------------------------------------------
 */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_moved = PTHREAD_COND_INITIALIZER;
static bool gate_closed;
static unsigned at_gate;

static int store(void *context, uint32_t view, uint64_t offset, const void *data, size_t size)
{
    (void)context, (void)view, (void)offset, (void)data, (void)size;
    pthread_mutex_lock(&gate);
    at_gate++;
    pthread_cond_broadcast(&gate_moved);
    while (gate_closed)
        pthread_cond_wait(&gate_moved, &gate);
    at_gate--;
    pthread_mutex_unlock(&gate);
    return 0;
}

static void close_gate(bool closed)
{
    pthread_mutex_lock(&gate);
    gate_closed = closed;
    pthread_cond_broadcast(&gate_moved);
    pthread_mutex_unlock(&gate);
}

static void wait_at_gate(void)
{
    pthread_mutex_lock(&gate);
    while (at_gate == 0)
        pthread_cond_wait(&gate_moved, &gate);
    pthread_mutex_unlock(&gate);
}

static unsigned looks; /* that go on */

static void give_looks(void *context, struct unshard_looks *out)
{
    static const char *const directories[] = {"a/x", ".", "deep"};
    (void)context;
    out->stalled = out->stuck_count = looks;
    out->stuck = looks > 0 ? calloc(looks, sizeof *out->stuck) : NULL;
    for (unsigned i = 0; i < looks; i++)
        out->stuck[i] = (struct unshard_stuck_look){.directory = directories[i], .seconds = 7};
}

/* ---- models -----------------------------------------------------------------------------------
 */

/* In two shards, one of them where `second` says; all in all of about so many bytes. */
static void make_model(const char *root, const char *name, const char *second, unsigned bytes)
{
    char path[64], text[512], tensor[32];
    snprintf(tensor, sizeof tensor, "%s.two", name);
    snprintf(path, sizeof path, "%s/one.safetensors", name);
    struct fixture_tensor tensors[] = {{"one", "U8", bytes, 1}};
    fixture_safetensors(root, path, NULL, tensors, 1, 0);
    snprintf(path, sizeof path, "%s/%stwo.safetensors", name, second);
    fixture_shard(root, path, tensor);
    snprintf(text, sizeof text,
             "{\"weight_map\":{\"one\":\"one.safetensors\",\"%s\":\"%stwo.safetensors\"}}", tensor,
             second);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", name);
    fixture_text(root, path, text);
    snprintf(path, sizeof path, "%s/config.json", name);
    fixture_text(root, path, name);
}

static int set_up(void **state)
{
    struct setting *setting = calloc(1, sizeof *setting);
    struct unshard_fetch_options options = {.prefetch = UNSHARD_PREFETCH_OPEN,
                                            .jobs = 2,
                                            .chunk_bytes = 65536,
                                            .buffer_bytes = 8 * 65536};
    struct unshard_publisher publisher = {.store = store, .looks = give_looks};
    setting->directory = fixture_directory();
    make_model(setting->directory, "a", "", 5000);
    make_model(setting->directory, "b", "", 1500000);
    make_model(setting->directory, "deep", "sub/", 9000);
    begin(setting, &options, &publisher);
    *state = setting;
    return 0;
}

/* ---- who may list what ------------------------------------------------------------------------
 */

/* Directories between commas; "" is always one of them, unless there is none. */
static bool is_listed(void *context, const char *directory)
{
    char word[64];
    snprintf(word, sizeof word, ",%s,", directory);
    return strstr(context, *directory != '\0' ? word : ",") != NULL;
}

static struct unshard_status *take_for(struct setting *setting, const char *directories)
{
    struct unshard_audience audience = {is_listed, (void *)directories};
    struct unshard_status *status = unshard_status_take_for(setting->engine, &audience);
    assert_non_null(status);
    return status;
}

static bool tells(const struct unshard_status *status, const char *part)
{
    char *texts[] = {unshard_status_json(status), unshard_status_text(status, 0),
                     unshard_status_metrics(status), unshard_status_errors(status)};
    bool found = false;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        found = found || strstr(texts[i], part) != NULL;
        free(texts[i]);
    }
    return found;
}

static void only_what_he_may_list(void **state)
{
    struct setting *setting = *state;
    uint32_t a = attach(setting, "a", "model.safetensors");
    attach(setting, "b", "model.safetensors");
    uint32_t config = attach(setting, "a", "config.json");
    unshard_engine_view_opened(setting->engine, a, false, 2);
    unshard_engine_view_opened(setting->engine, config, false, 1);
    struct unshard_status *whole = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
    struct unshard_status *of_a = take_for(setting, ",a,"), *of_b = take_for(setting, ",b,");
    assert_int_equal(of_a->component_count, 1);
    assert_string_equal(of_a->components[0].name, "a");
    assert_int_equal(of_b->component_count, 1);
    assert_string_equal(of_b->components[0].name, "b");
    assert_int_equal(of_b->components[0].shard_count, 2);
    assert_true(of_a->bytes_total > 5000 && of_b->bytes_total > 1500000);
    assert_true(of_a->bytes_total + of_b->bytes_total == whole->bytes_total);
    assert_int_equal(of_a->file_count + of_b->file_count, whole->file_count);
    assert_true(of_a->readers == 3 && of_b->readers == 0 && whole->readers == 3);
    assert_true(tells(of_a, "\"a/one.safetensors\"") && !tells(of_a, "b/"));
    assert_true(tells(of_b, "\"b/one.safetensors\"") && !tells(of_b, "a/"));
    unshard_status_free(of_a);
    unshard_status_free(of_b);
    of_a = take_for(setting, ",a,b,");
    assert_int_equal(of_a->component_count, 2);
    assert_true(of_a->bytes_total == whole->bytes_total);
    assert_int_equal(of_a->file_count, whole->file_count);
    unshard_status_free(of_a);
    of_a = take_for(setting, "");
    assert_int_equal(of_a->component_count + of_a->file_count + of_a->readers, 0);
    assert_true(of_a->bytes_total == 0 && of_a->state == UNSHARD_MOUNT_READY);
    unshard_status_free(of_a);
    unshard_status_free(whole);
}

static void errors_are_of_what_he_may_list(void **state)
{
    struct setting *setting = *state;
    if (truncate(fixture_path(setting->directory, "a/two.safetensors"), 9) != 0)
        fixture_die("a/two.safetensors");
    attach(setting, "a", "model.safetensors");
    attach(setting, "b", "model.safetensors");
    struct unshard_checkpoint *layout = lay_out(setting, "a");
    assert_int_equal(unshard_engine_tell(setting->engine, layout), 0);
    struct unshard_status *whole = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
    struct unshard_status *of_a = take_for(setting, ",a,"), *of_b = take_for(setting, ",b,");
    assert_true(whole->errors > 0 && whole->state == UNSHARD_MOUNT_DEGRADED);
    assert_int_equal(of_a->errors, whole->errors);
    assert_int_equal(of_a->state, UNSHARD_MOUNT_FAILED); /* none that he sees works */
    assert_int_equal(of_b->errors, 0);
    assert_int_equal(of_b->state, UNSHARD_MOUNT_READY);
    assert_true(tells(of_a, "two.safetensors: ") && !tells(of_b, "a/"));
    unshard_status_free(whole);
    unshard_status_free(of_a);
    unshard_status_free(of_b);
    unshard_engine_tell_no_more(setting->engine, layout);
    unshard_layout_release(layout);
}

/* Layouts, one after the other, with a problem and a note each. */
static void what_is_told_is_of_its_directory(void **state)
{
    struct setting *setting = *state;
    const char *names[] = {"a", "b", "deep"};
    struct unshard_checkpoint *layouts[3];
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/SHA256SUMS", names[i]);
        fixture_text(setting->directory, path, "nonsense\n");
        snprintf(path, sizeof path, "%s/pytorch_model.bin", names[i]);
        fixture_text(setting->directory, path, "no weights");
        layouts[i] = lay_out(setting, names[i]);
        assert_true(layouts[i]->problem_count > 0);
        assert_int_equal(unshard_engine_tell(setting->engine, layouts[i]), 0);
    }
    struct unshard_status *whole = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
    uint32_t problems = 0, notes = 0, components = 0;
    for (int i = 0; i < 3; i++) {
        char list[16];
        snprintf(list, sizeof list, ",%s,", names[i]);
        struct unshard_status *one = take_for(setting, list);
        assert_int_equal(one->problem_count, layouts[i]->problem_count);
        assert_int_equal(one->note_count, layouts[i]->note_count);
        assert_int_equal(one->errors, one->problem_count);
        snprintf(list, sizeof list, "%s/", names[i]);
        assert_true(tells(one, list));
        snprintf(list, sizeof list, "%s/", names[(i + 1) % 3]);
        assert_false(tells(one, list));
        problems += one->problem_count;
        notes += one->note_count;
        components += one->component_count;
        unshard_status_free(one);
    }
    assert_int_equal(problems, whole->problem_count);
    assert_int_equal(notes, whole->note_count);
    assert_int_equal(components, whole->component_count);
    unshard_status_free(whole);
    for (int i = 0; i < 3; i++) {
        unshard_engine_tell_no_more(setting->engine, layouts[i]);
        unshard_layout_release(layouts[i]);
    }
}

static void a_component_is_seen_when_all_of_its_files_are(void **state)
{
    struct setting *setting = *state;
    uint32_t view = attach(setting, "deep", "model.safetensors");
    unshard_engine_view_opened(setting->engine, view, false, 1);
    struct unshard_status *status = take_for(setting, ",deep,deep/sub,");
    assert_int_equal(status->component_count, 1);
    assert_int_equal(status->file_count, 2);
    assert_int_equal(status->readers, 1);
    unshard_status_free(status);
    status = take_for(setting, ",deep,");
    assert_int_equal(status->component_count + status->file_count + status->readers, 0);
    assert_true(status->bytes_total == 0 && !tells(status, "deep"));
    unshard_status_free(status);
}

static void looks_are_of_names_that_he_knows(void **state)
{
    struct setting *setting = *state;
    looks = 3;
    struct unshard_status *whole = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
    struct unshard_status *of_b = take_for(setting, ",b,"), *of_a = take_for(setting, ",a,");
    assert_int_equal(whole->looks.stuck_count, 3);
    assert_string_equal(whole->looks.stuck[1].directory, ".");
    assert_int_equal(of_b->looks.stuck_count, 2);
    assert_string_equal(of_b->looks.stuck[0].directory, ".");
    assert_string_equal(of_b->looks.stuck[1].directory, "deep");
    assert_int_equal(of_a->looks.stuck_count, 3);
    assert_int_equal(of_b->looks.stalled, 3); /* a figure tells no names */
    unshard_status_free(whole);
    unshard_status_free(of_a);
    unshard_status_free(of_b);
    looks = 0;
}

static void wait_until_ready(struct setting *setting)
{
    for (int i = 0;; i++) {
        struct unshard_status *status = unshard_status_take(setting->engine, UNSHARD_NO_VIEW);
        bool ready = status->state == UNSHARD_MOUNT_READY;
        unshard_status_free(status);
        if (ready)
            return;
        assert_true(i < BOUND_SECONDS * 100);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

static enum unshard_mount_state state_for(struct setting *setting, const char *directories)
{
    struct unshard_status *status = take_for(setting, directories);
    enum unshard_mount_state result = status->state;
    unshard_status_free(status);
    return result;
}

/* While a model is being prefetched, or waits for that, nobody waits for it who does not see it. */
static void work_is_of_what_he_may_list(void **state)
{
    struct setting *setting = *state;
    const char *names[] = {"a", "b", "deep"};
    uint32_t views[3];
    for (int i = 0; i < 3; i++) {
        views[i] = attach(setting, names[i], "model.safetensors");
        unshard_engine_view_known(setting->engine, views[i], true);
    }
    close_gate(true);
    assert_true(unshard_engine_prefetch(setting->engine, views[1], 1));
    wait_at_gate(); /* with more to come than there are buffers */
    assert_int_equal(state_for(setting, ",a,"), UNSHARD_MOUNT_READY);
    assert_int_equal(state_for(setting, ",b,"), UNSHARD_MOUNT_PREFETCHING);
    assert_int_equal(state_for(setting, ",a,b,"), UNSHARD_MOUNT_PREFETCHING);
    assert_true(unshard_engine_prefetch(setting->engine, views[0], 2));
    assert_int_equal(state_for(setting, ",a,"), UNSHARD_MOUNT_PREFETCHING); /* it waits behind */
    assert_int_equal(state_for(setting, ",deep,deep/sub,"), UNSHARD_MOUNT_READY);
    close_gate(false);
    wait_until_ready(setting);
    assert_int_equal(state_for(setting, ",a,b,"), UNSHARD_MOUNT_READY);
    for (int i = 0; i < 3; i++)
        unshard_engine_view_known(setting->engine, views[i], false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_what_he_may_list, set_up, tear_down),
        cmocka_unit_test_setup_teardown(errors_are_of_what_he_may_list, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_told_is_of_its_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_component_is_seen_when_all_of_its_files_are, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(looks_are_of_names_that_he_knows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(work_is_of_what_he_may_list, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
